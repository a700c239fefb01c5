"""A report of a drill in which every name is hostile."""

from __future__ import annotations

from typing import Any

from kosnode.drill.exam import PHASES

NASTY = "<script>alert(1)</script>\"'&"


def report(**changes: Any) -> dict[str, Any]:
    files = dict.fromkeys(("expected", "restored", "missing", "extra", "different"), 3)
    ms = dict.fromkeys(PHASES, 100)
    finding = {"code": "x", "text": NASTY, "path": None, "source": NASTY, "weight": "failed"}
    point = {
        **{
            "kind": "newest",
            "time": "2026-01-01T00:00:00Z",
            "run": "r",
            "snapshot": "s",
            "outcome": "FAILED",
        },
        **{"files": files, "bytes": 5, "ms": ms, "head": {"length": 3}, "witness": "agrees"},
        "findings": [finding],
    }
    past = {"id": "20260101T000000Z-00000000", "time": "2026-01-01T00:00:00Z", "outcome": "COULD_NOT_TEST"}
    return {
        **{"format": 1, "id": "20260101T000000Z-00000000", "time": past["time"], "ended": past["time"]},
        **{"outcome": "FAILED", "node": NASTY, "host": {"name": NASTY, "kosctl": "1.0.0", "restic": ""}},
        **{"seed": "1", "hosts": {"picked": [NASTY], "of": [NASTY]}},
        "repository": {"name": NASTY, "url": NASTY, "id": None, "access": "direct", "writes_refused": 0},
        "network": {"isolated": False, "reason": NASTY},
        "choice": {"table": "request", "wanted": None, "drilled": [NASTY], "left": []},
        "sources": [
            {
                **{"name": NASTY, "class": "high", "method": "tree", "outcome": "FAILED", "rpo_s": None},
                **{"rto_ms": 500, "record": {"time": past["time"], "text": NASTY}, "points": [point]},
            }
        ],
        "controls": [
            {"name": "wrong-key", "source": NASTY, "text": NASTY, "outcome": "green", "found": NASTY, "ms": 1}
        ],
        **{
            "files": files,
            "rpo_s": None,
            "rto": {"ms": ms, "total_ms": 500},
            "bytes": 5,
            "bytes_per_s": None,
        },
        **{"projected": None, "findings": [finding], "interval_s": 60, "previous": None},
        "cleanup": {"ok": False, "left": [NASTY], "earlier": [past["id"]]},
        "trend": [{**past, "rpo_s": None, "rto_ms": 0, "bytes": 0}],
        "signer": "ssh-ed25519 AAAA",
        **changes,
    }
