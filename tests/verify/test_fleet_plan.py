"""Check mode of site on clean hosts: mirror, nodes and releases are planned, and nothing is written."""

from __future__ import annotations

from verify import lane, record


def test_site_plans_the_whole_fleet(last_check: record.Run) -> None:
    assert {one.host for one in last_check.of("kos.fleet.mirror")} == {"mirror1"}
    for action in ("kos.fleet.bootstrap", "kos.fleet.release"):
        said = last_check.of(action)
        assert {one.host for one in said} == set(lane.FLEET)
        assert {one.status for one in said} == {"changed"}
