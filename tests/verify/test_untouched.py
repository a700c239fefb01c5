"""Nothing is on the machines that was not there when they were new, and nothing is missing."""

from __future__ import annotations

from bed import Bed
from verify import lane, snapshot


def test_all_machines_are_as_new(bed: Bed) -> None:
    now = snapshot.take(bed, lane.PLAN.zone_of())
    assert snapshot.differences(lane.as_new(), now) == []
