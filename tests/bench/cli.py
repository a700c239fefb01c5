"""The command line of the benchmarks: runs them one after the other and writes what they found."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import engine, figures, page, transfer
from .figures import Figure

COMMAND = ".venv/bin/python tests/bench/bench.py --only {name}"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: What `--only` calls it.
        text: What it measures.
        measure: Measures it, with an empty folder to work in.
    """

    name: str
    text: str
    measure: Callable[[Path], list[Figure]]


BENCHMARKS = (
    Benchmark("bytes", "bytes that a node fetches for a patch", transfer.fetched),
    Benchmark("memory", "memory and writes of a patch to a large release", transfer.cost_of_large_patch),
    Benchmark("verify", "throughput of kosctl verify", engine.verify),
    Benchmark("switch", "latency of the switch", engine.switch),
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
        for benchmark in BENCHMARKS:
            if benchmark.name in (asked.only or names):
                run(benchmark)
        written = [figures.RESULTS, page.write_page(figures.read())]
    for path in written:
        print(f"bench: wrote {path.relative_to(figures.ROOT)}")
    return 0


def run(benchmark: Benchmark) -> None:
    """Run one benchmark, show what it found and put it into build/bench.json."""
    print(f"bench {benchmark.name}: {benchmark.text}", flush=True)
    started = time.monotonic()
    with _folder(benchmark.name) as work:
        found = benchmark.measure(work)
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
        yield folder / "work"
    finally:
        shutil.rmtree(folder)
