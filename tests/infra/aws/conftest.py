"""The programs of AWS, run against mocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from infra.conftest import ROOT, Example
from kos_infra import recording
from kos_infra.recording import Recording

Change = Callable[[dict[str, Any]], object]
Run = Callable[..., Recording]


@pytest.fixture(scope="session")
def runs() -> dict[tuple[str, str], Recording]:
    """What the examples registered so far; a recording does not change, so that tests can share it."""
    return {}


@pytest.fixture
def run(example: Example, runs: dict[tuple[str, str], Recording]) -> Run:
    """Return a function that runs a program with an example's settings, changed by another function."""

    def run(program: str, stack: str = "dev", change: Change | None = None) -> Recording:
        if change is None and (program, stack) in runs:
            return runs[program, stack]
        config = example(program, stack)
        key = next(key for key in config if key.endswith(":settings"))
        settings = json.loads(config[key])
        if change:
            change(settings)
        recorded = recording.record_file(
            ROOT / f"pulumi/{program}/__main__.py",
            project=f"kos-{program.replace('_', '-')}",
            stack=stack,
            config={**config, key: json.dumps(settings)},
        )
        if change is None:
            runs[program, stack] = recorded
        return recorded

    return run
