"""What one block of a KairosChain ledger says, and whether it is right by itself.

The rules are those of the published gem: SHA-256 over text in which numbers, hexadecimal digests and compact
JSON are joined without separators.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

KEYS = ("index", "timestamp", "data", "previous_hash", "merkle_root", "hash")
_KINDS = (int, str, list, str, str, str)
GENESIS_HASH = "19bcc95a7b5946ca2c1029728cb623975c2807690f8fd354ca6799878c4b7efd"

_ZERO = "0" * 64
_GENESIS = ("1970-01-01T00:00:00.000000Z", ["Genesis Block"], _ZERO, _ZERO)
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z", re.ASCII
)
_SHOWN = 40

# Pairs and not dicts: a key that stands twice would be lost in a dict.
_decode = json.JSONDecoder(object_pairs_hook=tuple).raw_decode
# What json.dumps makes of a string where ensure_ascii is off, which is the text that is hashed.
_quoted = json.encoder.encode_basestring


class Block(NamedTuple):
    """A block as it stands, judged by itself.

    Attributes:
        claimed: its index, as the block says; None where it says none.
        timestamp: as the block says; empty where it says none, as in the next two.
        previous: the hash of the block before, as this block says.
        stored: the hash of this block, as it says.
        computed: the hash that its content has; empty where the content is not of the form that has one.
        faults: what is wrong with it, each in a few words.
        json: whether it is JSON at all.
    """

    claimed: int | None
    timestamp: str
    previous: str
    stored: str
    computed: str
    faults: tuple[str, ...] = ()
    json: bool = True

    @property
    def sound(self) -> bool:
        """Whether its content has the hash that it says, so that its index can be believed."""
        return self.computed != "" and self.computed == self.stored


def read(text: bytes) -> Block:
    """Judge one block.

    Args:
        text: one element of the ledger's array, UTF-8, without white space before or after it.
    """
    try:
        decoded = text.decode("utf-8")
        value, end = _decode(decoded)
        if end != len(decoded):
            return unread("not JSON")
    except UnicodeDecodeError:
        return unread("not UTF-8")
    except (ValueError, RecursionError):
        return unread("not JSON")
    return _judge(value)


def unread(fault: str) -> Block:
    """Return what stands for text that is no JSON."""
    return Block(None, "", "", "", "", (fault,), json=False)


def merkle_root(data: Sequence[str]) -> str:
    """Return the Merkle root of a block's data in hexadecimal; empty where there is no data.

    Digests are joined as hexadecimal text, and the last of an odd number is paired with itself.
    """
    return merkle_fold([sha256(item.encode()).hexdigest() for item in data])


def merkle_fold(level: list[str]) -> str:
    """Return the root above the digests of a block's data; empty where there is none."""
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [sha256((left + right).encode()).hexdigest() for left, right in pairs]
    return level[0] if level else ""


def block_hash(index: int, timestamp: str, data: Sequence[str], previous: str, root: str) -> str:
    """Return the hash of a block in hexadecimal."""
    text = f"{index}{timestamp}{previous}{root}[{','.join(map(_quoted, data))}]"
    return sha256(text.encode()).hexdigest()


def _judge(value: Any) -> Block:
    if type(value) is not tuple:
        return Block(None, "", "", "", "", ("not an object",))
    if len(value) == len(KEYS):
        (k0, index), (k1, timestamp), (k2, data), (k3, previous), (k4, root), (k5, stored) = value
        if (k0, k1, k2, k3, k4, k5) == KEYS:
            return _weigh(index, timestamp, data, previous, root, stored, ())
    # Of two with the same key the last one wins, as it does where the ledger is loaded.
    last = dict(value)
    index, timestamp, data, previous, root, stored = (last.get(key) for key in KEYS)
    return _weigh(index, timestamp, data, previous, root, stored, _key_faults([key for key, _ in value]))


def _weigh(
    index: Any, timestamp: Any, data: Any, previous: Any, root: Any, stored: Any, faults: tuple[str, ...]
) -> Block:
    if not (
        type(index) is int
        and type(timestamp) is str
        and type(data) is list
        and type(previous) is type(root) is str
    ):
        given = (index, timestamp, data, previous, root, stored)
        faults += tuple(
            key for key, kind, one in zip(KEYS, _KINDS, given, strict=True) if type(one) is not kind
        )
        claimed = index if type(index) is int else None
        return Block(claimed, _text(timestamp), _text(previous), _text(stored), "", faults)
    try:
        computed = block_hash(index, timestamp, data, previous, root)
        if index == 0:
            if (timestamp, data, previous, root) != _GENESIS:
                faults += ("genesis",)
        elif merkle_root(data) != root:
            faults += ("merkle_root",)
    except (TypeError, UnicodeEncodeError):
        return Block(index, timestamp, previous, _text(stored), "", (*faults, "data"))
    if computed != stored:
        faults += ("hash",)
        stored = _text(stored)
    if not (_TIMESTAMP.fullmatch(timestamp) and _is_date(timestamp[:10])):
        faults += ("timestamp",)
    return Block(index, timestamp, previous, stored, computed, faults)


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _key_faults(keys: Sequence[str]) -> tuple[str, ...]:
    """Say which keys are too many; one that is missing is told as a value that has not its form."""
    unknown = [f"unknown key {key[:_SHOWN]!a}" for key in dict.fromkeys(keys) if key not in KEYS]
    return (*unknown, *(f"key {key} twice" for key in KEYS if keys.count(key) > 1))


@lru_cache(maxsize=64)
def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True
