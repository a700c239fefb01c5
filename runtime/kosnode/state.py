"""Copies of the state of units that a release migrates, made before it touches them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from . import files
from .errors import DiskError, KosError
from .paths import NodePaths

_BLOCK = 1 << 24


def copy_before(paths: NodePaths, release_root: str, units: Sequence[str]) -> None:
    """Copy the state of stopped units to `state-before/R`, whole and durably, by one rename at the end.

    A unit without state gets a marker `UNIT.none`. `fallback` puts the copies back.

    Args:
        paths: of the node.
        release_root: of the release that migrates.
        units: kOS names.

    Raises:
        OSError: the disk is full or broken; what was copied so far is removed by the next `drop`.
        KosError: the state lies on a file system of its own, where a rename cannot bring it back.
    """
    if not units:
        return
    new = paths.state_before / f"{release_root}.new"
    final = paths.state_before / release_root
    for path in (new, final):
        remove_tree(path)
    new.mkdir(parents=True)
    new.chmod(0o700)
    for unit in units:
        source = paths.state / unit
        if not source.exists():
            (new / f"{unit}.none").touch()
            continue
        if source.stat().st_dev != new.stat().st_dev:
            raise KosError(
                f"{source} and {new} are on different file systems: a migration cannot be taken back"
            )
        copy_tree(source, new / unit)
    files.fsync_directory(new)
    new.replace(final)
    files.fsync_directory(paths.state_before)


def size(paths: NodePaths, units: Sequence[str]) -> int:
    """Return the bytes that a copy of the units' state takes at most."""
    total = 0
    for unit in units:
        for folder, _, names in os.walk(paths.state / unit):
            for name in names:
                # The unit runs, and may remove what it has just made.
                with contextlib.suppress(FileNotFoundError):
                    total += (Path(folder) / name).lstat().st_size
    return total


def check_room(paths: NodePaths, units: Sequence[str], reserve: int) -> tuple[int, int]:
    """Return bytes needed and bytes free for a copy of the units' state.

    Raises:
        DiskError: names the bytes that are missing, the reserve included.
    """
    needed = size(paths, units)
    free = shutil.disk_usage(paths.var).free
    if needed + (reserve if needed else 0) > free:
        missing = needed + reserve - free
        raise DiskError(
            f"copying the state of {', '.join(units)} takes {needed} bytes and {reserve} stay in reserve: "
            f"{missing} bytes are missing",
            detail={"needed": needed, "free": free},
        )
    return needed, free


def drop(paths: NodePaths, *, keep: str | None = None) -> None:
    """Remove copies that no running trial needs.

    Args:
        paths: of the node.
        keep: root of the release on trial.
    """
    if paths.state_before.is_dir():
        for path in paths.state_before.iterdir():
            if path.name != keep:
                remove_tree(path)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree with owners, modes and times, and fsync all of it.

    Blocks are shared where the file system can (copy_file_range(2)). Sockets and pipes are left out: nobody
    listens at a copy.
    """
    status = source.lstat()
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(source.readlink())
        os.lchown(target, status.st_uid, status.st_gid)
        return
    if stat.S_ISREG(status.st_mode):
        _copy_file(source, target, status)
        return
    if not stat.S_ISDIR(status.st_mode):
        return
    target.mkdir()
    for child in source.iterdir():
        copy_tree(child, target / child.name)
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    files.fsync_directory(target)


def remove_tree(path: Path) -> None:
    """Remove a file or a tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy_file(source: Path, target: Path, status: os.stat_result) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), _BLOCK):
                pass
        except OSError:
            # Not every file system can; what it did copy stays, and the positions of both files say how far.
            reader.seek(os.lseek(reader.fileno(), 0, os.SEEK_CUR))
            shutil.copyfileobj(reader, writer, _BLOCK)
        os.fchown(writer.fileno(), status.st_uid, status.st_gid)
        os.fchmod(writer.fileno(), stat.S_IMODE(status.st_mode))
        writer.flush()
        os.utime(writer.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(writer.fileno())
