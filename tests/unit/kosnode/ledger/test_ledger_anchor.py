"""What only somebody who knew the ledger before can find: a tail that is gone, a chain made anew (K08)."""

from __future__ import annotations

import copy
import fcntl
import threading
from pathlib import Path
from typing import Any

import pytest
from unit.kosnode.ledger.chains import chain, text, write

from kosnode import ledger
from kosnode.errors import BusyError, DamagedError, InputError, NotFoundError
from kosnode.ledger import repair

BLOCKS = chain(*[[f"record {number}"] for number in range(1, 9)])
OTHER = chain(*[[f"another {number}"] for number in range(1, 9)])
ANCHOR = ledger.Anchor(5, BLOCKS[5]["hash"])


@pytest.mark.parametrize(
    ("blocks", "relation"),
    [
        (BLOCKS[:6], "same"),
        (BLOCKS, "grown"),
        (BLOCKS[:5], "cut"),
        (BLOCKS[:1], "cut"),
        (OTHER, "forked"),
        (OTHER[:6], "forked"),
    ],
)
def test_an_anchor_tells_what_became_of_a_ledger(tmp_path: Path, blocks: list[Any], relation: str) -> None:
    found = ledger.compare(write(tmp_path / "l", blocks), ANCHOR)
    assert (found.relation, found.continues) == (relation, relation in ("same", "grown"))


def test_an_anchor_is_read_as_it_was_written() -> None:
    assert ledger.parse_anchor(str(ANCHOR)) == ANCHOR


@pytest.mark.parametrize("text", ["", "5", "5:abc", f"-1:{'0' * 64}", f"5:{'F' * 64}", f"5:{'0' * 64}\n"])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not an anchor"):
        ledger.parse_anchor(text)


def test_an_anchor_says_nothing_of_a_ledger_that_is_not_whole(tmp_path: Path) -> None:
    damaged = copy.deepcopy(BLOCKS)
    damaged[7]["data"] = ["x"]
    with pytest.raises(DamagedError, match="block 7: hash"):
        ledger.compare(write(tmp_path / "l", damaged), ANCHOR)
    with pytest.raises(NotFoundError):
        ledger.compare(tmp_path / "nowhere", ANCHOR)


@pytest.mark.parametrize(
    ("here", "there", "relation", "common"),
    [
        (BLOCKS, BLOCKS, "same", 9),
        (BLOCKS, BLOCKS[:4], "grown", 4),
        (BLOCKS[:4], BLOCKS, "cut", 4),
        (BLOCKS, OTHER, "forked", 1),
        (BLOCKS[:3], OTHER, "forked", 1),
        (BLOCKS, BLOCKS[:1], "grown", 1),
    ],
)
def test_two_copies_tell_how_far_they_are_the_same(
    tmp_path: Path, here: list[Any], there: list[Any], relation: str, common: int
) -> None:
    found = ledger.compare_ledgers(write(tmp_path / "a", here), write(tmp_path / "b", there))
    assert (found.relation, found.common) == (relation, common)


# The plan of repair


def steps(tmp_path: Path, blocks: list[Any] | str, *copies: list[Any]) -> list[tuple[object, ...]]:
    path = tmp_path / "damaged"
    path.write_text(blocks if isinstance(blocks, str) else text(blocks))
    paths = [write(tmp_path / f"copy{number}", one) for number, one in enumerate(copies)]
    _, found = repair.plan(path, paths)
    return [(step.first, step.last, step.do, step.source and step.source.name) for step in found]


def test_a_whole_ledger_needs_no_repair(tmp_path: Path) -> None:
    assert steps(tmp_path, list(BLOCKS)) == []


def test_a_wrong_stored_hash_and_a_key_too_many_are_mended_from_the_ledger_itself(tmp_path: Path) -> None:
    damaged = copy.deepcopy(BLOCKS)
    damaged[2]["hash"] = "0" * 64
    damaged[3]["nonce"] = 1
    damaged[6]["hash"] = "0" * 64
    assert steps(tmp_path, damaged) == [(2, 3, "rewrite", None), (6, 6, "rewrite", None)]


def test_the_genesis_block_is_known_to_all(tmp_path: Path) -> None:
    damaged = copy.deepcopy(BLOCKS)
    damaged[0]["data"] = ["x"]
    assert steps(tmp_path, damaged) == [(0, 0, "rewrite", None)]


def test_lost_content_is_taken_from_a_copy_that_its_neighbours_accept(tmp_path: Path) -> None:
    damaged = copy.deepcopy(BLOCKS)
    damaged[2]["data"] = ["x"]
    damaged[6]["data"] = ["x"]
    assert steps(tmp_path, damaged, OTHER, BLOCKS[:5]) == [(2, 2, "copy", "copy1"), (6, 6, "lost", None)]


def test_blocks_that_were_taken_out_come_from_a_copy(tmp_path: Path) -> None:
    assert steps(tmp_path, BLOCKS[:3] + BLOCKS[5:], BLOCKS)[0] == (3, 5, "copy", "copy0")


def test_a_torn_end_goes_on_from_the_longest_copy_that_fits(tmp_path: Path) -> None:
    torn = text(BLOCKS[:6])[:-40]
    assert steps(tmp_path, torn, OTHER, BLOCKS[:7], BLOCKS) == [(5, 8, "copy", "copy2")]
    assert steps(tmp_path, torn, BLOCKS[:5]) == [(5, None, "lost", None)]


def test_a_last_block_that_nothing_follows_is_proven_by_nothing(tmp_path: Path) -> None:
    damaged = copy.deepcopy(BLOCKS)
    damaged[-1]["hash"] = "0" * 64
    assert steps(tmp_path, damaged) == [(8, 8, "lost", None)]


@pytest.mark.parametrize("content", ["", "[]"])
def test_an_empty_ledger_comes_whole_from_the_longest_copy(tmp_path: Path, content: str) -> None:
    assert steps(tmp_path, content, BLOCKS[:4], BLOCKS) == [(0, 8, "copy", "copy1")]


def test_an_absent_ledger_comes_whole_from_a_copy(tmp_path: Path) -> None:
    whole = write(tmp_path / "copy", BLOCKS)
    verdict, found = repair.plan(tmp_path / "nowhere", [whole])
    assert (verdict.state, found) == ("absent", [repair.Step(0, 8, "copy", whole)])


def test_a_copy_that_is_damaged_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="copy0"):
        steps(tmp_path, list(BLOCKS), BLOCKS[1:])


# The lock


def test_reading_holds_off_appends_and_no_other_reader(tmp_path: Path) -> None:
    real = tmp_path / "data/blockchain.json"
    real.parent.mkdir()
    write(real, BLOCKS)
    lock = Path(f"{real}.lock")
    lock.touch()
    link = tmp_path / "link.json"
    link.symlink_to(real)
    with ledger.shared(link), ledger.shared(real), lock.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_append_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    path = write(tmp_path / "l", BLOCKS)
    lock = Path(f"{path}.lock")
    with lock.open("wb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(BusyError), ledger.shared(path, wait_s=0.05):
            pytest.fail("held by another")
        let_go = threading.Timer(0.1, lambda: fcntl.flock(holder, fcntl.LOCK_UN))
        let_go.start()
        with ledger.shared(path):
            pass
        let_go.join()


def test_no_lock_file_is_made_by_who_only_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "l", BLOCKS)
    with ledger.shared(path):
        assert [one.name for one in tmp_path.iterdir()] == ["l"]
