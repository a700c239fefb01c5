"""What these tests share: real restic, a node in a temporary folder, a cluster of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backup import cheap, programs
from backup.backup_node import PASSWORD, RECOVERY, BackupNode
from backup.postgres_world import PostgresWorld, postgres_world


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("fault.book")


@pytest.fixture(scope="session")
def tools() -> Path:
    return programs.ensure()


@pytest.fixture(scope="session")
def make_repository(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes an empty repository that is cheap to open, each time another one."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("template") / "repository"
        cheap.make(tools / "restic", folder, {"root": PASSWORD, "recovery": RECOVERY})
        return folder

    return make


@pytest.fixture(scope="session")
def template(make_repository: Callable[[], Path]) -> Path:
    return make_repository()


@pytest.fixture
def node(tmp_path: Path, tools: Path, template: Path) -> BackupNode:
    return BackupNode(tmp_path / "n1", tools, template)


@pytest.fixture
def cluster() -> Iterator[PostgresWorld]:
    with postgres_world() as made:
        yield made
