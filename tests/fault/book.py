"""Keeps the book of faults in a run of pytest: seed and rounds, and a row of build/faults.json for each test.

A test below tests/fault is a row; elsewhere one that is marked `fault`. The conftest of a lane imports this
as a plugin, once for the whole run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault.rows import ROUNDS, SEED, Row, Rows

TESTS = Path(__file__).resolve().parents[1]
LANES = {"fault": TESTS / "fault", "backup": TESTS / "backup"}
_ROWS = pytest.StashKey[Rows]()
_COUNTED = pytest.StashKey[bool]()
_WORKER_KEY = "fault rows"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = Rows()
    config.addinivalue_line(
        "markers", "fault: this test brings a fault about, and is a row of docs/faults.md"
    )


def pytest_report_header() -> str:
    return f"faults: KOS_SEED={SEED} KOS_ROUNDS={ROUNDS}"


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call" and isinstance(item, pytest.Function) and _is_fault(item):
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
    chosen = config.option.keyword or config.option.markexpr or session.shouldstop
    asked = [Path(config.invocation_params.dir, argument).resolve() for argument in config.args]
    whole = [lane for lane, folder in LANES.items() if any(map(folder.is_relative_to, asked))]
    rows.write(whole=() if chosen else whole)


def _is_fault(item: pytest.Item) -> bool:
    return item.path.is_relative_to(LANES["fault"]) or item.get_closest_marker("fault") is not None


def _row(item: pytest.Item) -> Row:
    lane = next(name for name, folder in LANES.items() if item.path.is_relative_to(folder))
    function = item.name.partition("[")[0]
    place = item.path.relative_to(TESTS.parent)
    command = f"KOS_ROUNDS={ROUNDS} KOS_SEED={SEED} .venv/bin/python -m pytest {place} -k {function}"
    return item.config.stash[_ROWS].of(function, command, lane)
