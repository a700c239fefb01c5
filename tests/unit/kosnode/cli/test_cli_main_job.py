"""The main job on one node through the command itself: stage, plan, activate, confirm, patch, roll back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from unit.kosnode.cli.cli_node import CliNode
from unit.kosnode.transport.hostile import HostileMirror, certificate

from kosnode import deadman
from kosnode.slot import Slots


def test_a_release_comes_onto_an_empty_node(bed: CliNode) -> None:
    manifest = bed.publish("1.0.0")
    planned = bed.kosctl("plan")
    assert planned["changed"]
    assert planned["result"]["root"] == manifest.root
    assert planned["result"]["how"] == "whole"
    assert planned["status"]["slots"] == []
    staged = bed.kosctl("stage")
    assert (staged["changed"], staged["result"]["how"]) == (True, "whole")
    assert bed.kosctl("stage")["changed"] is False
    activated = bed.kosctl("activate", "1.0.0")
    result = activated["result"]
    assert set(result) == {
        *("trial", "token", "root", "version", "deadline_in_s", "bake_s", "downtime_s", "restarted", "how"),
    }
    assert activated["status"]["state"] == "TRIAL"
    bed.bake(result["trial"])
    token = bed.root / "token"
    token.write_text(f"{result['token']}\n")
    confirmed = bed.kosctl("confirm", "--token-file", str(token))
    assert confirmed["result"]["outcome"] == "confirmed"
    status = bed.kosctl("status")["result"]
    assert status["state"] == "CONFIRMED"
    assert status["current"] == {"root": manifest.root, "name": "kos", "version": "1.0.0"}
    assert status["node"] == {
        "name": "n1",
        "fleet": "demo",
        "zone": "a",
        "class": None,
        "arch": status["node"]["arch"],
    }
    assert [(one["name"], one["state"]) for one in status["units"]] == [("a", "active")]
    assert status["last"]["bytes"] > 0


def test_a_release_comes_over_https_by_the_authority_that_the_node_names_and_by_no_other(
    bed: CliNode, tmp_path: Path
) -> None:
    bed.publish("1.0.0")
    pem = certificate(tmp_path)
    config = json.loads(bed.paths.node_json.read_text())
    with HostileMirror(bed.publisher.folder, tls=pem) as mirror:
        config["mirrors"] = [mirror.url]
        bed.paths.node_json.write_text(json.dumps(config))
        refused = bed.kosctl("stage")
        assert (refused["exit"], "TLS failed" in refused["error"]["message"]) == (6, True)
        assert bed.kosctl("doctor")["exit"] == 12

        bed.paths.mirror_ca.write_bytes(pem.with_suffix(".crt").read_bytes())
        config["mirror_ca"] = "/etc/kos/trust/mirror-ca.pem"
        bed.paths.node_json.write_text(json.dumps(config))
        assert bed.kosctl("stage")["result"]["mirror"] == mirror.url
        assert not [one for one in bed.kosctl("doctor")["result"]["findings"] if "mirror" in one["id"]]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_what_a_killed_stage_did_not_write_down_is_written_down_by_the_next(
    bed: CliNode, written: int
) -> None:
    bed.publish("1.0.0")
    bed.kosctl("stage")
    lines = bed.paths.journal.read_bytes().splitlines(keepends=True)
    bed.paths.journal.write_bytes(b"".join(lines[:written]))
    assert bed.kosctl("stage", "1.0.0")["changed"] is False
    states = [json.loads(line)["state"] for line in bed.paths.journal.read_bytes().splitlines()]
    assert states == ["FETCHED", "VERIFIED"]


def test_the_unit_is_rendered_into_the_slot_it_runs_from(bed: CliNode) -> None:
    manifest = bed.publish("1.0.0")
    bed.kosctl("stage")
    text = (bed.paths.slot(manifest.root) / "units/kos-a.service").read_text()
    assert f'ExecStart="{bed.paths.slot(manifest.root)}/tree/bin/a"' in text


@pytest.mark.parametrize("umask", [0o027, 0o077])
def test_the_runtime_can_read_its_slot_whatever_the_umask_of_who_staged_it(bed: CliNode, umask: int) -> None:
    """A hardened host gives such a umask to root and to SSH alike."""
    bed.publish("1.0.0")
    before = os.umask(umask)
    try:
        slot = Path(bed.operate("stage", release="1.0.0")["result"]["slot"])
    finally:
        os.umask(before)
    modes = {str(path.relative_to(slot)): path.stat().st_mode & 0o777 for path in slot.rglob("*")}
    assert {"units.json", "units", "units/kos-a.service", "tree/bin/a"} <= set(modes)
    assert [name for name, mode in modes.items() if mode & 0o444 != 0o444] == []


def test_a_patch_is_confirmed_and_rolled_back(bed: CliNode) -> None:
    old, new = bed.publish("1.0.0"), bed.publish("1.1.0")
    bed.install("1.0.0")
    bed.install("1.1.0")
    back = bed.kosctl("rollback")
    assert back["result"]["root"] == old.root
    bed.bake(back["result"]["trial"])
    assert bed.operate("confirm", token=back["result"]["token"])["ok"]
    status = bed.kosctl("status")["result"]
    assert status["current"]["root"] == old.root
    assert status["previous"]["root"] == new.root


def test_previous_may_be_staged_and_activated_by_its_name(bed: CliNode) -> None:
    old = bed.publish("1.0.0")
    bed.publish("1.1.0")
    bed.install("1.0.0")
    bed.install("1.1.0")
    shutil.rmtree(bed.publisher.folder)
    assert bed.operate("plan", release="previous")["result"]["downgrade"] is True
    assert bed.operate("stage", release="previous")["result"]["how"] == "present"
    assert bed.operate("activate", release="previous")["result"]["root"] == old.root


def test_a_downgrade_is_refused_before_anything_is_fetched(bed: CliNode) -> None:
    low = bed.publish("1.0.0")
    bed.publish("1.1.0")
    bed.install("1.1.0")
    for verb in ("plan", "stage"):
        refused = bed.kosctl(verb, "1.0.0")
        assert refused["exit"] == 3
        assert refused["error"]["key"] == "allow_downgrade"
    assert not bed.paths.slot(low.root).exists()
    assert bed.kosctl("stage", "1.0.0", "--allow-downgrade")["ok"]


@pytest.mark.parametrize("by", ["version", "root"])
def test_what_is_on_the_node_is_staged_while_all_mirrors_are_dead(bed: CliNode, by: str) -> None:
    """S17: a release that was staged ahead is there when the network is not."""
    old, new = bed.publish("1.0.0"), bed.publish("1.1.0")
    bed.install("1.0.0")
    assert bed.operate("stage", release="1.1.0")["ok"]
    shutil.rmtree(bed.publisher.folder)
    for manifest in (old, new):
        ref = manifest.version if by == "version" else manifest.root
        staged = bed.operate("stage", release=ref)
        assert (staged["exit"], staged["changed"]) == (0, False)
        assert (staged["result"]["how"], staged["result"]["root"]) == ("present", manifest.root)
        assert bed.operate("plan", release=ref)["exit"] == 0
    assert bed.operate("stage", release="1.2.0")["exit"] == 6


def test_what_is_refused_is_not_staged_from_its_slot(bed: CliNode) -> None:
    bed.publish("1.0.0")
    bad = bed.publish("1.1.0")
    bed.install("1.0.0")
    bed.operate("stage", release="1.1.0")
    bed.operate("activate", release="1.1.0")
    deadman.fall_back(bed.paths, "health", detail="http 500")
    bed.kosctl("recover")
    shutil.rmtree(bed.publisher.folder)
    assert bed.operate("stage", release=bad.root)["exit"] == 3
    assert bed.operate("stage", release="1.1.0")["exit"] == 3


@pytest.mark.parametrize("by", ["name", "version", "root"])
def test_previous_is_the_way_back_below_the_security_floor_by_each_of_its_names(
    bed: CliNode, by: str
) -> None:
    lowest, old = bed.publish("1.0.0"), bed.publish("1.0.1")
    bed.install("1.0.1")
    assert bed.operate("stage", release="1.0.0", allow_downgrade=True)["ok"]
    bed.publisher.repository.floors = {"kos": "1.1.0"}
    bed.publish("1.1.0")
    bed.install("1.1.0")
    ref = {"name": "previous", "version": "1.0.1", "root": old.root}[by]
    for verb in ("plan", "stage", "activate"):
        # Another release below the floor stays refused.
        assert bed.operate(verb, release=lowest.root, allow_downgrade=True)["exit"] in (3, 4)
        done = bed.operate(verb, release=ref, allow_downgrade=True)
        assert done["ok"], done
        assert done["result"]["root"] == old.root


def test_plan_refuses_for_disk_what_stage_refuses(bed: CliNode, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.publish("1.0.0")
    monkeypatch.setattr(Slots, "disk_free", lambda slots: 1000)
    planned, staged = bed.operate("plan"), bed.operate("stage")
    assert (
        (planned["exit"], planned["error"]["kind"])
        == (staged["exit"], staged["error"]["kind"])
        == (7, "disk")
    )
    assert planned["changed"] is False


def test_the_operator_cannot_ask_for_other_times_than_those_that_are_locked(bed: CliNode) -> None:
    """S03: a lock in conf.d holds for requests as it does for later layers."""
    bed.publish("1.0.0")
    bed.install("1.0.0")
    bed.publish("1.1.0")
    bed.operate("stage", release="1.1.0")
    bed.paths.conf_d.mkdir(parents=True)
    layer = {"layer": "organisation", "values": {"policy": {"bake_s": 4}}, "locked": ["policy.bake_s"]}
    (bed.paths.conf_d / "10-site.json").write_text(json.dumps(layer))
    for verb in ("activate", "rollback"):
        refused = bed.operate(verb, release="1.1.0", bake_s=1)
        assert (refused["exit"], refused["error"]["key"]) == (3, "policy.bake_s")
    assert bed.operate("activate", release="1.1.0", deadline_s=90)["result"]["bake_s"] == 4


def test_a_reverted_trial_is_told_with_its_evidence_and_exit_code(bed: CliNode) -> None:
    bed.publish("1.0.0")
    bad = bed.publish("1.1.0")
    bed.install("1.0.0")
    bed.operate("stage", release="1.1.0")
    activated = bed.operate("activate", release="1.1.0")["result"]
    deadman.fall_back(bed.paths, "health", detail="http 500")
    late = bed.operate("confirm", token=activated["token"])
    assert (late["exit"], late["error"]["kind"]) == (8, "reverted")
    last = late["status"]["last"]
    assert (last["outcome"], last["reason"], last["detail"]) == ("reverted-healthy", "health", "http 500")
    assert [one["root"] for one in late["status"]["refused"]] == [bad.root]
    shown = bed.operate("evidence", id=activated["trial"])["result"]
    assert json.loads(shown["files"]["outcome.json"])["reason"] == "health"
    assert bed.kosctl("stage", "1.1.0")["exit"] == 3
    assert bed.operate("refusals", clear=bad.root)["changed"]
    assert bed.kosctl("stage", "1.1.0")["ok"]


def test_revert_by_hand_is_done_and_not_an_error(bed: CliNode) -> None:
    bed.publish("1.0.0")
    bed.publish("1.1.0")
    bed.install("1.0.0")
    assert bed.kosctl("revert")["changed"] is False
    bed.operate("stage")
    bed.operate("activate")
    ended = bed.kosctl("revert")
    assert (ended["exit"], ended["result"]["outcome"]) == (0, "reverted-healthy")


def test_old_slots_go_after_a_confirmation_and_staged_ones_stay(bed: CliNode) -> None:
    roots = [bed.publish(version).root for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0")]
    bed.install("1.0.0")
    bed.install("1.1.0")
    bed.operate("stage", release="1.3.0")
    bed.install("1.2.0")
    assert bed.context().slots.list() == sorted(roots[1:])


def test_gc_takes_a_named_slot_and_never_one_that_is_needed(bed: CliNode) -> None:
    bed.publish("1.0.0")
    spare = bed.publish("1.1.0")
    bed.install("1.0.0")
    bed.operate("stage")
    assert bed.kosctl("gc", "1.0.0")["exit"] == 3
    assert bed.kosctl("gc", "1.1.0")["result"]["removed"] == [spare.root]
    assert bed.kosctl("gc", "1.1.0")["changed"] is False


def test_a_damaged_slot_is_named_by_verify_and_mended_by_scrub(bed: CliNode) -> None:
    manifest = bed.publish("1.0.0")
    bed.install("1.0.0")
    program = bed.paths.slot(manifest.root) / "tree/bin/a"
    good = program.read_bytes()
    program.chmod(0o755)
    program.write_bytes(good.replace(b"sleep", b"slee!"))
    damaged = bed.kosctl("verify")
    assert damaged["exit"] == 10
    assert "bin/a" in damaged["error"]["message"]
    assert bed.kosctl("scrub")["changed"]
    assert program.read_bytes() == good
    assert bed.kosctl("verify")["ok"]


@pytest.mark.parametrize("left", [b"", b'{"format":1,"na', b"{}"])
def test_a_damaged_manifest_is_mended_from_what_is_signed(bed: CliNode, left: bytes) -> None:
    manifest = bed.publish("1.0.0")
    bed.install("1.0.0")
    path = bed.paths.slot(manifest.root) / "release.json"
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(left)
    assert bed.kosctl("verify")["exit"] == 10
    assert bed.kosctl("scrub")["changed"]
    assert path.read_bytes() == good
    assert bed.kosctl("verify")["ok"]


def test_two_controllers_collide_at_the_lease(bed: CliNode) -> None:
    bed.publish("1.0.0")
    bed.operate("stage")
    assert bed.operate("lease", take="rollout-1", holder="alice@one", ttl_s=600)["changed"]
    other = bed.operate("lease", take="rollout-2", holder="bob@two", ttl_s=600)
    assert other["exit"] == 3
    assert "alice@one" in other["error"]["message"]
    assert bed.operate("activate", lease="rollout-2")["exit"] == 3
    assert bed.operate("activate", lease="rollout-1")["ok"]
    assert bed.operate("lease", release="rollout-1")["result"]["lease"] is None


def test_health_has_an_exit_code_of_its_own(bed: CliNode) -> None:
    assert bed.kosctl("health")["exit"] == 11
    bed.publish("1.0.0")
    bed.install("1.0.0")
    assert bed.kosctl("health")["result"]["healthy"] is True
    bed.systemd.down.add("kos-a.service")
    sick = bed.kosctl("health")
    assert (sick["exit"], sick["result"]["healthy"]) == (11, False)


def test_what_changes_the_node_stands_in_the_audit_log_without_its_token(bed: CliNode) -> None:
    bed.publish("1.0.0")
    bed.install("1.0.0")
    bed.kosctl("status")
    log = bed.paths.audit.read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    assert [one["what"]["verb"] for one in entries] == ["stage", "activate", "confirm"]
    assert all(one["who"]["uid"] >= 0 for one in entries)
    assert "token" not in log
    assert bed.context().audit.verify() == 3


def test_over_the_gate_only_who_has_the_lease_stages_and_reverts(bed: CliNode) -> None:
    """M09: two controllers collide; root on the console may end a trial all the same (break-glass)."""
    bed.publish("1.0.0")
    bed.install("1.0.0")
    bed.publish("1.1.0")
    assert bed.operate("lease", take="rollout-a", holder="anna")["ok"]
    for words in ({}, {"lease": "rollout-b"}):
        refused = bed.operate("stage", release="1.1.0", **words)
        assert (refused["exit"], refused["error"]["key"]) == (3, "lease")
        assert "anna" in refused["error"]["message"]
        assert len(refused["status"]["slots"]) == 1
    assert bed.operate("stage", release="1.1.0", lease="rollout-a")["ok"]
    assert bed.operate("activate", release="1.1.0", lease="rollout-a")["ok"]
    for words in ({}, {"lease": "rollout-b"}):
        refused = bed.operate("revert", **words)
        assert (refused["exit"], refused["error"]["key"]) == (3, "lease")
        assert refused["status"]["state"] == "TRIAL"
    assert bed.operate("revert", lease="rollout-a")["result"]["outcome"] == "reverted-healthy"
    assert bed.operate("activate", release="1.1.0", lease="rollout-a")["ok"]
    assert bed.kosctl("stage", "1.1.0")["error"]["kind"] == "busy"
    assert bed.kosctl("revert")["result"]["outcome"] == "reverted-healthy"
    assert bed.kosctl("stage", "1.1.0")["ok"]
