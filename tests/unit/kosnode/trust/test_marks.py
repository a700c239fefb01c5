"""Marks survive a torn write, a lost file and a flipped bit; without any of them the node says so (S17)."""

from __future__ import annotations

import os
import random
import shutil
from datetime import datetime, timezone
from pathlib import Path

import pytest
from unit.kosnode.trust.node import Node

from kosnode import files
from kosnode.errors import TrustError
from kosnode.marks import Marks, MarksFile

ROUNDS = int(os.environ.get("KOS_ROUNDS", "200"))
FLOOR = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
FIRST = Marks(0, {"root": 1, "timestamp": 5}, {"timestamp": ("key",)}, FLOOR)


@pytest.fixture
def store(tmp_path: Path) -> MarksFile:
    made = MarksFile(tmp_path)
    made.store(FIRST)
    return made


def raised(marks: Marks | None, timestamp: int) -> Marks:
    assert marks
    return Marks(marks.sequence, {**marks.versions, "timestamp": timestamp}, marks.key_ids, marks.floor)


def test_what_was_stored_is_loaded(store: MarksFile) -> None:
    assert store.load() == Marks(1, FIRST.versions, FIRST.key_ids, FIRST.floor)


def test_marks_that_are_there_already_are_not_written_again(store: MarksFile) -> None:
    before = [copy.stat().st_ino for copy in store.copies]
    loaded = store.load()
    assert loaded
    store.store(loaded)
    assert [copy.stat().st_ino for copy in store.copies] == before


def test_a_kill_between_the_two_writes_leaves_the_higher_marks_counting(
    store: MarksFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    higher = raised(store.load(), 6)
    whole = files.write_durable

    def first_only(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        if path.name == "marks.b":
            raise KeyboardInterrupt
        whole(path, data, mode=mode)

    monkeypatch.setattr(files, "write_durable", first_only)
    with pytest.raises(KeyboardInterrupt):
        store.store(higher)
    monkeypatch.undo()
    loaded = store.load()
    assert loaded
    assert loaded.versions["timestamp"] == 6
    store.store(loaded)
    assert store.copies[0].read_bytes() == store.copies[1].read_bytes()


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", ["truncated", "emptied", "deleted", "of another format"])
def test_one_unreadable_copy_takes_nothing_away_and_is_written_again(
    store: MarksFile, lost: int, how: str
) -> None:
    known, copy = store.load(), store.copies[lost]
    assert known
    if how == "deleted":
        copy.unlink()
    elif how == "of another format":
        copy.write_bytes(copy.read_bytes().replace(b'"format":1', b'"format":2'))
    else:
        copy.write_bytes(copy.read_bytes()[: 50 if how == "truncated" else 0])
    assert store.load() == known
    store.store(known)
    assert store.copies[0].read_bytes() == store.copies[1].read_bytes()
    assert store.load() == Marks(2, known.versions, known.key_ids, known.floor)


def test_any_flipped_bit_is_noticed(store: MarksFile) -> None:
    copy = store.copies[0]
    store.copies[1].unlink()
    true = copy.read_bytes()
    seed = int(os.environ.get("KOS_SEED", random.randrange(1 << 32)))
    print(f"KOS_SEED={seed}")
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        at, bit = chance.randrange(len(true)), 1 << chance.randrange(8)
        copy.write_bytes(true[:at] + bytes([true[at] ^ bit]) + true[at + 1 :])
        assert store.load() is None


class TestNode:
    @pytest.mark.parametrize("how", ["flipped", "deleted"])
    def test_without_readable_marks_the_node_refuses_and_says_the_way_out(self, node: Node, how: str) -> None:
        node.trust().refresh()
        for copy in MarksFile(node.paths.trust).copies:
            copy.unlink() if how == "deleted" else copy.write_bytes(b"\0" * 512)
        for attempt in (lambda: node.trust().refresh(), lambda: node.trust().releases()):
            with pytest.raises(
                TrustError, match=r"marks\.a and .*marks\.b are unreadable.*remove .*/trust: "
            ):
                attempt()
        shutil.rmtree(node.paths.trust)
        node.trust().refresh()

    def test_unreadable_marks_without_metadata_are_no_fresh_node(self, node: Node) -> None:
        node.trust().refresh()
        shutil.rmtree(node.metadata)
        for copy in MarksFile(node.paths.trust).copies:
            copy.write_bytes(b"")
        with pytest.raises(TrustError, match="are unreadable"):
            node.trust().refresh()

    def test_marks_that_this_account_may_not_read_are_not_called_damaged(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node.trust().refresh()

        def forbidden(*_arguments: object, **_options: object) -> None:
            raise PermissionError

        monkeypatch.setattr(files, "read_json", forbidden)
        with pytest.raises(PermissionError):
            node.trust().releases()
