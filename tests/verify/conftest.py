"""Machines of the bed for tests that look at them, and the runs that Molecule made before."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Iterator
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
def reach(bed: Bed) -> Iterator[lane.Reach]:
    """Gives a machine by its name; connections are kept."""
    reached: dict[tuple[str, str], Host] = {}
    # A socket's path may have a hundred characters, so not in the project's folder.
    with tempfile.TemporaryDirectory(prefix="kos-ssh-") as sockets:

        def one(name: str, user: str = "root") -> Host:
            if (name, user) not in reached:
                _ssh, *options, target = bed.ssh_command(name, user)
                kept = f"-o ControlMaster=auto -o ControlPersist=60s -o ControlPath={sockets}/%r-%h"
                extra = f"{shlex.join(options)} {kept}"
                reached[name, user] = testinfra.get_host(f"ssh://{target}", ssh_extra_args=extra)
            return reached[name, user]

        yield one
        for sock in Path(sockets).iterdir():
            subprocess.run(
                ["ssh", "-O", "exit", "-o", f"ControlPath={sock}", "nobody"], check=False, capture_output=True
            )


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
