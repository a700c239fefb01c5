"""How fast kosctl verifies a KairosChain ledger, beside a plain loop in the application's own language."""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from kosnode.ledger.block import GENESIS_HASH, KEYS, block_hash, merkle_root

from . import process
from .figures import ROOT, Figure
from .process import Cost

BLOCKS = 100_000
ROUNDS = 7
AUTHORS = ("ada", "grace", "müller", "kay")
PEER = "Ruby, load and hash in a loop"

# What a person writes who knows the rules: no Merkle roots, no genesis, no keys, no words where it is wrong.
_RUBY = """
require "json"
require "digest"
previous = nil
good = JSON.parse(File.read(ARGV[0])).all? do |block|
  text = block.values_at("index", "timestamp", "previous_hash", "merkle_root").join
  hash = Digest::SHA256.hexdigest(text + JSON.generate(block["data"]))
  follows = previous.nil? || previous == block["previous_hash"]
  previous = hash
  follows && hash == block["hash"]
end
exit good
"""


def verify(work: Path) -> list[Figure]:
    """Measure the verification of a ledger of 100 000 blocks in the page cache, starts of both included."""
    path = work / "blockchain.json"
    size = write(path, BLOCKS)
    print(f"  ledger of {BLOCKS} blocks, {size / 1e6:.0f} MB", flush=True)
    kosctl = [sys.executable, "-m", "kosnode", "ledger", "verify", str(path)]
    ruby = ["ruby", "-e", _RUBY, str(path)]
    ours: list[Cost] = []
    theirs: list[Cost] = []
    for number in range(ROUNDS + 1):
        for costs, command in ((ours, kosctl), (theirs, ruby)):
            cost = process.run(command, env={"PYTHONPATH": str(ROOT / "runtime")}).cost
            # The first of each fills caches.
            if number:
                costs.append(cost)

    what = "ledger of 100 000 blocks"
    return [
        _figure(
            f"verification, {what}",
            "s",
            [cost.seconds for cost in ours],
            [cost.seconds for cost in theirs],
            "at most 0.4 x of the peer",
        ),
        _figure(
            f"CPU of a verification, {what}",
            "CPU-s",
            [cost.cpu_seconds for cost in ours],
            [cost.cpu_seconds for cost in theirs],
        ),
        _figure(
            f"memory of a process, {what}",
            "MB",
            [cost.peak_bytes / 1e6 for cost in ours],
            [cost.peak_bytes / 1e6 for cost in theirs],
            "at most 64 MB",
        ),
    ]


def _figure(name: str, unit: str, ours: Sequence[float], theirs: Sequence[float], goal: str = "") -> Figure:
    return Figure(name, statistics.median(ours), unit, PEER, statistics.median(theirs), goal)


def write(path: Path, count: int) -> int:
    """Write a ledger as the gem does, of blocks as a node makes them, and return its size in bytes."""
    chosen = random.Random(1)
    zero = "0" * 64
    with path.open("w", encoding="utf-8") as stream:
        values: tuple[object, ...] = (
            0,
            "1970-01-01T00:00:00.000000Z",
            ["Genesis Block"],
            zero,
            zero,
            GENESIS_HASH,
        )
        previous = GENESIS_HASH
        for index in range(count):
            if index:
                timestamp = f"2026-{1 + index % 12:02}-{1 + index % 28:02}T12:00:00.{index:06}Z"
                entry = {
                    "type": "skill_evolution",
                    "skill": f"skill-{index % 97}",
                    "reason": " ".join(f"{chosen.getrandbits(64):016x}" for _ in range(20)),
                    "author": AUTHORS[index % len(AUTHORS)],
                    "digest": f"{chosen.getrandbits(256):064x}",
                }
                data = [json.dumps(entry, ensure_ascii=False)]
                root = merkle_root(data)
                digest = block_hash(index, timestamp, data, previous, root)
                values = (index, timestamp, data, previous, root, digest)
                previous = digest
            text = json.dumps([dict(zip(KEYS, values, strict=True))], indent=2, ensure_ascii=False)
            stream.write(f",{text[1:-2]}" if index else text[:-2])
        stream.write("\n]")
    return path.stat().st_size
