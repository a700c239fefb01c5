"""Retention: by recorded time and a minimum count, and never by what an intruder can only add (K15, K18)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from kosnode.backup import retention
from kosnode.backup.config import Retention
from kosnode.backup.restic import Snapshot
from kosnode.errors import RefusedError

NOW = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)


def snapshot(age_d: float, source: str = "files", host: str = "n1") -> Snapshot:
    name = f"{host}-{source}-{age_d}"
    return Snapshot(name, NOW - timedelta(days=age_d), host, ("kos", f"run={name}", f"source={source}"), ())


def ages(found: tuple[Snapshot, ...]) -> list[float]:
    return sorted((NOW - one.time).total_seconds() / 86_400 for one in found)


def test_of_35_daily_snapshots_30_days_stay() -> None:
    verdict = retention.judge(map(snapshot, range(35)), Retention("30d", 7), NOW)
    assert ages(verdict.keep) == list(range(31))
    assert ages(verdict.remove) == [31, 32, 33, 34]


def test_of_snapshots_that_are_all_old_the_newest_stay() -> None:
    verdict = retention.judge(map(snapshot, range(100, 110)), Retention("1d", 3), NOW)
    assert ages(verdict.keep) == [100, 101, 102]


def test_each_source_of_each_host_has_its_own_minimum() -> None:
    old = [snapshot(200 + n, source, host) for n in range(3) for source in "ab" for host in ("n1", "n2")]
    verdict = retention.judge(old, Retention("1h", 1), NOW)
    assert len(verdict.keep) == 4
    assert ages(verdict.keep) == [200] * 4


def test_snapshots_from_the_future_push_nothing_out_and_stay_themselves() -> None:
    real = [snapshot(age) for age in (40, 50, 60, 70)]
    future = [snapshot(-1000), snapshot(-2000)]
    verdict = retention.judge([*real, *future], Retention("30d", 2), NOW)
    assert ages(verdict.keep) == [-2000, -1000, 40, 50]


def test_by_a_clock_that_went_back_nothing_is_removed() -> None:
    with pytest.raises(RefusedError, match="the clock of this host is wrong"):
        retention.judge(map(snapshot, range(35)), Retention("1d", 1), NOW - timedelta(days=3650))


def test_by_a_clock_that_went_ahead_the_minimum_stays() -> None:
    verdict = retention.judge(map(snapshot, range(35)), Retention("30d", 7), NOW + timedelta(days=3650))
    assert ages(verdict.keep) == list(range(7))


def test_nothing_is_made_of_nothing() -> None:
    assert retention.judge([], Retention(), NOW) == retention.Verdict((), ())


@pytest.mark.parametrize(
    ("text", "days"), [("30d", 30), ("1y", 366), ("2m", 62), ("36h", 1.5), ("1y2m3d4h", 366 + 62 + 3 + 1 / 6)]
)
def test_durations_are_those_of_restic(text: str, days: float) -> None:
    assert retention.span(text) == timedelta(days=days)
