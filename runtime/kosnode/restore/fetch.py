"""Brings the roots of a snapshot into folders, with their owners, and compares them with the manifest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..backup import manifest
from ..backup.manifest import Entry, Manifest
from ..backup.restic import Restic
from ..backup.source import Finding, Root
from ..errors import DiskError, InputError
from .compare import Owners, Whereabouts, compare


def places_in(listed: Manifest, folder_of: Callable[[Root], Path]) -> list[Root]:
    """Return where each root of a snapshot goes.

    Args:
        folder_of: gives the staging folder of a root.

    Returns:
        Roots with the stored path of the manifest as `live`, and the path that it will have as `stored`.
        Those of one directory lie together, and others apart, since they may have the same name.
    """
    parents = list(dict.fromkeys(root.stored.parent for root in listed.roots))
    return [
        Root(root.stored, folder_of(root) / str(parents.index(root.stored.parent)) / root.stored.name)
        for root in listed.roots
    ]


def check_room(entries: Sequence[Entry], places: Sequence[Root], reserve: int) -> None:
    """Look whether the file systems have room for what is to come.

    What is there already, from a restore that was interrupted, is counted.

    Raises:
        DiskError: names the bytes that are missing.
    """
    needed: dict[int, list[int]] = {}
    where: dict[int, Path] = {}
    for place in places:
        folder = next(one for one in place.stored.parents if one.is_dir())
        device = folder.stat().st_dev
        where[device] = folder
        there = size_of(place.stored)
        inside = Whereabouts([place])
        of_place = sum(entry.size for entry in entries if entry.size and inside.of(entry.path) is not None)
        needed.setdefault(device, []).append(max(0, of_place - there))
    for device, parts in needed.items():
        free = shutil.disk_usage(where[device]).free
        missing = sum(parts) + reserve - free
        if missing > 0:
            raise DiskError(
                f"{where[device]}: the restore takes {sum(parts)} bytes and {reserve} stay in reserve: "
                f"{missing} bytes are missing",
                detail={"needed": sum(parts), "free": free},
            )


def size_of(path: Path) -> int:
    """Return the bytes of the files below a path; 0 where it is not there."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size if os.path.lexists(path) else 0
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names)


def fetch(
    restic: Restic,
    snapshot: str,
    entries: Sequence[Entry],
    places: Sequence[Root],
    *,
    only: Sequence[str] = (),
) -> None:
    """Bring back roots of a snapshot; what is there already from a call that was interrupted stays.

    Args:
        entries: what comes back.
        places: as `places_in` gives them.
        only: encoded paths below the roots; empty takes all.

    Raises:
        KosError: not all of it came back.
    """
    together: dict[tuple[Path, Path], list[Root]] = {}
    for place in places:
        together.setdefault((place.live.parent, place.stored.parent), []).append(place)
    for (parent, target), group in together.items():
        where = Whereabouts(group)
        inside = [path for path in only if where.of(path) is not None]
        if only and not inside:
            continue
        target.mkdir(mode=0o711, parents=True, exist_ok=True)
        wanted = [Path(os.fsdecode(b"/" + manifest.decode(path))) for path in inside]
        of_group = [entry for entry in entries if where.of(entry.path) is not None]
        restic.restore(
            snapshot,
            parent,
            target,
            include=[path.relative_to(parent) for path in wanted or [place.live for place in group]],
            total=(len(of_group), sum(entry.size for entry in of_group)),
        )


def settle(listed: Manifest, entries: Sequence[Entry], places: Sequence[Root]) -> list[Finding]:
    """Give what came back to its owners on this host, and compare it with the manifest."""
    owners = Owners.of(entries)
    if owners.moved:
        owners.give(entries, places)
    return compare(listed, places, entries, owners)


def below(listed: Manifest, paths: Sequence[str]) -> list[Entry]:
    """Return the entries that are one of the encoded paths or lie below one; all where there is none.

    Raises:
        InputError: the manifest has no such path.
    """
    if not paths:
        return list(listed.entries)
    for path in paths:
        if not any(manifest.below([path], entry.path) for entry in listed.entries):
            raise InputError(f"path: run {listed.run} has no /{path}", key="path")
    return [entry for entry in listed.entries if manifest.below(paths, entry.path)]
