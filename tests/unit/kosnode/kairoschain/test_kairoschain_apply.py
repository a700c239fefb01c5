"""A host is made a KairosChain node, or is as it was before where that fails (K04, K11, K23 to K26)."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

import pytest
from unit.kosnode.kairoschain.kairos_world import KEY, PEM, World
from unit.stand_in.kairos_gem import NEW, OLD, KairosChain

from kosnode import ledger
from kosnode.errors import (
    BusyError,
    DamagedError,
    DiskError,
    InputError,
    KosError,
    NotFoundError,
    RefusedError,
    RevertedError,
)
from kosnode.kairoschain import data as data_
from kosnode.kairoschain import units
from kosnode.kairoschain.application import read_yaml
from kosnode.lock import Lock

NEWER = "3.76.0"


def adopt(world: World, version: str = OLD) -> ledger.Head:
    """A node that somebody made by hand, with an older version."""
    world.data.parent.mkdir(parents=True)
    made = KairosChain(world.data, version)
    made.record(["a"], ["b"])
    return ledger.head(made.ledger)


def test_a_check_on_a_clean_host_plans_all_of_it_and_changes_nothing(world: World) -> None:
    before = world.tree()
    done = world.apply(check=True)
    told = " ".join(change.action for change in done.changes)
    for word in ("account kairos", "install kairos-chain 3.75.0", "its ledger", "admin token", units.SERVICE):
        assert word in told
    assert world.tree() == before


def test_a_clean_host_becomes_a_node_and_a_second_run_changes_nothing(world: World) -> None:
    """K25: no second token."""
    done = world.apply()
    assert done.head == ledger.head(world.ledger)
    assert world.machine.own.active == {units.SERVICE, units.TIMER}
    before = world.tree()
    again = world.apply()
    assert (again.changes, world.tree()) == ((), before)
    assert len(json.loads((world.data / "storage/tokens.json").read_text())) == 1


def test_nothing_in_the_data_directory_is_for_others(world: World) -> None:
    """K04."""
    world.apply()
    account = world.machine.account("kairos")
    assert account is not None
    for path in (world.data, *world.data.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert world.machine.owner(path) == (account.uid, account.gid), path
    (world.data / "knowledge").chmod(0o755)
    assert "take 1 paths" in " ".join(change.action for change in world.apply().changes)
    assert stat.S_IMODE((world.data / "knowledge").stat().st_mode) == 0o700


def test_the_admin_token_is_for_root_alone_and_in_the_store(world: World) -> None:
    world.apply()
    assert stat.S_IMODE(world.token.stat().st_mode) == 0o600
    assert len(world.token.read_text().strip()) == 67
    assert world.machine.owner(world.token) == (0, 0)
    assert list((world.root / "var/lib/kairos").glob(".admin-token")) == []


def test_settings_are_laid_over_the_gem_s_own_and_the_host_is_pinned(world: World) -> None:
    """K26: the gem's own file says 0.0.0.0."""
    world.apply(config={"instructions_mode": "developer", "http": {"port": 9090}})
    config = read_yaml(world.data / "skills/config.yml")
    assert (config["instructions_mode"], config["http"]["host"], config["http"]["port"]) == (
        "developer",
        "127.0.0.1",
        9090,
    )
    assert config["vector_search"] == {"enabled": True, "dimension": 384}
    assert "--port 9090" in (world.root / "etc/systemd/system/kairos-chain.service").read_text()


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"config": {"instruction_mode": "user"}}, InputError, "did you mean instructions_mode"),
        (
            {"config": {"http": {"host": "0.0.0.0"}}},
            RefusedError,
            "config.http.host: 0.0.0.0 would serve others",
        ),
        ({"config": {"storage": {"backend": "sqlite"}}}, RefusedError, "sqlite is broken for the ledger"),
        ({"config": {"storage": {"backend": "mysql"}}}, InputError, "one of file, sqlite"),
        ({"config": {"http": {"port": "8080"}}}, InputError, "config.http.port: must be an integer"),
        ({"data": "relative"}, InputError, "data: must be an absolute path"),
        ({"data": "/opt/kairos/a/b"}, InputError, "data: .* a folder of its own"),
        ({"data": "/opt"}, InputError, "may not hold the code"),
        ({"token_days": 90}, InputError, "token_days: 90 is not before tokens expire"),
        ({"anchor": "5"}, InputError, "anchor"),
        ({"sha256": "0" * 64}, InputError, "its digest is"),
        ({"gem": "/nowhere.gem"}, InputError, "gem: /nowhere.gem is not there"),
        ({"metrics": "/nowhere/x.prom"}, InputError, "metrics: .* is not there"),
        ({"proxy": {"port": 8080, "certificate": PEM, "key": KEY}}, InputError, "the server's own"),
        (
            {"proxy": {"port": 443, "certificate": "x", "key": KEY}},
            InputError,
            "proxy.certificate: must be PEM",
        ),
        ({"backend": "file"}, InputError, "unknown key"),
    ],
)
def test_bad_input_gets_one_message_and_nothing_is_touched(
    world: World, more: dict[str, Any], error: type[KosError], words: str
) -> None:
    before = world.tree()
    with pytest.raises(error, match=words):
        world.apply(**more)
    assert world.tree() == before


