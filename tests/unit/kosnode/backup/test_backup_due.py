"""What a run by the timer takes, so that no source is older than its interval (M11)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from kosnode import boot
from kosnode.backup import due
from kosnode.backup.config import SourceSpec
from kosnode.backup.host_units import jobs

NOW = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
HOUR_S, DAY_S = 3600, 86_400


def source(name: str, interval_s: int) -> SourceSpec:
    return SourceSpec(name, "high", "tree", interval_s=interval_s)


def ran(name: str, ago_s: int, *, ok: bool = True) -> dict[str, Any]:
    return {"kind": "run", "source": name, "time": boot.text(NOW - timedelta(seconds=ago_s)), "ok": ok}


def names(sources: list[SourceSpec], *entries: dict[str, Any]) -> list[str]:
    return [spec.name for spec in due.of(sources, entries, NOW)]


def test_a_source_that_never_succeeded_is_due() -> None:
    assert names([source("a", DAY_S)]) == ["a"]
    assert names([source("a", DAY_S)], ran("a", 60, ok=False)) == ["a"]


def test_where_all_have_one_interval_each_run_takes_all() -> None:
    sources = [source("a", DAY_S), source("b", DAY_S)]
    assert names(sources, ran("a", 20 * HOUR_S), ran("b", 60)) == ["a", "b"]


@pytest.mark.parametrize(("hours", "is_due"), [(1, False), (22, False), (23.5, True), (40, True), (-1, True)])
def test_one_that_may_be_older_waits_until_it_would_be_too_old_at_the_next_time(
    hours: float, is_due: bool
) -> None:
    sources = [source("often", HOUR_S), source("daily", DAY_S)]
    taken = names(sources, ran("often", 3000), ran("daily", int(hours * HOUR_S)))
    assert taken == ["often", *(["daily"] if is_due else [])]


def test_a_failure_after_a_success_changes_nothing() -> None:
    sources = [source("often", HOUR_S), source("daily", DAY_S)]
    entries = [ran("often", 3000), ran("daily", 2 * HOUR_S), ran("daily", HOUR_S, ok=False)]
    assert names(sources, *entries) == ["often"]


def test_the_timer_follows_an_interval_below_a_day_and_its_calendar_above() -> None:
    often = jobs({"run": "daily", "check": "weekly"}, 600)
    assert "OnUnitInactiveSec=480\n" in often["kos-backup.timer"]
    assert "RandomizedDelaySec=60\n" in often["kos-backup.timer"]
    assert "OnUnitInactiveSec" not in often["kos-backup-check.timer"]
    assert "OnUnitInactiveSec" not in jobs({"run": "daily"})["kos-backup.timer"]
    assert "backup run --due --json\n" in often["kos-backup.service"]
