"""The command line of the benchmarks: runs them one after the other and writes what they found."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import engine, figures, operations, page, transfer
from .figures import Figure
from .fleet import Fleet, fleet

COMMAND = ".venv/bin/python tests/bench/bench.py --only {name}"


class Workshop:
    """What benchmarks share: folders of their own, and one fleet that is made when the first asks for it.

    Args:
        stack: Removes what was made.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def folder(self, name: str) -> Path:
        """Return an empty folder that is gone when the benchmarks end."""
        return self._stack.enter_context(_folder(name))

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
    Benchmark("switch", "latency of the switch", lambda shop: engine.switch(shop.folder("switch"))),
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
        with ExitStack() as stack:
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
def _folder(name: str) -> Iterator[Path]:
    # On the disk of the project: what is measured ends on a real file system, which /tmp may not be.
    figures.BUILD.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=figures.BUILD))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
