"""Which snapshots may go: by the time they were recorded and a minimum count (K15)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import RefusedError
from .config import Retention
from .restic import Snapshot

# A clock that is wrong by less than this is not a clock that jumped.
SKEW = timedelta(minutes=10)
_UNITS = {"y": timedelta(days=366), "m": timedelta(days=31), "d": timedelta(days=1), "h": timedelta(hours=1)}


@dataclass(frozen=True)
class Verdict:
    """What a rule says of the snapshots of one repository.

    Args:
        keep, remove: in the order of time.
    """

    keep: tuple[Snapshot, ...]
    remove: tuple[Snapshot, ...]


def span(within: str) -> timedelta:
    """Return a duration as the schema allows it; a month has 31 days and a year 366."""
    parts = re.findall(r"(\d+)([ymdh])", within)
    return sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta())


def judge(snapshots: Iterable[Snapshot], rule: Retention, now: datetime) -> Verdict:
    """Say which snapshots stay.

    Of each host and source stay all that are younger than `within`, and the newest `minimum` of the past.
    A snapshot from the future is kept and counts for nothing: whoever can only add must not be able to push
    others out by it.

    Args:
        now: by the clock of this host.

    Raises:
        RefusedError: the clock of this host cannot be right, since most snapshots are of its future.
    """
    everything = sorted(snapshots, key=lambda one: (one.time, one.id))
    future = [one for one in everything if one.time > now + SKEW]
    if len(future) * 2 > len(everything):
        raise RefusedError(
            f"{len(future)} of {len(everything)} snapshots are of the future: the clock of this host is wrong"
        )
    limit = now - span(rule.within)
    keep: list[Snapshot] = list(future)
    remove: list[Snapshot] = []
    for group in _groups(one for one in everything if one not in future):
        newest = group[-rule.minimum :]
        for one in group:
            (keep if one.time >= limit or one in newest else remove).append(one)
    return Verdict(
        tuple(sorted(keep, key=lambda one: (one.time, one.id))),
        tuple(sorted(remove, key=lambda one: (one.time, one.id))),
    )


def _groups(snapshots: Iterable[Snapshot]) -> list[Sequence[Snapshot]]:
    found: dict[tuple[str, str | None], list[Snapshot]] = {}
    for one in snapshots:
        found.setdefault((one.host, one.tag("source")), []).append(one)
    return list(found.values())
