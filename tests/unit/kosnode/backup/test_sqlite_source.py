"""An SQLite database is copied whole while others write, and comes back with owner and mode (M11)."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from page_world import BEGAN, ROUNDS, chance

from kosnode.backup import sqlite
from kosnode.backup.config import SourceSpec
from kosnode.backup.places import Places
from kosnode.backup.source import Prepared, Restored, Root
from kosnode.backup.sqlite import Sqlite
from kosnode.boot import SystemClock
from kosnode.errors import BusyError, DamagedError, DiskError, InputError, NotFoundError
from kosnode.paths import NodePaths

fork = multiprocessing.get_context("fork")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
NOBODY = 65534


class Clock(SystemClock):
    """Moves a minute each time it is asked."""

    def __init__(self) -> None:
        self.time = BEGAN

    def now(self) -> datetime:
        self.time += timedelta(minutes=1)
        return self.time


class World:
    """A database, its source, and restores of it.

    Args:
        base: a directory for all of it.
    """

    def __init__(self, base: Path) -> None:
        self.path = base / "srv/app?100%.db"
        self.path.parent.mkdir()
        self.stage = base / "stage"
        self.stage.mkdir()
        self.base = base
        self.clock = Clock()
        self.source = self.source_of()

    def source_of(self, **row: Any) -> Sqlite:
        spec = SourceSpec("app", "critical", "sqlite", path=self.path, **row)
        return Sqlite(spec, Places(NodePaths(self.base / "node")), self.clock)

    def make(self, journal: str = "wal", rows: int = 400) -> None:
        with closing(self.open()) as database:
            database.execute(f"PRAGMA journal_mode = {journal}")
            database.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, note BLOB)")
            database.execute("CREATE INDEX by_amount ON account (amount)")
            with transaction(database):
                database.executemany(
                    "INSERT INTO account (amount, note) VALUES (100, randomblob(900))", [()] * rows
                )

    def open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, timeout=30)

    def back_up(self) -> Prepared:
        with self.source.prepare(self.stage) as prepared:
            return prepared

    def restored(self, prepared: Prepared, until: datetime | None = None) -> Restored:
        """Return what a restore has after `rebuild`; the stored files are copied first, as restic does."""
        folder = self.base / f"restore-{len(list(self.base.iterdir()))}"
        (folder / "scratch").mkdir(parents=True)
        (root,) = prepared.roots
        os.system(f"cp -a '{root.stored}' '{folder}/data'")
        given = Restored([Root(root.live, folder / "data")], prepared.heads, folder / "scratch", until)
        return self.source.rebuild(given)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    yield
    database.execute("COMMIT")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def ask(database: Path, question: str) -> Any:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute(question).fetchone()[0]


def move_money(path: Path, stop: Event, begun: Event, go: Event) -> None:
    """Write transactions that leave the sum as it is, as fast as the disk lets them.

    Until all have begun each writes one: SQLite queues nobody, so one at full speed can keep another out.
    """
    database = sqlite3.connect(path, isolation_level=None, timeout=30)
    database.execute("PRAGMA synchronous = OFF")
    number = 0
    while not stop.is_set():
        number += 1
        with transaction(database):
            database.execute("UPDATE account SET amount = amount - 7 WHERE id = ?", (number % 400 + 1,))
            database.execute(
                "UPDATE account SET amount = amount + 7, note = randomblob(900) WHERE id = ?",
                (number * 7 % 400 + 1,),
            )
        if not begun.is_set():
            begun.set()
            go.wait()


@contextmanager
def writers(path: Path, count: int) -> Iterator[None]:
    stop, go = fork.Event(), fork.Event()
    begun = [fork.Event() for _ in range(count)]
    processes = [fork.Process(target=move_money, args=(path, stop, event, go)) for event in begun]
    for process in processes:
        process.start()
    try:
        assert all(event.wait(30) for event in begun)
        go.set()
        yield
    finally:
        stop.set()
        go.set()
        for process in processes:
            process.join(30)
    assert [process.exitcode for process in processes] == [0] * count


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_every_copy_is_whole_while_other_processes_write(
    world: World, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.make(journal)
    # Many small steps, so that a copy that begins anew after each write of others would not come to its end.
    monkeypatch.setattr(sqlite, "_STEP_PAGES", 1)
    digests = set()
    with writers(world.path, 2):
        # Two states at least: the writers are at work while the copies are made.
        while len(digests) < 1 + ROUNDS:
            restored = world.restored(world.back_up())
            assert world.source.verify(restored) == []
            assert ask(restored.roots[0].stored, "SELECT sum(amount) FROM account") == 40_000
            digests.add(restored.heads["digest"])


def test_a_copy_comes_to_its_end_however_often_others_write(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a read transaction each of these writes makes SQLite begin the copy anew."""
    world.make()
    steps = 0

    class Interrupted(sqlite3.Connection):
        def backup(self, target: sqlite3.Connection, **_: Any) -> None:
            super().backup(target, pages=10, progress=write)

    def write(*_: int) -> None:
        nonlocal steps
        steps += 1
        assert steps < 1000, "the copy does not come to its end"
        writer.execute("UPDATE account SET amount = amount + 1")

    def connect(database: Path, query: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{database.as_uri()}?{query}", uri=True, isolation_level=None, factory=Interrupted
        )

    monkeypatch.setattr(sqlite, "_connect", connect)
    with closing(world.open()) as writer:
        prepared = world.back_up()
    assert steps > 10
    image = world.restored(prepared).roots[0].stored
    assert ask(image, "SELECT sum(amount) FROM account") == 40_000


