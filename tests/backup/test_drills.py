"""Drills with real restic behind a real rest-server: the good is VERIFIED, each fault is red (M13, K22)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backup.backup_node import BackupNode
from backup.drill_world import DrillWorld, rest_server
from backup.files import noise, tree


@pytest.fixture
def world(node: BackupNode, tmp_path: Path, template: Path) -> Iterator[DrillWorld]:
    """A node with one tree and two runs."""
    data = tree(tmp_path)
    noise(data / "below/noise", 300_000, 1)
    served = tmp_path / "served"
    served.mkdir()
    node.repository(served / "n1")
    with rest_server(node.programs, served) as url:
        node.configure(
            {"files": {"class": "high", "method": "tree", "path": str(data)}},
            {"main": {"url": f"{url}n1/", "append_only": True}},
        )
        node.init()
        node.run()
        (data / "a").write_text("two")
        node.run()
        host = BackupNode(tmp_path / "n2", node.programs, template, name="n2")
        yield DrillWorld(node, host, f"{url}n1/")


def test_a_good_backup_is_verified_and_every_damaged_copy_of_it_is_red(world: DrillWorld) -> None:
    report = world.report()
    assert {one["name"]: one["outcome"] for one in report["controls"]} == {
        "missing-file": "red",
        "flipped-byte": "red",
        "missing-pack": "red",
        "wrong-key": "red",
    }
    assert [one["outcome"] for one in report["sources"][0]["points"]] == ["VERIFIED", "VERIFIED"]
    assert report["network"]["isolated"]
    assert report["cleanup"] == {"ok": True, "left": [], "earlier": []}
