"""What is backed up: the interface that each method implements, and the values that go through it.

A run calls `check`, then holds `prepare` while restic reads the stored paths of the roots. A restore gives
back what was stored, lets the source `rebuild` the live form from it, asks `verify` for findings and takes
the moves of `swap_plan`. Which method has which module is in `methods.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .config import SourceSpec
from .places import Places


@dataclass(frozen=True)
class Root:
    """A file or directory that a snapshot holds.

    Args:
        live: where it lives on the node, absolute.
        stored: where restic reads it, absolute: the live path itself, or a copy elsewhere. What is stored in
            another form (page deltas, a repository) has the live path that `rebuild` makes of it.
    """

    live: Path
    stored: Path


@dataclass(frozen=True)
class Prepared:
    """What a source offers to a run while its context is held.

    Args:
        roots: one or more; no stored path lies within another.
        heads: what a verifier can compare later. A ledger: `length`, `index`, `hash`. A database: `digest`,
            `records` where it can count, `time` of the last change that is in it, and `from` where it can be
            restored to any time from then to `time` (both UTC, `boot.TIME`).
        unstable: paths that may change while they are read; what changes besides is found by the run.
        exclude: patterns (`patterns.py`) besides those of the configuration.
    """

    roots: Sequence[Root]
    heads: Mapping[str, Any] = field(default_factory=dict)
    unstable: Sequence[Path] = ()
    exclude: Sequence[str] = ()


@dataclass(frozen=True)
class Restored:
    """What a restore has beside the live data and has not put in place yet.

    Args:
        roots: `live` as in the snapshot, `stored` where the restored copy is now.
        heads: as the manifest has them.
        scratch: an empty directory on the file system of the live data, for whatever a check wants to write;
            removed afterwards.
        until: the time to restore to, for a source that can; None is the newest that the snapshot has.
    """

    roots: Sequence[Root]
    heads: Mapping[str, Any]
    scratch: Path
    until: datetime | None = None


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        code: for machines: `missing`, `extra`, `differs`, `head`, `integrity`, words with hyphens.
        text: one sentence for a person.
        path: what it is about, where it is a file.
    """

    code: str
    text: str
    path: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "text": self.text, "path": self.path}


@dataclass(frozen=True)
class Move:
    """One rename of a swap: `restored` takes the place of `live`, on the same file system."""

    live: Path
    restored: Path


@dataclass(frozen=True)
class SwapPlan:
    """How restored data becomes live.

    Args:
        moves: done in order.
        services: systemd units that may not run meanwhile; started again afterwards where they ran.
        absent: live paths that may not stay beside the restored data (a write-ahead log of the old
            database): they move away and come back with the old state.
    """

    moves: Sequence[Move]
    services: Sequence[str] = ()
    absent: Sequence[Path] = ()


@dataclass(frozen=True)
class Configured:
    """What a source made of the host before its first run.

    Args:
        changed: files that are other than before.
        restart: systemd unit that has to be restarted before the source can be backed up.
    """

    changed: Sequence[Path] = ()
    restart: str | None = None


class Source(ABC):
    """One source and its method.

    Args:
        spec: its row in backup.json.
        places: of the node.
    """

    def __init__(self, spec: SourceSpec, places: Places) -> None:
        self.spec = spec
        self.places = places

    def configure(self) -> Configured:
        """Make what the source needs before its first run; a second call changes nothing."""
        return Configured()

    def unconfigure(self, *, check: bool) -> Sequence[Path]:
        """Take away what `configure` made of the host, not the backups; returns the files.

        Args:
            check: change nothing.
        """
        return []

    @abstractmethod
    def check(self) -> None:
        """Look whether a run can succeed, and change nothing.

        Raises:
            NotFoundError: the source is not there.
            InputError: it is not what its row says, or lies where no backup of it can be consistent.
        """

    @abstractmethod
    def prepare(self, stage: Path) -> AbstractContextManager[Prepared]:
        """Make the source consistent, and hold only what has to be held while restic reads.

        Args:
            stage: an empty directory of root alone; it is removed after the run.

        Raises:
            KosError: no consistent state could be had; nothing of the source was changed.
        """

    def rank_of(self, path: str) -> str | None:
        """Return the class of an entry where it has another one than its source, else None.

        Args:
            path: as the manifest has it.
        """
        return None

    def rebuild(self, restored: Restored) -> Restored:
        """Turn what was stored into what lives, for methods that store another form.

        Args:
            restored: its stored paths have been compared with the manifest.

        Returns:
            The same with `stored` in the form of `live`, on the same file system; by default unchanged.

        Raises:
            NotFoundError: `until` is not within what the snapshot can give.
            DamagedError: what was stored does not fit together.
        """
        return restored

    def verify(self, restored: Restored) -> list[Finding]:
        """Check what was rebuilt, beyond the manifest, without a write to it or to live data."""
        return []

    def swap_plan(self, restored: Restored) -> SwapPlan:
        """Return how it becomes live; by default each root takes the place of its live path."""
        services = [self.spec.service] if self.spec.service else []
        return SwapPlan([Move(root.live, root.stored) for root in restored.roots], services)

    def went_back(self, before: Mapping[str, Any], prepared: Prepared) -> str | None:
        """Say in a sentence how the source lost what an earlier head proves, or None.

        Args:
            before: heads of the newest snapshot that the witness has of this source.
            prepared: what is about to be backed up.
        """
        return None
