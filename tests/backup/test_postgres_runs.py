"""What a run does with a live cluster: backups when they are due, points in the WAL, refusals (M11, M12)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from backup.postgres_world import VERSION, PostgresWorld, postgres_world
from kosnode.backup import patterns, postgres
from kosnode.backup.runs import Runs
from kosnode.backup.source import Configured, Prepared
from kosnode.errors import DamagedError, DiskError, InputError, KosError, NotFoundError, RefusedError


@pytest.fixture(scope="module")
def archiving() -> Iterator[PostgresWorld]:
    with postgres_world() as made:
        made.archive()
        made.back_up()
        yield made


@pytest.fixture
def world(archiving: PostgresWorld) -> PostgresWorld:
    archiving.clock.later = timedelta()
    return archiving


def labels(world: PostgresWorld) -> list[str]:
    folders = (world.repository / "backup/db").iterdir()
    return sorted(
        path.name for path in folders if path.is_dir() and not path.is_symlink() and path.name[0] == "2"
    )


def test_each_run_marks_a_later_point_and_makes_no_backup_while_the_wal_is_enough(
    world: PostgresWorld,
) -> None:
    before = labels(world)
    first, second = world.back_up(), world.back_up()
    assert labels(world) == before
    assert first.heads["point"] != second.heads["point"]
    assert first.heads["lsn"] != second.heads["lsn"]
    assert world.source.went_back(first.heads, second) is None
    went_back = world.source.went_back(second.heads, first)
    assert went_back is not None
    assert went_back.startswith("its WAL stands at")
    assert first.heads["from"] == second.heads["from"] <= first.heads["time"]


def test_a_diff_is_due_after_a_day_and_a_full_backup_after_a_week(world: PostgresWorld) -> None:
    before = len(labels(world))
    world.clock.later = timedelta(days=1, minutes=1)
    world.back_up()
    assert [label[-1] for label in labels(world)[before:]] == ["D"]
    world.clock.later = timedelta(days=7, minutes=1)
    world.back_up()
    assert [label[-1] for label in labels(world)[before:]] == ["D", "F"]


@pytest.mark.fault
def test_a_hole_in_the_wal_is_closed_by_a_new_full_backup(world: PostgresWorld) -> None:
    first = world.back_up()
    for _ in range(2):
        world.back_up()
    (hole,) = world.repository.glob(f"archive/db/*/*/{first.heads['wal']}-*")
    hole.unlink()
    before = labels(world)
    prepared = world.back_up()
    (made,) = set(labels(world)) - set(before)
    assert made.endswith("F")
    assert prepared.heads.get("from", "later") > first.heads["time"]
    # What is missing is before the backup that a restore begins with now.
    assert world.source.verify(world.restored(prepared, world.shipped("hole"))) == []


def test_what_is_archived_while_the_repository_is_read_is_left_out(world: PostgresWorld) -> None:
    with world.source.prepare(world.base / "stage") as prepared:
        excluded = patterns.matcher(patterns.anchored(prepared.exclude, [world.repository]))
        before = {str(path) for path in world.repository.rglob("*")}
        for _ in range(20):
            world.server.ask("SELECT txid_current()", "SELECT pg_switch_wal()")
        wait_for_archive(world)
        after = {str(path) for path in world.repository.rglob("*")}
    assert not [path for path in before if excluded(path)]
    assert len(after - before) >= 20
    assert {path for path in after if not excluded(path)} == before


def wait_for_archive(world: PostgresWorld) -> None:
    waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    while world.server.ask(waiting) != [["0"]]:
        pass


@pytest.mark.fault
def test_an_archiver_that_fails_is_named_and_nothing_is_shipped(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_ARCHIVE_S", 2.0)
    config = world.source.folder / "pgbackrest.conf"
    text = config.read_text()
    config.write_text(text.replace("repo1-path=", "repo1-path=/nowhere"))
    try:
        with pytest.raises(KosError, match=r"was not archived within 2 s; .* attempts failed"):
            mark_and_wait(world)
    finally:
        config.write_text(text)


def mark_and_wait(world: PostgresWorld) -> None:
    """Ask for a point as a run does; the commands of the run itself have the repository that is not there."""
    repository = world.source._repository(world.account)
    postgres._wait_until_archived(repository, world.server, postgres._mark(world.server)["wal"])


@pytest.mark.fault
def test_another_cluster_in_the_place_of_the_first_is_refused(world: PostgresWorld, tmp_path: Path) -> None:
    heads = world.back_up().heads
    other = Prepared([], {**heads, "system": "42"})
    assert world.source.went_back(heads, other) == f"it is another cluster: 42, and was {heads['system']}"
    contents = world.source._repository(world.account).contents()
    assert contents is not None
    info = world.source._repository(world.account)
    info.contents = lambda: replace(contents, system="42")  # type: ignore[method-assign]  # what it would say
    with pytest.raises(RefusedError, match="holds the cluster 42, and"):
        world.source._contents(info, world.server)


def test_a_machine_whose_empty_cluster_made_room_for_the_restored_one_is_backed_up(
    world: PostgresWorld,
) -> None:
    """M12: the package makes a cluster on a new machine, and it is archived before data comes back."""
    heads = world.back_up().heads
    restored = world.restored(Prepared([], heads), world.shipped("elsewhere")).roots[0].stored
    with postgres_world() as new:
        new.archive()
        new.back_up()
        new.control("stop")
        shutil.rmtree(new.data)
        restored.rename(new.data)
        new.control("start")
        with pytest.raises(RefusedError, match="it is a source of another name"):
            new.back_up()
        Runs(new.source.places).append(
            {"kind": "restore", "id": "1", "time": heads["time"], "source": "db", "heads": dict(heads)}
        )
        assert new.back_up().heads["system"] == heads["system"]
        assert len(labels(new)) == 2
        assert new.restored(new.back_up(), new.shipped("again")).roots[0].stored.is_dir()
    # The new one took its place.
    os.environ["PG_CLUSTER_CONF_ROOT"] = str(world.base / "etc")


def test_a_restore_on_a_new_timeline_is_no_step_back(world: PostgresWorld) -> None:
    heads = world.back_up().heads
    restored = Prepared([], {**heads, "timeline": heads["timeline"] + 1, "lsn": "0/1000000"})
    assert world.source.went_back(heads, restored) is None
    assert world.source.went_back(restored.heads, Prepared([], heads)) is not None


@pytest.mark.fault
def test_no_room_for_a_full_backup_is_said_before_it_is_made(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.clock.later = timedelta(days=30)
    before = labels(world)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DiskError, match=r"a full backup of .* needs up to"):
        world.back_up()
    assert labels(world) == before


@pytest.mark.fault
def test_a_page_that_is_damaged_in_the_live_cluster_makes_the_run_fail(world: PostgresWorld) -> None:
    world.server.ask("CREATE TABLE spoilt AS SELECT repeat('x', 1000) FROM generate_series(1, 100)")
    ((name,),) = world.server.ask("SELECT pg_relation_filepath('spoilt')")
    world.control("stop")
    path = world.data / name
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    world.control("start")
    world.clock.later = timedelta(days=60)
    try:
        with pytest.raises(DamagedError, match=r"pages of .* have wrong checksums"):
            world.back_up()
    finally:
        world.server.ask("DROP TABLE spoilt")


def test_what_cannot_be_backed_up_is_refused_with_its_key(world: PostgresWorld) -> None:
    world.source.check()
    with pytest.raises(
        NotFoundError, match=f"no PostgreSQL cluster {VERSION}/other; there are: {world.cluster}"
    ):
        world.source_of(cluster=f"{VERSION}/other").check()
    (world.base / "space").mkdir()
    os.chown(world.base / "space", world.account.uid, world.account.gid)
    world.server.ask(f"CREATE TABLESPACE outside LOCATION '{world.base}/space'")
    try:
        with pytest.raises(InputError, match="has tablespaces outside its data directory"):
            world.source.check()
    finally:
        world.server.ask("DROP TABLESPACE outside")


def test_a_cluster_that_archives_elsewhere_or_does_not_run_is_refused(world: PostgresWorld) -> None:
    assert world.source.unconfigure(check=True) == (gone := world.source.unconfigure(check=False))
    assert [path.name for path in gone] == ["kos-backup.conf"]
    assert world.source.unconfigure(check=False) == []
    with pytest.raises(InputError, match="its WAL does not go into the backups"):
        world.source.check()
    world.server.ask("ALTER SYSTEM SET archive_command = 'cp %p /elsewhere'", "SELECT pg_reload_conf()")
    with pytest.raises(RefusedError, match="archives its WAL elsewhere already"):
        world.source.configure()
    assert not gone[0].exists()
    world.server.ask("ALTER SYSTEM RESET archive_command")
    world.control("stop")
    with pytest.raises(NotFoundError, match="does not run"):
        world.source.check()
    assert [path.name for path in world.source.configure().changed] == ["kos-backup.conf"]
    world.control("start")
    assert world.source.configure() == Configured()
    world.source.check()
    assert world.server.ask("SHOW archive_timeout") == [["1min"]]


def test_a_source_without_postgresql_says_so(world: PostgresWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotFoundError, match="PostgreSQL is not installed") as caught:
        world.source.check()
    assert caught.value.key == "sources.db.cluster"
