"""The hashes that name a release: SHA3-256, told apart by what is hashed.

A file, a link, a directory and a release each begin with a byte and a word of their own, so that none can
stand for another (docs/architecture.md, Release).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_FILE = b"\x00kos-file\x00"
_LINK = b"\x01kos-link\x00"
_DIRECTORY = b"\x02kos-dir\x00"
_RELEASE = b"\x03kos-release\x00"


def sha3(data: bytes) -> bytes:
    """Return the SHA3-256 of `data`, 32 bytes (FIPS 202)."""
    return hashlib.sha3_256(data).digest()


def file_hash(mode: str, size: int, content: bytes) -> bytes:
    """Hash a file.

    Args:
        mode: four octal digits, `0444`.
        size: in bytes.
        content: SHA3-256 of the content, 32 bytes.
    """
    return sha3(_FILE + mode.encode("ascii") + size.to_bytes(8, "big") + content)


def link_hash(target: str) -> bytes:
    """Hash a symbolic link by its target as written."""
    return sha3(_LINK + target.encode("utf-8"))


def directory_hash(children: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Hash a directory.

    Args:
        children: name and hash of each, in any order; names are unique.
    """
    parts = [_DIRECTORY]
    for name, child in sorted(children):
        parts += (len(name).to_bytes(4, "big"), name, child)
    return sha3(b"".join(parts))


def tree_hash(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """Hash a tree.

    Args:
        entries: path relative to the tree and hash of each file or link, sorted by the bytes of the path;
            directories are implied.
    """
    # Sorted by bytes, all that is in a directory stands together: one pass is enough.
    names: list[bytes] = []
    open_directories: list[list[tuple[bytes, bytes]]] = [[]]

    def close() -> None:
        children = open_directories.pop()
        open_directories[-1].append((names.pop(), directory_hash(children)))

    for path, value in entries:
        *parents, name = path.encode("utf-8").split(b"/")
        while names != parents[: len(names)]:
            close()
        for parent in parents[len(names) :]:
            names.append(parent)
            open_directories.append([])
        open_directories[-1].append((name, value))
    while names:
        close()
    return directory_hash(open_directories[0])


def release_root(tree: bytes, rest: bytes) -> bytes:
    """Hash a release.

    Args:
        tree: hash of its tree, 32 bytes.
        rest: its manifest without `root`, `tree` and `files`, as canonical JSON.
    """
    return sha3(_RELEASE + tree + sha3(rest))
