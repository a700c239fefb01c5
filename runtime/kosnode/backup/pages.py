"""What changed in an image, as 4 KiB pages: the digest of an image, and the file format of a delta.

An image is any file, here the consistent copy of a database. Its digest is a tree of SHA3-256: over each
page, over the hashes of each group of 256 pages, over the groups and the size. So the digest after a change
costs what changed and not what there is. Pages need no prefix: the size fixes how deep a hash stands.

A delta is one line of canonical JSON and a body. The header names the digest before and after, and its
`seal`, the SHA3-256 of the header without it, stands in the next delta as `previous`: what is missing, cut
off, exchanged or of another image is found. The body holds batches of pages, each a zstd patch (as of a
release) whose prefix is the same pages of the base image, which is at hand where a delta is made or applied.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from .. import files, patch
from ..errors import DamagedError, InputError

PAGE_BYTES = 4096
HASH_BYTES = 32
GROUP_PAGES = 256
GROUP_BYTES = GROUP_PAGES * PAGE_BYTES

_GROUP = b"\x04kos-pages\x00"
_IMAGE = b"\x05kos-image\x00"
HEADER_BYTES = 4096
# Pages of a batch and bytes of its patch, before the numbers of the pages.
_BATCH = struct.Struct(">II")
_NUMBER = struct.Struct(">Q")
_LEVEL = 3
# zstd never makes more than this of a batch, however badly it compresses.
_PATCH_BYTES = 2 * GROUP_BYTES


@dataclass(frozen=True)
class Digest:
    """What an image is.

    Attributes:
        size: in bytes.
        root: digest of all of it, 64 hex digits.
    """

    size: int
    root: str


class Readable(Protocol):
    """What has bytes to read in order."""

    def read(self, count: int, /) -> bytes:
        """Return so many bytes, fewer at the end."""


def scan(
    image: Readable,
    table: BinaryIO,
    *,
    before: BinaryIO | None = None,
    changed: Callable[[int, bytes], None] | None = None,
) -> Digest:
    """Read an image to its end, write the table of its hashes, and tell which pages changed.

    Args:
        image: is read once, in groups.
        table: takes the SHA3-256 of each page, 32 bytes each.
        before: the table of the image before, if there was one.
        changed: is called with number and content of each page that differs from `before`, in order.
    """
    groups = hashlib.sha3_256(_IMAGE)
    size = 0
    while data := image.read(GROUP_BYTES):
        hashes = _hashes(data)
        groups.update(_group(hashes))
        table.write(hashes)
        if before is not None and changed is not None:
            old = before.read(len(hashes))
            if old != hashes:
                _tell(size // PAGE_BYTES, data, hashes, old, changed)
        size += len(data)
    groups.update(_NUMBER.pack(size))
    return Digest(size, groups.hexdigest())


def page_hash(page: bytes) -> bytes:
    """Return the SHA3-256 of a page; the last one of an image may be short."""
    return hashlib.sha3_256(page).digest()


class Table:
    """The hashes of an image's pages in a file, of which some are replaced.

    Memory is 32 bytes for each MiB of the image.

    Args:
        stream: a table as `scan` writes it, open for reading and, where pages are replaced, for writing.
        size: bytes of its image.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._groups: list[bytes] = []
        self._stale: set[int] = set(range(-(-size // GROUP_BYTES)))

    def replace(self, number: int, page: bytes) -> None:
        """Put in the hash of a page."""
        self._stream.seek(number * HASH_BYTES)
        self._stream.write(page_hash(page))
        self._stale.add(number // GROUP_PAGES)

    def resize(self, size: int) -> None:
        """Say how large the image is now: new pages have been put in, those that go are forgotten."""
        if size < self._size:
            self._stream.truncate(page_count(size) * HASH_BYTES)
        if size != self._size:
            # The last group of either has another number of pages.
            self._stale |= {self._size // GROUP_BYTES, size // GROUP_BYTES}
        self._size = size

    def digest(self) -> Digest:
        """Return the digest of the image that has these pages; hashes anew what was replaced."""
        count = -(-self._size // GROUP_BYTES)
        del self._groups[count:]
        self._groups += [b""] * (count - len(self._groups))
        for number in self._stale:
            if number < count:
                self._stream.seek(number * GROUP_PAGES * HASH_BYTES)
                self._groups[number] = _group(self._stream.read(GROUP_PAGES * HASH_BYTES))
        self._stale.clear()
        root = hashlib.sha3_256(_IMAGE + b"".join(self._groups) + _NUMBER.pack(self._size))
        return Digest(self._size, root.hexdigest())


def page_count(size: int) -> int:
    """Return how many pages an image of `size` bytes has."""
    return -(-size // PAGE_BYTES)


def sealed(header: dict[str, Any]) -> dict[str, Any]:
    """Return a header with its seal."""
    return {**header, "seal": hashlib.sha3_256(files.canonical(header)).hexdigest()}


def open_sealed(data: bytes, keys: dict[str, type], what: str) -> dict[str, Any]:
    """Read a sealed header.

    Args:
        data: canonical JSON.
        keys: kind of each key that it has beside `seal`.
        what: how it is called in messages.

    Raises:
        DamagedError: it is not what was sealed, or lacks something.
    """
    try:
        header = files.parse(data, limit=HEADER_BYTES, what=what)
    except InputError as error:
        raise DamagedError(f"the header of {what} is damaged: {error.message}", key=what) from None
    if not isinstance(header, dict) or files.canonical(header) != data:
        raise DamagedError(f"the header of {what} is damaged: it is not canonical JSON", key=what)
    content = {key: value for key, value in header.items() if key != "seal"}
    if sealed(content) != header:
        raise DamagedError(f"the header of {what} is damaged: its seal is of another one", key=what)
    if {key: type(value) for key, value in content.items()} != keys or content.get("format") != 1:
        raise DamagedError(f"the header of {what} is of a format that this kosctl does not read", key=what)
    return header


@dataclass(frozen=True)
class Header:
    """What a delta says of itself.

    Attributes:
        number: from 1 on, without a gap.
        time: when the copy was made, UTC.
        about: what the caller wants to know of this state; nothing here reads it.
        before, after: digests of the image.
        pages: how many changed.
        previous: seal of what stands before it in the chain.
        bytes: size of the body.
        seal: digest of all this.
    """

    number: int
    time: str
    about: dict[str, str]
    before: str
    after: Digest
    pages: int
    previous: str
    bytes: int
    seal: str


_HEADER_KEYS: dict[str, type] = {
    **{"format": int, "number": int, "time": str, "about": dict, "before": str, "after": str, "size": int},
    **{"pages": int, "previous": str, "bytes": int},
}


class Body:
    """Collects the pages of a delta in a file.

    Args:
        out: takes the body; it is durable only when the caller made it so.
        base: the base image.
        table: its hashes: a patch against pages that have changed on the disk could not be undone elsewhere.
        limit: the most bytes that are written; what comes then is dropped, and `outgrown` says so.

    Raises:
        DamagedError: from `add` and `flush`: the base image is not what it was.
    """

    def __init__(self, out: BinaryIO, base: BinaryIO, table: BinaryIO, limit: int) -> None:
        self.bytes = 0
        self.pages = 0
        self.outgrown = False
        self._out, self._base, self._table, self._limit = out, base, table, limit
        self._numbers: list[int] = []
        self._content: list[bytes] = []

    def add(self, number: int, page: bytes) -> None:
        """Take one page; numbers come in order."""
        if self.outgrown:
            return
        self._numbers.append(number)
        self._content.append(page)
        if len(self._numbers) == GROUP_PAGES:
            self.flush()

    def flush(self) -> None:
        """Write the pages that were taken."""
        if not self._numbers or self.outgrown:
            return
        old = b"".join(map(self._base_page, self._numbers))
        packed = patch.make(old, b"".join(self._content), _LEVEL)
        head = _BATCH.pack(len(self._numbers), len(packed))
        data = head + b"".join(map(_NUMBER.pack, self._numbers)) + packed
        self.pages += len(self._numbers)
        self.bytes += len(data)
        self._numbers, self._content = [], []
        if self.bytes > self._limit:
            self.outgrown = True
            return
        self._out.write(data)

    def _base_page(self, number: int) -> bytes:
        page = read_page(self._base, number)
        self._table.seek(number * HASH_BYTES)
        if page and page_hash(page) != self._table.read(HASH_BYTES):
            raise DamagedError(f"page {number} of the base image is not what was written")
        return page


def header_line(
    *,
    number: int,
    time: str,
    about: Mapping[str, str],
    before: Digest,
    after: Digest,
    previous: str,
    body: Body,
) -> bytes:
    """Return the first line of a delta."""
    header = sealed(
        {
            **{"format": 1, "number": number, "time": time, "about": dict(about), "before": before.root},
            **{"after": after.root, "size": after.size, "pages": body.pages, "previous": previous},
            "bytes": body.bytes,
        }
    )
    return files.canonical(header) + b"\n"


def read_header(stream: BinaryIO, what: str) -> Header:
    """Read the first line of a delta and check that all of its body is there.

    Args:
        stream: a file at its beginning; is left at the body.
        what: how the delta is called in messages.

    Raises:
        DamagedError: names the delta and what is wrong.
    """
    line = stream.readline(HEADER_BYTES)
    if not line.endswith(b"\n"):
        raise DamagedError(f"{what} is cut off in its header", key=what)
    said = open_sealed(line[:-1], _HEADER_KEYS, what)
    after = Digest(said.pop("size"), said.pop("after"))
    del said["format"]
    header = Header(after=after, **said)
    start = stream.tell()
    there = stream.seek(0, io.SEEK_END) - start
    stream.seek(start)
    if there != header.bytes:
        how = "is cut off" if there < header.bytes else "has bytes after its end"
        raise DamagedError(f"{what} {how}: {there} of {header.bytes} bytes of its body", key=what)
    return header


def read_body(stream: BinaryIO, header: Header, base: BinaryIO, what: str) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each page of a delta; what they make is proven by the digest alone.

    Args:
        stream: the delta, at its body, where it is left by `read_header`.
        header: of this delta.
        base: the base image.
        what: how the delta is called in messages.

    Raises:
        DamagedError: names the delta and what is wrong.
    """
    last, found = -1, 0
    while head := stream.read(_BATCH.size):
        count, packed_bytes = _unpack_batch(head, what)
        numbers = [number for (number,) in _NUMBER.iter_unpack(_exactly(stream, count * _NUMBER.size, what))]
        in_order = all(one < other for one, other in itertools.pairwise([last, *numbers]))
        if not in_order or numbers[-1] >= page_count(header.after.size):
            raise DamagedError(f"{what} is damaged: it names pages that it cannot hold", key=what)
        old = b"".join(read_page(base, number) for number in numbers)
        sizes = [min(PAGE_BYTES, header.after.size - number * PAGE_BYTES) for number in numbers]
        out = io.BytesIO()
        try:
            made = patch.apply(old, io.BytesIO(_exactly(stream, packed_bytes, what)), out, sum(sizes))
        except DamagedError as error:
            raise DamagedError(f"{what} is damaged: {error.message}", key=what) from None
        if made != sum(sizes):
            raise DamagedError(f"{what} is damaged: pages are cut off", key=what)
        out.seek(0)
        for number, size in zip(numbers, sizes, strict=True):
            yield number, out.read(size)
        last = numbers[-1]
        found += count
    if found != header.pages:
        raise DamagedError(f"{what} is damaged: it has {found} of {header.pages} pages", key=what)


def read_page(image: BinaryIO, number: int) -> bytes:
    """Return a page of an image; nothing past its end."""
    image.seek(number * PAGE_BYTES)
    return image.read(PAGE_BYTES)


def _hashes(data: bytes) -> bytes:
    view = memoryview(data)
    sha3 = hashlib.sha3_256
    return b"".join([sha3(view[at : at + PAGE_BYTES]).digest() for at in range(0, len(data), PAGE_BYTES)])


def _group(hashes: bytes) -> bytes:
    return hashlib.sha3_256(_GROUP + hashes).digest()


def _tell(first: int, data: bytes, hashes: bytes, old: bytes, changed: Callable[[int, bytes], None]) -> None:
    for index in range(len(hashes) // HASH_BYTES):
        at = slice(index * HASH_BYTES, (index + 1) * HASH_BYTES)
        if hashes[at] != old[at]:
            changed(first + index, data[index * PAGE_BYTES : (index + 1) * PAGE_BYTES])


def _unpack_batch(head: bytes, what: str) -> tuple[int, int]:
    count, packed = _BATCH.unpack(head) if len(head) == _BATCH.size else (0, 0)
    if not 0 < count <= GROUP_PAGES or packed > _PATCH_BYTES:
        raise DamagedError(f"{what} is damaged: it does not hold batches of pages", key=what)
    return count, packed


def _exactly(stream: BinaryIO, count: int, what: str) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise DamagedError(f"{what} is damaged: it ends within a batch of pages", key=what)
    return data
