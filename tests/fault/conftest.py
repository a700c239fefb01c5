"""A bed for each worker of pytest, seeds that are printed, and a row in build/faults.json for each test."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault.fault_fleet import FaultFleet
from fault.fault_node import FaultNode
from fault.rows import ROUNDS, SEED, Row, Rows

from bed import Bed

HERE = Path(__file__).resolve().parent
_ROWS = pytest.StashKey[Rows]()
_WORKER_KEY = "fault rows"
_COUNTED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = Rows()


def pytest_report_header() -> str:
    return f"fault lane: KOS_SEED={SEED} KOS_ROUNDS={ROUNDS}"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """A generator of this test's own, made from the seed of the run."""
    print(f"KOS_SEED={SEED}")
    return random.Random(f"{SEED}-{request.node.name}")


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The row of this test, for one that brings about several faults and counts them itself."""
    request.node.stash[_COUNTED] = True
    return _row(request.node)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call" and isinstance(item, pytest.Function):
        row = _row(item)
        if call.excinfo is not None:
            row.lost += 1
        elif not item.stash.get(_COUNTED, False):
            row.count()
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take in what a worker has found; one that broke down has told nothing."""
    node.config.stash[_ROWS].add(getattr(node, "workeroutput", {}).get(_WORKER_KEY, []))


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    rows = config.stash[_ROWS]
    if hasattr(config, "workeroutput"):
        config.workeroutput[_WORKER_KEY] = rows.known()
        return
    option = config.option
    whole = not (option.keyword or option.markexpr) and all(
        HERE.is_relative_to(Path(config.invocation_params.dir, argument).resolve())
        for argument in config.args
        if "fault" in argument
    )
    rows.write(whole=whole)


def _row(item: pytest.Item) -> Row:
    function = item.name.partition("[")[0]
    place = item.path.relative_to(HERE.parents[1])
    command = f"KOS_ROUNDS={ROUNDS} KOS_SEED={SEED} .venv/bin/python -m pytest {place} -k {function}"
    return item.config.stash[_ROWS].of(function, command)
