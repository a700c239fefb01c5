"""Asks a machine's kosctl, and its systemd: as root, and as the operator account."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any

from testinfra.backend.base import CommandResult
from testinfra.host import Host

from bed import Bed

KOSCTL = "/opt/kos/current/bin/kosctl"


def ask(host: Host, verb: str) -> dict[str, Any]:
    """Return the result of a verb of kosctl, whatever its exit code."""
    answer: dict[str, Any] = json.loads(host.run(f"{KOSCTL} {verb} --json").stdout)
    result: dict[str, Any] = answer["result"]
    return result


def units(host: Host) -> list[str]:
    """Return the services of kOS that are running."""
    listed = host.check_output(
        "systemctl list-units --plain --no-legend --state=active --type=service 'kos-*'"
    )
    return sorted(line.split()[0] for line in listed.splitlines() if "kos-mirror" not in line)


def invocations(host: Host) -> dict[str, str]:
    """Return for each running service of kOS what systemd calls its present run: another after a restart."""
    names = units(host)
    shown = host.check_output(f"systemctl show --property InvocationID --value {' '.join(names)}")
    return dict(zip(names, shown.split(), strict=True))


def journal(host: Host) -> list[dict[str, Any]]:
    """Return the entries of a node's journal, oldest first."""
    text = host.file("/var/lib/kos/journal/journal.jsonl").content_string
    return [json.loads(line) for line in text.splitlines()]


def as_operator(host: Host, command: str) -> CommandResult:
    """Run a command in a shell of the operator account, by way of root: its SSH keys give no shell."""
    return host.run(f"cd /tmp && runuser -u kosops -- /bin/sh -c {shlex.quote(command)}")


def over_ssh(bed: Bed, name: str, command: str, request: bytes) -> subprocess.CompletedProcess[bytes]:
    """Connect as the operator account, ask for a command (none: a session), and hand it a request."""
    ssh, *rest = bed.ssh_command(name, "kosops")
    asked = [ssh, "-T", "-o", "BatchMode=yes", *rest, *([command] if command else [])]
    return subprocess.run(asked, input=request, capture_output=True, check=False)
