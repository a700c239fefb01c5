"""These tests run under the command `pulumi`; where it is not, they are left out, and it is said so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pulumi import automation

from infra.conftest import ROOT
from infra.engine.harness import Engine, Stack, find_command

LEFT_OUT = "LEFT OUT: the command pulumi is not here: tools/pulumi/pulumi.sh builds it, or says how to get it"


@pytest.fixture(scope="session")
def command() -> automation.PulumiCommand:
    """The command, or no test."""
    found = find_command()
    if found is None:
        pytest.skip(LEFT_OUT)
    return found


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what the SDKs say is kept for the session, by all of its processes."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shapes"


@pytest.fixture
def engine(command: automation.PulumiCommand, tmp_path: Path, shapes: Path) -> Iterator[Engine]:
    """An engine that has made nothing yet, and this process in its environment."""
    engine = Engine(command, tmp_path / "engine", shapes)
    with engine.entered():
        yield engine


@pytest.fixture(scope="session")
def fleet_as_made(
    command: automation.PulumiCommand, tmp_path_factory: pytest.TempPathFactory, shapes: Path
) -> Engine:
    """The example fleet, up; tests take copies of it."""
    engine = Engine(command, tmp_path_factory.mktemp("fleet") / "engine", shapes)
    with engine.entered():
        made = engine.stack(ROOT / "pulumi/aws_fleet", "dev").up()
    assert not made.error, made.error
    return engine


@pytest.fixture
def fleet(fleet_as_made: Engine, tmp_path: Path) -> Iterator[Stack]:
    """A copy of the example fleet that is up."""
    engine = fleet_as_made.copy(tmp_path / "engine")
    with engine.entered():
        yield engine.stack(ROOT / "pulumi/aws_fleet", "dev")
