"""Mirrors that lie, stall, never end or die: the next one takes over, the old release runs on (S17, C19)."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fault.fault_fleet import FaultFleet
from fault.fault_node import KOSCTL, FaultNode
from fault.rows import ROUNDS, Row
from unit.kosnode.transport import hostile
from unit.kosnode.transport.hostile import HostileMirror

OLD, NEW, LARGE = "1.0.0", "1.1.0", "2.0.0"
TIMESTAMP = r"metadata/timestamp\.json"
CONTENTS = r"(releases|patches)/.*"
EVERYTHING = r".*"
DISTRUSTED = "metadata are refused|too few valid signatures"


@dataclass(frozen=True)
class Misdeed:
    """What a mirror does wrong, where, and what the message has to say of it, a pattern."""

    paths: str
    conduct: hostile.Conduct
    said: str


MISDEEDS = {
    "a truncated timestamp": Misdeed(TIMESTAMP, hostile.truncate(100), DISTRUSTED),
    "truncated contents": Misdeed(CONTENTS, hostile.truncate(40), "bytes"),
    "contents that end early": Misdeed(CONTENTS, hostile.die(30), "broke off"),
    "a flipped bit in the contents": Misdeed(CONTENTS, hostile.lie(), "wrong bytes"),
    "a flipped bit in the timestamp": Misdeed(TIMESTAMP, hostile.lie(), DISTRUSTED),
    "swapped contents": Misdeed(CONTENTS, hostile.swap("metadata/1.root.json"), "bytes"),
    "swapped metadata": Misdeed(TIMESTAMP, hostile.swap("metadata/1.root.json"), DISTRUSTED),
    "oversized contents": Misdeed(CONTENTS, hostile.oversize(1 << 40), "oversized"),
    "an oversized timestamp": Misdeed(TIMESTAMP, hostile.oversize(1 << 40), "oversized"),
    "endless contents": Misdeed(CONTENTS, hostile.endless, "Content-Length"),
    "endless chunks": Misdeed(CONTENTS, hostile.endless_chunks, "Content-Length"),
    "an endless header": Misdeed(EVERYTHING, hostile.endless_header, "stalled"),
    "contents that stall": Misdeed(CONTENTS, hostile.stall(20), "stalled"),
    "silence": Misdeed(EVERYTHING, hostile.silent, "stalled"),
    "a refused request": Misdeed(EVERYTHING, hostile.refuse, "broke off"),
    "a redirection": Misdeed(EVERYTHING, hostile.redirect("http://mirror1/"), "redirected"),
    "an error": Misdeed(EVERYTHING, hostile.status(500), "status 500"),
}


@pytest.fixture
def node(fleet: FaultFleet) -> Iterator[FaultNode]:
    node = fleet.nodes[0]
    yield node
    node.set_mirrors(fleet.mirror)


def test_a_mirror_that_misbehaves_is_named_and_the_next_one_takes_over(
    fleet: FaultFleet, node: FaultNode, chance: random.Random, row: Row
) -> None:
    for misdeed in chance.sample(sorted(MISDEEDS), min(5 * ROUNDS, len(MISDEEDS))):
        print(misdeed, flush=True)
        done = MISDEEDS[misdeed]
        node.reset()
        began = time.monotonic()
        with HostileMirror(fleet.world.public, host=fleet.controller) as mirror:
            mirror.misbehave(done.paths, done.conduct)
            node.set_mirrors(mirror.url)
            alone = node.kosctl("stage", NEW)
            assert alone.exit in (6, 13), f"{misdeed}: {alone}"
            assert mirror.url in alone.message, f"{misdeed}: {alone.message}"
            assert re.search(done.said, alone.message), f"{misdeed}: {alone.message}"
            assert node.well(node.look()) == OLD, misdeed
            node.set_mirrors(mirror.url, fleet.mirror)
            helped = node.kosctl("stage", NEW)
        assert helped.exit == 0, f"{misdeed}: {helped}"
        assert helped.result["mirror"] == fleet.mirror, f"{misdeed}: {helped.result}"
        named = [one["error"] for one in helped.result["mirrors"] if one["url"] == mirror.url]
        assert any(re.search(done.said, error) for error in named), f"{misdeed}: {named}"
        look = node.look()
        assert node.releases[NEW].root in look.whole, misdeed
        assert not look.broken, misdeed
        row.count(time.monotonic() - began if node.well(look) == OLD else None)
    node.assert_good()


def test_only_dead_mirrors_leave_the_old_release_running(fleet: FaultFleet, node: FaultNode) -> None:
    node.reset()
    # Nobody listens on these two.
    node.set_mirrors(f"http://{fleet.controller}:9/", "http://mirror1:9/")
    answer = node.kosctl("stage", NEW)
    assert answer.exit == 6, answer
    assert f"http://{fleet.controller}:9/" in answer.message
    assert "http://mirror1:9/" in answer.message
    assert node.well(node.look()) == OLD
    assert node.must("health")


def test_a_mirror_that_dies_in_the_middle_of_a_fetch_is_gone_on_with_when_it_is_back(
    fleet: FaultFleet, node: FaultNode
) -> None:
    node.reset()
    node.set_mirrors(fleet.slow_mirror)
    staging = node.begin(KOSCTL, "stage", LARGE, "--json")
    part = "/var/lib/kos/fetch/*.part"
    node.wait(
        lambda: int(node.sh(f"cat {part} 2>/dev/null | wc -c", check=False).stdout) > 1 << 20,
        "a part of the release has come",
    )
    fleet.bed.kill("mirror1")
    broken = node.end(staging)
    assert broken.exit == 6, broken
    assert fleet.slow_mirror in broken.message
    assert node.well(node.look()) == OLD
    fleet.bed.start("mirror1")
    whole = (fleet.world.public / f"releases/{node.releases[LARGE].root}.tar.zst").stat().st_size
    resumed = node.must("stage", LARGE)
    assert resumed.result["bytes"]["archive"] < whole - (1 << 20)
    assert node.releases[LARGE].root in node.look().whole