def test_what_is_only_in_the_log_is_in_the_copy(world: World) -> None:
    world.make()
    with closing(world.open()) as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("INSERT INTO account (amount) VALUES (4242)")
        before = world.path.read_bytes()
        restored = world.restored(world.back_up())
        assert world.path.read_bytes() == before
    assert ask(restored.roots[0].stored, "SELECT count(*) FROM account WHERE amount = 4242") == 1


def test_what_a_killed_writer_left_half_done_is_not_in_the_copy(world: World) -> None:
    world.make("delete")
    child = os.fork()
    if child == 0:
        database = world.open()
        database.execute("PRAGMA cache_size = 5")
        database.execute("BEGIN")
        database.execute("UPDATE account SET amount = 0, note = zeroblob(900)")
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert world.path.with_name(f"{world.path.name}-journal").stat().st_size > 0
    restored = world.restored(world.back_up())
    assert ask(restored.roots[0].stored, "SELECT sum(amount) FROM account") == 40_000
    assert world.source.verify(restored) == []


def test_an_old_base_goes_only_when_the_new_one_has_been_shipped(world: World) -> None:
    world.make()
    folder = world.back_up().roots[0].stored
    world.clock.time -= timedelta(hours=1)
    with pytest.raises(ConnectionError), world.source.prepare(world.stage):
        raise ConnectionError("the backend is dead")
    assert sorted(path.name for path in folder.iterdir()) == ["000001", "000002"]
    heads = world.back_up().heads
    assert [path.name for path in folder.iterdir()] == ["000002"]
    assert heads["from"] < heads["time"] < "2026-11-21T12:00:00Z"


def test_the_heads_name_digest_and_times_between_which_any_point_can_be_had(world: World) -> None:
    world.make()
    first = world.back_up()
    second = world.back_up()
    assert first.heads["digest"] == second.heads["digest"]
    assert second.heads["from"] == "2026-11-21T12:01:00Z"
    assert second.heads["time"] == "2026-11-21T12:02:00Z"
    assert second.roots == [Root(world.path, world.base / "node/var/lib/kos/backup/sqlite/app/chain")]
    with pytest.raises(NotFoundError):
        world.restored(second, BEGAN)


def test_a_chain_that_ends_before_its_head_is_refused(world: World) -> None:
    world.make()
    older = world.back_up()
    with closing(world.open()) as database:
        database.execute("DELETE FROM account")
    newer = world.back_up()
    (newer.roots[0].stored / "000001/000001.delta").unlink()
    with pytest.raises(DamagedError, match="not the one that the manifest names"):
        world.restored(newer)
    assert world.source.verify(world.restored(older)) == []


@as_root
def test_owner_and_mode_come_back(world: World) -> None:
    world.make()
    os.chown(world.path, NOBODY, NOBODY)
    world.path.chmod(0o640)
    prepared = world.back_up()
    os.chown(world.path, 0, 0)
    status = world.restored(prepared).roots[0].stored.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (NOBODY, NOBODY, 0o640)


@as_root
def test_a_backup_by_root_leaves_no_file_that_the_owner_could_not_write(world: World) -> None:
    world.make()
    os.chown(world.path.parent, NOBODY, NOBODY)
    os.chown(world.path, NOBODY, NOBODY)
    world.back_up()
    assert {path.stat().st_uid for path in world.path.parent.iterdir()} == {NOBODY}


def test_the_copies_are_for_nobody_else_to_read(world: World) -> None:
    world.make()
    world.back_up()
    folder = world.base / "node/var/lib/kos/backup/sqlite/app"
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_a_damaged_page_of_the_restored_database_is_a_finding(world: World) -> None:
    world.make()
    restored = world.restored(world.back_up())
    image = restored.roots[0].stored
    spoilt = bytearray(image.read_bytes())
    spoilt[8 * 4096 : 9 * 4096] = bytes(4096)
    image.write_bytes(spoilt)
    findings = world.source.verify(restored)
    assert {finding.code for finding in findings} == {"integrity"}
    image.write_bytes(b"SQLite format 3\0 and no more")
    assert [finding.text for finding in world.source.verify(restored)] != []


def test_a_check_writes_nothing_beside_the_restored_database(world: World) -> None:
    world.make()
    restored = world.restored(world.back_up())
    image = restored.roots[0].stored
    before = {path: path.stat().st_mtime_ns for path in image.parent.iterdir()}
    assert world.source.verify(restored) == []
    assert {path: path.stat().st_mtime_ns for path in image.parent.iterdir()} == before


