"""What a release is: release.json, read strictly, or made from a directory.

A manifest lists each file and link with its hash and commits to all it says by the release root. What
`Manifest.parse` lets through is safe to extract: no path leaves the tree, none hides another.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from . import files, merkle, schema
from .errors import InputError
from .version import Range, Version

MAX_BYTES = files.MAX_JSON_BYTES
MAX_TREE_BYTES = 64 * 2**30
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
WHERE = "release.json"
READ_BYTES = 1024 * 1024
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
# Control characters, surrogates, and what this Python's Unicode does not know: it could not fold their case.
_REFUSED_CATEGORIES = ("Cc", "Cs", "Cn")
# What `build` writes where it is told nothing.
_ABSENT: dict[str, Any] = {
    "arch": "any",
    "compat": {},
    "migrations": [],
    "sync_risk": "none",
    "breaking": [],
    "behavioral": False,
    "health": [],
}
_DERIVED = ("format", "files", "tree", "root")


@dataclass(frozen=True)
class FileEntry:
    """A file of a release.

    Args:
        path: relative to the tree, with `/`.
        mode: `0444` or `0555`.
        size: in bytes.
        sha3: SHA3-256 of the content, hex.
    """

    path: str
    mode: str
    size: int
    sha3: str

    @property
    def permissions(self) -> int:
        """The mode as a number."""
        return int(self.mode, 8)

    def as_json(self) -> dict[str, Any]:
        return {"path": self.path, "type": "file", "mode": self.mode, "size": self.size, "sha3": self.sha3}

    def hash(self) -> bytes:
        return merkle.file_hash(self.mode, self.size, bytes.fromhex(self.sha3))


@dataclass(frozen=True)
class LinkEntry:
    """A symbolic link of a release.

    Args:
        path: relative to the tree, with `/`.
        target: relative to the link's directory, inside the tree.
    """

    path: str
    target: str

    def as_json(self) -> dict[str, Any]:
        return {"path": self.path, "type": "link", "target": self.target}

    def hash(self) -> bytes:
        return merkle.link_hash(self.target)


Entry = FileEntry | LinkEntry


@dataclass(frozen=True)
class Manifest:
    """A release.json that was found valid; make one by `parse` or `build`.

    Args:
        document: the value of release.json. Nobody changes it.
        files: its entries, sorted by the bytes of their paths.
    """

    document: Mapping[str, Any] = field(repr=False)
    files: tuple[Entry, ...] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a release.json.

        Args:
            data: canonical JSON, at most `MAX_BYTES`.

        Raises:
            InputError: the first rule that is broken; names key and rule.
        """
        document = files.parse(data, limit=MAX_BYTES, what=WHERE)
        manifest = cls._checked(document)
        if files.canonical(document) != data:
            raise InputError(
                f"{WHERE} is not canonical JSON: sorted keys, no white space, no newline at the end"
            )
        for key, computed in _hashes(document, manifest.files).items():
            if document[key] != computed:
                schema.refuse(WHERE, key, f"is not the hash of what {WHERE} says, which is {computed}")
        return manifest

    @classmethod
    def build(cls, tree: Path, /, **meta: Any) -> Manifest:
        """Make the manifest of a directory.

        Modes become 0555 where any executable bit is set, else 0444; times, owners and the order on disk do
        not count. `units` are those with a units/NAME/unit.json in the tree.

        Args:
            tree: the directory.
            meta: keys of release.json that do not follow from the tree; `name` and `version` at least.

        Raises:
            InputError: a file that a release cannot hold, or a key that breaks a rule.
        """
        for key in _DERIVED:
            if key in meta:
                schema.refuse(WHERE, key, "follows from the tree and cannot be given")
        entries = tuple(sorted(_walk(tree), key=lambda entry: entry.path.encode()))
        document = {**_ABSENT, "format": 1, "units": _units(entries), **meta}
        document["files"] = [entry.as_json() for entry in entries]
        document |= {"tree": "0" * 64, "root": "0" * 64}
        document |= _hashes(document, entries)
        manifest = cls._checked(document)
        size = len(manifest.canonical())
        if size > MAX_BYTES:
            raise InputError(f"{WHERE} would have {size} bytes, at most {MAX_BYTES} are allowed", key="files")
        return manifest

    @classmethod
    def _checked(cls, document: Any) -> Manifest:
        schema.check(document, "release", where=WHERE)
        entries = tuple(_entry(value) for value in document["files"])
        _check_entries(entries)
        _check_versions(document)
        _check_units(document, entries)
        return cls(document, entries)

    def canonical(self) -> bytes:
        """Return release.json."""
        return files.canonical(self.document)

    @property
    def root(self) -> str:
        """The release root, hex."""
        return str(self.document["root"])

    @property
    def tree_hash(self) -> str:
        """The Merkle hash of the files, hex."""
        return str(self.document["tree"])

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def version(self) -> str:
        return str(self.document["version"])

    @property
    def arch(self) -> str:
        return str(self.document["arch"])

    @property
    def title(self) -> str:
        """How messages call the release: name and version."""
        return f"{self.name} {self.version}"

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(self.document["units"])

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files if isinstance(entry, FileEntry))

    @cached_property
    def directories(self) -> tuple[str, ...]:
        """All directories that the paths imply, sorted, parents first; the tree itself is not among them."""
        found: set[str] = set()
        for entry in self.files:
            found.update(_parents(entry.path))
        return tuple(sorted(found))

    def find(self, path: str) -> Entry | None:
        """Return the file or link at a path."""
        return self._by_path.get(path)

    def hash_of(self, paths: Iterable[str]) -> str:
        """Hash a part of the tree, in hex: it changes when, and only when, that part does.

        A link that is named, or lies in a directory that is, counts with what it points to.

        Args:
            paths: files, links or directories; `.` is all of it.

        Raises:
            InputError: a path that is not in the release.
        """
        chosen: dict[str, Entry] = {}
        for path in paths:
            if not self._choose(path.rstrip("/"), chosen):
                raise InputError(f"{path} is not among the files of {self.title}", key=path)
        ordered = sorted(chosen, key=str.encode)
        return merkle.tree_hash((path, chosen[path].hash()) for path in ordered).hex()

    @cached_property
    def _by_path(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.files}

    @cached_property
    def _by_directory(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {".": list(self.files)}
        for entry in self.files:
            for parent in _parents(entry.path):
                found.setdefault(parent, []).append(entry)
        return found

    def _choose(self, path: str, chosen: dict[str, Entry]) -> bool:
        exact = self.find(path)
        found = [exact] if exact is not None else self._by_directory.get(path, [])
        for entry in found:
            if entry.path in chosen:
                continue
            chosen[entry.path] = entry
            if isinstance(entry, LinkEntry):
                self._choose(_resolved(entry), chosen)
        return bool(found)


def check_path(path: str, key: str) -> None:
    """Check the path of a file in a release.

    Args:
        path: relative to the tree.
        key: names it in messages.

    Raises:
        InputError: the rule that is broken.
    """
    if path.startswith("/"):
        _refuse_path(path, key, "must be relative")
    _check_text(path, key)
    for name in path.split("/"):
        if name in ("", ".", ".."):
            _refuse_path(path, key, "must have no empty, . or .. component")
        if len(name.encode()) > MAX_NAME_BYTES:
            _refuse_path(path, key, f"has a component of more than {MAX_NAME_BYTES} bytes")


def _check_target(entry: LinkEntry, key: str) -> None:
    """Check that a link stays in the tree, also where it leads through other links.

    `..` stands at the beginning alone, where only real directories are left: after a name that is itself a
    link it would start from wherever that leads.
    """
    target = entry.target
    if target.startswith("/"):
        _refuse_path(target, key, "must be relative")
    _check_text(target, key)
    names = target.split("/")
    ups = next((index for index, name in enumerate(names) if name != ".."), len(names))
    for name in names[ups:]:
        if name in ("", ".", ".."):
            _refuse_path(target, key, "must have .. at its beginning alone, and no empty or . component")
        if len(name.encode()) > MAX_NAME_BYTES:
            _refuse_path(target, key, f"has a component of more than {MAX_NAME_BYTES} bytes")
    if ups > entry.path.count("/"):
        _refuse_path(target, key, "leads out of the tree")


def _check_text(text: str, key: str) -> None:
    if "\\" in text:
        _refuse_path(text, key, "must have no backslash")
    if text.isascii():
        if not text.isprintable():
            _refuse_path(text, key, "must have no control character")
    else:
        if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in text):
            _refuse_path(text, key, "must have no control character and none that Unicode does not define")
        if not unicodedata.is_normalized("NFC", text):
            _refuse_path(text, key, "must be in Unicode normal form NFC")
    if len(text.encode()) > MAX_PATH_BYTES:
        _refuse_path(text, key, f"has more than {MAX_PATH_BYTES} bytes")


