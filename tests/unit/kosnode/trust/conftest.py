"""What the tests of trust start from: a published repository, and a node that has its root pinned."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.kosnode.trust.node import Node
from unit.kosnode.trust.tiny import TinyRepository


@pytest.fixture
def repository(tmp_path: Path) -> TinyRepository:
    made = TinyRepository(tmp_path / "mirror")
    made.release("1.0.0")
    made.publish()
    return made


@pytest.fixture
def node(tmp_path: Path, repository: TinyRepository) -> Node:
    return Node(tmp_path / "node", repository)
