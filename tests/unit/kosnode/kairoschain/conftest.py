"""The host of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.kosnode.kairoschain.kairos_world import World

from kosnode.kairoschain import apply as applying


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    # Nothing here answers late; what does not answer at once never will.
    monkeypatch.setattr(applying, "_START_S", 0.0)
    monkeypatch.setattr(applying, "_LOCK_WAIT_S", 0.0)
    return World(tmp_path)
