"""What a run of a large SQLite database stores and costs, beside Litestream and restic on a plain copy."""

from __future__ import annotations

import random
import sqlite3
import statistics
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from . import process
from .figures import ROOT, Figure
from .process import Cost
from .sqlite_peers import Peer, Restic, litestream, size

MEGABYTE = 1_000_000
ROWS = 480_000
ROW_BYTES = 1000
SHARES = ((0.001, "0.1 %", "at most 2 MB"), (0.01, "1 %", "at most 20 MB"))
ROUNDS = 5
CHAIN = "var/lib/kos/backup/sqlite/bench/chain"

# What a run of a source does; restic reads what it leaves.
_RUN = """
import sys
from pathlib import Path
from kosnode.backup.config import SourceSpec
from kosnode.backup.places import Places
from kosnode.backup.sqlite import Sqlite
from kosnode.paths import NodePaths

root, database = map(Path, sys.argv[1:])
source = Sqlite(SourceSpec("bench", "high", "sqlite", path=database), Places(NodePaths(root)))
source.check()
with source.prepare(root):
    pass
"""

_RESTORE = """
import sys
from pathlib import Path
from kosnode.backup import page_chain, sqlite

chain, out, scratch = map(Path, sys.argv[1:])
page_chain.restore(chain, out, scratch)
assert sqlite.check_integrity(out, "integrity_check") == []
"""

_DIGEST = """
import sys
from kosnode.backup import pages

with open(sys.argv[1], "rb") as image, open("/dev/null", "wb") as table:
    print(pages.scan(image, table).root)
"""

_HASHLIB = """
import hashlib, sys

computed = hashlib.sha3_256()
with open(sys.argv[1], "rb", buffering=0) as stream:
    while data := stream.read(1 << 20):
        computed.update(data)
print(computed.hexdigest())
"""


def deltas(work: Path) -> list[Figure]:
    """Measure what updates of random rows add, and what a run and a restore cost."""
    database = make(work / "large.db", ROWS)
    root = work / "node"
    _back_up(root, database)
    found: list[Figure] = []
    costs = []
    with litestream(database, work / "litestream") as theirs:
        peers: list[Peer] = [Restic(database, work / "restic"), *([theirs] if theirs is not None else [])]
        for number, (share, said, goal) in enumerate(SHARES):
            update(database, random.Random(number), ROWS, share)
            done, stored = _back_up(root, database)
            costs.append(done)
            name = f"page delta, {said} of the rows of a 500 MB database updated"
            for peer in peers:
                added = peer.added() / MEGABYTE
                found.append(Figure(name, stored / MEGABYTE, "MB", peer.name, added, goal))
    small = make(work / "small.db", ROWS // 10)
    _back_up(work / "small", small)
    update(small, random.Random(2), ROWS // 10, SHARES[-1][0])
    little, _ = _back_up(work / "small", small)
    return [
        *found,
        Figure(
            "memory of a run, 1 % of a 500 MB database updated",
            costs[-1].peak_bytes / MEGABYTE,
            "MB",
            "the same of a database of a tenth",
            little.peak_bytes / MEGABYTE,
            "at most 1.3 x of the peer",
        ),
        Figure(
            "processor time of a run, 0.1 % of a 500 MB database updated",
            costs[0].cpu_seconds,
            "s",
            "cp and one SHA3-256 of the file",
            statistics.median(_copy_and_hash(work, database) for _ in range(ROUNDS)),
        ),
        *_speed(work, root, database),
    ]


def make(path: Path, rows: int) -> Path:
    """Make a database of rows of a kilobyte that no compression makes smaller."""
    chance = random.Random(0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE record (id INTEGER PRIMARY KEY, content BLOB)")
        content = ((number, chance.randbytes(ROW_BYTES)) for number in range(rows))
        connection.executemany("INSERT INTO record VALUES (?, ?)", content)
        connection.commit()
    return path


def update(path: Path, chance: random.Random, rows: int, share: float) -> None:
    """Give so many of the rows another content."""
    chosen = chance.sample(range(rows), int(rows * share))
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        content = ((chance.randbytes(ROW_BYTES), number) for number in chosen)
        connection.executemany("UPDATE record SET content = ? WHERE id = ?", content)
        connection.commit()


def _back_up(root: Path, database: Path) -> tuple[Cost, int]:
    """Return what a run cost, and the bytes that it stored."""
    root.mkdir(exist_ok=True)
    before = size(root / CHAIN)
    done = _python(_RUN, root, database)
    return done.cost, size(root / CHAIN) - before


def _speed(work: Path, root: Path, database: Path) -> Iterator[Figure]:
    size = database.stat().st_size / MEGABYTE
    chain = root / CHAIN
    image = chain / "000001/base"

    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(size / _python(_DIGEST, image).cost.cpu_seconds)
        bare.append(size / _python(_HASHLIB, image).cost.cpu_seconds)
    yield Figure(
        "digest of a 500 MB image, on one core",
        statistics.median(ours),
        "MB/s",
        "hashlib sha3_256",
        statistics.median(bare),
        "at least 0.8 x of the peer",
    )
    out = work / "restored.db"
    seconds = []
    for _ in range(ROUNDS):
        out.unlink(missing_ok=True)
        seconds.append(_python(_RESTORE, chain, out, work).cost.cpu_seconds)
    yield Figure(
        "processor time of a restore from base and deltas, 500 MB database, with integrity_check",
        statistics.median(seconds),
        "s",
        "cp and one SHA3-256 of the file",
        statistics.median(_copy_and_hash(work, database) for _ in range(ROUNDS)),
    )


def _copy_and_hash(work: Path, database: Path) -> float:
    copy = work / "copy.db"
    cost = process.run(["cp", str(database), str(copy)]).cost
    return cost.cpu_seconds + _python(_HASHLIB, copy).cost.cpu_seconds


def _python(program: str, *arguments: Path) -> process.Done:
    words = [sys.executable, "-c", program, *map(str, arguments)]
    return process.run(words, env={"PYTHONPATH": str(ROOT / "runtime")})
