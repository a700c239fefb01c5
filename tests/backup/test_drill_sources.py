"""Drills of every kind of source, each with the damage that its own verification has to see (K19 to K22)."""

from __future__ import annotations

import os
import pwd
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backup.backup_node import BackupNode
from backup.drill_world import DrillWorld, texts
from backup.files import noise, tree
from backup.postgres_world import PostgresWorld
from backup.test_databases import wait_a_second
from backup.test_drills import largest_pack
from backup.test_kairoschain import append, data_directory


def witnessed(node: BackupNode, folder: Path, sources: dict[str, Any]) -> DrillWorld:
    """Configure a node with a witness and a repository in a directory, and a host that drills it."""
    witness = folder / "witness"
    witness.mkdir()
    repository = node.repository(folder / "repository")
    node.configure(sources, {"main": repository}, witness={"url": witness.as_uri()})
    node.init()
    host = BackupNode(folder / "n2", node.programs, node.template, name="n2")
    return DrillWorld(node, host, repository["url"], witness)


def controls(report: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["outcome"] for one in report["controls"]}


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def mixed(node: BackupNode, tmp_path: Path) -> DrillWorld:
    """A node with a tree, a database, a ledger and itself, with two runs."""
    ledger, data = data_directory(tmp_path / "kairos"), tree(tmp_path)
    noise(data / "noise", 100_000, 1)
    database = tmp_path / "app.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE record (id INTEGER PRIMARY KEY, filler BLOB)")
    world = witnessed(
        node,
        tmp_path,
        {
            "app": {"class": "critical", "method": "sqlite", "path": str(database)},
            "chain": {"class": "critical", "method": "kairoschain", "path": str(ledger)},
            "self": {"class": "high", "method": "node"},
            "files": {"class": "low", "method": "tree", "path": str(data)},
        },
    )
    for _ in range(2):
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("INSERT INTO record (filler) VALUES (randomblob(5000))")
        append(ledger, 3)
        node.run()
        wait_a_second()
    return world


def test_databases_and_ledgers_come_back_to_two_points_and_agree_with_the_witness(mixed: DrillWorld) -> None:
    report = mixed.report()
    assert report["choice"]["drilled"] == ["app", "chain", "self", "files"]
    for source in report["sources"]:
        assert [one["kind"] for one in source["points"]] == ["newest", "time"], source
        assert {one["witness"] for one in source["points"]} == {"agrees"}
        assert source["points"][0]["time"] > source["points"][1]["time"]
    assert controls(report) == dict.fromkeys(
        ("missing-file", "flipped-byte", "missing-pack", "wrong-key", "missing-delta", "cut-ledger"), "red"
    )
    chain = next(one for one in report["sources"] if one["name"] == "chain")
    assert chain["record"]["text"] == "block 6 of the ledger"
    assert chain["points"][0]["head"]["length"] == 7
    assert chain["points"][1]["head"]["length"] == 4
    assert report["rpo_s"] == max(one["rpo_s"] for one in report["sources"])
    assert texts(report) == texts(report, "untested") == texts(report, "note") == []


def test_the_table_of_the_nodes_own_snapshot_will_do_and_its_commands_are_not_run(
    mixed: DrillWorld, tmp_path: Path
) -> None:
    verifier = executable(tmp_path / "verifier", f"touch {tmp_path}/ran")
    mixed.node.table["sources"]["app"]["verifier"] = [str(verifier)]
    mixed.node.configure(
        mixed.node.table["sources"], mixed.node.table["repositories"], witness=mixed.node.table["witness"]
    )
    mixed.node.run()
    report = mixed.report(table=None)
    assert report["choice"]["table"] == "snapshot"
    assert report["choice"]["drilled"] == ["app", "chain", "self", "files"]
    assert texts(report, "note") == ["the verifier of app was not run: its table is the node's own"]
    assert not (tmp_path / "ran").exists()


def test_a_drilled_verifier_has_no_network_but_loopback_and_the_last_word(
    mixed: DrillWorld, tmp_path: Path
) -> None:
    verifier = executable(tmp_path / "verifier", f"ls /sys/class/net > {tmp_path}/seen; exit 7")
    table = {"app": {**mixed.node.table["sources"]["app"], "verifier": [str(verifier)]}}
    # What /sys shows is of the namespace that it was mounted in; /proc is of who looks.
    executable(verifier, f"tail -n +3 /proc/self/net/dev | cut -d: -f1 > {tmp_path}/seen; exit 7")
    report = mixed.report(10, table=table)
    assert (tmp_path / "seen").read_text().split() == ["lo"]
    assert any("verifier" in one and "ended with 7" in one for one in texts(report))


def test_a_verifier_that_this_host_lacks_is_no_failure_and_no_success(mixed: DrillWorld) -> None:
    table = {"app": {**mixed.node.table["sources"]["app"], "verifier": ["/nowhere/at-all"]}}
    report = mixed.report(15, table=table)
    assert texts(report, "untested")[0] == "the verifier of app, /nowhere/at-all, is not on this host"


def test_a_verifier_runs_as_the_account_of_its_source(mixed: DrillWorld) -> None:
    with tempfile.TemporaryDirectory(prefix="kos-drill-") as name:
        # Where every account may pass through.
        folder = Path(name)
        folder.chmod(0o711)
        verifier = executable(folder / "verifier", 'test "$(id -un)" = nobody && test -r "$1"')
        verifier.chmod(0o755)
        database = Path(mixed.node.table["sources"]["app"]["path"])
        os.chown(database, pwd.getpwnam("nobody").pw_uid, -1)
        mixed.node.run()
        row = {**mixed.node.table["sources"]["app"], "verifier": [str(verifier)], "owner": "nobody"}
        mixed.report(table={"app": row}, scratch=str(folder / "drills"))
        assert list((folder / "drills").iterdir()) == []


@pytest.mark.fault
def test_what_is_wrong_with_one_source_does_not_keep_others_from_being_drilled(mixed: DrillWorld) -> None:
    # That of the tree, which is much larger than all others together.
    largest_pack(Path(mixed.url)).unlink()
    report = mixed.report(10, sources=["files", "self", "app"])
    assert {one["name"]: one["outcome"] for one in report["sources"]} == {
        "files": "FAILED",
        "self": "VERIFIED",
        "app": "VERIFIED",
    }
    assert set(controls(report).values()) == {"red"}


def test_a_postgresql_cluster_is_started_apart_at_two_points_and_misses_its_wal(
    cluster: PostgresWorld, tools: Path, template: Path
) -> None:
    # Where the account of the cluster may pass through.
    node = BackupNode(cluster.base / "node", tools, template)
    row = {"class": "critical", "method": "postgres", "cluster": cluster.cluster, "interval_s": 60}
    world = witnessed(node, cluster.base, {"db": row})
    cluster.control("restart")
    node.init()
    cluster.server.ask("CREATE TABLE record (id int)", "INSERT INTO record VALUES (1)")
    node.run()
    wait_a_second()
    node.run()
    report = world.report()
    assert [one["outcome"] for one in report["sources"][0]["points"]] == ["VERIFIED", "VERIFIED"]
    assert controls(report)["missing-wal"] == "red"
    found = next(one["found"] for one in report["controls"] if one["name"] == "missing-wal")
    assert "WAL segment" in found
    assert report["sources"][0]["record"]["text"] == "the newest point of the database"
