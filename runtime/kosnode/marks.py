"""Marks: the highest metadata versions a node has ever believed, and the latest signed time, kept twice.

python-tuf renames without fsync, and forgets what it saw when its files are torn by a power cut or deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tuf.api.metadata import Root

from . import files
from .errors import InputError, TrustError
from .metadata import RELEASES, TIME, Chain

MARKS_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Marks:
    """The highest versions this node has ever believed, and the latest signed time.

    Args:
        sequence: counts the writings.
        versions: for each of ROLES.
        key_ids: who could sign each role when its mark was set.
        floor: the time is at least this.
    """

    sequence: int = 0
    versions: Mapping[str, int] = field(default_factory=dict)
    key_ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    floor: datetime | None = None

    def under(self, root: Root) -> Marks:
        """Return the marks that still count under `root`: those of rotated keys do not.

        A thief of the online key can sign version 2147483647 and a time far ahead. Once the holders of root
        have replaced the key, what it signed must not shut out what its successor signs.
        Source: TUF specification, section 5.3.11 (fast-forward attack).
        """
        rotated = {role for role in ("timestamp", "snapshot", "targets") if self._rotated(role, root)}
        return Marks(
            self.sequence,
            {role: number for role, number in self.versions.items() if role not in rotated},
            {role: ids for role, ids in self.key_ids.items() if role not in rotated},
            None if "timestamp" in rotated else self.floor,
        )

    def _rotated(self, role: str, root: Root) -> bool:
        known = self.key_ids.get(role)
        return known is not None and _replaced(known, root.roles[role].keyids, root.roles[role].threshold)

    def check(self, chain: Chain) -> None:
        """Raise TrustError when any version in `chain` is lower than its mark."""
        counting = self.under(chain.root)
        delegated = chain.targets.get_delegated_role(RELEASES)
        for role, signed in chain.roles().items():
            mark = counting.versions.get(role, 0)
            known = counting.key_ids.get(role)
            if role == RELEASES and known and _replaced(known, delegated.keyids, delegated.threshold):
                continue
            if signed.version < mark:
                raise TrustError(
                    f"rolled back: {role} has version {signed.version}, this node has already seen {mark}"
                )

    def raised_to(self, chain: Chain) -> Marks:
        """Return the marks after `chain` was believed."""
        counting = self.under(chain.root)
        floor = max(counting.floor, chain.issued) if counting.floor else chain.issued
        versions = {role: signed.version for role, signed in chain.roles().items()}
        return Marks(self.sequence, versions, chain.key_ids(), floor)

    def reference(self, now: datetime) -> datetime:
        """Return the time that expiry is measured at: a clock that is behind cannot hold the node back."""
        return max(now, self.floor) if self.floor else now


class MarksFile:
    """The marks on disk, written twice, so that one torn or lost file takes nothing away.

    Args:
        directory: holds `marks.a` and `marks.b`.
    """

    def __init__(self, directory: Path) -> None:
        self.copies = (directory / "marks.a", directory / "marks.b")

    def load(self) -> Marks | None:
        """Return the newest marks that are whole; None where there are none to read."""
        readable = [marks for marks in map(_read_marks, self.copies) if marks]
        return max(readable, key=lambda marks: marks.sequence, default=None)

    def exists(self) -> bool:
        return any(copy.exists() for copy in self.copies)

    def store(self, marks: Marks) -> None:
        """Write both copies, one after the other, each durably; nothing when both say it already."""
        if all(_read_marks(copy) == marks for copy in self.copies):
            return
        body: dict[str, Any] = {
            "format": 1,
            "sequence": marks.sequence + 1,
            "versions": dict(marks.versions),
            "key_ids": {role: list(ids) for role, ids in marks.key_ids.items()},
            "floor": marks.floor.strftime(TIME) if marks.floor else None,
        }
        data = files.canonical({**body, "sha3": _digest(body)})
        for copy in self.copies:
            files.write_durable(copy, data, mode=0o600)


def _replaced(known: Sequence[str], now: Sequence[str], threshold: int) -> bool:
    """Say whether those who could sign then are too few to sign now."""
    return len(set(known) & set(now)) < threshold


def _read_marks(path: Path) -> Marks | None:
    """Return the marks of one copy; None when it is missing, torn or changed."""
    try:
        value = files.read_json(path, limit=MARKS_MAX_BYTES)
        body = {key: item for key, item in value.items() if key != "sha3"}
        if value["sha3"] != _digest(body) or body["format"] != 1:
            return None
        floor = body["floor"]
        return Marks(
            body["sequence"],
            {role: int(number) for role, number in body["versions"].items()},
            {role: tuple(ids) for role, ids in body["key_ids"].items()},
            datetime.strptime(floor, TIME).replace(tzinfo=timezone.utc) if floor else None,
        )
    except PermissionError:
        raise
    except (OSError, InputError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha3_256(b"kos-marks\0" + files.canonical(dict(body))).hexdigest()
