"""Machines of the bed for tests that look at them, and the runs that Molecule made before."""

from __future__ import annotations

from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from bed import Bed
from verify import lane, record


@pytest.fixture(scope="session")
def bed() -> Bed:
    """The bed that Molecule made."""
    return Bed(lane.BED)


@pytest.fixture(scope="session")
def reach(bed: Bed) -> lane.Reach:
    """Gives a machine by its name; connections are kept."""
    reached: dict[tuple[str, str], Host] = {}

    def one(name: str, user: str = "root") -> Host:
        if (name, user) not in reached:
            ssh, *options, target = bed.ssh_command(name, user)
            assert ssh == "ssh"
            extra = " ".join(
                f"'{option}'" if " " in option or '"' in option else option for option in options
            )
            reached[name, user] = testinfra.get_host(f"ssh://{target}", ssh_extra_args=extra)
        return reached[name, user]

    return one


@pytest.fixture(params=["node1", "node5"], ids=["debian-13", "debian-12"])
def node(request: pytest.FixtureRequest, reach: lane.Reach) -> Host:
    """A node of each Debian that is supported."""
    return reach(request.param)


@pytest.fixture
def runs() -> list[record.Run]:
    """What ansible-playbook did since the machines were ready, oldest first."""
    return record.read(lane.RUNS)


@pytest.fixture
def last_check(runs: list[record.Run]) -> record.Run:
    """The last run in check mode."""
    return [run for run in runs if run.check][-1]


@pytest.fixture
def converged(runs: list[record.Run]) -> record.Run:
    """The first run that was not in check mode and that a scenario's converge playbook made."""
    return next(run for run in runs if not run.check and Path(run.playbook).name == "converge.yml")
