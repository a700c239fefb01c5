"""Images that change, and the chain of their page deltas; what the tests of both share."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from kosnode.backup import page_chain
from kosnode.backup.page_chain import PageChain, Point
from kosnode.backup.pages import PAGE_BYTES

ROUNDS = int(os.environ.get("KOS_ROUNDS", "6"))
BEGAN = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)
ABOUT = {"mode": "0640"}


def chance() -> random.Random:
    """Return a generator whose seed is printed, and taken from KOS_SEED where that is set."""
    seed = int(os.environ.get("KOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"KOS_SEED={seed}")
    return random.Random(seed)


def image(dice: random.Random, pages: int = 300, tail: int = 0) -> bytes:
    return dice.randbytes(pages * PAGE_BYTES + tail)


def changed(dice: random.Random, data: bytes, pages: int = 3) -> bytes:
    """Return an image of which a few pages differ in a few bytes."""
    new = bytearray(data)
    for _ in range(pages):
        at = dice.randrange(max(1, len(new) - 100))
        new[at : at + 100] = dice.randbytes(min(100, len(new) - at))
    return bytes(new)


class History:
    """A chain with what each of its points was.

    Args:
        folder: of the chain.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.chain = PageChain(folder, self.said.append)
        self.states: list[bytes] = []
        self.points: list[Point] = []

    def add(self, data: bytes, minutes: int | None = None) -> Point:
        """Add a state, by default a minute after the last one."""
        after = timedelta(minutes=len(self.states) if minutes is None else minutes)
        with self.chain.workspace() as workspace:
            copy = workspace / "copy"
            copy.write_bytes(data)
            point = self.chain.append(copy, BEGAN + after, ABOUT)
        self.states.append(data)
        self.points.append(point)
        return point

    def shipped(self) -> Path:
        """Return a copy of the chain, as restic would give it back."""
        copy = self.folder.with_name(f"{self.folder.name}.shipped")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.chain.chain, copy)
        return copy


def restored(chain: Path, until: datetime | None = None) -> bytes:
    """Return the image of a point."""
    out = chain.with_name(f"{chain.name}.out")
    scratch = chain.with_name(f"{chain.name}.scratch")
    scratch.mkdir(exist_ok=True)
    page_chain.restore(chain, out, scratch, until)
    assert not list(scratch.iterdir())
    data = out.read_bytes()
    out.unlink()
    return data


def each_file(chain: Path) -> Iterator[Path]:
    """Yield the files of a chain, in order."""
    yield from sorted(path for path in chain.rglob("*") if path.is_file())
