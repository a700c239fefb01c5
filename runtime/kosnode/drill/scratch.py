"""The directory of one drill: kept away from production, always removed, also after one that was killed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .. import disk, files
from ..errors import DiskError, InputError
from .places import DrillPlaces

ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")


@dataclass(frozen=True)
class Scratch:
    """The directory of one drill.

    Args:
        places: of the host.
        base: in which it lies.
        id: of the drill, and its name.
    """

    places: DrillPlaces
    base: Path
    id: str

    @property
    def path(self) -> Path:
        return self.base / self.id

    def check(self, production: Iterable[Path]) -> None:
        """Refuse a place that has to do with what is drilled.

        Args:
            production: absolute paths, of the drilled node; the host may be another one, or not.

        Raises:
            InputError: scratch lies in one of them, or one of them in scratch.
        """
        here = self.base.resolve()
        for path in production:
            there = path.resolve()
            if here == there or there in here.parents or here in there.parents:
                raise InputError(
                    f"scratch: {self.base} and {path}, which is production, lie within one another",
                    key="scratch",
                )
        if os.path.lexists(self.base) and not self.base.is_dir():
            raise InputError(f"scratch: {self.base} is no directory", key="scratch")

    def make(self) -> None:
        """Make it; where it is stands on the disk before it is there."""
        self.base.mkdir(mode=0o711, parents=True, exist_ok=True)
        files.write_durable(
            self.places.open, files.canonical({"id": self.id, "base": os.fspath(self.base)}), mode=0o600
        )
        # Accounts of databases pass through.
        self.path.mkdir(mode=0o711)

    def remove(self) -> list[str]:
        """Remove all that the drill made; returns what is left, which is nothing."""
        left = []
        for path in (self.path, self.places.sockets):
            try:
                disk.remove(path)
            except OSError as error:
                left.append(f"{path}: {error.strerror}")
        if not left:
            self.places.open.unlink(missing_ok=True)
        return left


def remove_killed(places: DrillPlaces) -> list[str]:
    """Remove what a drill left that was killed; returns its id, and what could not be removed as an error.

    The caller holds the lock of the drills, so that none is under way.

    Raises:
        InputError: what says where it was cannot be read.
        DiskError: it cannot be removed.
    """
    for path in places.var.glob(f".{places.open.name}.*"):
        # What was being written when it was killed.
        path.unlink()
    try:
        found = files.read_json(places.open)
    except FileNotFoundError:
        return []
    if not isinstance(found, dict) or not ID.fullmatch(str(found.get("id"))) or "base" not in found:
        raise InputError(f"{places.open}: does not say where a drill was", key="scratch")
    killed = Scratch(places, Path(str(found["base"])), str(found["id"]))
    left = killed.remove()
    if left:
        raise DiskError(f"what drill {killed.id} left cannot be removed: {left[0]}")
    return [killed.id]


def check_room(path: Path, needed: int, reserve: int) -> None:
    """Look whether scratch has room.

    Raises:
        DiskError: names the bytes that are missing.
    """
    missing = needed + reserve - shutil.disk_usage(path).free
    if missing > 0:
        raise DiskError(
            f"{path}: the drill takes {needed} bytes and {reserve} stay in reserve: "
            f"{missing} bytes are missing",
            detail={"needed": needed},
        )
