"""The node itself as a source: what of a machine is not exchanged for what another machine was."""

from __future__ import annotations

from pathlib import Path

import pytest

from kosnode.backup.config import SourceSpec
from kosnode.backup.node import Node
from kosnode.backup.places import Places
from kosnode.backup.source import Restored, Root
from kosnode.paths import NodePaths


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(NodePaths(tmp_path / "node"))


def replaced(places: Places) -> set[Path]:
    """Return what a restore of keys, audit log and configuration would exchange."""
    live = (places.key.parent, places.node.audit, places.node.node_json)
    restored = Restored([Root(path, Path("/restored") / path.name) for path in live], {}, Path("/scratch"))
    plan = Node(SourceSpec("node", "critical", "node"), places).swap_plan(restored)
    return {move.live for move in plan.moves}


def test_a_new_machine_keeps_the_key_by_which_its_witness_lets_it_in(places: Places) -> None:
    places.key.parent.mkdir(parents=True)
    places.key.touch()
    assert places.key.parent not in replaced(places)
    assert places.node.node_json in replaced(places)


def test_a_machine_without_a_key_gets_the_one_from_the_backup(places: Places) -> None:
    assert places.key.parent in replaced(places)


def test_the_log_of_what_was_done_since_is_kept(places: Places) -> None:
    places.node.audit.parent.mkdir(parents=True)
    places.node.audit.touch()
    assert places.node.audit not in replaced(places)
