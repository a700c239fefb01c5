"""A PostgreSQL cluster comes back to its newest state and to any time; what lacks is named (M11, M12)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.postgres_world import PostgresWorld, postgres_world
from kosnode import boot
from kosnode.backup import pg_check
from kosnode.backup.pg_server import ServerError
from kosnode.backup.source import Finding, Prepared, Restored
from kosnode.errors import DamagedError, NotFoundError

Damage = Callable[[Path], str]


@dataclass
class History:
    """A cluster that was backed up twice.

    Attributes:
        between: when it had 2000 rows; the newest snapshot has 3000, the live cluster 4000.
    """

    world: PostgresWorld
    prepared: Prepared
    between: datetime


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    with postgres_world() as world:
        world.archive()
        # What a database administrator leaves in the data itself counts more than a configuration file.
        for setting in ("archive_mode = on", "listen_addresses = '*'", "primary_conninfo = 'host=live'"):
            world.server.ask(f"ALTER SYSTEM SET {setting}")
        world.server.ask("CREATE TABLE record (id int PRIMARY KEY, filler text)")
        add(world, 1000)
        world.back_up()
        add(world, 1000)
        between = world.time()
        add(world, 1000)
        prepared = world.back_up()
        add(world, 1000)
        yield History(world, prepared, between)


def add(world: PostgresWorld, count: int) -> None:
    world.server.ask(
        "INSERT INTO record SELECT (SELECT coalesce(max(id), 0) FROM record) + n, repeat('x', 400) "
        f"FROM generate_series(1, {count}) n"
    )


def records(restored: Restored, history: History) -> int:
    with history.world.looking_at(restored) as server:
        ((count,),) = server.ask("SELECT count(*) FROM record")
        return int(count)


def refusal(history: History, repository: Path) -> str:
    with pytest.raises(DamagedError) as caught:
        history.world.restored(history.prepared, repository)
    return caught.value.message


def test_the_newest_state_comes_back_and_the_live_cluster_is_left_alone(history: History) -> None:
    world = history.world
    restored = world.restored(history.prepared, world.shipped("newest"))
    assert world.source.verify(restored) == []
    assert records(restored, history) == 3000
    assert world.server.ask("SELECT count(*) FROM record") == [["4000"]]
    with world.looking_at(restored) as server:
        shown = [
            server.ask(f"SHOW {name}") for name in ("archive_mode", "listen_addresses", "primary_conninfo")
        ]
    assert shown == [[["off"]], [[""]], [[""]]]
    # The copy has a history of its own from here on, which must not come into the live cluster's archive.
    assert not list(world.repository.rglob("00000002*"))
    ((move),) = world.source.swap_plan(restored).moves
    assert (move.live, move.restored) == (world.data, restored.roots[0].stored)
    assert list(world.source.swap_plan(restored).services) == [
        f"postgresql@{world.source.version}-{world.name}.service"
    ]
    data = restored.roots[0].stored
    assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (world.account.uid, 0o700)
    assert "recovery_target" not in (data / "postgresql.auto.conf").read_text()
    assert "restore_command" not in (data / "postgresql.auto.conf").read_text()
    assert not (data / "recovery.signal").exists()


def test_a_time_gives_exactly_what_was_committed_until_then(history: History) -> None:
    repository = history.world.shipped("time")
    restored = history.world.restored(history.prepared, repository, history.between)
    assert records(restored, history) == 2000


def test_a_time_before_the_first_or_after_the_last_point_is_refused(history: History) -> None:
    heads = history.prepared.heads
    for until in (
        boot.moment(heads["from"]) - timedelta(seconds=1),
        boot.moment(heads["time"]) + timedelta(seconds=1),
    ):
        with pytest.raises(NotFoundError, match=f"between {heads['from']} and {heads['time']}"):
            history.world.restored(history.prepared, Path("/nowhere/at/all"), until)


def segment(repository: Path, name: str) -> Path:
    (found,) = repository.glob(f"archive/db/*/{name[:16]}/{name}-*")
    return found


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def biggest(repository: Path) -> Path:
    return max(repository.glob("backup/db/*F/pg_data/base/**/*.zst"), key=lambda path: path.stat().st_size)


def lose_wal_between(repository: Path) -> str:
    name = sorted(path.name for path in repository.glob("archive/db/*/*/*.zst"))[-2][:24]
    segment(repository, name).unlink()
    return f"WAL segment {name} is missing"


def flip_wal(repository: Path) -> str:
    flip(sorted(repository.glob("archive/db/*/*/*.zst"))[-1])
    return "is damaged: "


def flip_file(repository: Path) -> str:
    flip(biggest(repository))
    return "checksum invalid: 1"


def lose_file(repository: Path) -> str:
    biggest(repository).unlink()
    return "missing: 1"


def lose_backup(repository: Path) -> str:
    for path in repository.glob("backup/db/*F"):
        shutil.rmtree(path)
    return "is damaged: "


def lose_stanza(repository: Path) -> str:
    shutil.rmtree(repository / "archive")
    shutil.rmtree(repository / "backup")
    return "the repository holds nothing"


@pytest.mark.fault
@pytest.mark.parametrize(
    "damage", [lose_wal_between, flip_wal, flip_file, lose_file, lose_backup, lose_stanza]
)
def test_damage_of_the_repository_is_found_before_anything_is_rebuilt(
    history: History, damage: Damage
) -> None:
    repository = history.world.shipped(damage.__name__)
    said = damage(repository)
    assert said in refusal(history, repository)


@pytest.mark.fault
def test_the_segment_with_the_newest_point_is_missed(history: History) -> None:
    repository = history.world.shipped("tail")
    newest = history.prepared.heads["wal"]
    segment(repository, newest).unlink()
    assert f"WAL segment {newest} is missing" in refusal(history, repository)


@pytest.mark.fault
def test_a_point_that_the_wal_does_not_reach_is_no_success(history: History) -> None:
    """PostgreSQL takes the end of the WAL for the end of history, unless it has to reach something."""
    heads = {**history.prepared.heads, "point": "kos-never-written"}
    prepared = replace(history.prepared, heads=heads)
    repository = history.world.shipped("unreached")
    with pytest.raises(DamagedError, match="recovery ended before configured recovery target was reached"):
        history.world.restored(prepared, repository)


@pytest.mark.fault
def test_the_repository_of_another_cluster_is_refused(history: History) -> None:
    prepared = replace(history.prepared, heads={**history.prepared.heads, "system": "42"})
    with pytest.raises(DamagedError, match="and the manifest names 42"):
        history.world.restored(prepared, history.world.shipped("foreign"))


@pytest.mark.fault
def test_a_rebuild_that_is_killed_leaves_no_server_and_can_begin_again(history: History) -> None:
    world = history.world
    repository = world.shipped("killed")
    child = os.fork()
    if child == 0:
        os.setsid()
        world.restored(history.prepared, repository)
        os._exit(0)
    noted = repository.with_name("repository.data") / "postmaster.pid"
    while not (noted.exists() and (words := noted.read_text().split())):
        time.sleep(0.01)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    server = int(words[0])
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while Path(f"/proc/{server}").exists():
        time.sleep(0.01)
    assert records(world.restored(history.prepared, repository), history) == 3000


@pytest.fixture(scope="module")
def rebuilt(history: History) -> Restored:
    return history.world.restored(history.prepared, history.world.shipped("checks"))


@pytest.fixture
def copy(history: History, rebuilt: Restored, request: pytest.FixtureRequest) -> Restored:
    """A rebuilt cluster that a test may spoil."""
    folder = history.world.base / f"copy-{request.node.name}"
    (folder / "scratch").mkdir(parents=True)
    (root,) = rebuilt.roots
    subprocess.run(["cp", "-a", root.stored, folder / "data"], check=True)
    return replace(rebuilt, roots=[replace(root, stored=folder / "data")], scratch=folder / "scratch")


def file_of(restored: Restored, history: History, relation: str) -> Path:
    ((path,),) = history.world.server.ask(f"SELECT pg_relation_filepath('{relation}')")
    return restored.roots[0].stored / path


@pytest.mark.fault
def test_a_page_with_a_wrong_checksum_is_a_finding(history: History, copy: Restored) -> None:
    flip(file_of(copy, history, "record"))
    said = [finding.text for finding in history.world.source.verify(copy)]
    assert any("checksum verification failed" in text for text in said)


def asked(history: History, copy: Restored, *verifier: str) -> list[Finding]:
    """Return what a server on the data finds, as `rebuild` asks it."""
    with history.world.looking_at(copy) as server:
        return pg_check.ask(server, copy.roots[0].stored, verifier, copy.scratch)


@pytest.mark.fault
def test_an_index_that_lacks_a_row_is_a_finding(history: History, copy: Restored) -> None:
    """Its pages are whole, and their checksums right: only a look at what they say tells."""
    with history.world.looking_at(copy) as server:
        server.ask(
            "SET allow_system_table_mods = on",
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'record_pkey'::regclass",
            "INSERT INTO record VALUES (1, 'a second one')",
            "UPDATE pg_index SET indisready = true WHERE indexrelid = 'record_pkey'::regclass",
        )
    (finding,) = asked(history, copy)
    assert finding.code == "integrity"
    assert "database postgres: record_pkey: heap tuple" in finding.text


def test_a_check_leaves_nothing_in_the_data(history: History, copy: Restored) -> None:
    assert asked(history, copy) == []
    with history.world.looking_at(copy) as server:
        assert server.ask("SELECT extname FROM pg_extension") == [["plpgsql"]]
        assert server.ask("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'kos%'") == [["0"]]


@pytest.mark.fault
def test_data_without_its_control_file_is_a_finding(history: History, copy: Restored) -> None:
    (copy.roots[0].stored / "global/pg_control").unlink()
    (finding,) = history.world.source.verify(copy)
    assert (finding.code, "global/pg_control" in finding.text) == ("integrity", True)


def test_data_on_which_a_server_gives_no_answer_is_damaged(history: History, copy: Restored) -> None:
    (copy.roots[0].stored / "global/pg_filenode.map").unlink()
    with pytest.raises(ServerError, match="pg_filenode"):
        asked(history, copy)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT 1 / (count(*) - 3000) FROM record", "division by zero"),
        ("DELETE FROM record", "read-only transaction"),
    ],
)
def test_the_verifier_asks_the_restored_data_and_cannot_change_it(
    history: History, copy: Restored, statement: str, said: str
) -> None:
    words = ("psql", "--no-psqlrc", "--dbname=postgres", "--set=ON_ERROR_STOP=1", "--command")
    shell = ("sh", "-c", '"$@"', "sh", *words)
    # The path of the data comes last; psql takes it for the name of a variable.
    (finding,) = asked(history, copy, *shell, statement, "--set")
    assert finding.code == "verifier"
    assert said in finding.text
    shutil.rmtree(copy.scratch / "verifier")
    assert asked(history, copy, *shell, "SELECT 1 / (count(*) / 3000) FROM record", "--set") == []


def test_a_verifier_that_says_no_makes_the_restore_fail(history: History) -> None:
    world = history.world
    world.source = world.source_of(verifier=("/bin/false",))
    assert world.source.spec.verifier == ()
    try:
        with pytest.raises(DamagedError, match="is damaged: /bin/false ended with 1") as caught:
            world.restored(history.prepared, world.shipped("verifier"))
    finally:
        world.source = world.source_of()
    findings: Any = caught.value.detail["findings"]
    assert [one["code"] for one in findings] == ["verifier"]
