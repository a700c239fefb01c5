"""Restores with real restic: proven first, swapped by rename, old state kept (K19, K21)."""

from __future__ import annotations

from pathlib import Path

from backup.backup_node import BackupNode
from backup.files import listing, tree


def test_what_was_lost_comes_back_and_the_old_state_stays_until_it_is_confirmed(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    node.tree(data)
    before = listing(data)
    node.run()
    (data / "a").write_text("spoilt")
    (data / "below/b").unlink()
    spoilt = listing(data)
    answer = node.kosctl("restore", "files")
    assert answer["ok"], answer
    assert listing(data) == before
    result = answer["result"]
    assert (result["state"], result["verified"]["findings"]) == ("SWAPPED", [])
    assert [listing(Path(one)) for one in result["before"]] == [spoilt]
    assert node.kosctl("restore", "--undo", result["id"])["ok"]
    assert listing(data) == spoilt
    again = node.kosctl("restore", "files")["result"]
    assert node.kosctl("restore", "--confirm", again["id"])["result"]["state"] == "CONFIRMED"
    assert listing(data) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "n1", "repository"]
