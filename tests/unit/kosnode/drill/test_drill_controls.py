"""The damage that controls do, and that what stays green or could not be made is no success (M13, K20)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kosnode.drill import controls, remarks
from kosnode.drill.controls import Control
from kosnode.errors import UntestedError


@pytest.mark.parametrize("indent", [2, None])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_last_block_of_a_ledger_is_cut_and_what_is_left_is_a_ledger(
    tmp_path: Path, indent: int | None, length: int
) -> None:
    ledger = tmp_path / "ledger.json"
    blocks = [{"index": number, "data": [{"a": "},{"}, '"}]'], "hash": "x"} for number in range(length)]
    ledger.write_text(json.dumps(blocks, indent=indent))
    whole = ledger.read_bytes()
    place, end = controls.cut_last(ledger)
    assert json.loads(ledger.read_text()) == blocks[:-1]
    with ledger.open("r+b") as stream:
        stream.truncate(place)
        stream.seek(place)
        stream.write(end)
    assert ledger.read_bytes() == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", "torn [{"])
def test_a_ledger_without_a_block_is_left_alone(tmp_path: Path, text: str) -> None:
    ledger = tmp_path / "ledger.json"
    ledger.write_text(text)
    with pytest.raises(UntestedError):
        controls.cut_last(ledger)
    assert ledger.read_text() == text


def test_a_flipped_bit_is_flipped_back(tmp_path: Path) -> None:
    path = tmp_path / "pack"
    path.write_bytes(b"abc")
    controls.flip(path, 1, 4)
    assert path.read_bytes() == b"afc"
    controls.flip(path, 1, 4)
    assert path.read_bytes() == b"abc"


def test_only_a_control_that_turned_red_is_as_it_has_to_be() -> None:
    def remark(outcome: str) -> remarks.Remark | None:
        return Control("cut-ledger", "chain", "the end is cut off", outcome, "why", 1).remark()

    assert remark("red") is None
    green, untested = remark("green"), remark("untested")
    assert green is not None
    assert untested is not None
    assert remarks.outcome([green, untested]) == "FAILED"
    assert remarks.outcome([untested]) == "COULD_NOT_TEST"
    assert remarks.outcome([remarks.Remark("x", "x", remarks.NOTE)]) == "VERIFIED"
