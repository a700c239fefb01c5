"""What role bootstrap makes of a host: accounts, files, units, and what nobody may do."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from bed import Bed
from verify import lane, record
from verify.node import as_operator, over_ssh

KOSCTL = "/opt/kos/current/bin/kosctl"
MODES = {
    "/opt/kos": ("root", "root", 0o755),
    "/opt/kos/fallback": ("root", "root", 0o755),
    "/etc/kos": ("root", "root", 0o755),
    "/etc/kos/node.json": ("root", "kos", 0o640),
    "/etc/kos/conf.d": ("root", "kos", 0o750),
    "/etc/kos/trust/root.json": ("root", "root", 0o644),
    "/etc/sudoers.d/kos": ("root", "root", 0o440),
    "/etc/systemd/system-generators/kos": ("root", "root", 0o755),
    "/var/lib/kos": ("root", "root", 0o755),
    "/var/lib/kos/evidence": ("root", "root", 0o700),
    "/var/lib/kos/fetch": ("root", "root", 0o700),
    "/var/lib/kos/trust": ("root", "root", 0o700),
    "/var/lib/kosops": ("root", "kosops", 0o750),
    "/var/lib/kosops/.ansible": ("kosops", "kosops", 0o700),
    "/var/lib/kosops/.ssh/authorized_keys": ("root", "kosops", 0o640),
    "/var/log/kos": ("root", "root", 0o750),
    "/run/kos": ("root", "root", 0o755),
    "/usr/local/share/man/man8/kosctl.8": ("root", "root", 0o644),
    "/usr/local/share/bash-completion/completions/kosctl": ("root", "root", 0o644),
}


def asked(host: Host, verb: str) -> dict[str, object]:
    """Ask kosctl as root and return its result."""
    answer = json.loads(host.run(f"{KOSCTL} {verb} --json").stdout)
    assert isinstance(answer["result"], dict)
    return answer["result"]


def test_the_second_check_finds_nothing_to_change(last_check: record.Run) -> None:
    assert last_check.changed == []
    assert {one.host for one in last_check.of("kos.fleet.bootstrap")} == {"node1", "node5"}


def test_files_belong_to_whom_they_should(node: Host) -> None:
    found = node.check_output("stat --format='%n %U %G %a' " + " ".join(MODES)).splitlines()
    assert found == [f"{path} {user} {group} {mode:o}" for path, (user, group, mode) in MODES.items()]


def test_nothing_of_it_is_writable_to_others(node: Host) -> None:
    places = "/opt/kos /etc/kos /var/lib/kos /var/lib/kosops /var/log/kos /etc/sudoers.d /etc/systemd"
    assert node.check_output(f"find {places} ! -type l -perm /022") == ""


def test_kosctl_runs_and_knows_its_node(node: Host) -> None:
    name = node.check_output("hostname")
    status = asked(node, "status")
    assert status["state"] == "EMPTY"
    assert status["node"] == {
        **{"name": name, "fleet": "molecule", "zone": {"node1": "a", "node5": "c"}[name]},
        **{"class": None, "arch": node.system_info.arch},
    }


def test_the_root_of_trust_is_the_fleets(node: Host) -> None:
    wanted = lane.WORLD / "repository/public/metadata/1.root.json"
    assert node.file("/etc/kos/trust/root.json").content == wanted.read_bytes()


def test_optional_settings_are_reported_as_unset_and_nothing_fails(converged: record.Run) -> None:
    """S16."""
    for said in converged.of("kos.fleet.bootstrap"):
        assert {"governance_id", "tribe", "class"} <= set(said.result["unset"])


def test_units_come_from_the_generator(node: Host) -> None:
    generator = "/etc/systemd/system-generators/kos"
    made = node.run(
        f"d=$(mktemp -d) && cd $d && mkdir a b c && {generator} a b c && find . -type f; rm -r $d"
    )
    assert (made.rc, made.stdout, made.stderr) == (0, "", "")  # without a release it offers none
    assert node.service("kos.target").is_running
    assert node.service("kos.target").is_enabled


def test_a_boot_in_a_trial_is_guarded(node: Host) -> None:
    assert node.service("kos-boot.service").is_enabled
    assert node.check_output("systemctl show --property ExecStart --value kos-boot.service").count(
        "/opt/kos/fallback --reason reboot"
    )


def test_fallback_needs_no_python(node: Host) -> None:
    lines = node.file("/opt/kos/fallback").content_string.splitlines()
    assert lines[0] == "#!/bin/sh"
    assert node.run("busybox sh -n /opt/kos/fallback").rc == 0
    assert [line for line in lines if "python" in line.lower() and not line.strip().startswith("#")] == []


def test_the_host_is_well_and_listens_to_nothing_new(node: Host) -> None:
    assert node.check_output("systemctl is-system-running") == "running"
    assert {line.rpartition(":")[2] for line in node.socket.get_listening_sockets() if "tcp" in line} == {
        "22"
    }


def test_services_cannot_log_in(node: Host) -> None:
    account = node.user("kos")
    assert (account.shell, account.password) == ("/usr/sbin/nologin", "*")
    assert account.uid != 0


def test_the_operator_has_no_password_and_no_group_but_its_own(node: Host) -> None:
    account = node.user("kosops")
    assert account.password == "*"
    assert account.groups == ["kosops"]


def test_the_operator_may_do_one_thing_as_root(node: Host) -> None:
    assert node.run("visudo -c").rc == 0
    listed = node.check_output("sudo -l -U kosops")
    rights = [
        line.strip() for line in listed.splitlines() if "NOPASSWD" in line or line.strip().startswith("(")
    ]
    assert rights == [f"(root : root) NOPASSWD: {KOSCTL} operate"]


@pytest.mark.parametrize("name", ["node1", "node5"])
def test_the_operator_is_let_in_and_gets_the_gate_whatever_it_asks(bed: Bed, name: str) -> None:
    for asked in (f"sudo -n {KOSCTL} operate", "id", ""):
        answer = over_ssh(bed, name, asked, b'{"format":1,"verb":"status","options":{}}')
        assert json.loads(answer.stdout)["result"]["state"] == "EMPTY"


@pytest.mark.parametrize(
    "attempt",
    [
        "sudo -n true",
        f"sudo -n {KOSCTL} status",
        f"sudo -n {KOSCTL} operate --root /tmp",
        f"sudo -n -u kos {KOSCTL} operate",
        "cat /var/lib/kos/journal/journal.jsonl /etc/kos/node.json",
        "ls /var/lib/kos/evidence",
        "cat /var/log/kos/audit.jsonl",
        "touch /etc/kos/trust/root.json",
        "touch /var/lib/kosops/.ssh/authorized_keys",
        "mv /var/lib/kosops/.ssh /var/lib/kosops/old",
        "systemctl stop kos.target",
    ],
)
@pytest.mark.parametrize("name", ["node1", "node5"])
def test_a_shell_in_that_account_would_be_refused_what_is_not_its_own(
    reach: lane.Reach, name: str, attempt: str
) -> None:
    assert as_operator(reach(name), attempt).rc != 0
