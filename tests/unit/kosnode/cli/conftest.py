"""The node of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.kosnode.cli.cli_node import CliNode, make_cli_node


@pytest.fixture
def bed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CliNode:
    return make_cli_node(tmp_path, capsys, monkeypatch)
