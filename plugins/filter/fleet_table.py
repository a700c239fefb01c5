# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that turns what nodes said about themselves into the lines of a table."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Mapping

from ansible.errors import AnsibleFilterError

HEAD = ("NODE", "ZONE", "STATE", "RELEASE", "HEALTH", "LAST OUTCOME", "FINDINGS")


def fleet_table(nodes: t.Any) -> list[str]:
    """Return the lines of the table."""
    if not isinstance(nodes, Mapping):
        raise AnsibleFilterError(
            "fleet_table needs a dictionary from node to the result of kos.fleet.node_info"
        )
    rows = [HEAD, *(_row(str(node), result or {}) for node, result in nodes.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _row(node: str, result: Mapping[str, t.Any]) -> tuple[str, ...]:
    if not result.get("installed"):
        state = (
            "UNREACHABLE"
            if result.get("unreachable")
            else "NO ANSWER"
            if result.get("failed")
            else "NO KOSCTL"
        )
        return (node, "-", state, "-", "-", "-", "-")
    status = result.get("status") or {}
    health = result.get("health") or {}
    current, last = status.get("current") or {}, status.get("last") or {}
    findings = (result.get("doctor") or {}).get("findings") or []
    return (
        node,
        str((status.get("node") or {}).get("zone") or "-"),
        str(status.get("state") or "-"),
        f"{current.get('name')} {current.get('version')}" if current else "none",
        "unknown" if health.get("healthy") is None else "healthy" if health["healthy"] else "unhealthy",
        f"{last.get('outcome')} {last.get('version')}" if last else "-",
        str(len(findings)),
    )


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        return {"fleet_table": fleet_table}
