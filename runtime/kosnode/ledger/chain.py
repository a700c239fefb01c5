"""Walks over blocks in order, compares each with the one before, and gathers where damage is."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from .block import Block

# A bound on memory: of a ledger that is damaged everywhere nobody reads a list.
MAX_RANGES = 1000
FURTHER = "further damage"


class Range(NamedTuple):
    """Consecutive blocks with the same fault.

    Attributes:
        first: index of the first of them.
        last: index of the last of them.
        reason: what is wrong with them, in a few words.
    """

    first: int
    last: int
    reason: str


class Walk:
    """What is known after a number of consecutive blocks.

    Args:
        begins: whether the first block that comes is the ledger's first. Otherwise it has to be a sound one,
            and what it is to follow is said by `join`.
        wanted: indices of blocks whose hashes are to be remembered.

    Attributes:
        count: number of blocks.
        first: the first of them.
        last: the last of them.
        number: index of the last of them; one that cannot be believed is counted from the block before.
        hashes: hash by index of the blocks that were wanted and came, by what they hold.
        json: whether all of them were JSON.
    """

    def __init__(self, *, begins: bool, wanted: Collection[int] = ()) -> None:
        self.count = 0
        self.first: Block | None = None
        self.last: Block | None = None
        self.number = -1
        self.hashes: dict[int, str] = {}
        self.json = True
        self._begins = begins
        self._wanted = wanted
        self._runs: dict[str, list[list[int]]] = {}

    def add(self, block: Block) -> None:
        """Take the next block."""
        number = self._number_of(block)
        if self._begins or self.last is not None:
            self._compare(block, number)
        if block.faults:
            self.json &= block.json
            for fault in block.faults:
                self._damaged(fault, number, number)
        if number in self._wanted:
            self.hashes[number] = block.computed
        self.first = self.first or block
        self.last, self.number = block, number
        self.count += 1

    def step(self, digest: bytes) -> None:
        """Take the next block, of which it is known that it is sound and follows from the one before.

        `last` is then to be set by who steps, before anything but another step.
        """
        self.number += 1
        self.count += 1
        if self.number in self._wanted:
            self.hashes[self.number] = digest.decode()

    def join(self, later: Walk) -> None:
        """Take the blocks of another walk, which began with the block that comes next."""
        if later.first is None:
            return
        self._compare(later.first, self._number_of(later.first))
        for reason, runs in later._runs.items():
            for first, last in runs:
                self._damaged(reason, first, last)
        self.hashes.update(later.hashes)
        self.json &= later.json
        self.last, self.number = later.last, later.number
        self.count += later.count

    def ranges(self) -> tuple[Range, ...]:
        """Return where damage is, in the order of the blocks."""
        return tuple(
            sorted(Range(first, last, reason) for reason, runs in self._runs.items() for first, last in runs)
        )

    def _number_of(self, block: Block) -> int:
        return block.claimed if block.sound and block.claimed is not None else self.number + 1

    def _compare(self, block: Block, number: int) -> None:
        """Note what is wrong between the last block and this one."""
        before = self.last
        if before is None or before.sound:
            if number > self.number + 1:
                self._damaged("missing", self.number + 1, number - 1)
            elif number <= self.number or block.claimed not in (number, None):
                self._damaged("index", number, number)
        # A block whose stored hash is wrong is damaged itself; the next one is not for pointing to it.
        known = before is not None and before.json and block.json
        if before is not None and known and block.previous not in (before.computed, before.stored):
            self._damaged("previous_hash", number, number)

    def _damaged(self, reason: str, first: int, last: int) -> None:
        runs = self._runs.setdefault(reason, [])
        if runs and runs[-1][0] <= first <= runs[-1][1] + 1:
            runs[-1][1] = max(last, runs[-1][1])
        elif reason == FURTHER and runs:
            runs[-1] = [min(first, runs[-1][0]), max(last, runs[-1][1])]
        elif reason == FURTHER or sum(map(len, self._runs.values())) < MAX_RANGES:
            runs.append([first, last])
        else:
            self._damaged(FURTHER, first, last)
