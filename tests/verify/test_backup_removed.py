"""What is left where a fleet was taken away: its repositories, the lines of its witness, and nothing else."""

from __future__ import annotations

import pytest

from verify import lane

HOSTS = ("node1", "node2", "node3")


@pytest.mark.parametrize("name", HOSTS)
def test_nothing_of_it_runs_or_will(reach: lane.Reach, name: str) -> None:
    host = reach(name)
    for what in ("list-unit-files", "list-units --all"):
        # systemctl ends with 1 where it lists no file, so its words count.
        listed = host.run(f"systemctl {what} --no-legend 'kos-backup*'")
        assert (listed.stdout, listed.stderr) == ("", "")


@pytest.mark.parametrize("name", HOSTS)
def test_no_secret_is_left(reach: lane.Reach, name: str) -> None:
    host = reach(name)
    for path in ("/etc/kos", "/opt/kos", "/etc/kos-backup-server", "/var/lib/koswitness/.ssh"):
        assert not host.file(path).exists


def test_repositories_and_the_witness_stay(reach: lane.Reach) -> None:
    assert reach("node2").file("/srv/kos-backup/node1/config").exists
    assert reach("node1").file("/srv/backup-here/config").exists
    assert not reach("node1").file("/var/lib/kos").exists
    assert reach("node3").file("/var/lib/kos/witness/node1.jsonl").exists
