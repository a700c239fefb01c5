"""Asks a machine's kosctl, and its systemd, as root."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

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
