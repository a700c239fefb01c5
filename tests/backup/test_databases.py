"""Databases through the commands, with real restic: a run, a disaster, and back to a time (M11, M12)."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from backup.backup_node import BackupNode
from backup.postgres_world import VERSION, PostgresWorld
from kosnode import boot
from kosnode.backup import pg_server


def wait_a_second() -> str:
    """Return a time that holds what was written before this call, and not what is written after it."""
    now = boot.text(datetime.now(timezone.utc))
    while boot.text(datetime.now(timezone.utc)) == now:
        time.sleep(0.02)
    return now


def rows(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM record").fetchone()[0])


def restored(node: BackupNode, *words: str) -> dict[str, Any]:
    answer = node.kosctl("restore", *words)
    assert answer["ok"], (answer["error"], answer["result"], answer["progress"])
    result: dict[str, Any] = answer["result"]
    return result


@pytest.mark.fault
def test_a_lost_sqlite_database_comes_back_to_its_newest_point_and_to_an_earlier_one(
    node: BackupNode, tmp_path: Path
) -> None:
    database = tmp_path / "app.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE record (id INTEGER PRIMARY KEY, filler BLOB)")
    database.chmod(0o640)
    node.configure(
        {"app": {"class": "critical", "method": "sqlite", "path": str(database)}},
        {"main": node.repository(tmp_path / "repository")},
    )
    node.init()
    writer = sqlite3.connect(database, isolation_level=None)
    moments = []
    for _ in range(3):
        writer.execute("INSERT INTO record (filler) VALUES (randomblob(500))")
        node.run()
        moments.append(wait_a_second())
    # It dies with a log beside it, which is of no use to what comes back.
    writer.execute("INSERT INTO record (filler) VALUES (randomblob(500))")
    assert database.with_name("app.db-wal").stat().st_size > 0
    subprocess.run(["cp", database.with_name("app.db-wal"), tmp_path / "log"], check=True)
    writer.close()
    database.write_bytes(b"")
    (tmp_path / "log").rename(database.with_name("app.db-wal"))
    result = restored(node, "app")
    assert result["verified"]["findings"] == []
    assert (rows(database), database.stat().st_mode & 0o777) == (3, 0o640)
    node.kosctl("restore", "--confirm", result["id"])
    result = restored(node, "app", "--time", moments[1], "--older")
    assert rows(database) == 2
    assert node.kosctl("restore", "--undo", result["id"])["ok"]
    assert rows(database) == 3
    message = node.refused(2, "restore", "app", "--time", "2020-01-01T00:00:00Z")
    assert "is not between the first point" in message


def test_a_postgresql_cluster_is_shipped_and_comes_back_as_a_directory_that_starts(
    cluster: PostgresWorld, tools: Path, template: Path
) -> None:
    # Where the account of the cluster may pass through.
    node = BackupNode(cluster.base / "node", tools, template)
    node.configure(
        {"db": {"class": "critical", "method": "postgres", "cluster": cluster.cluster, "interval_s": 60}},
        {"main": node.repository(cluster.base / "repository")},
    )
    service = f"postgresql@{VERSION}-{cluster.name}.service"
    answer = node.init()
    assert answer["actions"][-1] == f"restart {service}, before it can be backed up"
    assert not node.init()["changed"]
    assert f"archives only after a restart of {service}" in node.refused(2, "backup", "run")
    cluster.control("restart")
    assert node.init()["result"]["sources"] == []
    cluster.server.ask("CREATE TABLE record (id int)", "INSERT INTO record VALUES (1)")
    node.run()
    cluster.server.ask("INSERT INTO record VALUES (2)")
    moment = boot.text(cluster.time())
    cluster.server.ask("INSERT INTO record VALUES (3)")
    node.run()
    (source,) = node.run()["sources"]
    assert source["added_bytes"] < 1_000_000
    for words, count in (((), 3), (("--time", moment, "--older"), 2)):
        folder = cluster.base / f"restored-{count}"
        folder.mkdir()
        result = restored(node, "db", "--to", str(folder), *words)
        assert result["verified"]["findings"] == []
        with pg_server.private(VERSION, folder / "data", cluster.account, cluster.base / "look") as server:
            assert server.ask("SELECT count(*) FROM record") == [[str(count)]]
    assert cluster.server.ask("SELECT count(*) FROM record") == [["3"]]
