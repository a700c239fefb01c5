"""Whether the drills that have to be were: the newest VERIFIED one of each node, and the metrics of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .. import boot, files
from .remarks import VERIFIED_OUTCOME

_HELP = {
    "kos_drill_last_timestamp_seconds": "When the newest drill of the node began.",
    "kos_drill_last_verified_timestamp_seconds": "When the newest drill of the node that was VERIFIED began.",
    "kos_drill_last_ok": "Whether the newest drill of the node was VERIFIED.",
    "kos_drill_overdue": "Whether the node has no VERIFIED drill within its interval.",
    "kos_drill_interval_seconds": "How old the newest VERIFIED drill may be.",
    "kos_drill_recovery_point_seconds": "Seconds between the last verified record and the newest drill.",
    "kos_drill_recovery_time_seconds": "How long the newest drill took to bring back and verify its sources.",
    "kos_drill_bytes": "Bytes that the newest drill brought back.",
}


def of_nodes(
    lines: Sequence[Mapping[str, Any]], wanted: Sequence[str], now: datetime
) -> list[dict[str, Any]]:
    """Return the state of each node's drills.

    Args:
        lines: of the chain of reports, oldest first.
        wanted: nodes that have to have been drilled; none takes those that were.

    Returns:
        `{"node","last","verified","interval_s","due","overdue"}` each; one that was never drilled is overdue.
    """
    by_node: dict[str, list[Mapping[str, Any]]] = {name: [] for name in wanted}
    for line in lines:
        if not wanted or line["node"] in by_node:
            by_node.setdefault(str(line["node"]), []).append(line)
    return [_state(node, found, now) for node, found in sorted(by_node.items())]


def write_metrics(path: Path, lines: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]) -> None:
    """Write the metrics, in the textfile format of Prometheus; arguments as `render` takes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_durable(path, render(lines, nodes).encode("utf-8"))


def render(lines: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]) -> str:
    """Return the metrics as text.

    Args:
        lines: of the chain of reports, oldest first.
        nodes: as `of_nodes` returns them, those that were never drilled with them.
    """
    samples: dict[str, list[str]] = {name: [] for name in _HELP}
    last: dict[str, Mapping[str, Any]] = {}
    verified: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        last[str(line["node"])] = line
        if line["outcome"] == VERIFIED_OUTCOME:
            verified[str(line["node"])] = line
    for node, line in sorted(last.items()):
        good = verified.get(node)
        values = {
            "last_timestamp_seconds": _seconds(line),
            "last_verified_timestamp_seconds": 0 if good is None else _seconds(good),
            "last_ok": int(line["outcome"] == VERIFIED_OUTCOME),
            "interval_seconds": line["interval_s"],
            "recovery_point_seconds": line["rpo_s"],
            "recovery_time_seconds": line["rto_ms"] / 1000,
            "bytes": line["bytes"],
        }
        for name, value in values.items():
            if value is not None:
                samples[f"kos_drill_{name}"].append(f'kos_drill_{name}{{node="{node}"}} {value}')
    for one in nodes:
        samples["kos_drill_overdue"].append(
            f'kos_drill_overdue{{node="{one["node"]}"}} {int(one["overdue"])}'
        )
    text = []
    for name, found in samples.items():
        if found:
            text += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge", *found]
    return "\n".join(text) + "\n"


def _state(node: str, lines: Sequence[Mapping[str, Any]], now: datetime) -> dict[str, Any]:
    last = lines[-1] if lines else None
    verified = next((one for one in reversed(lines) if one["outcome"] == VERIFIED_OUTCOME), None)
    interval_s = None if last is None else int(last["interval_s"])
    due = None
    if verified is not None and interval_s is not None:
        due = boot.moment(str(verified["time"])) + timedelta(seconds=interval_s)
    return {
        "node": node,
        "last": None if last is None else {key: last[key] for key in ("id", "time", "outcome")},
        "verified": None if verified is None else {key: verified[key] for key in ("id", "time")},
        "interval_s": interval_s,
        "due": None if due is None else boot.text(due),
        "overdue": due is None or due < now,
    }


def _seconds(line: Mapping[str, Any]) -> int:
    return int(boot.moment(str(line["time"])).timestamp())
