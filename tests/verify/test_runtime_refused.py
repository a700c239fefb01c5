"""What role runtime planned on a node and refused there has changed nothing on it."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from verify import lane, node, record


def test_the_plan_of_a_node_says_what_is_fetched_and_how_much(last_check: record.Run) -> None:
    (said,) = last_check.of("kos.fleet.release", "node1")
    assert (said.status, said.result["plan_by"]) == ("changed", "node")
    assert (said.result["release"], said.result["how"]) == ("1.0.0", "whole")
    assert said.result["bytes"] > 100_000


def test_a_channel_gives_its_own_newest_release(last_check: record.Run) -> None:
    """M23."""
    (said,) = last_check.of("kos.fleet.release", "node5")
    assert said.result["release"] == "1.0.0"


@pytest.mark.parametrize("name", ["node1", "node5", "node6"])
def test_no_release_and_no_agent_came_of_it(reach: lane.Reach, name: str) -> None:
    host: Host = reach(name)
    status = node.ask(host, "status")
    assert (status["state"], status["current"], status["slots"]) == ("EMPTY", None, [])
    assert node.units(host) == []
    assert (
        host.check_output("find /var/lib/kos/releases /etc/kos/units.d /var/lib/kos/state -mindepth 1") == ""
    )
    assert not host.file("/var/lib/kos/journal/journal.jsonl").exists
