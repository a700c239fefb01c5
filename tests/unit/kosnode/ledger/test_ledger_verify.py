"""What the verifier finds in a ledger (K07), whatever the application says of it."""

from __future__ import annotations

import copy
import json
import os
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from unit.kosnode.ledger.chains import Block, block, chain, text, write

from kosnode import ledger
from kosnode.ledger import chain as walking
from kosnode.ledger import reading
from kosnode.ledger import verifier as verifying
from kosnode.ledger.written import written

ROUNDS = int(os.environ.get("KOS_ROUNDS", "1"))
DATA: tuple[list[str], ...] = (["a"], ["b", "c"], ["d", "e", "f"], [], ['ünï\u2028 \x01\t"\\/\x7f😀'])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blockchain.json"


def found(path: Path, what: str | list[Any]) -> ledger.Verdict:
    """Verify a text, or blocks in the gem's form."""
    path.write_text(what if isinstance(what, str) else text(what), "utf-8")
    return ledger.verify(path)


def reasons(verdict: ledger.Verdict) -> list[tuple[int, int, str]]:
    return [(one.first, one.last, one.reason) for one in verdict.ranges]


def test_a_whole_ledger_is_ok_and_has_a_head(path: Path) -> None:
    blocks = chain(*DATA)
    verdict = found(path, blocks)
    assert (verdict.state, verdict.length, verdict.ranges, verdict.first_bad) == ("ok", 6, (), None)
    assert verdict.head is not None
    assert verdict.head.as_dict() == {"length": 6, "index": 5, "hash": blocks[-1]["hash"]}
    assert ledger.head(path).timestamp == blocks[-1]["timestamp"]


def test_hashes_are_those_of_the_real_application() -> None:
    """The hash of the genesis block is a constant of the application, and follows from the same rule."""
    genesis = chain()[0]
    assert block(0, genesis["timestamp"], ["Genesis Block"], "0" * 64)["hash"] != genesis["hash"]
    assert genesis["hash"] == ledger_hash(genesis)


def ledger_hash(one: Block) -> str:
    from kosnode.ledger.block import block_hash

    return block_hash(one["index"], one["timestamp"], one["data"], one["previous_hash"], one["merkle_root"])


def texts() -> st.SearchStrategy[str]:
    """Any text that UTF-8 can say, with control characters and what JSON has to escape."""
    return st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\b\f\n\r\t\x00\x7f\u2028'))


@seed(7)
@settings(
    max_examples=40 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.lists(st.lists(texts(), max_size=5), max_size=6), form=st.sampled_from([None, 0, 1, 2]))
def test_any_chain_in_any_form_is_ok(path: Path, data: list[list[str]], form: int | None) -> None:
    blocks = chain(*data)
    path.write_text(json.dumps(blocks, indent=form, ensure_ascii=form == 1), "utf-8")
    verdict = ledger.verify(path)
    assert (verdict.state, verdict.length, verdict.ranges) == ("ok", len(blocks), ())


OTHER: dict[str, list[Any]] = {
    "index": [-1, 7, 1.0, "1", None, True, 10**30],
    "timestamp": ["2026-11-21T12:00:00.000009Z", "2026-13-01T00:00:00.000000Z", "", 5, None],
    "data": [["x"], [], ["a", "a"], "a", [1], [["a"]], {"a": 1}, None],
    "previous_hash": ["0" * 64, "f" * 64, "", 0, None],
    "merkle_root": ["0" * 64, "f" * 64, "x", 0, None],
    "hash": ["0" * 64, "f" * 64, "", 0, None],
}


@pytest.mark.parametrize("form", [None, 2])
@pytest.mark.parametrize("at", range(5))
def test_a_change_of_any_field_of_any_block_is_found_where_it_is(
    path: Path, at: int, form: int | None
) -> None:
    whole = chain(["a"], ["b", "c"], ["d", "e", "f"], ["g"])
    for field, values in OTHER.items():
        for value in values:
            changed = copy.deepcopy(whole)
            if changed[at][field] == value and type(changed[at][field]) is type(value):
                continue
            changed[at][field] = value
            verdict = found(path, json.dumps(changed, indent=form))
            assert (verdict.state, verdict.first_bad) == ("damaged", at), (field, value, reasons(verdict))
            assert {range_.first for range_ in verdict.ranges} == {at}, (field, value, reasons(verdict))