@pytest.mark.parametrize("version", [OLD, "3.63.9"])
def test_a_version_that_loses_ledgers_is_not_installed(world: World, version: str) -> None:
    """K24."""
    with pytest.raises(RefusedError, match=r"3\.64\.0 is the oldest"):
        world.apply(version)


def test_a_gem_that_was_not_brought_is_asked_for(world: World) -> None:
    spec = world.spec()
    del spec["gem"]
    from kosnode.kairoschain import apply as applying

    with pytest.raises(InputError, match="is not installed, and was not brought"):
        applying.apply(spec, world.paths, check=False, machine=world.machine)


def test_a_secret_is_not_in_a_diff_nor_readable(world: World) -> None:
    done = world.apply(proxy={"port": 8443, "certificate": PEM, "key": KEY})
    assert "AAAA\n-----END PRIVATE" not in json.dumps(done.as_dict())
    assert stat.S_IMODE((world.root / "etc/kairos/proxy/tls.key").stat().st_mode) == 0o600
    assert units.PROXY in world.machine.own.active


def test_a_proxy_that_is_not_asked_for_any_more_goes_away(world: World) -> None:
    world.apply(proxy={"port": 8443, "certificate": PEM, "key": KEY})
    world.apply()
    assert not (world.root / "etc/kairos/proxy").exists()
    assert units.PROXY not in world.machine.own.active
    assert world.apply().changes == ()


# The upgrade


def test_an_older_node_is_upgraded_on_a_copy_and_keeps_its_records(world: World) -> None:
    """K23, K24: 3.59.0 is accepted as what one upgrades from."""
    head = adopt(world)
    done = world.apply()
    assert done.head is not None
    assert done.head.length > head.length
    assert ledger.compare(world.ledger, ledger.anchor_of(head)).relation == "grown"
    assert data_.version_of(world.data) == NEW
    assert "Upgrade v3.59.0 -> v3.75.0" in done.upgrade
    assert sorted(path.name for path in world.data.parent.iterdir()) == ["data"]
    assert world.apply().changes == ()


def test_code_is_changed_without_a_byte_of_the_data(world: World) -> None:
    """K11: the same version from another gem."""
    world.apply()
    before = {name: sha for name, sha in world.tree().items() if name.startswith("var/lib/kairos/data")}
    old = world.machine.installed
    world.machine.fault = "built-again"
    world.apply()
    assert world.machine.installed != old
    assert {
        name: sha for name, sha in world.tree().items() if name.startswith("var/lib/kairos/data")
    } == before
    assert [path.name for path in world.ledger.parent.glob("*.lock")] == ["blockchain.json.lock"]


@pytest.mark.parametrize("fault", ["damages", "cuts", "does-not-start"])
def test_an_upgrade_that_goes_wrong_leaves_version_and_data_as_they_were(world: World, fault: str) -> None:
    """K23: the application itself says that all went well."""
    world.apply()
    world.node.record(["kept"])
    world.machine.start_server()
    before, installed = world.tree(), world.machine.installed
    world.machine.fault = fault
    with pytest.raises(RevertedError, match="as it was before"):
        world.apply(NEWER)
    after = {name: sha for name, sha in world.tree().items() if not name.startswith("opt/kairos/3.76.0")}
    assert after == before
    assert (world.machine.installed, world.node.tool("chain_verify")[:34]) == (
        installed,
        "Blockchain Integrity Verified: OK ",
    )
    assert units.SERVICE in world.machine.own.active
    world.machine.fault = "none"
    assert world.apply(NEWER).version == NEWER


