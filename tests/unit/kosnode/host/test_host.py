"""What a host looks like after bootstrap, after bootstrap again, after a bad spec, and after removal."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from host_world import KEY, NOW, FakeSystem, RootKeys, unpack
from tuf.api.metadata import Metadata, Targets
from unit.kosnode.transport.hostile import certificate

from kosnode import host
from kosnode.errors import BusyError, InputError, KosError, RefusedError, TrustError
from kosnode.files import canonical
from kosnode.paths import NodePaths

UNIT = {"id": "heart", "version": "1.0.0", "tier": 2, "entry": {"command": ["bin/heart"]}}
HEART = {"unit": UNIT, "files": {"bin/heart": {"mode": "0555", "text": "#!/bin/sh\nsleep 9\n"}}}


@pytest.fixture(autouse=True)
def accounts_of_the_host(monkeypatch: pytest.MonkeyPatch, system: FakeSystem) -> None:
    """Units are rendered with the accounts of the host below the folder."""

    def user_id(name: str) -> int:
        found = system.account(name)
        if found is None:
            raise KeyError(name)
        return found.uid

    monkeypatch.setattr("kosnode.render._user_id", user_id)


def apply(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, *, check: bool = False
) -> host.HostResult:
    return host.apply(spec, paths, check=check, system=system, shell=shell, now=NOW)


def everything(paths: NodePaths) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(paths.root)): (
            stat.S_IMODE(path.lstat().st_mode),
            str(path.readlink()).encode()
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else b"",
        )
        for path in sorted(paths.root.rglob("*"))
    }


def test_a_clean_host_becomes_a_node(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, fleet: RootKeys
) -> None:
    result = apply(spec, paths, system, shell)

    assert result.changed
    assert (paths.opt / "current").readlink() == Path("1.0.0-aaaaaaaa")
    assert (paths.root / "usr/local/sbin/kosctl").readlink() == Path("/opt/kos/current/bin/kosctl")
    assert paths.fallback.read_text().endswith("# fallback\n")
    assert stat.S_IMODE(paths.fallback.stat().st_mode) == 0o755
    assert json.loads(paths.pinned_root.read_text()) == fleet.metadata()
    assert json.loads(paths.node_json.read_text())["node"] == "n1"
    assert json.loads((paths.unit_config / "kosd.json").read_text()) == {"port": 8470}
    assert (paths.root / "etc/systemd/system-generators/kos").is_file()
    assert ("start", "kos.target") in system.systemd.calls
    operator = system.account("kosops")
    services = system.account("kos")
    assert operator is not None
    assert operator.shell == "/bin/sh"
    assert services is not None
    assert services.shell == "/usr/sbin/nologin"
    assert system.account("scribe") is not None


def test_the_second_run_changes_nothing(spec: Any, paths: NodePaths, system: FakeSystem, shell: Path) -> None:
    apply(spec, paths, system, shell)
    before = everything(paths)
    calls = len(system.systemd.calls)

    again = apply(spec, paths, system, shell)

    assert again.actions == []
    assert everything(paths) == before
    assert len(system.systemd.calls) == calls


def test_check_on_a_clean_host_tells_all_and_touches_nothing(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    before = everything(paths)
    told = apply(spec, paths, system, shell, check=True)

    assert everything(paths) == before
    assert told.actions == apply(spec, paths, system, shell).actions


def test_the_operator_may_run_one_command_and_cannot_read_what_root_keeps(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    apply(spec, paths, system, shell)
    sudoers = paths.root / "etc/sudoers.d/kos"
    rights = [line for line in sudoers.read_text().splitlines() if "NOPASSWD" in line]

    assert rights == ["kosops ALL=(root:root) NOPASSWD: /opt/kos/current/bin/kosctl operate"]
    assert stat.S_IMODE(sudoers.stat().st_mode) == 0o440
    keys = paths.root / "var/lib/kosops/.ssh/authorized_keys"
    assert keys.read_text() == f'restrict,command="sudo -n /opt/kos/current/bin/kosctl operate" {KEY}\n'
    assert stat.S_IMODE(paths.evidence.stat().st_mode) == 0o700


def test_the_operator_cannot_put_other_keys_in_place_of_its_own(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    apply(spec, paths, system, shell)
    operator = system.account("kosops")
    assert operator is not None
    home = paths.root / "var/lib/kosops"
    for path, mode in {home: 0o750, home / ".ssh": 0o750, home / ".ssh/authorized_keys": 0o640}.items():
        assert (system.owner(path)[0], stat.S_IMODE(path.stat().st_mode)) == (0, mode)
    # Ansible needs one place that it may write.
    assert system.owner(home / ".ansible")[0] == operator.uid
    assert stat.S_IMODE((home / ".ansible").stat().st_mode) == 0o700


def test_a_boot_tries_a_revert_again_until_it_succeeds(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    apply(spec, paths, system, shell)
    lines = (paths.root / "etc/systemd/system/kos-boot.service").read_text().splitlines()
    unit, service = lines.index("[Unit]"), lines.index("[Service]")
    assert unit < lines.index("StartLimitIntervalSec=0") < service
    assert service < lines.index("Restart=on-failure") < lines.index("RestartSec=5")


def test_a_boot_reads_units_again_that_the_generator_could_not_see(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    """/var may be mounted after systemd has asked the generators, which then offer nothing at all."""
    apply(spec, paths, system, shell)
    lines = (paths.root / "etc/systemd/system/kos-boot.service").read_text().splitlines()
    # One of several conditions suffices, and each is looked at when what it depends on is mounted.
    assert {line.partition("=")[2][:1] for line in lines if line.startswith("Condition")} == {"|"}
    assert "ConditionDirectoryNotEmpty=|!/run/systemd/generator/kos.target.wants" in lines
    assert "RequiresMountsFor=/var/lib/kos /opt/kos" in lines
    # Neither step may keep a revert from happening, nor wait for units that wait for this very one.
    steps = [line for line in lines if line.startswith("Exec")]
    assert steps == [
        "ExecStartPre=-/usr/bin/systemctl daemon-reload",
        "ExecStartPre=-/usr/bin/systemctl --no-block start kos.target",
        "ExecStart=/opt/kos/fallback --reason reboot",
    ]


def test_sudoers_that_visudo_refuses_are_never_put_in_place(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    system.refuses.add("visudo")

    with pytest.raises(KosError, match="visudo"):
        apply(spec, paths, system, shell)

    assert not (paths.root / "etc/sudoers.d/kos").exists()


@pytest.mark.parametrize(
    ("line", "accounts", "key"),
    [
        ("postgres:x:26:26::/var/lib/postgresql:/bin/bash", ["postgres"], "accounts[0]"),
        ("nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin", ["scribe", "nobody"], "accounts[1]"),
        ("kos:x:1000:1000:Kosta:/home/kos:/bin/bash", [], "accounts"),
    ],
)
def test_an_account_of_somebody_else_is_neither_changed_nor_taken_away(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, line: str, accounts: list[str], key: str
) -> None:
    passwd = paths.root / "etc/passwd"
    passwd.write_text(f"{passwd.read_text()}{line}\n")
    before = everything(paths)

    with pytest.raises(InputError) as refused:
        apply({**spec, "accounts": accounts}, paths, system, shell)

    assert refused.value.key == key
    assert everything(paths) == before


def test_an_account_that_a_run_made_before_it_was_killed_is_ours(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    system.refuses.add("visudo")
    with pytest.raises(KosError):
        apply(spec, paths, system, shell)
    assert system.account("scribe") is not None
    system.refuses.clear()

    apply(spec, paths, system, shell)
    host.remove(paths, purge=True, check=False, system=system)
    assert system.account("scribe") is None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"format": 2}, "format"),
        ({"engine": "../../bin"}, "engine"),
        ({"replace_trust_root": "false"}, "replace_trust_root"),
        ({"operator": {"keys": [f"no-pty {KEY}"]}}, "operator.keys[0]"),
        ({"operator": {"keys": [f"{KEY}\ncommand=x ssh-rsa AAAA"]}}, "operator.keys[0]"),
        ({"accounts": ["root"]}, "accounts[0]"),
        ({"conf": {"site.json": {}}}, "conf.site.json"),
        ({"units": {"heart": {"unit": {**UNIT, "id": "lung"}}}}, "units.heart.unit.id"),
        ({"units": {"heart": {**HEART, "files": {"../../x": {"text": "x"}}}}}, "units.heart.files.../../x"),
        (
            {"units": {"heart": {"unit": {**UNIT, "entry": {"command": ["/x"], "user": "nobody-here"}}}}},
            "units.heart.entry.user",
        ),
        ({"units": {"heart": {**HEART, "files": {}}}}, "units.heart.files"),
        ({"units": {"heart": {**HEART, "unit": {**UNIT, "files": ["lib"]}}}}, "units.heart.files"),
    ],
)
def test_a_bad_spec_is_refused_by_its_key_before_anything_is_touched(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, change: dict[str, Any], key: str
) -> None:
    before = everything(paths)

    with pytest.raises(InputError) as refused:
        apply({**spec, **change}, paths, system, shell)

    assert refused.value.key == key
    assert everything(paths) == before


def test_a_unit_that_the_release_has_already_is_refused_before_anything_is_touched(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    apply(spec, paths, system, shell)
    release = paths.slot("r" * 64)
    release.mkdir(parents=True)
    (release / "units.json").write_bytes(canonical({"units": {"heart": {}}}))
    paths.current.symlink_to(f"releases/{release.name}")
    before = everything(paths)

    with pytest.raises(InputError, match="has a unit of that name already") as refused:
        apply({"format": 1, "units": {"heart": HEART}}, paths, system, shell)

    assert refused.value.key == "units.heart"
    assert everything(paths) == before


def test_a_unit_without_files_of_its_own_is_taken(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    heart = {"unit": {**UNIT, "entry": {"command": ["/usr/bin/sleep", "infinity"]}}}
    apply({**spec, "units": {"heart": heart}}, paths, system, shell)
    assert (paths.node_units / "units/kos-heart.service").is_file()


def test_a_layer_that_sets_a_locked_key_is_refused_by_name(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    """S03: overrides with core keys locked."""
    spec["conf"] = {
        "10-site.json": {
            "layer": "organisation",
            "values": {"policy": {"bake_s": 30}},
            "locked": ["policy.bake_s"],
        }
    }
    spec["node"]["policy"] = {"bake_s": 5}

    with pytest.raises(InputError, match=r"policy\.bake_s.*is locked by .*10-site\.json"):
        apply(spec, paths, system, shell)
    assert not paths.node_json.exists()


def test_optional_keys_without_a_value_are_reported_as_unset(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    """S16: the install passes without them."""
    assert {"governance_id", "tribe"} <= set(apply(spec, paths, system, shell).unset)


def test_another_fleets_root_is_refused_without_the_word_and_taken_with_it(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    apply(spec, paths, system, shell)
    pinned = paths.pinned_root.read_bytes()
    (paths.trust / "marks").write_text("of the old fleet")
    spec["trust_root"] = RootKeys().metadata()

    with pytest.raises(RefusedError, match="not this fleet's"):
        apply(spec, paths, system, shell)
    assert paths.pinned_root.read_bytes() == pinned

    apply({**spec, "replace_trust_root": True}, paths, system, shell)
    assert json.loads(paths.pinned_root.read_text()) == spec["trust_root"]
    assert list(paths.trust.iterdir()) == []


def test_a_newer_root_that_the_pinned_one_signed_is_taken(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, fleet: RootKeys
) -> None:
    apply(spec, paths, system, shell)
    successor = RootKeys()
    spec["trust_root"] = successor.metadata(version=2, by=fleet)

    apply(spec, paths, system, shell)

    assert json.loads(paths.pinned_root.read_text())["signed"]["version"] == 2


def test_a_root_that_expired_or_is_not_signed_is_refused_on_a_clean_host(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, fleet: RootKeys
) -> None:
    for root, words in (
        (fleet.metadata(days=-1), "expired on 2026-11-20"),
        ({**fleet.metadata(), "signatures": []}, "not signed"),
        ({"signed": {}}, "not metadata"),
        (Metadata(Targets()).to_dict(), "not metadata of the root role, but of targets"),
    ):
        with pytest.raises(TrustError, match=words):
            apply({**spec, "trust_root": root}, paths, system, shell)
    assert not paths.pinned_root.exists()


def test_the_authorities_of_https_mirrors_come_and_go_with_the_spec(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, tmp_path: Path
) -> None:
    own = certificate(tmp_path).with_suffix(".crt").read_text()
    named = {**spec, "node": {**spec["node"], "mirror_ca": "/etc/kos/trust/mirror-ca.pem"}}
    with pytest.raises(InputError, match="which is not there") as refused:
        apply(named, paths, system, shell)
    assert refused.value.key == "mirror_ca"
    assert not paths.etc.exists()

    apply({**named, "mirror_ca": f"# Größe\n{own}\n# and again\n{own}"}, paths, system, shell)
    assert own in paths.mirror_ca.read_text()
    # What does not concern it goes on without it.
    paths.mirror_ca.rename(tmp_path / "aside")
    assert not apply({"format": 1, "units": {}}, paths, system, shell).changed
    (tmp_path / "aside").rename(paths.mirror_ca)
    # A section that is absent is left alone; one that is empty takes the file away, unless it is needed.
    assert not apply(named, paths, system, shell).changed
    with pytest.raises(InputError, match="which is not there"):
        apply({**named, "mirror_ca": ""}, paths, system, shell)
    apply({**spec, "mirror_ca": ""}, paths, system, shell)
    assert not paths.mirror_ca.exists()
    assert "mirror_ca" not in json.loads(paths.node_json.read_text())


def test_what_is_no_certificate_is_refused_before_anything_is_touched(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, tmp_path: Path
) -> None:
    pem = certificate(tmp_path)
    own = pem.with_suffix(".crt").read_text()
    before = everything(paths)
    for bad in (
        *("no certificate", 1, pem.read_text()),
        *(own.replace("MII", "AAA", 1), own + own[: len(own) // 2], "-----BEGIN CERTIFICATE-----"),
    ):
        with pytest.raises(InputError) as refused:
            apply({**spec, "mirror_ca": bad}, paths, system, shell)
        assert refused.value.key == "mirror_ca"
    assert everything(paths) == before


def test_nothing_is_switched_during_a_trial(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    apply(spec, paths, system, shell)
    paths.trial.write_text("format=1\n")
    assert not apply(spec, paths, system, shell).changed
    newer = unpack(paths, "1.0.0-bbbbbbbb")

    with pytest.raises(BusyError, match="trial"):
        apply({**spec, "engine": newer}, paths, system, shell)

    assert (paths.opt / "current").readlink() == Path("1.0.0-aaaaaaaa")


def test_one_engine_back_is_kept_and_older_ones_go(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    for version in ("1.0.0-aaaaaaaa", "1.0.0-bbbbbbbb", "1.0.0-cccccccc"):
        if not (paths.opt / version).exists():
            unpack(paths, version)
        apply({**spec, "engine": version}, paths, system, shell)
        assert not apply({**spec, "engine": version}, paths, system, shell).changed

    versions = {path.name for path in paths.opt.iterdir() if path.is_dir() and not path.is_symlink()}
    assert versions == {"1.0.0-bbbbbbbb", "1.0.0-cccccccc"}


def test_an_agent_is_added_changed_and_taken_away_without_touching_others(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    """S15: overrides and extra agents after install."""
    other = {"unit": {**UNIT, "id": "lung"}, "files": HEART["files"]}
    apply({**spec, "units": {"lung": other}}, paths, system, shell)
    lung = (paths.units_d / "lung/unit.json").stat().st_mtime_ns
    system.systemd.calls.clear()

    added = apply({"format": 1, "units": {"lung": other, "heart": HEART}}, paths, system, shell)
    assert added.actions[-1] == "start heart"
    assert system.systemd.calls == [("daemon-reload",), ("start", "kos-heart.service")]
    assert (paths.node_units / "units/kos-heart.service").is_file()

    system.systemd.calls.clear()
    changed = {**HEART, "files": {"bin/heart": {"mode": "0555", "text": "#!/bin/sh\nsleep 8\n"}}}
    apply({"format": 1, "units": {"lung": other, "heart": changed}}, paths, system, shell)
    assert system.systemd.calls == [("daemon-reload",), ("restart", "kos-heart.service")]
    assert not apply({"format": 1, "units": {"lung": other, "heart": changed}}, paths, system, shell).changed

    system.systemd.calls.clear()
    apply({"format": 1, "units": {"lung": other}}, paths, system, shell)
    assert system.systemd.calls == [("stop", "kos-heart.service"), ("daemon-reload",)]
    assert not (paths.units_d / "heart").exists()
    assert (paths.units_d / "lung/unit.json").stat().st_mtime_ns == lung


def test_a_restart_that_a_crash_swallowed_is_made_up_for(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = {"format": 1, "units": {"heart": HEART}}
    apply(spec, paths, system, shell)
    apply(units, paths, system, shell)
    units["units"] = {"heart": {**HEART, "files": {"bin/heart": {"mode": "0555", "text": "new"}}}}

    def crash(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(system.systemd, "restart", crash)
        with pytest.raises(KeyboardInterrupt):
            apply(units, paths, system, shell)
    assert not [call for call in system.systemd.calls if call[0] == "restart"]

    apply(units, paths, system, shell)
    assert ("restart", "kos-heart.service") in system.systemd.calls
    assert not apply(units, paths, system, shell).changed


def test_a_changed_setting_is_handed_to_the_running_unit(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    apply(spec, paths, system, shell)
    system.systemd.calls.clear()
    spec["node"]["units"]["kosd"]["config"]["port"] = 8471

    result = apply(spec, paths, system, shell)

    assert system.systemd.calls == [("reload", "kos-kosd.service")]
    assert any('"port": 8471' in (change.after or "") for change in result.changes)


def test_a_diff_shows_no_secret(spec: Any, paths: NodePaths, system: FakeSystem, shell: Path) -> None:
    spec["node"]["units"]["kosd"]["config"]["api_token"] = "hunter2"

    shown = json.dumps(apply(spec, paths, system, shell, check=True).as_dict())

    assert "hunter2" not in shown
    assert "hidden" in shown


def test_a_layer_that_somebody_else_put_there_stays_when_ours_go(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    apply(spec, paths, system, shell)
    theirs = paths.conf_d / "90-local.json"
    theirs.write_text(json.dumps({"layer": "node", "values": {"tribe": "north"}}))

    apply({**spec, "conf": {}}, paths, system, shell)

    assert [path.name for path in paths.conf_d.iterdir()] == ["90-local.json"]


def test_man_page_and_completion_come_with_the_engine_and_leave_folders_of_others_alone(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    share = paths.root / "usr/local/elsewhere"
    (paths.root / "usr/local/share").rename(share)
    (paths.root / "usr/local/share").symlink_to("elsewhere")
    (share / "man/man8").mkdir()
    (share / "man/man8").chmod(0o775)
    apply(spec, paths, system, shell)

    page, completion = share / "man/man8/kosctl.8", share / "bash-completion/completions/kosctl"
    assert page.read_text().startswith(".TH KOSCTL 8 ")
    assert "complete -o default -F _kosctl kosctl\n" in completion.read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (page, completion.parent)] == [0o644, 0o755]
    assert stat.S_IMODE(page.parent.stat().st_mode) == 0o775

    theirs = completion.with_name("other")
    theirs.touch()
    host.remove(paths, purge=True, check=False, system=system)
    assert {path.name for path in share.rglob("*")} == {"man", "bash-completion", "completions", "other"}
    theirs.unlink()
    apply(spec, paths, system, shell)
    host.remove(paths, purge=True, check=False, system=system)
    assert [path.name for path in share.rglob("*")] == ["man"]


def test_removal_leaves_nothing(spec: Any, paths: NodePaths, system: FakeSystem, shell: Path) -> None:
    clean = everything(paths)
    for name in list(clean):
        if name.startswith("opt"):
            clean.pop(name)
    apply(spec, paths, system, shell)
    (paths.releases / "r").mkdir()
    (paths.releases / "r").chmod(0o555)

    told = host.remove(paths, purge=True, check=True, system=system)
    assert paths.etc.exists()
    done = host.remove(paths, purge=True, check=False, system=system)

    assert told.actions == done.actions
    left = {name: what for name, what in everything(paths).items() if name not in clean}
    assert set(left) <= {"opt", "var/log", "run", "etc/systemd/system/multi-user.target.wants"}
    assert system.account("kos") is None
    assert system.account("kosops") is None
    assert system.account("scribe") is None
    assert not host.remove(paths, purge=True, check=False, system=system).changed


def test_removal_empties_what_is_a_file_system_of_its_own(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: path == paths.var)
    apply(spec, paths, system, shell)

    assert f"empty {paths.var}" in host.remove(paths, purge=True, check=False, system=system).actions
    assert list(paths.var.iterdir()) == []
    assert not host.remove(paths, purge=True, check=False, system=system).changed


def test_removal_without_purge_keeps_state_evidence_and_audit(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    apply(spec, paths, system, shell)
    (paths.state / "kosd").mkdir()
    old = paths.audit.with_name(f"{paths.audit.name}.1")
    for log in (paths.audit, old):
        log.write_text("{}\n")

    host.remove(paths, purge=False, check=False, system=system)

    assert (paths.state / "kosd").is_dir()
    assert paths.audit.is_file()
    assert old.is_file()
    assert paths.evidence.is_dir()
    assert not paths.releases.exists()
    assert not paths.etc.exists()

    host.remove(paths, purge=True, check=False, system=system)
    assert not old.parent.exists()


def test_removal_keeps_what_a_witness_has_of_other_nodes(
    spec: Any, paths: NodePaths, system: FakeSystem, shell: Path
) -> None:
    """K14."""
    apply(spec, paths, system, shell)
    lines = paths.var / "witness/n2.jsonl"
    lines.parent.mkdir()
    lines.write_text("{}\n")

    host.remove(paths, purge=True, check=False, system=system)

    assert [path for path in paths.var.rglob("*") if path.is_file()] == [lines]
    assert not host.remove(paths, purge=True, check=False, system=system).changed
