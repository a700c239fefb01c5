"""What the verifier finds in a ledger (K07), whatever the application says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.kosnode.ledger.chains import chain, write

from kosnode import ledger


def test_a_whole_ledger_is_ok_and_has_a_head(tmp_path: Path) -> None:
    blocks = chain(["a"], ["b", "c"], ["d", "e", "f"], [])
    found = ledger.verify(write(tmp_path / "l.json", blocks))
    assert (found.state, found.length, found.ranges) == ("ok", 5, ())
    assert found.head is not None
    assert found.head.as_dict() == {"length": 5, "index": 4, "hash": blocks[-1]["hash"]}


@pytest.mark.parametrize("indent", [None, 1, 2])
def test_white_space_means_nothing(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "l.json"
    path.write_text(json.dumps(chain(["a"], ["\u00e9\x01\u2028"]), indent=indent) + "\n")
    assert ledger.verify(path).ok
