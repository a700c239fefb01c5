"""A bed for each worker of pytest; what is found is kept in the book of faults."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from fault.fault_fleet import FaultFleet
from fault.fault_node import FaultNode

from bed import Bed


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("fault.book")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultFleet]:
    """The bed of this worker."""
    bed = Bed(f"fault{os.environ.get('PYTEST_XDIST_WORKER', '')}", say=print)
    try:
        yield FaultFleet(bed, tmp_path_factory.mktemp("fleet"))
    finally:
        if not os.environ.get("KOS_KEEP_BED"):
            bed.down()


@pytest.fixture
def node(fleet: FaultFleet) -> FaultNode:
    """A node with release 1.0.0 confirmed, and nothing else."""
    fleet.nodes[0].reset()
    return fleet.nodes[0]
