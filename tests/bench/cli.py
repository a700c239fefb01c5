"""The command line of the benchmarks: runs them one after the other and writes what they found."""

from __future__ import annotations

import argparse
import fcntl
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import backups, deltas, engine, figures, inventory, ledger, operations, page, transfer
from .figures import Figure
from .fleet import Fleet, fleet

# On the disk of the project: a folder for temporary files may be memory.
WORK = figures.BUILD / "work"
COMMAND = ".venv/bin/python tests/bench/bench.py --only {name}"


class Workshop:
    """What benchmarks share: folders of their own, and one fleet that is made when the first asks for it.

    Args:
        stack: Removes what was made.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def folder(self, name: str) -> Path:
        """Return a new folder, which is gone when the benchmarks have ended."""
        folder = WORK / name
        folder.mkdir(parents=True)
        self._stack.callback(_remove, folder)
        return folder

    @cached_property
    def fleet(self) -> Fleet:
        """The machines of the benchmarks that need real nodes."""
        return self._stack.enter_context(fleet(self.folder("fleet")))


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: What `--only` calls it.
        text: What it measures.
        measure: Measures it.
    """

    name: str
    text: str
    measure: Callable[[Workshop], list[Figure]]


BENCHMARKS = (
    Benchmark(
        "bytes", "bytes that a node fetches for a patch", lambda shop: transfer.fetched(shop.folder("bytes"))
    ),
    Benchmark(
        "memory", "what a patch of a large release takes", lambda shop: transfer.large(shop.folder("memory"))
    ),
    Benchmark("verify", "throughput of kosctl verify", lambda shop: engine.verify(shop.folder("verify"))),
    Benchmark(
        "ledger", "verification of a KairosChain ledger", lambda shop: ledger.verify(shop.folder("ledger"))
    ),
    Benchmark("switch", "latency of the switch", lambda shop: engine.switch(shop.folder("switch"))),
    Benchmark(
        "inventory",
        "listing a fleet that Pulumi made",
        lambda shop: inventory.listed(shop.folder("inventory")),
    ),
    Benchmark(
        "deltas",
        "page deltas of a large SQLite database",
        lambda shop: deltas.deltas(shop.folder("deltas")),
    ),
    Benchmark(
        "backups",
        "backup and restore of many small files",
        lambda shop: backups.backups(shop.folder("backups")),
    ),
    Benchmark("downtime", "downtime of a patch", lambda shop: operations.downtime(shop.fleet)),
    Benchmark("recovery", "the way back from a bad release", lambda shop: operations.recovery(shop.fleet)),
    # The last one on the fleet: it takes kOS off it.
    Benchmark(
        "controller", "controller CPU of a converged site", lambda shop: operations.controller(shop.fleet)
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and return the exit code: 0 where every one ran, whether or not its goal was met."""
    names = [one.name for one in BENCHMARKS]
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__)
    parser.add_argument("--only", action="append", choices=names, help="may be repeated (default: all)")
    parser.add_argument(
        "--document",
        action="store_true",
        help="measure nothing; write docs/benchmarks.md and the figures of README.md from build/bench.json",
    )
    asked = parser.parse_args(arguments)
    if asked.document:
        written = page.write_document(figures.read())
    else:
        # Ended from outside it cleans up as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with ExitStack() as stack:
            stack.enter_context(alone())
            shop = Workshop(stack)
            for benchmark in BENCHMARKS:
                if benchmark.name in (asked.only or names):
                    run(benchmark, shop)
        written = [figures.RESULTS, page.write_page(figures.read())]
    for path in written:
        print(f"bench: wrote {path.relative_to(figures.ROOT)}")
    return 0


def run(benchmark: Benchmark, shop: Workshop) -> None:
    """Run one benchmark, show what it found and put it into build/bench.json."""
    print(f"bench {benchmark.name}: {benchmark.text}", flush=True)
    started = time.monotonic()
    found = benchmark.measure(shop)
    command = COMMAND.format(name=benchmark.name)
    figures.write(found, command)
    for figure in found:
        print(f"  {page.sentence(figure.row(command))}")
    print(f"bench {benchmark.name}: {time.monotonic() - started:.0f} s", flush=True)


@contextmanager
def alone() -> Iterator[None]:
    """Hold the machine for one run of the benchmarks: two would measure each other, and share a bed."""
    with (Path(tempfile.gettempdir()) / "kos-bench.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("bench: another run of the benchmarks is under way on this machine") from None
        _remove(WORK)
        yield


def _remove(folder: Path) -> None:
    if folder.exists():
        # Folders of a slot are read-only, to their owner as well.
        subprocess.run(["chmod", "--recursive", "u+w", str(folder)], check=True)
        shutil.rmtree(folder)
