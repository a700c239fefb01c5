"""A disk that is full: told with the bytes that are missing, and no way back needs any (S20, C16)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from fault.crash import stopped
from fault.fault_fleet import FaultFleet
from fault.fault_node import FaultNode
from fault.rows import ROUNDS, Row

OLD, PLAIN, NEW, SICK, LARGE = "1.0.0", "1.0.1", "1.1.0", "1.2.0", "2.0.0"
PAGE = 4096


@pytest.fixture
def node(fleet: FaultFleet) -> Iterator[FaultNode]:
    """A node whose /var/lib/kos is a small file system of its own."""
    node = fleet.nodes[1]
    node.reset()
    yield node
    node.free_disk()


def test_a_release_that_does_not_fit_is_refused_with_the_bytes_that_are_missing(node: FaultNode) -> None:
    node.fill_disk(leave=1 << 20)
    answer = node.kosctl("stage", LARGE)
    assert answer.exit == 7, answer
    missing = answer.result["missing"]
    assert f"{missing} bytes of disk are missing" in answer.message
    look = node.look()
    assert node.well(look) == OLD
    assert (look.whole, look.broken) == ((node.releases[OLD].root,), ())
    node.free_disk()
    # The bytes that were named were the right ones: with them it fits, with a page less it does not.
    free = node.free_bytes()
    node.fill_disk(leave=int(answer.result["needed"]) + int(answer.result["reserve"]) - PAGE)
    assert node.kosctl("stage", LARGE).exit == 7
    node.free_disk()
    assert node.free_bytes() >= free - 16 * PAGE
    node.must("stage", LARGE)
    assert node.releases[LARGE].root in node.look().whole


def test_a_disk_that_fills_up_while_a_release_is_fetched_leaves_nothing_half(node: FaultNode) -> None:
    file = f"/var/lib/kos/releases/.new-{node.releases[NEW].root}/tree/share/format"
    written = f"{file}>, 0444"
    with stopped(node, node.reset, ("stage", NEW), after=written, until=lambda: node.has(file)) as staging:
        node.fill_disk()
    answer = node.end(staging)
    assert answer.exit == 7, answer
    assert "disk became full" in answer.message
    assert node.well(node.look()) == OLD
    node.must("health")
    node.free_disk()
    node.must("stage", NEW)
    look = node.look()
    assert node.releases[NEW].root in look.whole
    assert look.broken == ()


def test_state_that_cannot_be_copied_is_not_migrated(node: FaultNode) -> None:
    node.staged(NEW)
    node.fill_disk()
    answer = node.kosctl("activate", NEW)
    assert answer.exit == 7, answer
    assert "bytes are missing" in answer.message
    assert node.well(node.look()) == OLD
    node.free_disk()
    assert node.confirm(str(node.activate(NEW).result["token"])).exit == 0
    assert node.well(node.look()) == NEW


@pytest.mark.parametrize("version", [PLAIN, SICK])
def test_a_switch_on_a_full_disk_is_not_begun_or_ends_in_a_good_release(
    node: FaultNode, version: str, row: Row
) -> None:
    """With a page more each time, the disk is full at another write of switch, trial or revert."""
    pages = range(0, 16) if ROUNDS > 1 else (0, 1, 2, 5)
    for page in pages:
        where = f"{version} with {page} pages left"
        print(where, flush=True)
        node.free_disk()
        node.staged(version)
        node.fill_disk(leave=page * PAGE)
        since = time.monotonic()
        answer = node.kosctl("activate", version)
        assert answer.exit in (0, 7, 8, 9), f"{where}: {answer}"
        if answer.exit == 7:
            assert "disk is full" in answer.message, f"{where}: {answer.message}"
        if version == PLAIN:
            node.deadline_passes()
        # The disk stays full, and the node gets back all the same: `fallback` needs no room.
        node.wait(lambda: not node.has("/var/lib/kos/trial"), f"{where}: the trial is over")
        look = node.look()
        assert node.well(look) == OLD, f"{where}: {look}"
        row.count(time.monotonic() - since)
        node.free_disk()
        node.must("recover")
        status = node.status()
        assert status["trial"] is None, where
        assert (status["last"] or {}).get("outcome") != "reverted-unhealthy", f"{where}: {status['last']}"
        # Nor does the reason, so that a release that was unhealthy stays refused.
        judged = answer.exit == 0 and version == SICK
        refused = [one["version"] for one in status["refused"]]
        assert refused == ([SICK] if judged else []), f"{where}: {status}"
    node.must("verify")
    node.must("health")
