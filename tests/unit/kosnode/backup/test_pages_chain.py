"""A chain of page deltas gives back every point, and names what is damaged, missing or of another (M11)."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from page_world import ABOUT, BEGAN, ROUNDS, History, chance, changed, each_file, image, restored

from kosnode.backup import page_chain, pages
from kosnode.backup.pages import PAGE_BYTES
from kosnode.errors import DamagedError, NotFoundError


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "db")


@pytest.fixture
def grown(history: History) -> History:
    """A base and three deltas."""
    dice = chance()
    history.add(image(dice))
    for _ in range(3):
        history.add(changed(dice, history.states[-1]))
    return history


def damage(chain: Path, until: int | None = None) -> str:
    """Return how a restore is refused."""
    with pytest.raises(DamagedError) as caught:
        restored(chain, None if until is None else BEGAN + timedelta(minutes=until))
    return caught.value.message


def test_every_point_comes_back_byte_for_byte(history: History) -> None:
    dice = chance()
    for _ in range(ROUNDS):
        data = history.states[-1] if history.states else b""
        kind = dice.choice(["edit", "grow", "shrink", "same", "empty", "other", "short page"])
        if kind == "edit":
            data = changed(dice, data, dice.randrange(20))
        elif kind == "grow":
            data += image(dice, dice.randrange(600))
        elif kind == "shrink":
            data = data[: dice.randrange(len(data) + 1)]
        elif kind == "empty":
            data = b""
        elif kind == "other":
            data = image(dice, dice.randrange(600))
        elif kind == "short page":
            data += dice.randbytes(dice.randrange(PAGE_BYTES))
        history.add(data)
    for number, state in enumerate(history.states):
        assert restored(history.shipped(), BEGAN + timedelta(minutes=number)) == state
    assert restored(history.shipped()) == history.states[-1]


def test_a_delta_is_about_as_large_as_what_changed(history: History) -> None:
    dice = chance()
    history.add(image(dice, 2000))
    point = history.add(changed(dice, history.states[-1], 20))
    assert (point.base, point.number) == (1, 1)
    assert point.bytes < 20 * 400


def test_what_did_not_change_makes_a_point_of_its_own(history: History) -> None:
    dice = chance()
    first, second = history.add(image(dice)), history.add(history.states[-1])
    assert (first.digest, second.number) == (second.digest, 1)
    assert second.bytes < 1000
    assert restored(history.shipped(), BEGAN + timedelta(minutes=1)) == history.states[0]


def test_the_digest_of_a_chain_is_that_of_its_image_alone(history: History, tmp_path: Path) -> None:
    dice = chance()
    history.add(image(dice, 600))
    point = history.add(changed(dice, history.states[0], 5)[: -PAGE_BYTES - 7])
    other = History(tmp_path / "other").add(history.states[1])
    assert (point.number, other.number) == (1, 0)
    assert point.digest == other.digest


def test_a_time_gives_the_newest_point_that_is_not_younger(grown: History) -> None:
    chain = grown.shipped()
    assert restored(chain, BEGAN + timedelta(minutes=1, seconds=59)) == grown.states[1]
    assert restored(chain, BEGAN + timedelta(minutes=2)) == grown.states[2]


@pytest.mark.parametrize("minutes", [-1, 4])
def test_a_time_before_the_first_or_after_the_last_point_is_refused(grown: History, minutes: int) -> None:
    with pytest.raises(
        NotFoundError, match="is not between the first point, 2026-11-21T12:00:00Z, and the last"
    ):
        restored(grown.shipped(), BEGAN + timedelta(minutes=minutes))


def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(grown: History) -> None:
    dice = chance()
    chain = grown.shipped()
    for path in each_file(chain):
        whole = path.read_bytes()
        for at in {0, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(ROUNDS))}:
            spoilt = bytearray(whole)
            spoilt[at] ^= 1 << dice.randrange(8)
            path.write_bytes(spoilt)
            assert path.name in damage(chain), (path.name, at)
        path.write_bytes(whole)
    assert restored(chain) == grown.states[-1]


def test_the_page_of_a_damaged_base_is_named(grown: History) -> None:
    chain = grown.shipped()
    spoilt = bytearray((chain / "000001/base").read_bytes())
    spoilt[7 * PAGE_BYTES + 5] ^= 1
    (chain / "000001/base").write_bytes(spoilt)
    assert f"page 7, at byte {7 * PAGE_BYTES}," in damage(chain)


def test_any_missing_file_is_named(grown: History) -> None:
    chain = grown.shipped()
    # Without its last delta a chain is whole, and older: the head in the manifest tells.
    for path in [path for path in each_file(chain) if path.name != "000003.delta"]:
        path.rename(chain / "away")
        assert f"{path.name} is missing" in damage(chain), path.name
        (chain / "away").rename(path)


def test_a_cut_off_file_is_named_wherever_it_is_cut(grown: History) -> None:
    dice = chance()
    chain = grown.shipped()
    for path in each_file(chain):
        whole = path.read_bytes()
        for end in {0, 1, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(ROUNDS))}:
            path.write_bytes(whole[:end])
            assert path.name in damage(chain), (path.name, end)
        path.write_bytes(whole + b"\0")
        assert path.name in damage(chain), path.name
        path.write_bytes(whole)


def test_a_delta_of_another_database_is_named(grown: History, tmp_path: Path) -> None:
    dice = chance()
    other = History(tmp_path / "other")
    other.add(image(dice, pages=301))
    other.add(changed(dice, other.states[-1]))
    other.add(changed(dice, other.states[-1]))
    chain = grown.shipped()
    shutil.copy(other.chain.chain / "000001/000002.delta", chain / "000001/000002.delta")
    assert "000001/000002.delta does not follow on what is before it: it is of another database" in damage(
        chain
    )


def test_two_deltas_that_changed_places_are_named(grown: History) -> None:
    chain = grown.shipped()
    one, two = chain / "000001/000001.delta", chain / "000001/000002.delta"
    first = one.read_bytes()
    two.replace(one)
    two.write_bytes(first)
    assert "000001.delta does not follow" in damage(chain)


def test_damage_leaves_the_points_before_it_and_the_message_names_the_last(grown: History) -> None:
    chain = grown.shipped()
    path = chain / "000001/000003.delta"
    spoilt = bytearray(path.read_bytes())
    spoilt[-1] ^= 1
    path.write_bytes(spoilt)
    assert "the points up to 2026-11-21T12:02:00Z can be restored" in damage(chain)
    assert restored(chain, BEGAN + timedelta(minutes=2)) == grown.states[2]
    path.write_bytes(spoilt[:-1])
    assert "the points up to 2026-11-21T12:02:00Z can be restored" in damage(chain, 3)
    assert restored(chain, BEGAN + timedelta(minutes=2)) == grown.states[2]


def test_a_restore_that_fails_leaves_no_file(grown: History, tmp_path: Path) -> None:
    chain = grown.shipped()
    (chain / "000001/base").write_bytes(b"short")
    with pytest.raises(DamagedError):
        page_chain.restore(chain, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "table").exists()


def test_a_restore_replaces_no_file(grown: History, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        page_chain.restore(grown.shipped(), tmp_path / "out", tmp_path)
    assert (tmp_path / "out").read_bytes() == b"precious"


def test_an_empty_chain_has_nothing_to_restore(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no base image"):
        restored(tmp_path)


def test_a_new_base_begins_where_the_deltas_outgrow_half_of_the_old_one(history: History) -> None:
    dice = chance()
    history.add(image(dice, 1000))
    half = image(dice, 300)
    point = history.add(half + history.states[0][len(half) :])
    assert (point.base, point.number) == (1, 1)
    point = history.add(half + half + history.states[0][2 * len(half) :][::-1])
    assert (point.base, point.number) == (2, 0)
    assert restored(history.shipped(), BEGAN + timedelta(minutes=1)) == history.states[1]


def test_a_new_base_begins_after_so_many_deltas(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_chain, "MOST_DELTAS", 2)
    for _ in range(4):
        history.add(b"same")
    assert [(point.base, point.number) for point in history.points] == [(1, 0), (1, 1), (1, 2), (2, 0)]


def test_a_clock_that_went_back_begins_a_new_base(history: History) -> None:
    history.add(b"one", minutes=10)
    assert history.add(b"two", minutes=5).base == 2
    assert history.add(b"three", minutes=7).number == 1
    chain = history.shipped()
    assert restored(chain) == b"three"
    assert restored(chain, BEGAN + timedelta(minutes=6)) == b"two"
    with pytest.raises(NotFoundError, match="the first point, 2026-11-21T12:05:00Z, and the last"):
        restored(chain, BEGAN + timedelta(minutes=10))


def test_old_bases_go_when_the_new_one_has_been_shipped(history: History) -> None:
    history.add(b"one", minutes=10)
    point = history.add(b"two", minutes=5)
    history.chain.forget(point)
    assert [path.name for path in history.chain.chain.iterdir()] == ["000002"]
    assert history.add(b"three", minutes=6).number == 1


def test_a_table_that_is_lost_or_of_another_image_is_made_again(grown: History) -> None:
    dice = chance()
    table = grown.folder / "table"
    for spoil in (
        table.unlink,
        lambda: table.write_bytes(b""),
        lambda: table.write_bytes(dice.randbytes(9600)),
    ):
        spoil()
        assert grown.add(changed(dice, grown.states[-1])).base == 1
    assert restored(grown.shipped()) == grown.states[-1]


@pytest.mark.parametrize("name", ["base.json", "base.table", "000001.delta", "000002.delta"])
def test_damage_of_the_chain_on_the_node_is_answered_by_a_new_base(grown: History, name: str) -> None:
    (grown.chain.chain / "000001" / name).write_bytes(b"spoilt")
    (grown.folder / "table").unlink()
    point = grown.add(changed(chance(), grown.states[-1]))
    assert (point.base, point.number) == (2, 0)
    # What is damaged is not shipped along: it would hide what is whole.
    assert restored(grown.shipped()) == grown.states[-1]
    (said,) = grown.said
    assert name in said


def test_no_delta_is_made_against_a_base_page_that_changed_on_the_disk(grown: History) -> None:
    base = grown.chain.chain / "000001/base"
    base.write_bytes(b"\xff" * PAGE_BYTES + base.read_bytes()[PAGE_BYTES:])
    point = grown.add(b"new" + grown.states[-1][3:])
    assert (point.base, point.number) == (2, 0)
    (said,) = grown.said
    assert said.endswith("begin anew: page 0 of the base image is not what was written")


def test_what_a_crash_left_behind_is_cleared_away(grown: History) -> None:
    (grown.folder / "new").mkdir()
    (grown.folder / "new/copy").write_bytes(b"half")
    with grown.chain.workspace() as workspace:
        assert not list(workspace.iterdir())
    assert not workspace.exists()


def test_a_header_with_a_good_seal_and_other_keys_is_refused(grown: History) -> None:
    chain = grown.shipped()
    header = pages.sealed({"format": 2, "about": ABOUT})
    (chain / "000001/base.json").write_bytes(page_chain.files.canonical(header))
    assert "of a format that this kosctl does not read" in damage(chain)
