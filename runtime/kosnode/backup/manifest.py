"""The manifest of a snapshot: what was there when it was made, hashed apart from restic.

Paths are those that restic reads, without the leading slash. Bytes that are not UTF-8 are written `\\xNN`,
and a backslash twice, so that every name can be said in JSON and none in two ways.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import merkle
from ..errors import DamagedError
from .source import Root

FORMAT = 1
NAME = "manifest.json"
SIGNATURE = "manifest.json.sig"
MAX_BYTES = 1 << 30
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})|\\(\\)")
_KEYS = (
    "node fleet run time source class method roots entries tree heads release unstable lacks previous".split()
)


@dataclass(frozen=True)
class Entry:
    """A file, link or directory.

    Args:
        path: as restic reads it, encoded by `encode`, without the leading slash.
        kind: `file`, `link` or `directory`.
        mode: permission bits.
        size: bytes, of a file.
        sha3: SHA3-256 of a file's content, hex.
        target: of a link, encoded.
        rank: its class, where that is not the class of its source.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    mtime_ns: int
    size: int = 0
    sha3: str = ""
    target: str = ""
    rank: str = ""

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "path": self.path,
            "type": self.kind,
            "mode": f"{self.mode:04o}",
            "uid": self.uid,
            "gid": self.gid,
            "user": self.user,
            "group": self.group,
            "mtime_ns": self.mtime_ns,
        }
        if self.kind == "file":
            shown.update(size=self.size, sha3=self.sha3)
        elif self.kind == "link":
            shown["target"] = self.target
        if self.rank:
            shown["class"] = self.rank
        return shown

    @classmethod
    def parse(cls, one: Mapping[str, Any]) -> Entry:
        kind = one["type"]
        if kind not in ("file", "link", "directory"):
            raise ValueError(f"an entry is a {kind}")
        return cls(
            str(one["path"]),
            kind,
            int(one["mode"], 8),
            int(one["uid"]),
            int(one["gid"]),
            str(one["user"]),
            str(one["group"]),
            int(one["mtime_ns"]),
            int(one["size"]) if kind == "file" else 0,
            str(one["sha3"]) if kind == "file" else "",
            str(one["target"]) if kind == "link" else "",
            str(one.get("class", "")),
        )


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds and what is known of it; the keys are those of docs/architecture.md, Backup.

    Args:
        entries: sorted by the bytes of the encoded path.
        unstable: encoded paths that changed while they were read: their content is not compared. In a
            directory that is listed, names may have come.
        lacks: encoded paths that could not be read.
        previous: SHA3-256 of the manifest before, hex.
    """

    node: str
    fleet: str
    run: str
    time: str
    source: str
    rank: str
    method: str
    roots: tuple[Root, ...]
    entries: tuple[Entry, ...]
    heads: Mapping[str, Any] = field(default_factory=dict)
    release: str | None = None
    unstable: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    previous: str | None = None

    @cached_property
    def tree(self) -> str:
        """The Merkle hash of files and links, hex (docs/architecture.md, Release)."""
        return merkle.tree_hash(_leaves(self.entries)).hex()

    @property
    def files(self) -> int:
        return sum(1 for entry in self.entries if entry.kind == "file")

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    def encoded(self) -> bytes:
        """Return it as canonical JSON."""
        shown = {
            "format": FORMAT,
            "node": self.node,
            "fleet": self.fleet,
            "run": self.run,
            "time": self.time,
            "source": self.source,
            "class": self.rank,
            "method": self.method,
            "roots": [
                {"live": encode(bytes(root.live)), "stored": encode(bytes(root.stored))}
                for root in self.roots
            ],
            "entries": [entry.as_json() for entry in self.entries],
            "tree": self.tree,
            "heads": dict(self.heads),
            "release": self.release,
            "unstable": list(self.unstable),
            "lacks": list(self.lacks),
            "previous": self.previous,
        }
        # What `files.canonical` gives, without its walk over a million values that are known to be right.
        return json.dumps(
            shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode("utf-8")


def parse(data: bytes) -> Manifest:
    """Read a manifest whose signature is good.

    Raises:
        DamagedError: it is not one, or its tree is not that of its entries.
    """
    try:
        # Its signature was checked before, so it is read without a look at each of a million values.
        value = json.loads(data)
        if not isinstance(value, dict) or set(value) != {"format", *_KEYS} or value["format"] != FORMAT:
            raise ValueError("its keys are not those of a manifest")
        read = Manifest(
            node=str(value["node"]),
            fleet=str(value["fleet"]),
            run=str(value["run"]),
            time=str(value["time"]),
            source=str(value["source"]),
            rank=str(value["class"]),
            method=str(value["method"]),
            roots=tuple(_root(one) for one in value["roots"]),
            entries=tuple(Entry.parse(one) for one in value["entries"]),
            heads=dict(value["heads"]),
            release=value["release"],
            unstable=_texts(value["unstable"]),
            lacks=_texts(value["lacks"]),
            previous=value["previous"],
        )
        fits = read.tree == value["tree"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DamagedError(f"the manifest of the snapshot cannot be read: {error}") from None
    if not fits:
        raise DamagedError("the manifest of the snapshot contradicts itself: its tree is not of its entries")
    return read


def digest(data: bytes) -> str:
    """Return the SHA3-256 of a manifest as it is stored, hex."""
    return hashlib.sha3_256(data).hexdigest()


def encode(path: bytes) -> str:
    """Return a path as text: a backslash doubled, bytes that are not UTF-8 as `\\xNN`."""
    try:
        text = path.decode("utf-8")
        return text if "\\" not in text else text.replace("\\", "\\\\")
    except UnicodeDecodeError:
        parts = []
        for letter in path.replace(b"\\", b"\\\\").decode("utf-8", "surrogateescape"):
            parts.append(f"\\x{ord(letter) - 0xDC00:02x}" if "\udc80" <= letter <= "\udcff" else letter)
        return "".join(parts)


def decode(text: str) -> bytes:
    """Return the bytes that `encode` was given."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]) if found[1] else b"\\", text.encode("utf-8"))


def sort_key(entry: Entry) -> bytes:
    """Return what entries are sorted by."""
    return entry.path.encode("utf-8")


def _leaves(entries: Iterable[Entry]) -> Iterable[tuple[str, bytes]]:
    for entry in entries:
        if entry.kind == "file":
            content = bytes.fromhex(entry.sha3)
            yield entry.path, merkle.file_hash(f"{entry.mode:04o}", entry.size, content)
        elif entry.kind == "link":
            yield entry.path, merkle.link_hash(entry.target)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("a list of paths is none")
    return tuple(value)


def _root(one: Mapping[str, Any]) -> Root:
    live, stored = (Path(decode(one[key]).decode("utf-8", "surrogateescape")) for key in ("live", "stored"))
    if not live.is_absolute() or not stored.is_absolute():
        raise ValueError("a root is not absolute")
    return Root(live, stored)


def relative(path: Path | str) -> str:
    """Return an absolute path as entries have it; a text has to be in the form that a Path gives it."""
    text = os.fspath(path)
    if text.isascii() and "\\" not in text:
        return text[1:]
    return encode(os.fsencode(text))[1:]


def below(paths: Sequence[str], path: str) -> bool:
    """Say whether an encoded path is one of the paths or lies below one."""
    return any(path == one or path.startswith(f"{one}/") for one in paths)