@pytest.mark.parametrize("at", range(5))
def test_a_key_that_is_missing_new_or_there_twice_is_named(path: Path, at: int) -> None:
    whole = chain(["a"], ["b", "c"], ["d", "e", "f"], ["g"])
    for field in whole[at]:
        changed = copy.deepcopy(whole)
        del changed[at][field]
        assert (at, at, field) in reasons(found(path, changed))
        line = next(line for line in text([whole[at]]).splitlines() if f'"{field}"' in line)
        if not line.endswith("["):
            lines = text(whole).splitlines()
            numbers = [number for number, one in enumerate(lines) if f'"{field}"' in one]
            lines.insert(numbers[at], lines[numbers[at]].rstrip(",") + ",")
            assert reasons(found(path, "\n".join(lines))) == [(at, at, f"key {field} twice")]
    assert reasons(found(path, [*whole[:at], {**whole[at], "nonce": 1}, *whole[at + 1 :]])) == [
        (at, at, "unknown key 'nonce'")
    ]


def test_the_order_of_keys_means_nothing(path: Path) -> None:
    assert found(path, [dict(reversed(one.items())) for one in chain(*DATA)]).ok


def test_a_flipped_bit_anywhere_is_found(path: Path) -> None:
    """Of 200 places in the file; a bit of white space that stays white space is none."""
    chosen = random.Random(20261121)
    whole = text(chain(*DATA)).encode()
    for place in chosen.sample(range(len(whole)), 200 * min(ROUNDS, 3)):
        bit = 1 << chosen.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        verdict = ledger.verify(path)
        assert not verdict.ok, f"bit {bit} at {place}"


def test_a_forged_block_does_not_fit_the_next_one(path: Path) -> None:
    blocks = chain(["a"], ["b"], ["c"])
    blocks[1] = block(1, blocks[1]["timestamp"], ["forged"], blocks[0]["hash"])
    assert reasons(found(path, blocks)) == [(2, 2, "previous_hash")]


def test_a_forged_genesis_is_found_though_all_follows_from_it(path: Path) -> None:
    blocks = [block(0, "1970-01-01T00:00:00.000000Z", ["Another"], "0" * 64)]
    blocks.append(block(1, "2026-01-01T00:00:00.000000Z", ["a"], blocks[0]["hash"]))
    assert reasons(found(path, blocks)) == [(0, 0, "genesis")]


def test_blocks_that_were_taken_out_are_counted(path: Path) -> None:
    blocks = chain(*[["x"]] * 9)
    assert reasons(found(path, blocks[:3] + blocks[6:])) == [(3, 5, "missing"), (6, 6, "previous_hash")]
    assert (0, 3, "missing") in reasons(found(path, blocks[4:]))


def test_blocks_in_another_order_or_twice_are_found(path: Path) -> None:
    blocks = chain(*[["x"]] * 5)
    assert (2, 2, "index") in reasons(found(path, [*blocks[:3], blocks[2], *blocks[3:]]))
    swapped = found(path, [*blocks[:2], blocks[3], blocks[2], *blocks[4:]])
    assert swapped.state == "damaged"
    assert swapped.first_bad == 2


def test_the_tail_is_only_missed_by_who_knows_of_it(path: Path) -> None:
    """K08: a cut at a block's end leaves a whole ledger, so an anchor has to be kept elsewhere."""
    assert found(path, chain(*DATA)[:-2]).ok


def test_damage_in_two_places_is_told_as_two_ranges(path: Path) -> None:
    blocks = chain(*[["x"]] * 12)
    for at in (3, 4, 5, 9):
        blocks[at]["data"] = ["y"]
    verdict = found(path, blocks)
    assert [found_ for found_ in reasons(verdict) if found_[2] == "hash"] == [(3, 5, "hash"), (9, 9, "hash")]
    assert verdict.first_bad == 3


