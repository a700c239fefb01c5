"""What a benchmark reports: a figure beside that of a named peer from the same run, and its goal."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/bench"
RESULTS = ROOT / "build/bench.json"

_GOAL = re.compile(r"(?P<side>at most|at least) (?P<bound>[0-9.]+) (?P<unit>.+?)(?P<relative> of the peer)?")


@dataclass(frozen=True)
class Goal:
    """A bound of a figure.

    Attributes:
        text: `at most 0.5 % of the peer` or `at least 0.8 x of the peer`; `at most 256 MB` bounds the figure
            itself.
    """

    text: str

    def __post_init__(self) -> None:
        if not _GOAL.fullmatch(self.text):
            raise ValueError(
                f"{self.text!r} is not a goal, such as 'at most 1.3 x of the peer' or 'at most 12 s'"
            )

    @property
    def _parts(self) -> re.Match[str]:
        found = _GOAL.fullmatch(self.text)
        assert found is not None
        return found

    @property
    def relative(self) -> bool:
        """Whether it bounds the ratio to the peer, and not the figure."""
        return self._parts["relative"] is not None

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self._parts["side"] == "at least"

    @property
    def bound(self) -> float:
        """The bound, as a ratio or in the figure's unit."""
        return float(self._parts["bound"]) / (100 if self.relative and self._parts["unit"] == "%" else 1)

    def met_by(self, value: float, ratio: float | None) -> bool:
        """Tell whether a figure meets it; a relative goal needs the ratio."""
        measured = value if not self.relative else ratio
        if measured is None:
            raise ValueError(f"{self.text!r} needs a peer")
        return measured >= self.bound if self.at_least else measured <= self.bound


@dataclass(frozen=True)
class Figure:
    """One row of build/bench.json.

    Attributes:
        name: What was measured; several rows have it where there are several peers.
        value: Our figure, the median where it was measured several times.
        unit: Unit of `value` and `peer_value`.
        peer: What it is compared with, measured in the same run; empty where nothing compares.
        peer_value: The peer's figure, in the same unit.
        goal: What it is held to, in the words of `Goal`; empty where nothing was set.
    """

    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """Our figure divided by the peer's."""
        return self.value / self.peer_value if self.peer_value else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        return Goal(self.goal).met_by(self.value, self.ratio) if self.goal else None

    def row(self, command: str) -> dict[str, object]:
        """Return the row as it stands in build/bench.json, with the command that measures it again."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "peer": self.peer,
            "peer_value": None if self.peer_value is None else _rounded(self.peer_value),
            "ratio": None if self.ratio is None else _rounded(self.ratio),
            "goal": self.goal,
            "met": self.met,
            "command": command,
        }


def median(measure: Callable[[], float], rounds: int) -> float:
    """Return the median of several measurements."""
    return statistics.median(measure() for _ in range(rounds))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not pass (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def write(figures: Iterable[Figure], command: str, path: Path = RESULTS) -> None:
    """Put the rows that a command measured into build/bench.json, in place of its earlier ones."""
    rows = [row for row in read(path) if row["command"] != command]
    rows += [figure.row(command) for figure in figures]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def read(path: Path = RESULTS) -> list[dict[str, object]]:
    """Return the rows of build/bench.json; none where there is no such file."""
    rows: list[dict[str, object]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return rows


def _rounded(value: float) -> float:
    """Return a value with four digits that count, and whole where it is a count."""
    return value if value == int(value) else float(f"{value:.4g}")
