"""Bytes that a node fetches for a patch, and the memory and writes that a large one costs it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import contents, mirror, peers
from .figures import Figure
from .mirror import Mirror
from .node import Answer, LocalNode
from .publisher import Publisher

FETCHED_AT_MOST = {"2.19.14": "at most 0.5 % of the peer", "2.19.0": "at most 21 % of the peer"}
MEGABYTE = 1_000_000
ROUNDS = 3


@dataclass(frozen=True)
class Pair:
    """A mirror with two releases, and a node that has the first.

    Attributes:
        mirror: It counts what it sends.
        node: It runs the first release.
        new: Version of the second release.
        new_root: Its release root.
    """

    mirror: Mirror
    node: LocalNode
    new: str
    new_root: str

    def patch(self) -> Answer:
        """Let the node fetch the second release, and hold what it says to what the mirror sent."""
        self.mirror.sent.clear()
        answer = self.node.kosctl("stage", self.new)
        said, sent = answer.result["bytes"]["total"], self.mirror.sent.body_bytes
        if said != sent:
            raise AssertionError(
                f"kosctl says it fetched {said} bytes, the mirror sent {sent}: {self.mirror.sent}"
            )
        if answer.result["how"] != "patch":
            raise AssertionError(
                f"the release came as {answer.result['how']}, not as a patch: {answer.result}"
            )
        return answer

    def forget(self) -> None:
        """Let the node drop the second release, so that it can be fetched again."""
        self.node.kosctl("gc", self.new_root)


@contextmanager
def published(work: Path, old: tuple[str, Path], new: tuple[str, Path]) -> Iterator[Pair]:
    """Publish two releases and give a node the first.

    Args:
        work: A new folder.
        old: Version and tree of the first release.
        new: Version and tree of the second.
    """
    publisher = Publisher(work / "publisher")
    publisher.build(old[1], old[0])
    with mirror.serve(publisher.mirror) as served:
        node = LocalNode(work / "node", served.url, publisher.trust_root)
        node.take(node.kosctl("stage", old[0]).result["root"])
        # Only now, so that the node has to fetch the metadata that changed as well.
        root = publisher.build(new[1], new[0])["root"]
        yield Pair(served, node, new[0], root)


def fetched(work: Path) -> list[Figure]:
    """Measure bytes fetched, everything included, for two pairs of versions of ansible-core."""
    figures = []
    for old, new in contents.PAIRS:
        before, after = contents.ansible_core(old), contents.ansible_core(new)
        with published(work / f"pair-{new}", (old, before), (new, after)) as pair:
            total = pair.patch().result["bytes"]["total"]
        name = f"bytes fetched, ansible-core {old} to {new}"
        full = peers.full_archive(after)
        figures += [
            Figure(name, total, "bytes", "full tar.zst -19", full, FETCHED_AT_MOST[new]),
            Figure(
                name,
                total,
                "bytes",
                "OSTree static delta",
                peers.ostree(before, after, work / f"ostree-{new}"),
            ),
            Figure(name, total, "bytes", "casync", peers.casync(before, after, work / f"casync-{new}")),
        ]
    return figures


def large(work: Path) -> list[Figure]:
    """Measure memory and writes of a patch to a release of 500 MB."""
    before, after = (contents.large(contents.LARGE_MEBIBYTES, changed) for changed in (False, True))
    costs = []
    with published(work / "large", ("1.0.0", before), ("1.1.0", after)) as pair:
        for _ in range(ROUNDS):
            costs.append(pair.patch().cost)
            pair.forget()
    whole = peers.whole_patch(before, after, work / "whole")
    peer = "zstd -d --patch-from of the whole archive"
    peak, written, seconds = (
        statistics.median(getattr(cost, key) for cost in costs)
        for key in ("peak_bytes", "written_bytes", "cpu_seconds")
    )
    return [
        Figure(
            "peak memory of a patch to a release of 500 MB",
            peak / MEGABYTE,
            "MB",
            peer,
            whole.peak_bytes / MEGABYTE,
            "at most 256 MB",
        ),
        Figure(
            "written by a patch to a release of 500 MB",
            written / MEGABYTE,
            "MB",
            peer,
            whole.written_bytes / MEGABYTE,
        ),
        Figure("CPU time of a patch to a release of 500 MB", seconds, "s", peer, whole.cpu_seconds),
    ]
