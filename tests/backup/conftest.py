"""What these tests share: real restic, and a node in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from backup import programs
from backup.backup_node import BackupNode


@pytest.fixture(scope="session")
def tools() -> Path:
    return programs.ensure()


@pytest.fixture
def node(tmp_path: Path, tools: Path) -> BackupNode:
    return BackupNode(tmp_path / "n1", tools)
