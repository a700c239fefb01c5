"""Check mode of role runtime on a host without kosctl: the plan is what the controller knows, and says so."""

from __future__ import annotations

import pytest

from verify import record


@pytest.mark.parametrize("host", ["node1", "node5"])
def test_the_plan_is_to_bootstrap_and_then_to_install(last_check: record.Run, host: str) -> None:
    (said,) = last_check.of("kos.fleet.release", host)
    assert (said.status, said.result["plan_by"]) == ("changed", "controller")
    assert "bootstrap" in said.result["actions"][0]
    *_looked_at, agents = last_check.of("kos.fleet.node_units", host)
    assert agents.status == "changed"
    assert any("scribe" in action for action in agents.result["actions"])
