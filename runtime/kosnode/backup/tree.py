"""A tree of files, as it is: nothing holds it still, so what changes meanwhile is said."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError, NotFoundError
from . import patterns
from .places import Places
from .source import Prepared, Root, Source

# What programs that keep folders the same on several hosts leave in them.
_SYNC_MARKS = (
    ".stfolder",
    ".dropbox",
    ".dropbox.cache",
    ".owncloudsync.log",
    ".unison",
    ".sync",
    ".syncthing",
)
_SYNC_BEGINNINGS = (".sync_", "._sync_")


class Tree(Source):
    """Files and directories that are backed up where they are."""

    def check(self) -> None:
        check_path(self.path, self.places, self.spec.name)
        excluded = patterns.matcher(patterns.anchored(self.spec.exclude, [self.path]))
        if excluded(os.fspath(self.path)):
            raise InputError(f"source {self.spec.name} is left out by a pattern of its own", key="exclude")
        if self.path.is_file() and self.path.stat().st_size == 0:
            raise InputError(
                f"source {self.spec.name}: {self.path} is empty, as the dump of a command that failed is",
                key=f"sources.{self.spec.name}.path",
            )

    @contextlib.contextmanager
    def prepare(self, stage: Path) -> Iterator[Prepared]:
        self.check()
        yield Prepared([Root(self.path, self.path)])

    @property
    def path(self) -> Path:
        """Where it is; the schema asks for it."""
        assert self.spec.path is not None, "the table is checked when it is read"
        return self.spec.path


def check_path(path: Path, places: Places, name: str) -> None:
    """Look whether a path can be a source.

    Raises:
        NotFoundError: it is not there.
        InputError: it goes through a link, holds the backup's memory, or lies in a synchronised folder.
    """
    if not os.path.lexists(path):
        raise NotFoundError(f"source {name}: {path} is not there", key=f"sources.{name}.path")
    real = path.resolve()
    if real != path:
        raise InputError(
            f"source {name}: {path} goes through a link; name {real} instead", key=f"sources.{name}.path"
        )
    if path == places.var or path in places.var.parents or places.var in path.parents:
        raise InputError(
            f"source {name}: {path} holds the memory of the backups themselves, {places.var}",
            key=f"sources.{name}.path",
        )
    mark = sync_mark(path)
    if mark is not None:
        raise InputError(
            f"source {name}: {path} lies in a folder that another program synchronises ({mark}); "
            "what it brings meanwhile would be backed up half",
            key=f"sources.{name}.path",
        )


def sync_mark(path: Path) -> Path | None:
    """Return what shows that a path lies in a synchronised folder, or None (K12)."""
    for folder in (path, *path.parents):
        for mark in _SYNC_MARKS:
            if os.path.lexists(folder / mark):
                return folder / mark
        try:
            found = next((one for one in folder.iterdir() if one.name.startswith(_SYNC_BEGINNINGS)), None)
        except OSError:
            continue
        if found is not None:
            return found
    return None
