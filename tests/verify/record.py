"""Reads what runs of ansible-playbook recorded: which task said what on which host."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Said:
    """What a task said on a host.

    Attributes:
        status: ok, changed, failed, ignored, unreachable or skipped.
        result: The task's result.
    """

    host: str
    task: str
    action: str
    status: str
    result: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run of ansible-playbook.

    Attributes:
        check: Whether it was in check mode.
        said: What the tasks said, in order.
        stats: Counts by host: ok, changed, failures, unreachable, skipped, rescued, ignored.
    """

    playbook: str
    check: bool
    said: tuple[Said, ...]
    stats: dict[str, dict[str, int]]

    def of(self, action: str, host: str | None = None) -> list[Said]:
        """Return what the tasks of an action said, such as kos.fleet.release, on one host or on all."""
        return [one for one in self.said if one.action == action and host in (None, one.host)]

    @property
    def changed(self) -> list[str]:
        """The tasks that changed something, with their hosts."""
        return [f"{one.host}: {one.task}" for one in self.said if one.status == "changed"]


def read(record: Path) -> list[Run]:
    """Return the recorded runs, oldest first."""
    runs = []
    for line in record.read_text().splitlines():
        entry = json.loads(line)
        said = tuple(Said(**one) for one in entry["results"])
        runs.append(Run(entry["playbook"], entry["check"], said, entry["stats"]))
    return runs
