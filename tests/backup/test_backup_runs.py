"""Runs with real restic into a local repository (M11, K13, K14)."""

from __future__ import annotations

from pathlib import Path

from backup.backup_node import BackupNode


def tree(folder: Path) -> Path:
    data = folder / "data"
    (data / "below").mkdir(parents=True)
    (data / "a").write_text("one")
    (data / "below/b").write_bytes(b"two" * 100_000)
    (data / "link").symlink_to("below/b")
    return data


def test_a_run_makes_one_snapshot_and_the_list_shows_it(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    sources = {"files": {"class": "high", "method": "tree", "path": str(data)}}
    node.configure(sources, {"main": {"url": str(tmp_path / "repository")}})
    node.init()
    first = node.run()["sources"][0]
    assert (first["files"], first["unstable"], len(first["snapshots"])) == (2, [], 1)
    listed = node.kosctl("backup", "list")["result"]["runs"]
    assert [one["snapshots"] for run in listed for one in run["sources"]] == [first["snapshots"]]
