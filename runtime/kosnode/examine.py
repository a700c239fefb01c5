"""Compares what is on disk with what a manifest says, and names each difference."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import disk, files
from .errors import InputError
from .manifest import Entry, FileEntry, LinkEntry, Manifest

TREE = "tree"
UNITS = "units"
UNITS_JSON = "units.json"
DIRECTORY_MODE = 0o555


@dataclass(frozen=True)
class Damage:
    """One thing in a slot that differs from its manifest.

    Args:
        path: relative to the slot, such as `tree/bin/kosd`.
        kind: `missing`, `extra`, `changed`, `mode`, `owner` or `type`.
        detail: what was found, for people.
    """

    path: str
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}{f' ({self.detail})' if self.detail else ''}"

    def as_json(self) -> dict[str, str]:
        return {"path": self.path, "kind": self.kind, "detail": self.detail}


def examine_tree(slot: Path, manifest: Manifest, owner: int) -> list[Damage]:
    """Compare the tree of a slot with a manifest: names, types, modes, owners, links and contents.

    Args:
        slot: holds `tree/`.
        manifest: of the release.
        owner: user id that all of it belongs to.
    """
    return _Examination(slot, manifest, owner).run()


def examine_units(slot: Path) -> list[Damage]:
    """Compare the rendered units of a slot with the digests in units.json, where it has them."""
    try:
        document: Any = files.read_json(slot / UNITS_JSON)
    except FileNotFoundError:
        return []
    except (OSError, InputError) as error:
        return [Damage(UNITS_JSON, "changed", str(error))]
    digests = document.get("files") if isinstance(document, dict) else None
    if not isinstance(digests, dict):
        return []
    folder = slot / UNITS
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    found = [Damage(f"{UNITS}/{name}", "extra") for name in there - digests.keys()]
    for name, wanted in digests.items():
        if name not in there:
            found.append(Damage(f"{UNITS}/{name}", "missing"))
        elif problem := _content_problem(folder / name, wanted):
            found.append(Damage(f"{UNITS}/{name}", "changed", problem))
    return found


def is_good(path: Path, entry: FileEntry, owner: int) -> bool:
    """Tell whether a file has the type, mode, owner and content of an entry."""
    try:
        found = path.lstat()
    except OSError:
        return False
    right = (stat.S_IFREG | entry.permissions, owner, entry.size)
    return (found.st_mode, found.st_uid, found.st_size) == right and not _content_problem(path, entry.sha3)


class _Examination:
    def __init__(self, slot: Path, manifest: Manifest, owner: int) -> None:
        self._slot = slot
        self._manifest = manifest
        self._owner = owner
        self._found: list[Damage] = []

    def run(self) -> list[Damage]:
        there = self._there()
        expected: dict[str, Entry | None] = {TREE: None}
        expected |= {f"{TREE}/{path}": None for path in self._manifest.directories}
        expected |= {f"{TREE}/{entry.path}": entry for entry in self._manifest.files}
        for path in there.keys() - expected.keys():
            self._add(path, "extra", _kind(there[path].st_mode))
        to_hash: list[tuple[str, FileEntry]] = []
        for path, entry in expected.items():
            if path not in there:
                self._add(path, "missing")
            elif entry is None:
                self._compare_directory(path, there[path])
            elif isinstance(entry, LinkEntry):
                self._compare_link(path, entry, there[path])
            elif self._compare_file(path, entry, there[path]):
                to_hash.append((path, entry))
        to_hash.sort(key=lambda item: -item[1].size)
        for path, problem in disk.on_all_cores(self._hash, to_hash):
            if problem:
                self._add(path, "changed", problem)
        return self._found

    def _there(self) -> dict[str, os.stat_result]:
        """Return all that is there, by path relative to the slot."""
        try:
            there = {TREE: (self._slot / TREE).lstat()}
        except FileNotFoundError:
            return {}
        pending = [TREE] if stat.S_ISDIR(there[TREE].st_mode) else []
        while pending:
            directory = pending.pop()
            for path, found in self._names(directory):
                there[path] = found
                if stat.S_ISDIR(found.st_mode):
                    pending.append(path)
        return there

    def _names(self, directory: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(self._slot / directory) as items:
                for item in items:
                    yield f"{directory}/{item.name}", item.stat(follow_symlinks=False)
        except PermissionError:
            # Its mode is damage enough; what is in it counts as missing.
            return

    def _compare_directory(self, path: str, found: os.stat_result) -> None:
        if not stat.S_ISDIR(found.st_mode):
            self._add(path, "type", _kind(found.st_mode))
            return
        self._compare_owner(path, found)
        self._compare_mode(path, DIRECTORY_MODE, found)

    def _compare_link(self, path: str, entry: LinkEntry, found: os.stat_result) -> None:
        if not stat.S_ISLNK(found.st_mode):
            self._add(path, "type", _kind(found.st_mode))
            return
        self._compare_owner(path, found)
        target = os.readlink(self._slot / path)  # noqa: PTH115 (pathlib would tidy it up)
        if target != entry.target:
            self._add(path, "changed", f"leads to {target}")

    def _compare_file(self, path: str, entry: FileEntry, found: os.stat_result) -> bool:
        """Compare all but the content; tell whether that is left to compare."""
        if not stat.S_ISREG(found.st_mode):
            self._add(path, "type", _kind(found.st_mode))
            return False
        self._compare_owner(path, found)
        self._compare_mode(path, entry.permissions, found)
        if found.st_size != entry.size:
            self._add(path, "changed", f"{found.st_size} bytes, not {entry.size}")
            return False
        return True

    def _compare_owner(self, path: str, found: os.stat_result) -> None:
        if found.st_uid != self._owner:
            self._add(path, "owner", f"user {found.st_uid}")

    def _compare_mode(self, path: str, mode: int, found: os.stat_result) -> None:
        if stat.S_IMODE(found.st_mode) != mode:
            self._add(path, "mode", f"{stat.S_IMODE(found.st_mode):04o}, not {mode:04o}")

    def _hash(self, item: tuple[str, FileEntry]) -> tuple[str, str]:
        path, entry = item
        return path, _content_problem(self._slot / path, entry.sha3)

    def _add(self, path: str, kind: str, detail: str = "") -> None:
        self._found.append(Damage(path, kind, detail))


def _content_problem(path: Path, sha3: str) -> str:
    try:
        return "" if disk.digest(path) == sha3 else "another content"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISLNK(mode):
        return "link"
    return "file" if stat.S_ISREG(mode) else "special file"
