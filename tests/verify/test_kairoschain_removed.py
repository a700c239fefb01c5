"""A removal takes server, proxy and code, and leaves the data with its tokens."""

from __future__ import annotations

import pytest

from verify import kairos, lane


@pytest.mark.parametrize(("name", "data"), [("node1", kairos.DATA), ("node2", "/srv/kairos/data")])
def test_the_data_is_whole_and_nothing_runs(reach: lane.Reach, name: str, data: str) -> None:
    node = reach(name)
    assert kairos.ledger(node, data)["state"] == "ok"
    assert node.check_output("systemctl list-unit-files 'kairos-*' --no-legend --plain; true") == ""
    assert node.check_output("pgrep -u kairos; true") == ""
    assert node.file("/etc/kairos/admin.token").mode == 0o600
    assert not node.file("/etc/kairos/proxy").exists
    assert not node.file("/etc/logrotate.d/kairos-chain").exists


def test_no_version_of_the_gem_is_left(reach: lane.Reach) -> None:
    assert not reach("node1").file("/opt/kairos").exists
    assert reach("node2").check_output("ls -d /srv/kairos/3.75* 2>/dev/null; true") == ""
