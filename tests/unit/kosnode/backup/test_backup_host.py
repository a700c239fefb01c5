"""What role backup makes of a host: whole or refused, without a secret in a diff, and the data stays."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.kosnode.host.host_world import FakeSystem, FakeSystemd

from kosnode.backup import host, host_units
from kosnode.errors import InputError, KosError
from kosnode.paths import NodePaths

PUBLIC = "ssh-ed25519 " + "A" * 68
WORD = "word-of-the-repository"


class MachineSystemd(FakeSystemd):
    """Says how the server of backups is."""

    server = "active"

    def show(self, units: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, str]]:
        return {unit: {"ActiveState": self.server} for unit in units}


class Machine(FakeSystem):
    """A host on which systemd knows what a calendar event is."""

    systemd: MachineSystemd

    def run(self, argv: Sequence[str]) -> str:
        if argv[:2] != ["systemd-analyze", "calendar"]:
            return super().run(argv)
        if argv[2] == "sometimes":
            raise KosError("no")
        return ""


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    return NodePaths(tmp_path / "root")


@pytest.fixture
def machine(paths: NodePaths, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(host, "require_root", lambda: None)
    monkeypatch.setattr(host, "_SETTLE_S", 0)
    made = Machine(paths)
    made.systemd = MachineSystemd()
    passwd, group = paths.root / "etc/passwd", paths.root / "etc/group"
    passwd.write_text(passwd.read_text() + "restic-rest-server:x:800:800::/:/bin/false\n")
    group.write_text(group.read_text() + "restic-rest-server:x:800:\n")
    return made


@pytest.fixture
def spec() -> dict[str, Any]:
    return {
        "format": 1,
        "node": {
            "table": {
                "format": 1,
                "repositories": {"here": {"url": "/srv/backup"}},
                "sources": {"docs": {"class": "high", "method": "tree", "path": "/srv/docs"}},
            },
            "secrets": {"here": {"password": WORD, "environment": {"AWS_SECRET_ACCESS_KEY": "s3-word"}}},
            "calendar": {"run": "daily", "check": "weekly", "forget": "weekly"},
        },
        "server": {"users": {"n1": "{SHA}" + "A" * 27 + "="}, "root": "/srv/kos-backup", "listen": ":8000"},
        "witness": {"n1": PUBLIC},
        "known_hosts": [f"witness {PUBLIC}"],
    }


def words(done: dict[str, Any]) -> list[str]:
    return [change.action for change in done["changes"]]


def snapshot(paths: NodePaths) -> set[str]:
    return {str(path.relative_to(paths.root)) for path in paths.root.rglob("*")}


def start(machine: Machine) -> None:
    fake = machine.systemd
    assert isinstance(fake, FakeSystemd)
    fake.active |= {name for call in fake.calls if call[0] == "restart" for name in call[1:]}


def test_a_second_run_changes_nothing(paths: NodePaths, machine: Machine, spec: dict[str, Any]) -> None:
    assert words(host.apply(spec, paths, check=False, system=machine))
    start(machine)
    again = host.apply(spec, paths, check=False, system=machine)
    assert words(again) == []
    assert again["node_key"].startswith("ssh-ed25519 ")
    assert again["unopened"] == ["here"]


def test_check_mode_says_what_would_be_done_and_does_nothing(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    before = snapshot(paths)
    planned = words(host.apply(spec, paths, check=True, system=machine))
    assert snapshot(paths) == before
    assert set(planned) <= set(words(host.apply(spec, paths, check=False, system=machine)))


def test_secrets_are_root_s_alone_and_in_no_diff(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    """K14."""
    done = host.apply(spec, paths, check=False, system=machine)
    told = json.dumps([[change.action, change.before, change.after] for change in done["changes"]])
    assert WORD not in told
    assert "s3-word" not in told
    folder = paths.etc / "backup.secrets"
    assert (folder / "here.password").read_text() == f"{WORD}\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_host_that_others_are_drilled_on_watches_for_their_drills(
    paths: NodePaths, machine: Machine
) -> None:
    """M13: a drill that did not run in its interval is a failure of its own."""
    done = host.apply({"format": 1, "drill": ["n1", "n2"]}, paths, check=False, system=machine)
    units = paths.root / "etc/systemd/system"
    assert (
        "kosctl drill status --node n1 --node n2 --json" in (units / "kos-drill-status.service").read_text()
    )
    assert (units / "timers.target.wants/kos-drill-status.timer").is_symlink()
    assert done["node_key"].startswith("ssh-ed25519 ")
    assert words(done)[-1] == "start kos-drill-status.timer"
    start(machine)
    done = host.apply({"format": 1, "drill": []}, paths, check=False, system=machine)
    assert not [path for path in units.rglob("kos-drill*") if path.is_symlink() or path.exists()]
    assert words(done)[-1] == "stop kos-drill-status.timer"
    assert ("stop", "kos-drill-status.timer") in machine.systemd.calls


def test_a_timer_that_the_calendar_no_longer_names_stops_now_and_not_at_the_next_boot(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    host.apply(spec, paths, check=False, system=machine)
    start(machine)
    del spec["node"]["calendar"]["forget"]
    planned = words(host.apply(spec, paths, check=True, system=machine))
    assert not [call for call in machine.systemd.calls if call[0] == "stop" and len(call) > 1]
    done = words(host.apply(spec, paths, check=False, system=machine))
    assert planned == done
    assert [one for one in done if one.startswith("stop")] == ["stop kos-backup-forget.timer"]
    assert words(host.apply(spec, paths, check=False, system=machine)) == []


def test_a_repository_that_is_no_longer_named_leaves_no_secret(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    host.apply(spec, paths, check=False, system=machine)
    spec["node"]["table"]["repositories"] = {"there": {"url": "/srv/there"}}
    spec["node"]["secrets"] = {"there": {"password": WORD}}
    host.apply(spec, paths, check=False, system=machine)
    assert [path.name for path in (paths.etc / "backup.secrets").iterdir()] == ["there.password"]


def test_without_a_time_for_removal_nothing_removes(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    """K15."""
    host.apply(spec, paths, check=False, system=machine)
    del spec["node"]["calendar"]["forget"]
    host.apply(spec, paths, check=False, system=machine)
    units = {path.name for path in (paths.root / "etc/systemd/system").glob("kos-backup*")}
    assert units == {
        *(f"kos-backup{name}.{kind}" for name in ("", "-check") for kind in ("service", "timer")),
        "kos-backup-server.service",
    }


def test_a_witness_s_key_runs_one_command_for_one_node(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    host.apply(spec, paths, check=False, system=machine)
    lines = (paths.root / "var/lib/koswitness/.ssh/authorized_keys").read_text()
    assert lines == f'restrict,command="{host_units.KOSCTL} witness --node n1" {PUBLIC}\n'


def test_a_node_that_was_made_anew_reaches_its_witness_and_its_former_lines_count(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    anew = "ssh-ed25519 " + "B" * 68
    host.apply(spec, paths, check=False, system=machine)
    host.apply({"format": 1, "witness": {"n1": anew, "n2": PUBLIC}}, paths, check=False, system=machine)
    home = paths.root / "var/lib/koswitness/.ssh/authorized_keys"
    assert [line.split('" ')[1] for line in home.read_text().splitlines()] == [anew, PUBLIC]
    assert (paths.var / "witness/n1.pub").read_text().splitlines() == [PUBLIC, anew]


def test_a_node_that_has_its_former_key_again_is_let_in_with_it(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    anew = "ssh-ed25519 " + "B" * 68
    for key in (PUBLIC, anew, PUBLIC):
        host.apply({"format": 1, "witness": {"n1": key}}, paths, check=False, system=machine)
    home = paths.root / "var/lib/koswitness/.ssh/authorized_keys"
    assert [line.split('" ')[1] for line in home.read_text().splitlines()] == [PUBLIC]
    assert (paths.var / "witness/n1.pub").read_text().splitlines() == [anew, PUBLIC]


def test_what_a_machine_before_this_one_signed_counts_and_its_own_key_is_no_former_one(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    before, by_hand = ("ssh-ed25519 " + letter * 68 for letter in "BC")
    own = host.apply(spec, paths, check=False, system=machine)["node_key"]
    former = paths.etc / "keys/node.former"
    assert not former.exists()
    former.write_text(f"{by_hand}\n")
    spec["node"]["former_keys"] = [before, own]
    host.apply(spec, paths, check=False, system=machine)
    assert former.read_text().splitlines() == [by_hand, before]
    assert not [
        one.action for one in host.apply(spec, paths, check=True, system=machine)["changes"] if one.path
    ]


def test_a_server_adds_and_does_not_remove(paths: NodePaths, machine: Machine, spec: dict[str, Any]) -> None:
    """K18."""
    host.apply(spec, paths, check=False, system=machine)
    unit = (paths.root / "etc/systemd/system/kos-backup-server.service").read_text()
    assert " --append-only --private-repos " in unit
    assert "User=root" not in unit
    assert (paths.root / "etc/kos-backup-server/htpasswd").stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("state", ["active", "activating", "failed"])
def test_a_server_whose_port_is_taken_is_no_success(
    paths: NodePaths, machine: Machine, spec: dict[str, Any], state: str
) -> None:
    """K18: systemd starts it again and again, and calls that activating."""
    machine.systemd.server = state
    if state == "active":
        assert host.apply(spec, paths, check=False, system=machine)["changes"]
    else:
        with pytest.raises(KosError, match="does not stay up"):
            host.apply(spec, paths, check=False, system=machine)


def test_removal_leaves_the_data_and_the_keys(
    paths: NodePaths, machine: Machine, spec: dict[str, Any]
) -> None:
    host.apply(spec, paths, check=False, system=machine)
    start(machine)
    assert host.remove(paths, check=True, system=machine)
    assert (paths.etc / "backup.json").exists()
    host.remove(paths, check=False, system=machine)
    assert not (paths.etc / "backup.json").exists()
    assert not (paths.etc / "backup.secrets").exists()
    assert list((paths.root / "etc/systemd/system").rglob("kos-backup*")) == []
    assert (paths.etc / "keys/node").exists()
    assert (paths.var / "witness/n1.pub").exists()
    assert (paths.root / "srv/kos-backup").is_dir()
    assert host.remove(paths, check=False, system=machine) == []


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return what sets a value in a spec."""
    *parents, last = path.split(".")

    def change(spec: dict[str, Any]) -> None:
        for name in parents:
            spec = spec[name]
        if value is None:
            del spec[last]
        else:
            spec[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("node.secrets", {}), "repository here has no password"),
        (put("node.secrets.there", {"password": WORD}), "there is no repository"),
        (put("node.secrets.here.password", "short"), "password"),
        (put("node.secrets.here.environment", {"A": "two\nlines"}), "environment"),
        (put("node.table.retention", {"minimum": 0}), "retention.minimum"),
        (put("node.table.intervals", 1), "intervals"),
        (put("node.table.sources.docs.path", "docs"), "sources.docs.path"),
        (put("node.table.repositories.here.url", "rest:http://a:word@b/"), "holds a password"),
        (put("node.table.repositories.here.append_only", True), "append-only"),
        (put("node.calendar.run", "sometimes"), "calendar.run"),
        (put("node.calendar.run", "daily\nExecStart=/bin/x"), "calendar.run"),
        (put("node.calendar.run", None), "run"),
        (put("server.root", "/srv/x --no-auth"), "server.root"),
        (put("server.listen", "8000"), "server.listen"),
        (put("server.key", "-----BEGIN PRIVATE KEY-----"), "belong together"),
        (put("witness", {'n1",command="x': PUBLIC}), "witness"),
        (put("witness.n1", f"{PUBLIC}\nssh-rsa A"), "witness.n1"),
        (put("known_hosts", ["witness"]), "known_hosts"),
        (put("nodes", {}), "nodes"),
        (put("format", 2), "format"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_touched(
    paths: NodePaths,
    machine: Machine,
    spec: dict[str, Any],
    change: Callable[[dict[str, Any]], None],
    said: str,
) -> None:
    before = snapshot(paths)
    change(spec)
    with pytest.raises(InputError) as told:
        host.apply(spec, paths, check=False, system=machine)
    assert said in told.value.message or said in str(told.value.key)
    assert WORD not in told.value.message
    assert snapshot(paths) == before


def drill_table(**node: Any) -> dict[str, Any]:
    named = {"repositories": {"offsite": {"url": "rest:http://192.0.2.1/n1/"}}, "node_keys": [PUBLIC], **node}
    return {"format": 1, "drill_table": {"format": 1, "nodes": {"n1": named}}}


def test_what_the_operator_account_may_have_drilled_is_root_s_file_and_goes_with_its_last_node(
    paths: NodePaths, machine: Machine
) -> None:
    """M13, K14."""
    planned = words(host.apply(drill_table(), paths, check=True, system=machine))
    assert not paths.drill_json.exists()
    done = host.apply(drill_table(), paths, check=False, system=machine)
    assert words(done) == planned
    assert any(PUBLIC in (change.after or "") for change in done["changes"])
    assert json.loads(paths.drill_json.read_text()) == drill_table()["drill_table"]
    assert stat.S_IMODE(paths.drill_json.stat().st_mode) == 0o600
    assert words(host.apply(drill_table(), paths, check=False, system=machine)) == []
    # A spec of another step leaves it alone.
    host.apply({"format": 1, "drill": []}, paths, check=False, system=machine)
    assert paths.drill_json.exists()
    nobody = {"format": 1, "drill_table": {"format": 1, "nodes": {}}}
    host.apply(nobody, paths, check=False, system=machine)
    assert not paths.drill_json.exists()
    assert words(host.apply(nobody, paths, check=False, system=machine)) == []


def test_what_is_drilled_is_taken_off_a_host_with_its_backups(paths: NodePaths, machine: Machine) -> None:
    host.apply(drill_table(), paths, check=False, system=machine)
    host.remove(paths, check=False, system=machine)
    assert not paths.drill_json.exists()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"node_keys": []}, "drill_table.nodes.n1.node_keys: must not be empty"),
        ({"repositories": {"o": {"url": "ftp://x"}}}, "drill_table.nodes.n1.repositories.o.url: must be"),
        ({"command": ["reboot"]}, "drill_table.nodes.n1.command: unknown key"),
        *(
            ({"repositories": {"o": {"url": "/x", "ca": path}}}, "ca: must be an absolute path without")
            for path in ("/", "ca.pem", "/srv/../etc", "/srv/.", "/srv//x", "/srv/", "/srv/x\n")
        ),
    ],
)
def test_a_table_of_drills_that_breaks_a_rule_is_refused_before_anything_is_touched(
    paths: NodePaths, machine: Machine, node: dict[str, Any], said: str
) -> None:
    before = snapshot(paths)
    with pytest.raises(InputError) as caught:
        host.apply(drill_table(**node), paths, check=False, system=machine)
    assert said in caught.value.message
    assert snapshot(paths) == before
