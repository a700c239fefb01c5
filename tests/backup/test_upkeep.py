"""Checks, retention, locks, and an append-only target with real rest-server (K14, K15, K16)."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backup.backup_node import PASSWORD, BackupNode
from backup.files import listing, noise, tree
from backup.servers import rest_server


def packs(node: BackupNode) -> list[Path]:
    store = Path(node.table["repositories"]["main"]["url"]) / "data"
    return sorted(path for path in store.rglob("*") if path.is_file())


@pytest.mark.fault
def test_a_flipped_byte_in_any_pack_is_found_by_reading_all_parts_in_turn(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    noise(data / "more", 100_000, seed=5)
    node.run()
    found = packs(node)
    assert len(found) >= 4
    for pack in found:
        good = pack.read_bytes()
        pack.chmod(0o600)
        pack.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
        answer = node.kosctl("backup", "check", "--data", "1/1")
        assert answer["exit"] == 10, pack
        assert answer["result"]["repositories"] == [{"name": "main", "ok": False, "read": "1/1"}]
        pack.write_bytes(good)
    assert node.kosctl("backup", "check", "--data", "1/1")["result"]["findings"] == []


def test_checks_read_one_part_after_the_other(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    node.run()
    read = [node.kosctl("backup", "check")["result"]["repositories"][0]["read"] for _ in range(3)]
    assert read == ["1/12", "2/12", "3/12"]


@pytest.mark.parametrize("part", ["0/1", "2/1", "x", "1/", "1/257", "-1/2"])
def test_a_part_that_is_none_is_refused(node: BackupNode, tmp_path: Path, part: str) -> None:
    node.tree(tree(tmp_path))
    assert "N/T" in node.refused(2, "backup", "check", f"--data={part}")


@pytest.mark.fault
def test_a_missing_pack_is_found(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    node.run()
    packs(node)[0].unlink()
    assert node.kosctl("backup", "check")["exit"] == 10


def aged(node: BackupNode, days: int) -> None:
    """Make a snapshot as of some days ago, by restic itself."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - days * 86_400))
    data = node.table["sources"]["files"]["path"]
    tags = ["--tag", "kos", "--tag", "source=files", "--tag", f"run=aged-{days}"]
    node.restic("backup", "--time", when, "--host", node.name, *tags, data)


def test_retention_says_first_and_removes_then(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path), retention={"within": "30d", "minimum": 2})
    for days in (90, 60, 40, 10):
        aged(node, days)
    node.run()
    planned = node.kosctl("backup", "forget", "--dry-run")
    assert (planned["changed"], len(node.snapshots())) == (True, 5)
    done = node.kosctl("backup", "forget")
    assert done["ok"], done
    assert [one["run"] for one in done["result"]["removed"]] == ["aged-90", "aged-60", "aged-40"]
    assert len(node.snapshots()) == 2
    assert planned["result"] == done["result"]
    assert node.kosctl("backup", "forget")["changed"] is False
    node.run()


def locks(node: BackupNode) -> list[str]:
    return node.restic("list", "locks", "--no-lock").split()


@contextlib.contextmanager
def locker(node: BackupNode) -> Iterator[subprocess.Popen[bytes]]:
    """Have a restic hold a lock: one that waits for the end of what it is to save."""
    given = {"PATH": "/usr/bin:/bin", "HOME": str(node.root), "RESTIC_PASSWORD": PASSWORD}
    where = node.table["repositories"]["main"]["url"]
    argv = [str(node.programs / "restic"), "--no-cache", "-r", where, "backup", "--stdin"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, env=given, stdout=subprocess.DEVNULL)
    try:
        while not locks(node):
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.fault
def test_the_lock_of_a_dead_process_goes_and_that_of_a_living_one_stays(
    node: BackupNode, tmp_path: Path
) -> None:
    node.tree(tree(tmp_path))
    node.run()
    with locker(node) as living:
        assert "kosctl backup unlock" in node.refused(5, "backup", "check")
        left = node.kosctl("backup", "unlock")
        assert (left["changed"], [one["pid"] for one in left["result"]["left"]]) == (False, [living.pid])
        living.send_signal(signal.SIGKILL)
        living.wait()
        assert "kosctl backup unlock" in node.refused(5, "backup", "check")
        done = node.kosctl("backup", "unlock")
        assert [one["pid"] for one in done["result"]["unlocked"]] == [living.pid]
    assert node.kosctl("backup", "check")["ok"]
    assert node.kosctl("backup", "unlock")["changed"] is False


@pytest.mark.fault
def test_an_append_only_target_takes_runs_and_refuses_to_forget_and_another_host_prunes_it(
    node: BackupNode, tmp_path: Path, template: Path
) -> None:
    data = tree(tmp_path)
    store = tmp_path / "served"
    sources = {"files": {"class": "high", "method": "tree", "path": str(data)}}
    node.repository(store)
    retention = {"within": "1h", "minimum": 1}
    with rest_server(node.programs, store, "--append-only") as server:
        url = server.url
        node.configure(sources, {"main": {"url": url}}, retention=retention)
        node.init()
        aged(node, 30)
        node.run()
        message = node.refused(3, "backup", "forget")
        assert "is append-only: it kept 1 snapshots" in message
        node.configure(sources, {"main": {"url": url, "append_only": True}}, retention=retention)
        assert "prune it from a host with credentials of its own" in node.refused(3, "backup", "forget")
        assert len(node.snapshots()) == 2
        expected = listing(data)
        assert node.kosctl("restore", "files", "--to", str(tmp_path / "out"))["ok"]
        assert listing(tmp_path / "out/data") == expected
    pruner = BackupNode(tmp_path / "pruner", node.programs, template)
    with rest_server(node.programs, store) as server:
        url = server.url
        pruner.configure({}, {"main": {"url": url}}, retention=retention)
        done = pruner.kosctl("backup", "forget")
        assert done["ok"], done
        assert [one["run"] for one in done["result"]["removed"]] == ["aged-30"]
        node.configure(sources, {"main": {"url": url}}, retention=retention)
        node.init()
        node.run()


@pytest.mark.fault
def test_a_backend_that_is_gone_is_told_and_leaves_nothing_behind(node: BackupNode, tmp_path: Path) -> None:
    store = tmp_path / "served"
    node.repository(store)
    with rest_server(node.programs, store) as server:
        sources = {"files": {"class": "high", "method": "tree", "path": str(tree(tmp_path))}}
        node.configure(sources, {"main": {"url": server.url}})
        node.init()
    node.configure(sources, {"main": {"url": server.url}}, backend_timeout_s=4)
    answer = node.kosctl("backup", "run")
    assert answer["exit"] == 6, answer
    assert node.kosctl("backup", "list")["exit"] == 6
    entry = json.loads((node.var / "runs.jsonl").read_text().splitlines()[-1])
    assert (entry["ok"], entry["errors"][0]["exit"]) == (False, 6)
    assert list((node.var / "stage").iterdir()) == []
