"""Tries to get more out of the operator account than asking kosctl: it is let in, and nothing else works."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable

import pytest
from testinfra.backend.base import CommandResult

from bed import Bed
from verify import lane, snapshot
from verify import node as kos
from verify.node import as_operator, over_ssh

Operator = Callable[[str], CommandResult]
OPERATE = f"sudo -n {kos.KOSCTL} operate"
# What a hole would leave behind.
MARK = "/tmp/kos-was-here"
INJECTED = f"open({MARK!r}, 'w')"


@pytest.fixture
def operator(reach: lane.Reach) -> Operator:
    """A shell in the account, which its keys do not give: what a hole in the gate would begin with."""
    return lambda command: as_operator(reach("node1"), command)


@pytest.mark.parametrize(
    "command",
    [
        "sudo -n -s",
        "sudo -n -i",
        "sudo -n sh -c id",
        "sudo -n -u kos id",
        "sudo -n -e /etc/kos/node.json",
        "sudo -n -l -U root",
        f"sudo -n {kos.KOSCTL}",
        f"sudo -n {kos.KOSCTL} status",
        f"sudo -n {kos.KOSCTL} stage --release 1.1.0",
        f"sudo -n {kos.KOSCTL} host remove --purge",
        f"sudo -n {kos.KOSCTL} --root /tmp operate",
        f"sudo -n {kos.KOSCTL} operate --json",
        f"sudo -n {kos.KOSCTL} operate ''",
        f"sudo -n {kos.KOSCTL}/../kosctl operate",
        "sudo -n /opt/kos/fallback --reason operator",
        "sudo -n /usr/bin/python3 -c pass",
        f"sudo -n -C 10 {kos.KOSCTL} operate",
        f"sudo -n --preserve-env {kos.KOSCTL} operate",
        f"sudo -n PYTHONPATH=/tmp {kos.KOSCTL} operate",
        f"sudo -n --chdir=/tmp {kos.KOSCTL} operate",
        "su -c id",
        "systemctl stop kos-kosd.service",
        "systemd-run --quiet --wait true",
        "kill 1",
        "cat /etc/shadow",
        "cat /etc/kos/node.json",
        "ls /var/lib/kos/evidence /var/lib/kos/trust",
        "cat /var/log/kos/audit.jsonl",
        "cat /var/lib/kos/trial.json /var/lib/kos/state/kosd/*",
        "rm -f /var/lib/kos/current",
        "rm -f /opt/kos/current/lib/kosnode/cli.py",
        "echo ssh-ed25519 AAAA > /var/lib/kosops/.ssh/authorized_keys",
        "mv /var/lib/kosops/.ssh /var/lib/kosops/.ssh-old",
        "ln -sf /etc/shadow /run/kos/lock",
    ],
)
def test_a_command_that_is_not_the_gate_is_refused(operator: Operator, command: str) -> None:
    assert operator(f"echo '{{}}' | {command}").rc != 0


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{",
        '{"format":1,"verb":"host","options":{}}',
        '{"format":1,"verb":"watch","options":{}}',
        '{"format":1,"verb":"operate","options":{}}',
        '{"format":1,"verb":"scrub","options":{}}',
        '{"format":1,"verb":"status","options":{"root":"/tmp"}}',
        '{"format":1,"verb":"stage","options":{"mirror":"http://192.0.2.1/"}}',
        '{"format":1,"verb":"stage","options":{"release":"../../../etc"}}',
        '{"format":1,"verb":"stage","options":{"release":"--help"}}',
        '{"format":1,"verb":"stage","options":{"release":"1.1.0;id"}}',
        '{"format":1,"verb":"stage","options":{"release":["1.1.0"]}}',
        '{"format":1,"verb":"activate","options":{"deadline_s":99999999}}',
        '{"format":1,"verb":"activate","options":{"bake_s":-1}}',
        '{"format":1,"verb":"evidence","options":{"id":"../../../../etc/shadow"}}',
        '{"format":1,"verb":"doctor","options":{"bundle":"/etc/cron.d/x"}}',
        '{"format":1,"verb":"status","verb":"host","options":{}}',
        '{"format":1,"verb":"status","options":{},"more":1}',
        '{"format":1,"verb":"confirm","options":{"token":"' + "0" * 64 + '"}}',
    ],
)
def test_a_request_that_is_not_on_the_list_is_refused_in_words(bed: Bed, document: str) -> None:
    done = over_ssh(bed, "node1", "", document.encode())
    answer = json.loads(done.stdout)
    assert done.returncode != 0
    assert answer["ok"] is False
    assert answer["changed"] is False
    assert isinstance(answer["error"], dict)
    assert answer["error"]["message"]
    assert answer["error"]["kind"] != "internal"


def test_an_endless_request_is_refused_and_not_read_to_its_end(operator: Operator) -> None:
    done = operator(f"yes | head -c 100000000 | {OPERATE}")
    assert done.rc != 0
    assert json.loads(done.stdout)["ok"] is False


@pytest.mark.parametrize(
    "command", ["id", "sh", "/opt/kos/current/bin/kosctl status", "internal-sftp", "; id"]
)
def test_over_ssh_there_is_the_gate_and_no_shell(bed: Bed, command: str) -> None:
    done = over_ssh(bed, "node1", command, b"{}")
    assert done.returncode != 0
    assert json.loads(done.stdout)["ok"] is False


@pytest.mark.parametrize(
    "setting",
    [
        "PYTHONPATH=/tmp/evil",
        "PYTHONHOME=/tmp/evil",
        "PYTHONSTARTUP=/tmp/evil/json.py",
        "PYTHONINSPECT=1",
        "PATH=/tmp/evil:/usr/bin:/bin",
        "LD_PRELOAD=/tmp/evil/x.so",
        "HOME=/tmp/evil",
        "XDG_CONFIG_HOME=/tmp/evil",
        "http_proxy=http://192.0.2.1:3128",
        "SUDO_USER=root",
    ],
)
def test_neither_environment_nor_folder_brings_code_in(
    operator: Operator, reach: lane.Reach, setting: str
) -> None:
    evil = "rm -rf /tmp/evil && mkdir -p /tmp/evil && cd /tmp/evil"
    for name in ("json.py", "os.py", "site.py", "sitecustomize.py", "usercustomize.py", "kosnode.py"):
        evil += f" && echo {shlex.quote(INJECTED)} > {name}"
    for name in ("python3", "systemctl", "systemd-run", "flock"):
        evil += f" && printf '#!/bin/sh\\ntouch {MARK}\\n' > {name} && chmod 755 {name}"
    status = '{"format":1,"verb":"health","options":{}}'
    done = operator(f"{evil} && printf %s '{status}' | {setting} {OPERATE}; rm -rf /tmp/evil")
    assert json.loads(done.stdout)["ok"] is True
    assert not reach("node1").file(MARK).exists


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (["-W", "127.0.0.1:22"], []),
        (["-W", "mirror1:8080"], []),
        (["-o", "ExitOnForwardFailure=yes", "-R", "2222:127.0.0.1:22"], ["true"]),
        (["-s"], ["sftp"]),
    ],
)
def test_the_account_is_no_way_to_other_places(bed: Bed, options: list[str], command: list[str]) -> None:
    ssh, *rest = bed.ssh_command("node1", "kosops")
    agent = ["ssh-agent", ssh, "-o", "BatchMode=yes", *options, *rest, *command]
    done = subprocess.run(agent, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode != 0
    assert "SSH-2.0" not in done.stdout


def test_a_password_opens_nothing(bed: Bed) -> None:
    ssh, *rest = bed.ssh_command("node1", "kosops")
    options = ["-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "BatchMode=yes"]
    done = subprocess.run([ssh, *options, *rest, "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 255


def test_nothing_of_all_this_changed_the_node(reach: lane.Reach, bed: Bed) -> None:
    root = reach("node1")
    assert not root.file(MARK).exists
    assert kos.ask(root, "status")["trial"] is None
    assert kos.ask(root, "health")["healthy"] is True
    assert root.run(f"{kos.KOSCTL} verify --json").rc == 0
    sudoers = [line for line in snapshot.take(bed, ["node1"])["node1"] if "sudoers.d" in line]
    assert len([line for line in sudoers if line.split()[0] == "etc/sudoers.d/kos"]) == 1


def test_what_was_refused_is_in_the_audit_log(reach: lane.Reach) -> None:
    text = reach("node1").file("/var/log/kos/audit.jsonl").content_string
    refused = [entry for line in text.splitlines() if (entry := json.loads(line))["what"]["exit"] != 0]
    assert [entry["what"]["verb"] for entry in refused if entry["who"].get("sudo_user") == "kosops"]
