"""The data directory as a whole: made, brought to another version on a copy, put back; never half of either.

What is new is made beside the data directory, on the same file system, and takes its place by a rename once
it has been verified. The one before stays until the new version has been seen to work.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from .. import files, ledger
from ..errors import DamagedError, DiskError, InputError, KosError
from ..host import Change, Owned, System, remove_tree
from . import layout
from .application import ACCOUNT, Application

_RESERVE_BYTES = 64 << 20
_VERSION = re.compile(r"^\W*\w*version\W*([0-9]+\.[0-9]+\.[0-9]+)", re.MULTILINE)


@dataclass(frozen=True)
class Copies:
    """The directories beside a data directory.

    Args:
        data: the data directory.
    """

    data: Path

    @property
    def next(self) -> Path:
        """Holds what is being made; a folder of its own, since the application makes its directory itself."""
        return self.data.with_name(f".{self.data.name}.next")

    @property
    def before(self) -> Path:
        """The data directory as it was, until what came after has been seen to work."""
        return self.data.with_name(f".{self.data.name}.before")

    @property
    def failed(self) -> Path:
        """A data directory that was given up although blocks had been written to it."""
        return self.data.with_name(f"{self.data.name}.failed")


@dataclass(frozen=True)
class Private:
    """Nothing in a folder can be read by others, and all of it is the application's (K04)."""

    path: Path

    def plan(self, system: System) -> list[Change]:
        wrong = self._wrong(system) if self.path.is_dir() else []
        return [Change(f"take {len(wrong)} paths in {self.path} from other accounts")] if wrong else []

    def apply(self, system: System) -> None:
        owned = Owned(ACCOUNT, ACCOUNT)
        ids = owned.ids(system)
        if ids is None:
            raise KosError(f"account {ACCOUNT} is not there")
        for path in self._wrong(system):
            system.chown(path, *ids)
            if not path.is_symlink():
                path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700 | (0o700 if path.is_dir() else 0o600))

    def _wrong(self, system: System) -> list[Path]:
        ids = Owned(ACCOUNT, ACCOUNT).ids(system)
        return [path for path in (self.path, *_tree(self.path)) if _is_wrong(path, ids, system)]


def version_of(data: Path) -> str:
    """Return the version that a data directory is of.

    Raises:
        InputError: it does not say.
    """
    found = _VERSION.search((data / layout.META).read_text("utf-8", "replace"))
    if found is None:
        raise InputError(f"{data / layout.META} names no version", key="data")
    return found[1]


def make(copies: Copies, application: Application, system: System) -> None:
    """Make a data directory where there is none.

    Raises:
        KosError: the application made none, or one that is not whole; nothing is left of it.
    """
    try:
        new = _begin(copies, system)
        application.initialise(new)
        _require_whole(new, application)
        if copies.data.is_dir():
            copies.data.rmdir()
        new.rename(copies.data)
        files.fsync_directory(copies.data.parent)
    finally:
        remove_tree(copies.next)


def upgrade(copies: Copies, application: Application, version: str, system: System) -> str:
    """Bring a data directory to the version of an application; the server may not run meanwhile.

    Returns:
        The application's words: what its preview said, and what was done.

    Raises:
        DiskError: there is no room for a copy.
        KosError: it did not work on the copy, which is all that was touched.
    """
    head = ledger.head(layout.ledger(copies.data))
    try:
        new = _begin(copies, system)
        # Owners, modes, times and links as they are; shutil keeps no owner.
        system.run(["cp", "--archive", "--no-target-directory", str(copies.data), str(new)])
        # Of a node that was made by hand it may be another account's.
        Private(new).apply(system)
        words = application.preview(new) + "\n" + application.upgrade(new)
        if version_of(new) != version:
            raise KosError(f"upgrade --apply left the data at {version_of(new)}: {words[-300:]}")
        _require_whole(new, application)
        if not ledger.compare(layout.ledger(new), ledger.anchor_of(head)).continues:
            raise DamagedError("the upgraded ledger does not go on from what was there before")
        os.sync()
        copies.data.rename(copies.before)
        new.rename(copies.data)
        files.fsync_directory(copies.data.parent)
    finally:
        remove_tree(copies.next)
    return words


def put_back(copies: Copies, sealed: ledger.Head | None) -> str:
    """Put the data directory back as it was before; return what a person has to know of it.

    Args:
        copies: where it is.
        sealed: head of the ledger when the new data took its place. What was written since is kept.
    """
    told = ""
    if copies.data.is_dir():
        now = ledger.verify(layout.ledger(copies.data))
        if sealed is None or (now.head and now.head.index > sealed.index):
            remove_tree(copies.failed)
            copies.data.rename(copies.failed)
            told = f"; blocks that were written meanwhile are kept in {copies.failed}"
        else:
            remove_tree(copies.data)
    copies.before.rename(copies.data)
    files.fsync_directory(copies.data.parent)
    return told


def require_room(data: Path) -> None:
    """Raise DiskError where there is no room for a copy beside a data directory."""
    size = sum(path.lstat().st_size for path in _tree(data))
    missing = size + _RESERVE_BYTES - shutil.disk_usage(data.parent).free
    if missing > 0:
        raise DiskError(f"a safety copy of {data} needs {missing} bytes more than there are in {data.parent}")


def _begin(copies: Copies, system: System) -> Path:
    remove_tree(copies.next)
    copies.next.mkdir(mode=0o700)
    Owned(ACCOUNT, ACCOUNT, 0o700).give(copies.next, system)
    return copies.next / "data"


def _require_whole(data: Path, application: Application) -> None:
    found = ledger.verify(layout.ledger(data))
    head = found.require_ok()
    said = application.chain_verify(data)
    if not said.ok or said.length != head.length:
        raise DamagedError(f"chain_verify: {said.text}; the ledger has {head.length} blocks")


def _tree(folder: Path) -> list[Path]:
    return [Path(parent) / name for parent, names, inside in os.walk(folder) for name in (*names, *inside)]


def _is_wrong(path: Path, ids: tuple[int, int] | None, system: System) -> bool:
    shared = not path.is_symlink() and path.stat().st_mode & 0o077
    return bool(shared) or system.owner(path) != ids
