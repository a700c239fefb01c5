"""A clock that is wrong is named, and never harms what runs (S17; times are those of one process alone)."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from fault.fault_fleet import FaultFleet
from fault.fault_node import POLICY, FaultNode

OLD, NEW = "1.0.0", "1.1.0"
# A clock that is set in a container is that of the whole machine: only kosctl is told another time.
FAKETIME = ("faketime", "--exclude-monotonic", "-f")
CLOCKS = ("in 1970", "an hour back", "ten years ahead")


@pytest.fixture
def wrong(fleet: FaultFleet, clock: str) -> tuple[str, ...]:
    """What to put before kosctl; back is back from the last signed time, which is all that can be known."""
    if clock == "ten years ahead":
        return (*FAKETIME, "+10y")
    signed = json.loads((fleet.world.public / "metadata/timestamp.json").read_text())["signed"]
    issued = datetime.strptime(signed["x-kos-issued"], "%Y-%m-%dT%H:%M:%SZ")
    moment = datetime(1970, 1, 2) if clock == "in 1970" else issued - timedelta(hours=1)
    return (*FAKETIME, f"@{moment:%Y-%m-%d %H:%M:%S}")


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_wrong_clock_is_named_and_harms_nothing(
    node: FaultNode, clock: str, wrong: tuple[str, ...]
) -> None:
    staged = node.kosctl("stage", NEW, before=wrong)
    if clock == "ten years ahead":
        assert staged.exit == 13, staged
        assert "clock" in staged.message
    else:
        # The newest signed time counts where the clock is behind it, and releases are still fetched.
        assert staged.exit == 0, staged
    doctor = node.kosctl("doctor", before=wrong)
    assert doctor.exit == 12, doctor
    assert "clock" in doctor.message
    assert node.well(node.look()) == OLD
    node.must("health")


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_trial_is_confirmed_and_taken_back_whatever_the_clock_says(
    node: FaultNode, wrong: tuple[str, ...]
) -> None:
    """Deadlines, bakes and sessions are measured by the time since the start of the machine."""
    node.staged(NEW)
    begun = node.kosctl("activate", NEW, before=wrong)
    assert begun.exit == 0, begun
    assert 0 < int(begun.result["deadline_in_s"]) <= POLICY["deadline_s"]
    done = node.confirm(str(begun.result["token"]), before=wrong)
    assert done.exit == 0, done
    assert node.well(node.look()) == NEW
    back = node.kosctl("rollback", before=wrong)
    assert back.exit == 0, back
    ended = node.kosctl("revert", before=wrong)
    assert ended.exit == 0, ended
    assert ended.result["outcome"] == "reverted-healthy"
    assert node.well(node.look()) == NEW
    node.assert_good()


def test_a_clock_that_jumps_ahead_does_not_make_the_metadata_of_tomorrow_old(node: FaultNode) -> None:
    """What a wrong clock saw is not remembered: with the right time all is as before."""
    node.kosctl("stage", NEW, before=(*FAKETIME, "+10y"))
    node.must("stage", NEW)
    assert node.kosctl("doctor").exit == 0
