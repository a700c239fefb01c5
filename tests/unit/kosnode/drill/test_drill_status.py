"""A drill that was not in its interval is a failure of its own (K22)."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from kosnode import boot
from kosnode.drill import status

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def line(number: int, outcome: str, time: str, node: str = "n1", interval_s: int = 86_400) -> dict[str, Any]:
    return {
        "id": f"20260101T000000Z-{number:08x}",
        "node": node,
        "time": time,
        "outcome": outcome,
        "interval_s": interval_s,
        "rpo_s": 5,
        "rto_ms": 1500,
        "bytes": 7,
    }


def test_the_newest_verified_drill_counts_and_not_the_newest() -> None:
    lines = [line(1, "VERIFIED", "2026-05-30T23:59:59Z"), line(2, "COULD_NOT_TEST", "2026-05-31T23:00:00Z")]
    (state,) = status.of_nodes(lines, [], NOW)
    assert (state["overdue"], state["due"]) == (True, "2026-05-31T23:59:59Z")
    assert state["last"]["outcome"] == "COULD_NOT_TEST"
    assert state["verified"]["time"] == "2026-05-30T23:59:59Z"


def test_a_drill_within_its_interval_is_in_time() -> None:
    (state,) = status.of_nodes([line(1, "VERIFIED", boot.text(NOW))], ["n1"], NOW)
    assert not state["overdue"]


def test_a_node_that_was_never_verified_is_overdue() -> None:
    lines = [line(1, "FAILED", boot.text(NOW))]
    states = {one["node"]: one for one in status.of_nodes(lines, ["n1", "n2"], NOW)}
    assert {name: one["overdue"] for name, one in states.items()} == {"n1": True, "n2": True}
    assert states["n2"]["last"] is None


def test_metrics_tell_of_each_node_when_it_was_verified_and_how_long_it_takes() -> None:
    lines = [line(1, "VERIFIED", "2026-01-01T00:00:00Z"), line(2, "FAILED", "2026-01-02T00:00:00Z")]
    lines = [*lines, line(3, "FAILED", "2026-01-01T00:00:00Z", "n2")]
    text = status.render(lines, status.of_nodes(lines, ["n1", "n3"], NOW))
    samples = [one for one in text.splitlines() if not one.startswith("#")]
    assert 'kos_drill_last_ok{node="n1"} 0' in samples
    assert 'kos_drill_last_verified_timestamp_seconds{node="n1"} 1767225600' in samples
    assert 'kos_drill_last_verified_timestamp_seconds{node="n2"} 0' in samples
    assert 'kos_drill_recovery_time_seconds{node="n1"} 1.5' in samples
    assert [one for one in samples if "overdue" in one] == [
        'kos_drill_overdue{node="n1"} 1',
        'kos_drill_overdue{node="n3"} 1',
    ]
    assert len(samples) == len(set(samples)) == 16