def _refuse_path(path: str, key: str, rule: str) -> None:
    schema.refuse(WHERE, key, f"{path[:120]!a} {rule}")


def _entry(value: Mapping[str, Any]) -> Entry:
    if value["type"] == "link":
        return LinkEntry(value["path"], value["target"])
    return FileEntry(value["path"], value["mode"], value["size"], value["sha3"])


def _check_entries(entries: Sequence[Entry]) -> None:
    folded: dict[str, str] = {}
    leaves: set[str] = set()
    directories: set[str] = set()
    before = b""
    total = 0
    for index, entry in enumerate(entries):
        key = f"files[{index}]"
        check_path(entry.path, f"{key}.path")
        path = entry.path.encode()
        if path == before:
            _refuse_path(entry.path, f"{key}.path", "stands twice")
        if path < before:
            _refuse_path(entry.path, f"{key}.path", "is not sorted by bytes after the path before it")
        before = path
        # A path stands before all that lies below it.
        for parent in _parents(entry.path):
            if parent in leaves:
                _refuse_path(
                    parent, f"{key}.path", f"is a file or link and also a directory, in {entry.path!a}"
                )
            if parent not in directories:
                directories.add(parent)
                _check_collision(parent, f"{key}.path", folded)
        leaves.add(entry.path)
        _check_collision(entry.path, f"{key}.path", folded)
        if isinstance(entry, LinkEntry):
            _check_target(entry, f"{key}.target")
        else:
            total += entry.size
    if total > MAX_TREE_BYTES:
        schema.refuse(WHERE, "files", f"all files have {total} bytes, at most {MAX_TREE_BYTES} are allowed")


