"""Check mode of role kairoschain on a clean host tells a plan, though there is nobody to ask yet."""

from __future__ import annotations

from verify import record


def test_the_plan_names_the_version_and_what_has_to_be_there_before(last_check: record.Run) -> None:
    (said,) = last_check.of("kos.fleet.kairoschain", "node1")
    assert said.status == "changed"
    assert "install kairos-chain 3.75.0, once there is kosctl" in " ".join(said.result["actions"])
