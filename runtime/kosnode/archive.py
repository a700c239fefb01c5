"""The archive of a release: a tar that its manifest alone determines, and that is read by expectation.

The format is ustar (POSIX.1-2017, pax, "ustar Interchange Format") with an extended header only for a path or
target that ustar cannot hold. The reader makes each header from the manifest and compares: it parses nothing.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol

from . import merkle
from .errors import DamagedError
from .manifest import Entry, FileEntry, LinkEntry, Manifest

PART_BYTES = 64 * 1024 * 1024
# Of the old release's files, as many as a patch may have before it: what a node holds in memory.
PREFIX_BYTES = 72 * 1024 * 1024
BLOCK = 512
END = bytes(2 * BLOCK)
_CHUNK = 256 * 1024
_NAME_BYTES = 100
_PREFIX_BYTES = 155


@dataclass(frozen=True)
class Part:
    """A range of a release's files, which has an archive and a patch of its own.

    Args:
        index: from 0.
        entries: in the order of the manifest.
        start: the first path that belongs here; empty in the first part.
        stop: the first path that belongs to the next part; None in the last.
    """

    index: int
    entries: tuple[Entry, ...]
    start: str = ""
    stop: str | None = None

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return archive_size(self.entries)


class Sink(Protocol):
    """Takes what an archive holds, in order."""

    def file(self, entry: FileEntry, chunks: Iterator[bytes]) -> None:
        """Take a file. The last step of `chunks` raises DamagedError where the hash is another."""

    def link(self, entry: LinkEntry) -> None:
        """Take a symbolic link."""


def archive_size(entries: Sequence[Entry]) -> int:
    """Return the bytes of the archive of some entries, headers, padding and end included."""
    return sum(map(_entry_size, entries)) + len(END)


def parts(manifest: Manifest) -> list[Part]:
    """Cut a release into parts of at most `PART_BYTES` of archive; a larger file has a part of its own."""
    groups: list[list[Entry]] = []
    size = 0
    for entry in manifest.files:
        added = _entry_size(entry)
        if not groups or size + added > PART_BYTES:
            groups.append([])
            size = len(END)
        groups[-1].append(entry)
        size += added
    starts = ["", *(group[0].path for group in groups[1:])]
    stops = [*starts[1:], None]
    return [
        Part(index, tuple(group), start, stop)
        for index, (group, start, stop) in enumerate(zip(groups, starts, stops, strict=True))
    ]


def old_range(old: Manifest, new_part: Part) -> tuple[Entry, ...]:
    """Return what a patch of a part is made against.

    Args:
        old: the manifest of the old release.
        new_part: a part of the new one.

    Returns:
        The old release's entries in the same range of paths, as far as their archive has at most
        `PREFIX_BYTES`; publisher and node come to the same.
    """
    start = new_part.start.encode()
    stop = None if new_part.stop is None else new_part.stop.encode()
    chosen: list[Entry] = []
    size = len(END)
    for entry in old.files:
        path = entry.path.encode()
        if path < start:
            continue
        size += _entry_size(entry)
        if (stop is not None and path >= stop) or size > PREFIX_BYTES:
            break
        chosen.append(entry)
    return tuple(chosen)


def write_part(manifest: Manifest, part: Part, source_tree: Path, out: BinaryIO) -> None:
    """Write the archive of a part.

    Args:
        manifest: of the release, for messages.
        part: one of `parts(manifest)`.
        source_tree: a directory that holds its files, such as a slot's tree.
        out: takes the archive.

    Raises:
        DamagedError: a file is missing or differs from the manifest; names it.
    """
    write_entries(part.entries, source_tree, out, where=manifest.title)


def old_bytes(old: Manifest, new_part: Part, source_tree: Path) -> bytes:
    """Return the archive of `old_range`, made from the old release's files, which a patch is made against.

    Raises:
        DamagedError: as `write_part`.
    """
    entries = old_range(old, new_part)
    if not entries:
        return b""
    out = io.BytesIO()
    write_entries(entries, source_tree, out, where=old.title)
    return out.getvalue()


def write_entries(entries: Sequence[Entry], source_tree: Path, out: BinaryIO, *, where: str) -> None:
    """Write the archive of some entries; arguments and errors as `write_part`."""
    for entry in entries:
        out.write(header(entry))
        path = source_tree / entry.path
        try:
            if isinstance(entry, LinkEntry):
                # pathlib would tidy the target up.
                if os.readlink(path) != entry.target:  # noqa: PTH115
                    _damaged(where, entry.path, "is a link to something else")
            else:
                _write_file(entry, path, out, where)
        except OSError as error:
            if error.filename is None:
                raise
            _damaged(where, entry.path, f"cannot be read: {error.strerror}")
    out.write(END)


def read_part(manifest: Manifest, part: Part, stream: BinaryIO, sink: Sink) -> None:
    """Read the archive of a part, which must have exactly the bytes that the manifest tells.

    Args:
        manifest: of the release, for messages.
        part: one of `parts(manifest)`.
        stream: the archive; it is read to its end.
        sink: takes the files, whose hashes are checked.

    Raises:
        DamagedError: the first byte that is wrong, missing or too many; names the file.
    """
    where = f"archive of {manifest.title}"
    for entry in part.entries:
        _expect(stream, header(entry), where, entry.path, "header")
        if isinstance(entry, LinkEntry):
            sink.link(entry)
            continue
        chunks = content(stream, entry, where)
        sink.file(entry, chunks)
        for _ in chunks:
            pass
        _expect(stream, bytes(-entry.size % BLOCK), where, entry.path, "padding")
    _expect(stream, END, where, part.entries[-1].path, "end of the archive after it")
    if stream.read(1):
        raise DamagedError(f"{where}: more bytes follow after its end", key=part.entries[-1].path)


def content(stream: BinaryIO, entry: FileEntry, where: str) -> Iterator[bytes]:
    """Yield the content of a file from a stream that may go on after it.

    Args:
        stream: is read by exactly the size of the file.
        entry: the file.
        where: names the stream in messages.

    Raises:
        DamagedError: the stream ends early or, after the last chunk, the hash is another.
    """
    digest, left = hashlib.sha3_256(), entry.size
    while left:
        chunk = stream.read(min(_CHUNK, left))
        if not chunk:
            _damaged(where, entry.path, f"ends {left} bytes early")
        left -= len(chunk)
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != entry.sha3:
        _damaged(where, entry.path, "has another content than the manifest says")


def header(entry: Entry) -> bytes:
    """Return the header of an entry: one block, or an extended header before it."""
    link = isinstance(entry, LinkEntry)
    target = entry.target if isinstance(entry, LinkEntry) else ""
    place = _split(entry.path)
    target_fits = target.isascii() and len(target) <= _NAME_BYTES
    extended = b""
    if place is None or not target_fits:
        records = b"" if place is not None else _record("path", entry.path)
        records += b"" if target_fits else _record("linkpath", target)
        # A reader that does not know extended headers gives such a file this name.
        stand_in = merkle.sha3(entry.path.encode()).hex()[:32].encode()
        extended = _block(b"pax/" + stand_in, b"", "0444", len(records), b"x", b"")
        extended += records + bytes(-len(records) % BLOCK)
        place = place or (b"", stand_in)
    prefix, name = place
    mode = "0777" if isinstance(entry, LinkEntry) else entry.mode
    size = 0 if isinstance(entry, LinkEntry) else entry.size
    shown = target.encode() if target_fits else b""
    return extended + _block(name, prefix, mode, size, b"2" if link else b"0", shown)


def _entry_size(entry: Entry) -> int:
    size = len(header(entry))
    if isinstance(entry, FileEntry):
        size += entry.size + -entry.size % BLOCK
    return size


def _split(path: str) -> tuple[bytes, bytes] | None:
    """Return prefix and name as ustar holds them: the shortest prefix that does; None where none does."""
    if not path.isascii():
        return None
    data = path.encode()
    if len(data) <= _NAME_BYTES:
        return b"", data
    slash = data.find(b"/", len(data) - _NAME_BYTES - 1)
    if slash < 0 or slash > _PREFIX_BYTES:
        return None
    return data[:slash], data[slash + 1 :]


def _record(key: str, value: str) -> bytes:
    """Return a record of an extended header: its own length in decimal, a blank, key=value, a newline."""
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _block(name: bytes, prefix: bytes, mode: str, size: int, kind: bytes, target: bytes) -> bytes:
    fields = (
        name.ljust(_NAME_BYTES, b"\0"),
        f"{int(mode, 8):07o}\0".encode(),
        b"0000000\0" * 2,  # uid, gid
        f"{size:011o}\0".encode(),
        b"00000000000\0",  # mtime
        b" " * 8,  # the checksum counts as blanks
        kind,
        target.ljust(_NAME_BYTES, b"\0"),
        b"ustar\00000",
        bytes(64),  # names of user and group
        b"0000000\0" * 2,  # device numbers
        prefix.ljust(_PREFIX_BYTES, b"\0"),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


def _write_file(entry: FileEntry, path: Path, out: BinaryIO, where: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        digest, left = hashlib.sha3_256(), entry.size
        while chunk := stream.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            digest.update(chunk)
            out.write(chunk)
    if left or digest.hexdigest() != entry.sha3:
        _damaged(where, entry.path, "differs from the manifest")
    out.write(bytes(-entry.size % BLOCK))


def _expect(stream: BinaryIO, expected: bytes, where: str, path: str, what: str) -> None:
    got = b""
    while len(got) < len(expected):
        chunk = stream.read(len(expected) - len(got))
        if not chunk:
            _damaged(where, path, f"ends early, in the {what}")
        got += chunk
    if got != expected:
        _damaged(where, path, f"has a wrong {what}")


def _damaged(where: str, path: str, what: str) -> NoReturn:
    raise DamagedError(f"{where}: {path} {what}", key=path)