def _check_collision(path: str, key: str, folded: dict[str, str]) -> None:
    if path.isascii():
        same = path.lower()
    else:
        same = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
    other = folded.setdefault(same, path)
    if other != path:
        _refuse_path(path, key, f"differs from {other[:120]!a} in case or in the form of its letters alone")


def _check_versions(document: Mapping[str, Any]) -> None:
    rules = document.get("from", {})
    named: list[tuple[str, str, type[Version] | type[Range]]] = [("version", document["version"], Version)]
    named += [(f"from.allow[{i}]", text, Range) for i, text in enumerate(rules.get("allow", ()))]
    named += [(f"from.barriers[{i}]", text, Version) for i, text in enumerate(rules.get("barriers", ()))]
    for key, text, kind in named:
        try:
            kind(text)
        except InputError as error:
            schema.refuse(WHERE, key, error.message)


def _check_units(document: Mapping[str, Any], entries: Sequence[Entry]) -> None:
    there = _units(entries)
    if document["units"] != there:
        named = ", ".join(there) or "none"
        schema.refuse(WHERE, "units", f"must be those with a units/NAME/unit.json in files, sorted: {named}")
    for index, migration in enumerate(document["migrations"]):
        if migration["unit"] not in there:
            schema.refuse(WHERE, f"migrations[{index}].unit", f"{migration['unit']} is not among the units")


def _units(entries: Iterable[Entry]) -> list[str]:
    found = []
    for entry in entries:
        names = entry.path.split("/")
        if (
            isinstance(entry, FileEntry)
            and len(names) == 3
            and (names[0], names[2]) == ("units", "unit.json")
        ):
            found.append(names[1])
    return sorted(found)


def _hashes(document: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, str]:
    tree = merkle.tree_hash((entry.path, entry.hash()) for entry in entries)
    rest = {key: value for key, value in document.items() if key not in ("root", "tree", "files")}
    return {"tree": tree.hex(), "root": merkle.release_root(tree, files.canonical(rest)).hex()}


def _parents(path: str) -> Iterator[str]:
    index = path.find("/")
    while index >= 0:
        yield path[:index]
        index = path.find("/", index + 1)


def _resolved(link: LinkEntry) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.path), link.target))


def _walk(tree: Path) -> Iterator[Entry]:
    if not tree.is_dir():
        raise InputError(f"{tree} is not a directory", key="tree")
    pending = [""]
    while pending:
        prefix = pending.pop()
        there = list(os.scandir(tree / prefix))
        if not there:
            raise InputError(
                f"{prefix or tree} is an empty directory, which a release cannot hold", key=prefix
            )
        for item in there:
            path = prefix + item.name
            try:
                path.encode()
            except UnicodeEncodeError:
                raise InputError(f"the name {os.fsencode(path)!r} is not UTF-8", key=prefix) from None
            found = item.stat(follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode) and found.st_mode & _SPECIAL_BITS:
                raise InputError(f"{path} has a setuid, setgid or sticky bit", key=path)
            if stat.S_ISDIR(found.st_mode):
                pending.append(f"{path}/")
            elif stat.S_ISLNK(found.st_mode):
                # pathlib would tidy the target up, and hide what is wrong with it.
                yield LinkEntry(path, os.readlink(item.path))  # noqa: PTH115
            elif stat.S_ISREG(found.st_mode):
                yield _read_entry(Path(item.path), path)
            else:
                raise InputError(f"{path} is neither a file nor a directory nor a link", key=path)


def _read_entry(file: Path, path: str) -> FileEntry:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        mode = os.fstat(descriptor).st_mode
        digest, size = hashlib.sha3_256(), 0
        while chunk := stream.read(READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(path, "0555" if mode & 0o111 else "0444", size, digest.hexdigest())
