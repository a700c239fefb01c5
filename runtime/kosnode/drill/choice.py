"""What a drill leaves to chance, all of it by its seed: sources, points in time, and what is damaged."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from .. import boot
from ..backup.config import CLASSES, SourceSpec
from ..errors import InputError

CRITICAL, SKIP = CLASSES[0], CLASSES[-1]

T = TypeVar("T")


@dataclass(frozen=True)
class Chance:
    """Draws that come out the same for the same seed, each whatever else was drawn.

    Args:
        seed: of the request.
        node: whose drill it is, so that one seed for many nodes does not draw the same for each.
    """

    seed: str
    node: str

    def of(self, what: str) -> random.Random:
        """Return the draws for one purpose."""
        return random.Random(f"{self.seed}\n{self.node}\n{what}")

    def one(self, what: str, among: Sequence[T]) -> T:
        """Draw one of several."""
        return self.of(what).choice(among)


def sources(
    table: Sequence[SourceSpec], wanted: Sequence[str] | None, chance: Chance
) -> tuple[list[SourceSpec], list[str]]:
    """Choose which sources are drilled.

    Returns:
        Those that are: as wanted, else all critical ones and one of each other class. And the names of those
        that are backed up and are not drilled.

    Raises:
        InputError: one that is wanted is not backed up.
    """
    backed_up = [spec for spec in table if spec.rank != SKIP]
    if wanted is not None:
        known = {spec.name: spec for spec in backed_up}
        for name in wanted:
            if name not in known:
                raise InputError(f"no source that is backed up is called {name}", key="sources")
        drilled = [known[name] for name in wanted]
    else:
        drilled = [spec for spec in backed_up if spec.rank == CRITICAL]
        for rank in CLASSES:
            of_class = [spec for spec in backed_up if spec.rank == rank]
            if rank not in (CRITICAL, SKIP) and of_class:
                drilled.append(chance.one(f"source of class {rank}", of_class))
    names = {spec.name for spec in drilled}
    return drilled, [spec.name for spec in backed_up if spec.name not in names]


def moment(heads: Mapping[str, Any], chance: Chance, source: str) -> datetime | None:
    """Choose a time before its newest that a snapshot of a database can be taken back to; None has none."""
    try:
        first, last = boot.moment(heads["from"]), boot.moment(heads["time"])
    except (KeyError, TypeError, ValueError):
        return None
    seconds = int((last - first).total_seconds())
    if seconds < 1:
        return None
    return first + timedelta(seconds=chance.of(f"time of {source}").randrange(seconds))