def test_blocks_that_a_failed_version_wrote_are_kept_beside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.apply()

    def start_and_write() -> None:
        if world.machine.installed.startswith(NEWER):
            KairosChain(world.data, NEWER).record(["written meanwhile"])
            raise KosError("it fell over")

    monkeypatch.setattr(world.machine, "start_server", start_and_write)
    with pytest.raises(RevertedError, match="blocks that were written meanwhile are kept in"):
        world.apply(NEWER)
    assert (
        "written meanwhile" in (world.data.with_name("data.failed") / "storage/blockchain.json").read_text()
    )
    assert "written meanwhile" not in world.ledger.read_text()


def test_a_foreign_unit_comes_back_where_its_node_cannot_be_upgraded(world: World) -> None:
    adopt(world)
    unit = world.root / "etc/systemd/system/kairos-chain.service"
    unit.write_text("[Service]\nExecStart=/usr/local/bin/kairos-chain\n")
    before = world.tree()
    world.machine.fault = "does-not-start"
    with pytest.raises(RevertedError):
        world.apply()
    after = {
        name: sha for name, sha in world.tree().items() if not name.startswith(("opt/kairos/3", "etc/passwd"))
    }
    assert {**before, "etc/group": after["etc/group"]} == {**after, "etc/passwd": before["etc/passwd"]}


def test_a_newer_node_is_not_taken_back(world: World) -> None:
    world.apply(NEWER)
    with pytest.raises(RefusedError, match=r"the data is of 3\.76\.0"):
        world.apply(NEW)


def test_one_version_back_is_kept_and_no_more(world: World) -> None:
    for version in (NEW, NEWER, "3.77.0"):
        world.apply(version)
    kept = sorted(path.name.partition("-")[0] for path in (world.root / "opt/kairos").glob("3*"))
    assert kept == [NEWER, "3.77.0"]
    assert world.apply("3.77.0").changes == ()


def test_no_room_for_a_safety_copy_is_said_before_the_server_is_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.apply()
    calls = list(world.machine.own.calls)
    monkeypatch.setattr(data_, "_RESERVE_BYTES", 1 << 60)
    with pytest.raises(DiskError, match="bytes more than there are"):
        world.apply(NEWER)
    assert world.machine.own.calls == calls


@pytest.mark.parametrize("stage", ["before the swap", "in the swap", "after the swap", "after the link"])
def test_an_upgrade_that_was_killed_is_finished_or_taken_back_by_the_next_run(
    world: World, stage: str
) -> None:
    world.apply()
    world.node.record(["kept"])
    copies = data_.Copies(world.data)
    application = world.machine.application(world.root / "opt/kairos" / world.machine.installed)
    # What a kill leaves at each place, made by the steps themselves.
    if stage == "before the swap":
        copies.next.mkdir()
        (copies.next / "data").mkdir()
    else:
        gem, digest = world.gem(NEWER)
        folder = world.root / f"opt/kairos/{NEWER}-{digest[:12]}"
        folder.mkdir()
        world.machine.install(gem, folder, NEWER)
        (folder / ".sha256").write_text(digest)
        data_.upgrade(copies, world.machine.application(folder), NEWER, world.machine)
        if stage == "in the swap":
            world.data.rename(copies.next)
        if stage == "after the link":
            (world.root / "opt/kairos/current").unlink()
            (world.root / "opt/kairos/current").symlink_to(folder.name)
    assert application.program.is_file()
    assert world.apply(NEWER, check=True).changes
    done = world.apply(NEWER)
    assert done.version == NEWER
    assert "kept" in world.ledger.read_text()
    assert ledger.verify(world.ledger).ok
    assert {path.name for path in world.data.parent.iterdir()} <= {"data", "data.failed"}
    assert world.apply(NEWER).changes == ()


def test_two_runs_at_once_do_not_meet(world: World) -> None:
    lock = world.root / "run/kos/kairoschain.lock"
    with Lock(lock).hold("kairoschain"), pytest.raises(BusyError, match="kairoschain"):
        world.apply()


# What the ledger says


