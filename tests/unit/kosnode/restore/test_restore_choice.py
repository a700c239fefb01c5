"""Which snapshot a restore takes, whatever the clocks said when they were made (K08)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest

from kosnode.backup import manifest, signing
from kosnode.backup.config import Repository
from kosnode.backup.manifest import Manifest
from kosnode.backup.restic import Restic, Snapshot
from kosnode.backup.source import Root
from kosnode.errors import DamagedError, InputError, RefusedError
from kosnode.restore.choose import Wish, choose

START = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
LISTED = Manifest(
    node="n1",
    fleet="demo",
    run="",
    time="2026-11-21T12:00:00Z",
    source="db",
    rank="high",
    method="sqlite",
    roots=(Root(Path("/srv"), Path("/srv")),),
    entries=(),
)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "node"
    signing.make_key(path, "n1")
    return path


class FakeStore:
    """A repository with snapshots r1, r2 … made at some hours."""

    def __init__(self, key: Path, hours: Sequence[int]) -> None:
        self.repository = Repository("main", "/r")
        self.key = key
        self.made = [
            Snapshot(
                f"s{number}",
                START + timedelta(hours=hour),
                "n1",
                ("kos", f"run=r{number}", "source=db"),
                ("/var/lib/kos/backup/stage/db",),
            )
            for number, hour in enumerate(hours, 1)
        ]

    def snapshots(self, *tags: str) -> list[Snapshot]:
        return sorted(self.made, key=lambda one: one.time)

    def read(self, snapshot: str, folder: Path, names: Sequence[str], *, limit: int) -> list[bytes]:
        data = replace(LISTED, run=f"r{snapshot[1:]}").encoded()
        return [data, signing.sign(self.key, data).encode()]


def chosen(store: FakeStore, wish: Wish, heads: Mapping[str, Mapping[str, Any]] = {}) -> str:
    found = choose(
        wish,
        cast(Restic, store),
        heads=heads,
        order=[one.id for one in store.made],
        trail=None,
        publics=[signing.public_key(store.key)],
    )
    return found.manifest.run


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


@pytest.mark.parametrize("hours", [[0, 1, 2], [0, 100, 2], [5, 4, 3], [0, -1000, 3], [0, 0, 0]])
def test_the_newest_is_the_one_that_was_made_last(key: Path, hours: Sequence[int]) -> None:
    assert chosen(FakeStore(key, hours), Wish("db")) == "r3"


def test_a_time_between_two_snapshots_takes_the_one_before(key: Path) -> None:
    store = FakeStore(key, [0, 2, 4])
    assert chosen(store, Wish("db", time=at(3), older=True)) == "r2"
    assert chosen(store, Wish("db", time=at(4))) == "r3"


@pytest.mark.parametrize("hour", [-1, 5])
def test_a_time_that_no_snapshot_covers_is_named_with_the_first_and_the_last(key: Path, hour: int) -> None:
    with pytest.raises(InputError, match=r"first point, 2026-11-21T12:00:00Z, .* 2026-11-21T16:00:00Z"):
        chosen(FakeStore(key, [0, 2, 4]), Wish("db", time=at(hour)))


def test_a_time_within_what_a_snapshot_can_be_wound_back_to_takes_that(key: Path) -> None:
    heads = {
        "r1": {"from": "2026-11-21T10:00:00Z", "time": "2026-11-21T12:00:00Z"},
        "r2": {"from": "2026-11-21T12:30:00Z", "time": "2026-11-21T16:00:00Z"},
    }
    store = FakeStore(key, [0, 4])
    assert chosen(store, Wish("db", time=at(-1.5), older=True), heads) == "r1"
    assert chosen(store, Wish("db", time=at(1)), heads) == "r2"
    assert chosen(store, Wish("db", time=at(0.2), older=True), heads) == "r1"


def test_an_older_one_needs_the_word(key: Path) -> None:
    with pytest.raises(RefusedError, match="older than run r2"):
        chosen(FakeStore(key, [0, 1]), Wish("db", run="r1"))
    assert chosen(FakeStore(key, [0, 1]), Wish("db", run="r1", older=True)) == "r1"


def test_a_manifest_of_another_run_is_damage(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore(key, [0])
    data = replace(LISTED, run="r9").encoded()
    monkeypatch.setattr(store, "read", lambda *args, **kw: [data, signing.sign(key, data).encode()])
    with pytest.raises(DamagedError, match="is that of another one"):
        chosen(store, Wish("db"))
    assert manifest.parse(data).run == "r9"
