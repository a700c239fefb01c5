"""Says how a damaged ledger could be mended, block by block, and from which copy; it mends nothing itself.

That a block is the right one is proven by its neighbours: the sound block before it, and the hash that the
block after it expects. What is damaged in one copy may so be taken from another.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from . import reading
from .block import GENESIS_HASH, Block
from .chain import Range, Walk
from .verifier import ABSENT, UNREADABLE, Verdict, verify

REWRITE, COPY, LOST = "rewrite", "copy", "lost"


@dataclass(frozen=True)
class Step:
    """What can be done about consecutive blocks.

    Args:
        first: index of the first of them.
        last: index of the last of them; None where nobody can tell how many there were.
        do: `rewrite` (the next block proves what they hold: write it again, with the six keys and its hash),
            `copy` (take them from a copy where they are whole) or `lost`.
        source: the copy to take them from.
    """

    first: int
    last: int | None
    do: str
    source: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the step as JSON says it."""
        source = str(self.source) if self.source else None
        return {"first": self.first, "last": self.last, "do": self.do, "source": source}


@dataclass
class _Edges:
    """What the blocks around damage say.

    Args:
        hashes: hash by index, of the block before each damage and of its last block.
        expected: by index, the hash that the next block says this one has.
        unproven: first index of each damage in which a block does not follow from the one before it.
    """

    hashes: Mapping[int, str] = field(default_factory=dict)
    expected: dict[int, str] = field(default_factory=dict)
    unproven: set[int] = field(default_factory=set)


def plan(path: Path, copies: Sequence[Path]) -> tuple[Verdict, list[Step]]:
    """Say what could be done about each damage of a ledger.

    Args:
        path: the ledger.
        copies: other copies of it, such as restored backups.

    Returns:
        The verdict on the ledger, and the steps in the order of the blocks; none where it is whole.

    Raises:
        NotFoundError, DamagedError, InputError: a copy is itself absent, damaged, unreadable.
    """
    verdict = verify(path)
    lengths = {copy: verify(copy).require_ok().length for copy in copies}
    spans = _spans(verdict.ranges) if verdict.length else [(0, 0)]
    edges = _edges(path, verdict, spans)
    return verdict, [_step(span, verdict, edges, lengths) for span in spans]


def _step(span: tuple[int, int], verdict: Verdict, edges: _Edges, lengths: Mapping[Path, int]) -> Step:
    first, last = span
    proven = edges.hashes.get(last)
    if first not in edges.unproven and proven and proven == edges.expected.get(last):
        return Step(first, last, REWRITE)
    if span == (0, 0) and edges.expected.get(0) == GENESIS_HASH:
        return Step(first, last, REWRITE)
    before = edges.hashes.get(first - 1)
    # The longest first: where the end is damaged or gone, nothing but its length speaks for a copy.
    for copy in sorted(lengths, key=lambda one: -lengths[one]):
        there = verify(copy, wanted={first - 1, last}).hashes
        if first and (not before or there.get(first - 1) != before):
            continue
        if last in edges.expected:
            if there.get(last) == edges.expected[last]:
                return Step(first, last, COPY, copy)
        elif lengths[copy] > first:
            return Step(first, lengths[copy] - 1, COPY, copy)
    open_end = last not in edges.expected and verdict.state in (ABSENT, UNREADABLE)
    return Step(first, None if open_end else last, LOST)


def _spans(ranges: Iterable[Range]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for found in ranges:
        if spans and found.first <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(spans[-1][1], found.last))
        else:
            spans.append((found.first, found.last))
    return spans


def _edges(path: Path, verdict: Verdict, spans: Sequence[tuple[int, int]]) -> _Edges:
    if not verdict.length:
        return _Edges()
    firsts, ends = [first for first, _ in spans], {last for _, last in spans}
    walk = Walk(begins=True, wanted={first - 1 for first in firsts} | ends)
    edges = _Edges(walk.hashes)
    with path.open("rb", buffering=0) as stream:
        for block in _blocks(stream, verdict):
            before = walk.last
            walk.add(block)
            if walk.number - 1 in ends:
                edges.expected[walk.number - 1] = block.previous
            nearest = bisect.bisect_right(firsts, walk.number) - 1
            inside = nearest >= 0 and walk.number <= spans[nearest][1]
            follows = before is not None and block.previous == before.computed != ""
            if inside and not (follows and _only_written_wrong(block)):
                edges.unproven.add(firsts[nearest])
    return edges


def _only_written_wrong(block: Block) -> bool:
    return all(fault == "hash" or "key" in fault.split() for fault in block.faults)


def _blocks(stream: BinaryIO, verdict: Verdict) -> Iterator[Block]:
    """Read the way in which more is found: by lines where it is no JSON as a whole."""
    if verdict.state == UNREADABLE and stream.read(len(reading.OPENING)) == reading.OPENING:
        return (reading.block_of(text) for _, text in reading.pretty(stream, 0))
    return reading.any_form(stream)