def test_a_damaged_database_is_not_backed_up_and_the_points_before_stay(world: World) -> None:
    world.make("delete")
    good = world.back_up()
    whole = world.path.read_bytes()
    world.path.write_bytes(whole[: 8 * 4096] + bytes(4096) + whole[9 * 4096 :])
    with pytest.raises(DamagedError, match="is damaged, so it is not backed up"):
        world.back_up()
    assert world.source.verify(world.restored(good)) == []


def test_a_database_that_only_its_application_can_check_wants_a_verifier(
    world: World,
) -> None:
    with closing(world.open()) as database:
        database.create_collation("backwards", lambda one, two: (one < two) - (one > two))
        database.execute("CREATE TABLE t (x TEXT COLLATE backwards)")
        database.execute("CREATE INDEX i ON t (x)")
        database.execute("INSERT INTO t VALUES ('a')")
    restored = world.restored(world.back_up())
    (finding,) = world.source.verify(restored)
    assert finding.text.endswith(
        "no such collation sequence: backwards; the source needs a verifier of its own"
    )
    assert world.source_of(verifier=("/usr/bin/app-check",)).verify(restored) == []


def test_the_log_of_the_old_database_may_not_stay_beside_the_restored_one(world: World) -> None:
    world.make()
    world.source = world.source_of(service="app.service")
    restored = world.restored(world.back_up())
    plan = world.source.swap_plan(restored)
    assert [(move.live, move.restored) for move in plan.moves] == [(world.path, restored.roots[0].stored)]
    assert list(plan.services) == ["app.service"]
    assert [path.name for path in plan.absent] == [
        f"{world.path.name}-{end}" for end in ("wal", "shm", "journal")
    ]


def test_a_second_rebuild_begins_anew(world: World) -> None:
    world.make()
    prepared = world.back_up()
    (root,) = prepared.roots
    scratch = world.base / "scratch"
    scratch.mkdir()
    given = Restored([root], prepared.heads, scratch)
    first = world.source.rebuild(given).roots[0].stored
    first.write_bytes(b"half")
    assert ask(world.source.rebuild(given).roots[0].stored, "SELECT count(*) FROM account") == 400


def test_a_writer_that_keeps_the_database_locked_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.make("delete")
    monkeypatch.setattr(sqlite, "_BUSY_S", 0.1)
    with closing(world.open()) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BusyError, match="was locked by a writer"):
            world.back_up()


def spoil_missing(path: Path) -> None:
    path.unlink()


def spoil_empty(path: Path) -> None:
    path.write_bytes(b"")


def spoil_text(path: Path) -> None:
    path.write_text("no database at all")


def spoil_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def spoil_place(path: Path) -> None:
    path.with_name(".stfolder").mkdir()


def spoil_link(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("real.db")))


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (spoil_missing, NotFoundError, "is not there"),
        (spoil_empty, InputError, "is empty, which is no database"),
        (spoil_text, InputError, "is not an SQLite database"),
        (spoil_folder, InputError, "must be the file of a database"),
        (spoil_place, InputError, "synchronises"),
        (spoil_link, InputError, "goes through a link"),
    ],
)
def test_what_is_no_database_is_refused_before_anything_is_touched(
    world: World, spoil: Any, error: type[Exception], said: str
) -> None:
    world.make("delete")
    spoil(world.path)
    with pytest.raises(error, match=said) as caught:
        world.source.check()
    assert caught.value.key == "sources.app.path"  # type: ignore[attr-defined]  # each of ours has it
    assert not (world.base / "node").exists()


def test_a_copy_that_has_no_room_is_refused_before_it_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.make()
    world.source.check()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    with pytest.raises(DiskError):
        world.source.check()


def test_seeded_histories_come_back_at_each_of_their_times(world: World) -> None:
    dice = chance()
    world.make(dice.choice(["wal", "delete"]))
    sums = []
    with closing(world.open()) as database:
        for _ in range(ROUNDS):
            for _ in range(dice.randrange(5)):
                change = dice.choice(
                    [
                        "INSERT INTO account (amount, note) VALUES (:n, randomblob(:n))",
                        "UPDATE account SET amount = :n, note = randomblob(:n) WHERE id % 50 = :n % 50",
                        "DELETE FROM account WHERE id % 20 = :n % 20",
                        "VACUUM",
                    ]
                )
                database.execute(change, {"n": dice.randrange(5000)} if ":n" in change else {})
            sums.append(database.execute("SELECT total(amount) FROM account").fetchone()[0])
            prepared = world.back_up()
    for number, expected in enumerate(sums):
        restored = world.restored(prepared, BEGAN + timedelta(minutes=number + 1))
        assert world.source.verify(restored) == []
        assert ask(restored.roots[0].stored, "SELECT total(amount) FROM account") == expected
