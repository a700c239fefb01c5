"""The node itself as a source: what of a machine is not exchanged for what another machine was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kosnode.backup.config import SourceSpec
from kosnode.backup.node import Node
from kosnode.backup.places import Places
from kosnode.backup.source import Restored, Root, SwapPlan
from kosnode.paths import NodePaths


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(NodePaths(tmp_path / "node"))


def audit(places: Places) -> list[Path]:
    """Return the audit log, and a file that it was rotated into."""
    return [places.node.audit, places.node.audit.with_name(f"{places.node.audit.name}.1")]


def plan(places: Places) -> SwapPlan:
    """Return what a restore of keys, audit log and configuration would do."""
    live = (places.key.parent, *audit(places), places.node.node_json)
    restored = Restored([Root(path, Path("/restored") / path.name) for path in live], {}, Path("/scratch"))
    return Node(SourceSpec("node", "critical", "node"), places).swap_plan(restored)


def replaced(places: Places) -> set[Path]:
    return {move.live for move in plan(places).moves}


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
    assert not replaced(places) & set(audit(places))


def test_a_log_comes_back_with_all_its_files_where_there_is_none(places: Places) -> None:
    assert replaced(places) >= set(audit(places))


def test_a_log_is_backed_up_with_all_its_files(places: Places) -> None:
    for path in (places.node.node_json, *audit(places)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with Node(SourceSpec("node", "critical", "node"), places).prepare(Path("/stage")) as prepared:
        assert {root.live for root in prepared.roots} >= set(audit(places))


def test_units_do_not_run_on_with_the_state_of_before(places: Places) -> None:
    """A unit that runs on has the state that moved away before it, and can write to neither."""
    assert plan(places).services == []
    for folder, name in ((places.node.current, "kosd"), (places.node.node_units, "mine")):
        folder.mkdir(parents=True)
        listing = {"release": "node", "units": {name: {"service": f"kos-{name}.service"}}, "files": {}}
        (folder / "units.json").write_text(json.dumps(listing))
    assert plan(places).services == ["kos-kosd.service", "kos-mine.service"]