def test_a_damaged_ledger_is_not_worked_on(world: World) -> None:
    world.apply()
    world.ledger.write_text(world.ledger.read_text().replace("skillset_install", "skillset_instill", 1))
    before = world.tree()
    with pytest.raises(DamagedError):
        world.apply(NEWER)
    assert world.tree() == before


def test_an_absent_ledger_is_a_failure_and_no_reason_for_a_new_one(world: World) -> None:
    """K20."""
    world.apply()
    world.ledger.unlink()
    with pytest.raises(NotFoundError):
        world.apply()
    assert not world.ledger.exists()


def test_a_data_directory_that_is_gone_is_not_made_again(world: World) -> None:
    world.apply()
    world.data.rename(world.root / "elsewhere")
    with pytest.raises(RefusedError, match="restore a backup"):
        world.apply()
    assert not world.data.exists()


def test_a_ledger_that_lost_its_end_since_the_last_run_is_refused(world: World) -> None:
    """K08: the anchor was kept elsewhere."""
    world.apply()
    world.node.record(["last"])
    anchor = str(ledger.anchor_of(ledger.head(world.ledger)))
    world.machine.start_server()
    assert world.apply(anchor=anchor).changes == ()
    blocks = json.loads(world.ledger.read_text())
    world.ledger.write_text(json.dumps(blocks[:-1], indent=2, ensure_ascii=False))
    with pytest.raises(RefusedError, match="the ledger is cut"):
        world.apply(anchor=anchor)


def test_files_that_are_no_data_directory_are_not_built_upon(world: World) -> None:
    world.data.mkdir(parents=True)
    (world.data / "notes.txt").write_text("mine")
    with pytest.raises(RefusedError, match="is no data directory"):
        world.apply()


def test_the_data_of_a_node_is_not_moved_by_a_changed_variable(world: World) -> None:
    world.apply()
    with pytest.raises(RefusedError, match="move it yourself"):
        world.apply(data="/srv/kairos")


# Tokens and restarts


def test_an_old_admin_token_is_replaced_and_its_entry_goes(world: World) -> None:
    """K25: rotated before it expires, with the restart that it needs."""
    world.apply()
    first = world.token.read_text()
    os.utime(world.token, (0, world.token.stat().st_mtime - 61 * 86_400))
    done = world.apply()
    assert "replace the admin token, which is 61 days old" in [change.action for change in done.changes]
    assert world.token.read_text() != first
    assert len(json.loads((world.data / "storage/tokens.json").read_text())) == 1
    assert world.machine.own.calls[-1] == ("restart", units.SERVICE)
    assert world.apply().changes == ()


def test_tokens_of_others_survive_a_rotation(world: World) -> None:
    world.apply()
    world.node.run("--init-admin", "--quiet", "--token-output-file", str(world.root / "other"))
    os.utime(world.token, (0, 0))
    world.apply()
    assert len(json.loads((world.data / "storage/tokens.json").read_text())) == 2


def test_tokens_that_changed_since_the_start_need_a_restart(world: World) -> None:
    """A server reads its tokens once: one that was revoked would go on working."""
    world.apply()
    world.node.run("--init-admin", "--quiet")
    assert [change.action for change in world.apply().changes] == [f"restart {units.SERVICE}"]
    assert world.apply().changes == ()


def test_a_token_that_was_made_and_not_put_in_place_is_taken_up(world: World) -> None:
    world.apply()
    spare = world.root / "var/lib/kairos/.admin-token"
    world.token.rename(spare)
    made = spare.read_text()
    world.apply()
    assert (world.token.read_text(), spare.exists()) == (made, False)
    assert len(json.loads((world.data / "storage/tokens.json").read_text())) == 1


def test_a_restart_that_a_crash_forgot_is_made_up_for(world: World) -> None:
    world.apply()
    unit = world.root / "etc/systemd/system/kairos-chain.service"
    unit.write_text(unit.read_text() + "# changed, and nothing started again\n")
    world.apply()
    assert world.machine.own.calls[-1] == ("restart", units.SERVICE)


def test_a_server_that_does_not_run_is_started(world: World) -> None:
    world.apply()
    world.machine.own.active.discard(units.SERVICE)
    assert [change.action for change in world.apply().changes] == [f"restart {units.SERVICE}"]
