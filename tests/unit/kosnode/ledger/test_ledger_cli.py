"""The verbs `kosctl ledger …`: their answers and exit codes (docs/architecture.md, Backup)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from unit.kosnode.ledger.chains import chain, text, write

from kosnode import cli

BLOCKS = chain(["a"], ["b"], ["c"])


class Kosctl:
    """Runs kosctl and reads its answer."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def json(self, *words: object) -> dict[str, Any]:
        code = cli.main(["ledger", *map(str, words), "--json"])
        answered: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert answered["exit"] == code
        return answered

    def text(self, *words: object) -> str:
        cli.main(["ledger", *map(str, words)])
        return self._capsys.readouterr().out.strip()


@pytest.fixture
def kosctl(capsys: pytest.CaptureFixture[str]) -> Kosctl:
    return Kosctl(capsys)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole.json", BLOCKS)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    blocks = copy.deepcopy(BLOCKS)
    blocks[2]["data"] = ["x"]
    return write(tmp_path / "damaged.json", blocks)


def test_a_whole_ledger_is_exit_0_with_its_head(kosctl: Kosctl, whole: Path) -> None:
    answered = kosctl.json("verify", whole)
    head = {"length": 4, "index": 3, "hash": BLOCKS[3]["hash"]}
    assert (answered["exit"], answered["changed"]) == (0, False)
    assert answered["result"] == {"state": "ok", "length": 4, "head": head, "first_bad": None, "ranges": []}
    assert kosctl.text("verify", whole) == f"{whole}: 4 blocks, all sound"


def test_damaged_absent_and_unreadable_have_exit_codes_of_their_own(
    kosctl: Kosctl, damaged: Path, tmp_path: Path
) -> None:
    torn = tmp_path / "torn.json"
    torn.write_text(text(BLOCKS)[:-9])
    told = {path.name: kosctl.json("verify", path) for path in (damaged, tmp_path / "absent.json", torn)}
    assert {name: (one["exit"], one["result"]["state"]) for name, one in told.items()} == {
        "damaged.json": (10, "damaged"),
        "absent.json": (4, "absent"),
        "torn.json": (2, "unreadable"),
    }
    assert told["damaged.json"]["result"]["first_bad"] == 2
    assert told["damaged.json"]["result"]["ranges"] == [[2, 2, "hash"], [2, 2, "merkle_root"]]
    assert "block 2: hash" in told["damaged.json"]["error"]["message"]


def test_head_and_anchor_are_only_told_of_a_whole_ledger(kosctl: Kosctl, whole: Path, damaged: Path) -> None:
    assert kosctl.text("anchor", whole) == f"3:{BLOCKS[3]['hash']}"
    assert kosctl.json("head", whole)["result"]["timestamp"] == BLOCKS[3]["timestamp"]
    assert {kosctl.json(verb, damaged)["exit"] for verb in ("head", "anchor")} == {10}


def test_a_ledger_that_lost_its_tail_contradicts_its_anchor(
    kosctl: Kosctl, whole: Path, tmp_path: Path
) -> None:
    """K08: removing the tail fails the next run."""
    anchor = kosctl.text("anchor", whole)
    cut = write(tmp_path / "cut.json", BLOCKS[:-1])
    assert kosctl.json("verify", cut)["exit"] == 0
    answered = kosctl.json("compare", cut, anchor)
    assert (answered["exit"], answered["result"]["relation"]) == (3, "cut")
    assert kosctl.json("compare", cut, whole)["result"]["common"] == 3
    assert kosctl.json("compare", whole, cut)["exit"] == 0


def test_an_anchor_with_a_typing_error_is_no_path(kosctl: Kosctl, whole: Path) -> None:
    answered = kosctl.json("compare", whole, "3:abc")
    assert (answered["exit"], answered["error"]["key"]) == (2, "OTHER")


def test_a_plan_of_repair_says_what_to_do_and_changes_nothing(
    kosctl: Kosctl, whole: Path, damaged: Path
) -> None:
    before = damaged.read_bytes()
    answered = kosctl.json("repair-plan", damaged, whole)
    assert (answered["exit"], answered["result"]["state"]) == (0, "damaged")
    assert answered["result"]["steps"] == [{"first": 2, "last": 2, "do": "copy", "source": str(whole)}]
    assert damaged.read_bytes() == before
    assert kosctl.text("repair-plan", damaged).splitlines()[1].startswith("block 2: lost")
