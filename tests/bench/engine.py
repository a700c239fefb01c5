"""How fast kosctl verifies a release, and how long the switch of a link takes."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kosnode import files

from . import contents, mirror, process
from .figures import Figure, percentile
from .node import LocalNode
from .publisher import Publisher

ROUNDS = 5
SWITCHES = 2000

# As fast as hashlib goes on this machine: a thread for each core, and nothing compared with anything.
_HASH = """
import hashlib, os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

def digest(path):
    with open(path, "rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha3_256").hexdigest()

with ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(digest, [path for path in Path(sys.argv[1]).rglob("*") if path.is_file()]))
"""


def verify(work: Path) -> list[Figure]:
    """Measure how fast a release of 500 MB in the page cache is verified, start of Python included."""
    tree = contents.large(contents.LARGE_MEBIBYTES, changed=False)
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) / contents.MEBIBYTE
    publisher = Publisher(work / "publisher", level=3)
    root = publisher.build(tree, "1.0.0")["root"]
    ours, bare = [], []
    with mirror.serve(publisher.mirror) as served:
        node = LocalNode(work / "node", served.url, publisher.trust_root)
        node.kosctl("stage", "1.0.0")
        hashing = [sys.executable, "-IS", "-c", _HASH, str(node.slot(root) / "tree")]
        process.run(hashing)
        for _ in range(ROUNDS):
            ours.append(size / node.kosctl("verify", root).cost.seconds)
            bare.append(size / process.run(hashing).cost.seconds)
    return [
        Figure(
            "verify throughput, release of 500 MB",
            statistics.median(ours),
            "MiB/s",
            f"hashlib sha3_256 on {os.cpu_count()} cores",
            statistics.median(bare),
            "at least 0.8 x of the peer",
        )
    ]


def switch(work: Path) -> list[Figure]:
    """Measure how long it takes to switch a link durably, as the commit point of a patch does."""
    durable = _latencies(partial(files.link_durable, work / "current"))
    bare = _latencies(partial(_link, work / "bare"))
    return [
        Figure(
            f"switch latency p{percent}",
            percentile(durable, percent),
            "ms",
            "symlink and rename without fsync",
            percentile(bare, percent),
        )
        for percent in (50, 99)
    ]


def _link(path: Path, target: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.symlink_to(target)
    temporary.replace(path)


def _latencies(link: Callable[[str], None]) -> list[float]:
    """Return the milliseconds that each of many switches took."""
    found = []
    for number in range(SWITCHES):
        started = time.perf_counter()
        link(f"releases/{number % 2}")
        found.append((time.perf_counter() - started) * 1000)
    return found
