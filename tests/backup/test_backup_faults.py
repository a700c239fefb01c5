"""Disks that fill up, clocks that jump, dumps that are empty, servers that die (K07, K08, K16)."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from backup.backup_node import BackupNode
from backup.files import listing, noise, tree
from backup.servers import Server, rest_server
from backup.test_backup_runs import small_disk

pytestmark = pytest.mark.fault


def test_by_a_clock_that_goes_back_and_forth_the_order_of_the_runs_stays(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    node.tree(data)
    states: dict[str, dict[str, object]] = {}
    for days in (0, 3, -2, 0):
        (data / "a").write_text(f"run {len(states)}")
        answer = node.kosctl("backup", "run", wrapper=f'exec faketime -f {days:+}d "$@"')
        assert answer["ok"], (days, answer["error"])
        states[answer["result"]["run"]] = listing(data)
    *older, newest = states
    assert {one["run"] for one in node.kosctl("backup", "list")["result"]["runs"]} == set(states)
    shutil.rmtree(data)
    done = node.kosctl("restore", "files")
    assert (done["ok"], done["result"]["run"], listing(data)) == (True, newest, states[newest])
    for number, run in enumerate(older):
        out = tmp_path / f"out{number}"
        assert "older" in node.refused(3, "restore", "files", "--run", run, "--to", str(out))
        assert node.kosctl("restore", "files", "--run", run, "--older", "--to", str(out))["ok"]
        assert listing(out / "data") == states[run]


def test_a_dump_that_a_command_left_empty_is_no_backup(node: BackupNode, tmp_path: Path) -> None:
    dump, content = tmp_path / "dump.sql", tmp_path / "content"
    content.write_text("CREATE TABLE record")
    # A pipe ends as its last command does.
    node.tree(dump, before=[["sh", "-c", f"cat {content} | cat >{dump}"]])
    node.run()
    content.unlink()
    assert "is empty" in node.refused(2, "backup", "run")
    assert len(node.snapshots()) == 1
    assert node.kosctl("restore", "files")["ok"]
    assert dump.read_text() == "CREATE TABLE record"


def test_a_disk_that_fills_up_while_a_restore_fetches_leaves_live_data_and_it_goes_on_with_room(
    node: BackupNode, tmp_path: Path
) -> None:
    # Of bytes there are enough, so it begins.
    with small_disk(tmp_path / "disk", "16m,nr_inodes=60") as disk:
        data = disk / "data"
        data.mkdir()
        for number in range(40):
            (data / str(number)).write_text(str(number))
        sources = {"files": {"class": "high", "method": "tree", "path": str(data)}}
        repositories = {"main": node.repository(tmp_path / "repository")}
        node.configure(sources, repositories, reserve_bytes=0)
        node.init()
        node.run()
        good = listing(data)
        (data / "7").write_text("spoilt")
        spoilt = listing(data)
        assert "no space" in node.refused(7, "restore", "files")
        assert listing(data) == spoilt
        subprocess.run(["mount", "-o", "remount,nr_inodes=200", str(disk)], check=True)
        answer = node.kosctl("restore", "files")
        assert answer["ok"], answer
        assert "going on with restore" in answer["progress"]
        assert listing(data) == good


def end_at_the_first_pack(server: Server, store: Path) -> None:
    """Kill a server as soon as it has stored something."""
    while server.process.poll() is None and not list((store / "data").glob("*/*")):
        time.sleep(0.002)
    server.process.kill()


def test_a_backend_that_dies_while_it_is_written_to_is_given_up_and_the_next_run_goes_on(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    noise(data / "large", 100_000_000, seed=6)
    store = tmp_path / "served"
    node.repository(store)
    sources = {"files": {"class": "high", "method": "tree", "path": str(data)}}
    with rest_server(node.programs, store) as server:
        node.configure(sources, {"main": {"url": server.url}})
        node.init()
        node.configure(sources, {"main": {"url": server.url}}, backend_timeout_s=4)
        end = threading.Thread(target=end_at_the_first_pack, args=(server, store))
        end.start()
        answer = node.kosctl("backup", "run")
        server.process.kill()
        end.join()
        assert (answer["exit"], answer["result"]["sources"][0]["snapshots"]) == (6, []), answer
        assert list((node.var / "stage").iterdir()) == []
        node.configure(sources, {"main": {"url": server.url}})
        with rest_server(node.programs, store, port=server.port):
            node.run()
            assert node.kosctl("restore", "files", "--to", str(tmp_path / "out"))["ok"]
    assert listing(tmp_path / "out/data") == listing(data)


def test_a_repository_that_was_replaced_by_an_older_copy_of_itself_is_found_out(
    node: BackupNode, tmp_path: Path
) -> None:
    """Without a witness the node's own memory tells."""
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    store = tmp_path / "repository"
    shutil.copytree(store, tmp_path / "copy")
    (data / "a").write_text("newer")
    node.run()
    shutil.rmtree(store)
    (tmp_path / "copy").rename(store)
    assert "rolled back" in node.refused(3, "backup", "run")
    assert "which repository main lacks" in node.refused(3, "restore", "files")
