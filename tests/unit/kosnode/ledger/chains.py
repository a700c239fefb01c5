"""Makes ledgers as the gem writes them, for the tests of the verifier."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kosnode.ledger.block import KEYS, block_hash, merkle_root

Block = dict[str, Any]

GENESIS: Block = {
    "index": 0,
    "timestamp": "1970-01-01T00:00:00.000000Z",
    "data": ["Genesis Block"],
    "previous_hash": "0" * 64,
    "merkle_root": "0" * 64,
    "hash": "19bcc95a7b5946ca2c1029728cb623975c2807690f8fd354ca6799878c4b7efd",
}


def chain(*data: Sequence[str]) -> list[Block]:
    """Return the genesis block and one block for each list of strings."""
    blocks = [dict(GENESIS)]
    for index, items in enumerate(data, start=1):
        timestamp = f"2026-11-{1 + index // 86400 % 28:02}T12:00:00.{index % 1_000_000:06}Z"
        blocks.append(block(index, timestamp, items, blocks[-1]["hash"]))
    return blocks


def block(index: int, timestamp: str, items: Sequence[str], previous: str) -> Block:
    """Return a block that is right by itself."""
    root = merkle_root(items)
    values = (index, timestamp, list(items), previous, root)
    return dict(zip(KEYS, (*values, block_hash(index, timestamp, items, previous, root)), strict=True))


def text(blocks: Iterable[Any]) -> str:
    """Return a ledger in the gem's pretty form."""
    return json.dumps(list(blocks), indent=2, ensure_ascii=False)


def write(path: Path, blocks: Iterable[Any]) -> Path:
    """Write a ledger in the gem's pretty form and return its path."""
    path.write_text(text(blocks), "utf-8")
    return path
