"""Seed and rounds of the fault tests, and what they found: a row for each test, for build/faults.json."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SEED = int(os.environ.get("KOS_SEED") or random.SystemRandom().randrange(2**32))
# Workers of pytest that this process starts take the same.
os.environ["KOS_SEED"] = str(SEED)
ROUNDS = int(os.environ.get("KOS_ROUNDS", "1"))
FILE = Path(__file__).resolve().parents[2] / "build/faults.json"


@dataclass
class Row:
    """One kind of fault.

    Attributes:
        name: what the test says, in words.
        lane: where it runs.
        runs: how often the fault was brought about.
        lost: in how many of these something good was lost.
        healthy_s_max: the longest it took from the fault until a good release ran well, in seconds.
        command: runs the same again.
    """

    name: str
    command: str
    lane: str
    runs: int = 0
    lost: int = 0
    healthy_s_max: float | None = None

    def count(self, healthy_s: float | None = None) -> None:
        """Count one fault that the node got over, and how long that took."""
        self.runs += 1
        self.seen(healthy_s)

    def seen(self, healthy_s: float | None) -> None:
        """Keep the longest time."""
        if healthy_s is not None:
            self.healthy_s_max = max(self.healthy_s_max or 0.0, round(healthy_s, 1))


class Rows:
    """The rows of one run of pytest."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def of(self, test: str, command: str, lane: str) -> Row:
        """Return the row of a test function, `test_a_node_does_this`."""
        name = test.removeprefix("test_").replace("_", " ")
        return self._rows.setdefault(name, Row(name, command, lane))

    def known(self) -> list[dict[str, Any]]:
        """Return the rows of tests that brought something about."""
        return [asdict(row) for row in self._rows.values() if row.runs or row.lost]

    def add(self, found: Iterable[dict[str, Any]]) -> None:
        """Add what another worker of this run has found."""
        for one in (Row(**row) for row in found):
            row = self._rows.setdefault(one.name, Row(one.name, one.command, one.lane))
            row.runs += one.runs
            row.lost += one.lost
            row.seen(one.healthy_s_max)

    def write(self, *, whole: Collection[str]) -> None:
        """Write the file, if there is something to write.

        Args:
            whole: lanes of which every test ran; of the others the rows of tests that did not run stay.
        """
        rows = {row["name"]: row for row in self.known()}
        if not rows:
            return
        if FILE.exists():
            before = json.loads(FILE.read_text())
            rows = {**{row["name"]: row for row in before if row["lane"] not in whole}, **rows}
        FILE.parent.mkdir(parents=True, exist_ok=True)
        # In the place of the old file, which may be root's.
        new = FILE.with_suffix(".new")
        new.write_text(json.dumps([rows[name] for name in sorted(rows)], indent=2) + "\n")
        new.replace(FILE)
