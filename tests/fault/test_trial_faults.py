"""What can happen to a node in the middle of a trial; it ends in the old release by itself (S20, C21)."""

from __future__ import annotations

import contextlib
import subprocess
import time

import pytest
from fault.crash import stopped
from fault.fault_fleet import FaultFleet
from fault.fault_node import PATIENCE_S, SOON_S, FaultNode
from fault.rows import Row

OLD, NEW, SICK = "1.0.0", "1.1.0", "1.2.0"


@pytest.fixture
def node(fleet: FaultFleet) -> FaultNode:
    """A node with the new release staged."""
    fleet.nodes[0].staged(NEW)
    return fleet.nodes[0]


def _assert_back(node: FaultNode, since: float, reason: str, row: Row) -> None:
    version, seconds = node.wait_well(since)
    row.count(seconds)
    assert version == OLD
    last = node.status()["last"]
    assert (last["version"], last["reason"], last["outcome"]) == (NEW, reason, "reverted-healthy")
    node.assert_good()
    # Nobody found fault with the release, so it may be tried again.
    done = node.confirm(str(node.activate(NEW).result["token"]))
    assert done.exit == 0, done


def test_a_node_that_is_restarted_hard_comes_back_on_the_old_release(node: FaultNode, row: Row) -> None:
    node.activate(NEW)
    since = time.monotonic()
    assert node.bed.restart_hard(node.name) == "running"
    _assert_back(node, since, "reboot", row)


def test_a_node_that_is_restarted_hard_while_kosctl_switches_comes_back_on_the_old_release(
    node: FaultNode, row: Row
) -> None:
    """The power goes between the rename of `current` and anything that follows."""
    with _stopped_after_the_switch(node) as killed:
        assert node.look().current == node.releases[NEW].root
        since = time.monotonic()
        assert node.bed.restart_hard(node.name) == "running"
    killed.communicate(timeout=PATIENCE_S)
    _assert_back(node, since, "reboot", row)


def test_a_node_whose_link_to_the_controller_is_cut_falls_back(node: FaultNode, row: Row) -> None:
    begun = node.operate("activate", release=NEW, deadline_s=SOON_S)
    assert begun.exit == 0, begun
    since = time.monotonic()
    node.bed.cut(node.name)
    try:
        assert node.operate("confirm", token=begun.result["token"]).exit == 255
        version, _ = node.wait_well(since)
        assert version == OLD
    finally:
        node.bed.heal(node.name)
    late = node.operate("confirm", token=begun.result["token"])
    assert late.exit == 8, late
    _assert_back(node, since, "deadline", row)


def test_a_node_that_has_lost_kosctl_and_python_falls_back(node: FaultNode, row: Row) -> None:
    node.activate(NEW)
    since = time.monotonic()
    node.sh(
        "mkdir /root/away && mv /usr/bin/python3* /opt/kos/current /root/away/ "
        "&& systemctl kill --signal KILL kos-watch.service"
    )
    node.deadline_passes()
    try:
        version, seconds = node.wait_well(since, left=("outcome",))
        assert version == OLD
    finally:
        node.sh("mv /root/away/current /opt/kos/ && mv /root/away/* /usr/bin/ && rmdir /root/away")
    row.count(seconds)
    # What fallback left is written down by the next command.
    ended = node.must("recover").result
    assert (ended["reason"], ended["outcome"]) == ("deadline", "reverted-healthy")
    node.assert_good()


def test_a_kosctl_that_hangs_with_the_lock_is_overcome_by_the_dead_man(node: FaultNode, row: Row) -> None:
    with _stopped_after_the_switch(node) as hanging:
        since = time.monotonic()
        node.deadline_passes()
        version, seconds = node.wait_well(since)
        assert node.end(hanging).exit == 137
    assert version == OLD
    row.count(seconds)
    assert node.status()["last"]["reason"] in ("deadline", "interrupted")
    node.assert_good()


def test_a_watcher_that_is_killed_confirms_nothing_and_the_node_falls_back(node: FaultNode, row: Row) -> None:
    """No data is not success."""
    begun = node.activate(NEW)
    since = time.monotonic()
    node.sh("systemctl kill --signal KILL kos-watch.service; rm -f /var/lib/kos/trial.health")
    refused = node.kosctl("confirm", "--token-file", "-", stdin=str(begun.result["token"]).encode())
    assert refused.exit == 11, refused
    assert "kos-watch" in refused.message
    node.deadline_passes()
    _assert_back(node, since, "deadline", row)


def test_a_release_that_is_sick_is_taken_back_and_refused(fleet: FaultFleet, row: Row) -> None:
    node = fleet.nodes[0]
    node.staged(SICK)
    begun = node.activate(SICK)
    since = time.monotonic()
    node.wait(lambda: not node.look().left, "the trial is over")
    assert node.well(node.look()) == OLD
    row.count(time.monotonic() - since)
    late = node.kosctl("confirm", "--token-file", "-", stdin=str(begun.result["token"]).encode())
    assert late.exit == 8, late
    assert [one["version"] for one in node.status()["refused"]] == [SICK]
    again = node.kosctl("activate", SICK)
    assert again.exit == 3, again
    assert "refused" in again.message
    node.must("refusals", "--clear", node.releases[SICK].root)
    assert node.status()["refused"] == []


def test_a_trial_that_cannot_be_ended_yet_is_ended_when_it_can_be(node: FaultNode, row: Row) -> None:
    """The slot to go back to is gone: the node tries again and again, and the log does not fill up."""
    slot = f"/var/lib/kos/releases/{node.releases[OLD].root}"
    node.activate(NEW)
    since = time.monotonic()
    node.sh(f"mv {slot} /var/lib/kos/away")
    try:
        node.deadline_passes()
        told = "journalctl --quiet --unit kos-deadman --since=-10min | grep 'is gone.*trying again in 10 s'"
        node.wait(lambda: node.sh(told, check=False).returncode == 0, "it waits longer from time to time")
        assert node.look().current == node.releases[NEW].root
    finally:
        node.sh(f"mv /var/lib/kos/away {slot}")
    # Who has mended the cause need not wait, nor does the trial need a person.
    node.must("revert")
    _assert_back(node, since, "operator", row)


def _stopped_after_the_switch(
    node: FaultNode,
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """A kosctl that hangs just after it renamed `current`, with the lock in its hand."""
    return stopped(
        node,
        node.staged,
        ("activate", NEW),
        after='"/var/lib/kos/current"',
        until=lambda: node.look().current == node.releases[NEW].root,
    )
