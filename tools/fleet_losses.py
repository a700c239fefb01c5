"""What a lost node cost: the records that were acknowledged to their writer, beside those that came back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class LossError(Exception):
    """What came back is not a beginning of what was written; the message names the store and the number."""


@dataclass(frozen=True)
class Acknowledged:
    """A record that a store took.

    Args:
        store: its name.
        number: 1 for the first record of a store, and one more for each after it.
        time: when the writer heard of it, seconds since 1970.
    """

    store: str
    number: int
    time: float


@dataclass(frozen=True)
class Loss:
    """What a store lost.

    Args:
        acknowledged, kept, lost: numbers of records.
        seconds: from the last record that was kept to the last that was acknowledged.
    """

    store: str
    acknowledged: int
    kept: int
    lost: int
    seconds: float


def read(lines: Iterable[str]) -> list[Acknowledged]:
    """Return what a writer was told, from its lines of JSON; the last may be torn."""
    found = []
    for line in lines:
        if line.endswith("\n"):
            said = json.loads(line)
            found.append(Acknowledged(said["store"], said["n"], said["time"]))
    return found


def of_store(store: str, acknowledged: Sequence[Acknowledged], kept: Sequence[int]) -> Loss:
    """Compare what a store took with what it holds now.

    Args:
        acknowledged: what the writer was told, of all stores, oldest first.
        kept: numbers of the records that the store holds, in its order.

    Raises:
        LossError: the store holds other records than the first ones without a hole.
    """
    if list(kept) != list(range(1, len(kept) + 1)):
        wrong = next(number for number, found in enumerate(kept, 1) if found != number)
        raise LossError(f"{store} holds record {kept[wrong - 1]} where record {wrong} belongs")
    own = [one for one in acknowledged if one.store == store]
    lost = [one for one in own if one.number > len(kept)]
    last = [one.time for one in own if one.number <= len(kept)][-1:]
    until = own[-1].time if own else 0.0
    begins = last[0] if last else own[0].time if own else 0.0
    taken = own[-1].number if own else len(kept)
    return Loss(store, max(taken, len(kept)), len(kept), len(lost), until - begins if lost else 0.0)
