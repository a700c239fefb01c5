"""Verifies a ledger from its file alone, whatever its length: in parts, each in a process of its own.

Where a ledger is pretty-printed, as the gem writes it, it is cut into parts by offset. A part begins with the
first block in it that is sound by itself, so that the parts can be joined without guessing which block a
damaged one was meant to be.
"""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DamagedError, InputError, KosError, NotFoundError
from . import reading
from .chain import Range, Walk
from .written import written

OK, DAMAGED, ABSENT, UNREADABLE = "ok", "damaged", "absent", "unreadable"
# Below this another process costs more than it saves.
_MIN_PART_BYTES = 4 << 20


@dataclass(frozen=True)
class Head:
    """The last block of a ledger.

    Args:
        length: number of blocks.
        index: index of the last one.
        hash: its hash, 64 hexadecimal digits.
        timestamp: when it was written, `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
    """

    length: int
    index: int
    hash: str
    timestamp: str

    def as_dict(self) -> dict[str, Any]:
        """Return `{"length", "index", "hash"}`, as manifests and witnesses keep it."""
        return {"length": self.length, "index": self.index, "hash": self.hash}


@dataclass(frozen=True)
class Verdict:
    """What a verification found.

    Args:
        state: `ok`, `damaged` (JSON, but not a sound chain), `absent` (no such file) or `unreadable` (torn,
            empty, no JSON array, not allowed to be read).
        length: number of blocks.
        head: the last block; None where it is damaged or there is none.
        ranges: where damage is and what, in the order of the blocks.
        path: the ledger.
        problem: why there was nothing to read, for a ledger that is absent or could not be opened.
        hashes: hash by index of the blocks that were asked for and are there, by what they hold.
    """

    state: str
    length: int
    head: Head | None
    ranges: tuple[Range, ...]
    path: Path
    problem: str = ""
    hashes: Mapping[int, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the ledger is whole."""
        return self.state == OK

    @property
    def first_bad(self) -> int | None:
        """Index of the first block that is damaged or missing."""
        return min((found.first for found in self.ranges), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `kosctl ledger verify` (docs/architecture.md, Backup)."""
        return {
            "state": self.state,
            "length": self.length,
            "head": self.head.as_dict() if self.head else None,
            "first_bad": self.first_bad,
            "ranges": [list(found) for found in self.ranges],
        }

    def sentence(self) -> str:
        """Return in a sentence what was found."""
        if self.ok:
            return f"{self.path}: {self.length} blocks, all sound"
        if self.problem:
            return f"{self.path}: {self.problem}"
        first = self.ranges[0]
        where = (
            f"block {first.first}" if first.first == first.last else f"blocks {first.first} to {first.last}"
        )
        more = f"; {len(self.ranges) - 1} more findings" if self.ranges[1:] else ""
        return f"{self.path} is {self.state}: {where}: {first.reason}{more}; {self.length} blocks read"

    def require_ok(self) -> Head:
        """Return the head of a ledger that is whole.

        Raises:
            NotFoundError, DamagedError, InputError: it is absent, damaged, unreadable.
        """
        if self.ok and self.head:
            return self.head
        kinds: dict[str, type[KosError]] = {ABSENT: NotFoundError, DAMAGED: DamagedError}
        raise kinds.get(self.state, InputError)(self.sentence(), detail=self.as_dict())


def verify(path: Path, *, wanted: Collection[int] = (), processes: int | None = None) -> Verdict:
    """Verify a ledger: each block by itself, each link, the genesis block.

    Nothing is locked (`lock.shared` is for that) and nothing is written. Of a ledger whose end was cut off
    cleanly, or that was made anew from its beginning, only an anchor kept elsewhere can tell.

    Args:
        path: the ledger.
        wanted: indices of blocks whose hashes are to be told.
        processes: how many may work at once; as many as there are processors by default.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return _unread(path, UNREADABLE, "not a file")
        with path.open("rb", buffering=0) as stream:
            walk = _walk(path, stream, wanted, processes or len(os.sched_getaffinity(0)))
    except (FileNotFoundError, NotADirectoryError):
        return _unread(path, ABSENT, "no such file")
    except OSError as error:
        return _unread(path, UNREADABLE, error.strerror or str(error))
    return _verdict(path, walk)


def head(path: Path) -> Head:
    """Return the head of a ledger, which is verified for it.

    Raises:
        NotFoundError, DamagedError, InputError: it is absent, damaged, unreadable.
    """
    return verify(path).require_ok()


def _verdict(path: Path, walk: Walk) -> Verdict:
    ranges = walk.ranges()
    last = walk.last
    if walk.count == 0:
        ranges = (Range(0, 0, "missing"),)
    found = None
    if last is not None and last.sound:
        found = Head(walk.count, walk.number, last.stored, last.timestamp)
    state = OK if not ranges else DAMAGED if walk.json else UNREADABLE
    return Verdict(state, walk.count, found, ranges, path, hashes=walk.hashes)


def _unread(path: Path, state: str, problem: str) -> Verdict:
    return Verdict(state, 0, None, (), path, problem)


def _walk(path: Path, stream: BinaryIO, wanted: Collection[int], processes: int) -> Walk:
    if stream.read(len(reading.OPENING)) == reading.OPENING:
        size = os.fstat(stream.fileno()).st_size
        # A fork of a process with threads can hang.
        alone = threading.active_count() > 1
        parts = 1 if alone else max(1, min(processes, size // _MIN_PART_BYTES))
        walk = _in_parts(path, [size * part // parts for part in range(parts)], wanted)
        if walk.json:
            return walk
        # Not a piece each line: another form, or damaged so that it is none.
        other = _whole(stream, wanted)
        return other if other.json else walk
    return _whole(stream, wanted)


def _whole(stream: BinaryIO, wanted: Collection[int]) -> Walk:
    walk = Walk(begins=True, wanted=wanted)
    for block in reading.any_form(stream):
        walk.add(block)
    return walk


def _in_parts(path: Path, starts: list[int], wanted: Collection[int]) -> Walk:
    ends = [*starts[1:], None]
    context = multiprocessing.get_context("fork")
    with ExitStack() as stack:
        receivers: list[Connection] = []
        for start, end in zip(starts[1:], ends[1:], strict=True):
            receiver, sender = context.Pipe(duplex=False)
            worker = context.Process(target=_send, args=(sender, path, start, end, wanted), daemon=True)
            worker.start()
            sender.close()
            stack.callback(worker.join)
            stack.callback(worker.kill)
            receivers.append(stack.enter_context(receiver))
        walk = _part(path, 0, ends[0], wanted)
        for receiver in receivers:
            try:
                walk.join(receiver.recv())
            except EOFError:
                raise KosError(f"{path}: a process that verified a part of it was killed") from None
    return walk


def _send(sender: Connection, path: Path, start: int, end: int | None, wanted: Collection[int]) -> None:
    sender.send(_part(path, start, end, wanted))


def _part(path: Path, start: int, end: int | None, wanted: Collection[int]) -> Walk:
    """Walk over the blocks from the first sound one at `start` to that at `end`, or to the file's end."""
    walk = Walk(begins=start == 0, wanted=wanted)
    # Hash of the last block where that is sound, and its text where nothing but that is known of it.
    previous, known = None, b""
    with path.open("rb", buffering=0) as stream:
        for offset, text in reading.pretty(stream, start):
            outside = end is not None and offset >= end
            if previous is not None and not outside:
                digest = written(text, walk.number + 1, previous)
                if digest is not None:
                    walk.step(digest)
                    previous, known = digest, text
                    continue
            block = reading.block_of(text)
            if outside and block.sound:
                break
            if known:
                walk.last, known = reading.block_of(known), b""
            if block.sound or walk.first is not None or start == 0:
                walk.add(block)
                previous = block.stored.encode() if block.sound else None
    if known:
        walk.last = reading.block_of(known)
    return walk
