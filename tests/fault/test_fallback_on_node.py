"""`fallback` killed at any change and any program it runs, on a node with a real systemd (S20, C21).

What it makes of files alone, under dash and under busybox, stands in tests/fault/fallback.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from fault.fallback import killer
from fault.fault_fleet import FaultFleet
from fault.fault_node import FaultNode
from fault.rows import ROUNDS, Row

OLD, NEW = "1.0.0", "1.1.0"
KILLER = "/root/killer.py"
REASONS = ("operator", "health")


@pytest.fixture(scope="module")
def node(fleet: FaultFleet) -> FaultNode:
    node = fleet.nodes[0]
    node.run("tee", KILLER, stdin=Path(killer.__file__).read_bytes(), check=True)
    return node


@pytest.mark.parametrize("reason", REASONS)
def test_fallback_is_killed_anywhere_on_a_node(
    node: FaultNode, reason: str, chance: random.Random, row: Row
) -> None:
    status, count = _fall_back(node, reason, at=0)
    assert status == 0
    print(f"{count} places")
    for at in sorted(chance.sample(range(1, count + 1), min(4 * ROUNDS, count))):
        again = chance.random() < 0.5
        where = (
            f"fallback --reason {reason} killed at {at} of {count}, {'run again' if again else 'left alone'}"
        )
        print(where, flush=True)
        since = time.monotonic()
        status, _ = _fall_back(node, reason, at=at)
        look = node.look()
        assert look.current in look.whole, f"{where}: {look}"
        if again:
            done = node.run("/opt/kos/fallback", "--reason", "deadline")
            assert done.returncode == 0, f"{where}: {done.stderr}"
        else:
            node.deadline_passes()
        node.wait(lambda: not node.look().left, f"{where}: the trial is over")
        look = node.look()
        assert node.well(look) == OLD, f"{where}: {look}"
        row.count(time.monotonic() - since)
        last = node.status()["last"]
        assert last["version"] == NEW, where
        if status is None:
            # The first reason that was written down stays; a kill before that leaves the dead-man's.
            assert last["reason"] in (reason, "deadline"), f"{where}: {last}"
        wanted = (node.releases[NEW].root,) if last["reason"] == "health" else ()
        assert look.refused == wanted, f"{where}: {look}"
    node.must("verify")
    node.must("health")


def _fall_back(node: FaultNode, reason: str, *, at: int) -> tuple[int | None, int]:
    """Begin a trial and run `fallback`, killed at a place; return its exit status and how many there were."""
    node.staged(NEW)
    node.activate(NEW)
    fallback = ("/opt/kos/fallback", "--reason", reason, "--detail", "of this test")
    done = node.run("python3", KILLER, str(at), "/root/fallback.log", *fallback, check=True)
    found = json.loads(done.stdout)
    return found["status"], found["changes"]
