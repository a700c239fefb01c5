"""Compares a ledger with what was known of it before: an anchor that was kept elsewhere, or another copy.

A chain proves that nothing in it was changed, and not that nothing was taken off its end or that it was not
made anew. An anchor, index and hash of a block, does (K08).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from . import reading
from .verifier import Head, Verdict, verify

SAME, GROWN, CUT, FORKED = "same", "grown", "cut", "forked"

_ANCHOR = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@dataclass(frozen=True)
class Anchor:
    """A block that was once the last one.

    Args:
        index: its index.
        hash: its hash, 64 hexadecimal digits.
    """

    index: int
    hash: str

    def __str__(self) -> str:
        return f"{self.index}:{self.hash}"


@dataclass(frozen=True)
class Comparison:
    """How a ledger stands to what was known before.

    Args:
        relation: `same`, `grown` (it goes on from there), `cut` (it ends before), `forked` (it has another
            block there).
        verdict: that of the ledger.
        common: how many blocks at the beginning are known to be the same; None where only an anchor is known.
    """

    relation: str
    verdict: Verdict
    common: int | None = None

    @property
    def continues(self) -> bool:
        """Whether nothing that was known before is gone."""
        return self.relation in (SAME, GROWN)


def parse(text: str, key: str = "anchor") -> Anchor:
    """Read an anchor, `INDEX:HASH`.

    Raises:
        InputError: it is none; names the key.
    """
    found = _ANCHOR.fullmatch(text)
    if found is None:
        raise InputError(f"{text[:80]!r} is not an anchor, INDEX:HASH with 64 hexadecimal digits", key=key)
    return Anchor(int(found[1]), found[2])


def anchor_of(head: Head) -> Anchor:
    """Return the anchor that a ledger's head makes."""
    return Anchor(head.index, head.hash)


def compare(path: Path, anchor: Anchor) -> Comparison:
    """Compare a ledger with an anchor.

    Raises:
        NotFoundError, DamagedError, InputError: the ledger is absent, damaged, unreadable.
    """
    verdict = verify(path, wanted=[anchor.index])
    head = verdict.require_ok()
    if anchor_of(head) == anchor:
        return Comparison(SAME, verdict)
    if anchor.index > head.index:
        return Comparison(CUT, verdict)
    return Comparison(GROWN if verdict.hashes[anchor.index] == anchor.hash else FORKED, verdict)


def compare_ledgers(path: Path, other: Path) -> Comparison:
    """Compare a ledger with another copy of it.

    Raises:
        NotFoundError, DamagedError, InputError: one of the two is absent, damaged, unreadable.
    """
    known = verify(other).require_ok()
    found = compare(path, anchor_of(known))
    head = found.verdict.require_ok()
    if found.relation == CUT and verify(other, wanted=[head.index]).hashes[head.index] != head.hash:
        found = Comparison(FORKED, found.verdict)
    shorter = min(known.length, head.length)
    return Comparison(
        found.relation, found.verdict, _common(path, other) if found.relation == FORKED else shorter
    )


def _common(path: Path, other: Path) -> int:
    count = 0
    with path.open("rb") as here, other.open("rb") as there:
        for one, another in zip(reading.any_form(here), reading.any_form(there), strict=False):
            if one.computed != another.computed:
                break
            count += 1
    return count