@pytest.mark.parametrize("cut", [1, 4, 5, 40, 300, 700])
@pytest.mark.parametrize("form", [None, 2])
def test_a_torn_ledger_is_unreadable_and_its_whole_blocks_are_counted(
    path: Path, cut: int, form: int | None
) -> None:
    whole = json.dumps(chain(["a"], ["b"]), indent=form)
    verdict = found(path, whole[:-cut])
    assert verdict.state == "unreadable"
    assert verdict.ranges[-1].reason == "torn"
    assert verdict.first_bad == verdict.ranges[-1].first


@pytest.mark.parametrize(
    "content",
    [
        "",
        " \n",
        "{}",
        "null",
        "[",
        "[1",
        '"x"',
        "[[]",
        "garbage",
        "[]]",
        "[{}}",
        "[] []",
        "[,]",
        "\ufeff[]",
        "[{}, ]",
    ],
)
def test_what_is_no_json_array_is_unreadable(path: Path, content: str) -> None:
    assert found(path, content).state == "unreadable"


@pytest.mark.parametrize(
    "content", ["[]", "[1]", "[null]", "[{}]", "[[]]", '["x"]', "[[[1]]]", '[{"index": 0}]', "[NaN]", "[1e9]"]
)
def test_an_array_without_the_blocks_of_a_ledger_is_damaged(path: Path, content: str) -> None:
    verdict = found(path, content)
    assert (verdict.state, verdict.first_bad) == ("damaged", 0)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b'[{"index": "\xc3"}]', b'[{"data": ["\\ud800"]}]', b"[" * 100_000, b'["\x00"]']
)
def test_hostile_bytes_get_a_verdict(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert not ledger.verify(path).ok


def test_a_lone_surrogate_in_data_is_damage(path: Path) -> None:
    blocks = chain(["a"])
    blocks[1]["data"] = ["\ud800"]
    path.write_text(json.dumps(blocks, indent=2))
    assert (1, 1, "data") in reasons(ledger.verify(path))


def test_a_pretty_ledger_of_which_one_block_is_no_json_is_read_on(path: Path) -> None:
    lines = text(chain(*[["x"]] * 5)).splitlines()
    at = next(number for number, line in enumerate(lines) if '"index": 2' in line)
    lines[at] = lines[at].replace(":", ";")
    verdict = found(path, "\n".join(lines))
    assert (verdict.state, reasons(verdict), verdict.length) == ("unreadable", [(2, 2, "not JSON")], 6)


def test_lines_that_look_like_a_block_s_end_inside_of_one_do_not_deceive(path: Path) -> None:
    """A cut by lines would see two blocks where JSON has one object with a list of objects in it."""
    blocks = chain(["a"])
    nested = '[\n  {\n    "index": [{\n  },\n  {\n    }]\n  }\n]'
    assert found(path, nested).state == "damaged"
    assert found(path, nested).length == 1
    assert found(path, text(blocks)).ok


def test_absent_is_a_state_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for absent in ("nowhere", "dangling", "file/blockchain.json"):
        assert ledger.verify(tmp_path / absent).state == "absent"


def test_what_is_no_file_is_unreadable_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for unreadable in ("pipe", "."):
        verdict = ledger.verify(tmp_path / unreadable)
        assert (verdict.state, verdict.problem) == ("unreadable", "not a file")


# The quick way


def pieces(blocks: list[Block]) -> list[bytes]:
    """Return the texts of the blocks as the verifier cuts them."""
    return [text([one])[len("[\n  {\n") : -len("\n  }\n]")].encode() for one in blocks]


def test_the_quick_way_takes_what_the_gem_writes_in_the_common_case() -> None:
    blocks = chain(["a"], ['{"b": "ü"}', "c"], ["d", "e", "f"])
    for before, one, piece in zip(blocks, blocks[1:], pieces(blocks)[1:], strict=False):
        assert written(piece, one["index"], before["hash"].encode()) == one["hash"].encode()


@seed(11)
@settings(max_examples=300 * ROUNDS, deadline=None)
@given(
    data=st.lists(texts(), min_size=1, max_size=3),
    place=st.floats(0, 1, exclude_max=True),
    byte=st.one_of(st.none(), st.integers(0, 255), st.sampled_from(b'"\\\n,{}')),
)
def test_the_quick_way_says_yes_to_nothing_that_the_slow_way_refuses(
    data: list[str], place: float, byte: int | None
) -> None:
    blocks = chain(data)
    piece = bytearray(pieces(blocks)[1])
    if byte is not None:
        piece[int(place * len(piece))] = byte
    digest = written(bytes(piece), 1, blocks[0]["hash"].encode())
    judged = reading.block_of(bytes(piece))
    if digest is not None:
        assert (judged.faults, judged.computed, judged.claimed) == ((), digest.decode(), 1)


@pytest.mark.parametrize("raw", ["\\/", "\\u0041", "\\u0008", "\t", "\\", '"', "\\ud800", "\xff"])
def test_a_hash_over_text_that_the_gem_never_writes_deceives_nobody(path: Path, raw: str) -> None:
    """The hash is that of the raw text, where the gem would hash what it writes for the same string."""
    one = chain([raw])[1]
    hashed = f'1{one["timestamp"]}{one["previous_hash"]}{one["merkle_root"]}["{raw}"]'
    digest = sha256(hashed.encode("latin-1")).hexdigest()
    forged = pieces([{**one, "data": ["RAW"], "hash": digest}])[0].replace(b"RAW", raw.encode("latin-1"))
    assert written(forged, 1, one["previous_hash"].encode()) is None
    path.write_bytes(text(chain()).encode()[:-2] + b",\n  {\n" + forged + b"\n  }\n]")
    assert not ledger.verify(path).ok


# Parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_MIN_PART_BYTES", 600)
    monkeypatch.setattr(reading, "CHUNK_BYTES", 256)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("processes", [2, 3, 5])
def test_parts_in_processes_find_what_one_finds(path: Path, processes: int) -> None:
    chosen = random.Random(4)
    whole = chain(*[["x" * chosen.randrange(400), "y\n"] for _ in range(30)])
    for _ in range(25 * ROUNDS):
        blocks = copy.deepcopy(whole)
        for at in chosen.sample(range(31), chosen.randrange(4)):
            field = chosen.choice(list(OTHER))
            blocks[at][field] = chosen.choice(OTHER[field])
        if chosen.random() < 0.3:
            del blocks[chosen.randrange(31)]
        write(path, blocks)
        one, more = ledger.verify(path, processes=1), ledger.verify(path, processes=processes)
        assert more == one


@pytest.mark.usefixtures("small_parts")
def test_a_ledger_without_one_sound_block_is_told_as_such_by_parts(path: Path) -> None:
    blocks = chain(*[["x"]] * 40)
    for one in blocks:
        one["timestamp"] = "2026-01-01T00:00:00.000000Z"
    write(path, blocks)
    verdict = ledger.verify(path, processes=4)
    assert verdict == ledger.verify(path, processes=1)
    assert (0, 40, "hash") in reasons(verdict)


@pytest.mark.usefixtures("small_parts")
def test_a_part_whose_process_was_killed_is_an_error_and_no_verdict(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, chain(*[["x"]] * 40))
    monkeypatch.setattr(verifying, "_send", lambda *_: os._exit(9))
    with pytest.raises(Exception, match="was killed"):
        ledger.verify(path, processes=3)


def test_a_block_is_not_held_whatever_its_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK_BYTES", 256)
    monkeypatch.setattr(reading, "MAX_BLOCK_BYTES", 2000)
    blocks = chain(["a"], ["x" * 10_000], ["b"])
    for form in (None, 2):
        verdict = found(path, json.dumps(blocks, indent=form))
        assert (verdict.state, verdict.first_bad, verdict.ranges[-1].reason) == (
            "unreadable",
            2,
            reading.TOO_LARGE.decode(),
        )


def test_the_list_of_damage_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_RANGES", 5)
    blocks = chain(*[["x"]] * 40)
    for one in blocks[1::2]:
        one["hash"] = "0" * 64
    verdict = found(path, blocks)
    assert len(verdict.ranges) == 6
    assert verdict.ranges[-1] == (11, 39, walking.FURTHER)
