"""Makes the report of what a drill found (`schemas/drill.schema.json`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .. import __version__, boot
from . import opening, remarks
from .drilling import Examined, Found
from .exam import PHASES, Exam
from .request import Request


def make(
    id_: str,
    request: Request,
    found: Found,
    *,
    began: datetime,
    ended: datetime,
    host: str,
    cleanup: Mapping[str, Any],
    previous: Mapping[str, str] | None,
    trend: Sequence[Mapping[str, Any]],
    signer: str,
) -> dict[str, Any]:
    """Return a report.

    Args:
        id_: of the drill.
        cleanup: `{"ok","left","earlier"}`.
        previous: id and hash of the report before.
        trend: of the drills before.
        signer: the host's public key.
    """
    newest = [source.points[0] for source in found.sources]
    came = [one for one in newest if one.bytes or one.ms["fetch"]]
    phases = {phase: sum(one.ms[phase] for one in newest) for phase in PHASES}
    total_ms, size = sum(phases.values()), sum(one.bytes for one in came)
    sources = [_source(one, began) for one in found.sources]
    lost = [one["rpo_s"] for one in sources]
    rpo_s = max(lost) if lost and all(one is not None for one in lost) else None
    all_remarks = found.all_remarks
    outcome = remarks.outcome(all_remarks)
    past = {
        "id": id_,
        "time": boot.text(began),
        "outcome": outcome,
        "rpo_s": rpo_s,
        "rto_ms": total_ms,
        "bytes": size,
    }
    report: dict[str, Any] = {
        "format": 1,
        "id": id_,
        "time": boot.text(began),
        "ended": boot.text(ended),
        "outcome": outcome,
        "node": request.node,
        "host": {"name": host, "kosctl": __version__, "restic": found.restic},
        "seed": request.seed,
        "repository": {
            "name": request.repository.name,
            "url": opening.shown(request.repository.url),
            "id": found.repository,
            "access": found.access,
            "writes_refused": found.writes_refused,
        },
        "network": {"isolated": found.isolated, "reason": found.reason},
        "choice": {
            "table": found.table,
            "wanted": None if request.wanted is None else list(request.wanted),
            "drilled": found.drilled,
            "left": found.left,
        },
        "sources": sources,
        "controls": [one.as_json() for one in found.controls],
        "files": {key: sum(one.files[key] for one in newest) for key in Exam("", "").files},
        "rpo_s": rpo_s,
        "rto": {"ms": phases, "total_ms": total_ms},
        "bytes": size,
        "bytes_per_s": round(size * 1000 / phases["fetch"]) if phases["fetch"] else None,
        "projected": _projected(found.total_bytes, size, total_ms),
        "findings": [one.as_json() for one in all_remarks],
        "cleanup": dict(cleanup),
        "interval_s": request.interval_s,
        "previous": None if previous is None else dict(previous),
        "trend": [*trend, past][-20:],
        "signer": signer,
    }
    if request.hosts is not None:
        report["hosts"] = {key: list(value) for key, value in request.hosts.items()}
    return report


def _source(one: Examined, began: datetime) -> dict[str, Any]:
    record = None
    rpo_s = None
    if one.record is not None:
        time, text = one.record
        record = {"time": boot.text(time), "text": text}
        # The node's clock may be ahead of this one.
        rpo_s = max(0, int((began - time).total_seconds()))
    return {
        "name": one.spec.name,
        "class": one.spec.rank,
        "method": one.spec.method,
        "outcome": one.outcome,
        "rpo_s": rpo_s,
        "rto_ms": sum(one.points[0].ms.values()),
        "record": record,
        "points": [point.as_json() for point in one.points],
    }


def _projected(total: int, size: int, ms: int) -> dict[str, int] | None:
    """Return how long all sources would take, where one byte takes as long as another."""
    return {"bytes": total, "ms": round(ms * total / size)} if size else None


def text(report: Mapping[str, Any]) -> str:
    """Return a report in a few lines for a person."""
    lines = [f"{report['outcome']}: drill {report['id']} of {report['node']}"]
    for one in report["sources"]:
        points = ", ".join(f"{point['time'] or 'no point'} {point['outcome']}" for point in one["points"])
        lines.append(f"  {one['name']} ({one['class']}, {one['method']}): {points}")
    lines += [f"  {one['name']}: {one['outcome']}: {one['found']}" for one in report["controls"]]
    lines += [f"  {one['weight']}: {one['text']}" for one in report["findings"]]
    return "\n".join(lines)
