"""The anchor of a ledger on the controller: moved where records are given up, and brought back (K08)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from action_world import answer
from ansible.errors import AnsibleActionFail
from test_backup_actions import RUNS, Root

from ansible_collections.kos.fleet.plugins.action import restore
from ansible_collections.kos.fleet.plugins.plugin_utils import _whole_file

KNOWN, RESTORED = f"8:{'b' * 64}", f"5:{'a' * 64}"


class Controller:
    """A controller that saw block 8 of the ledger of n1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.anchor = folder / "n1.anchor"
        self.kept = folder / "n1.anchor.before-x1"
        self.anchor.write_text(f"{KNOWN}\n")
        self.asked: list[list[str]] = []

    def ask(self, state: str = "restored", told: str = "SWAPPED", code: int = 0, **more: Any) -> Any:
        """Have kosctl answer with a state of the restore x1."""
        agreed = more.pop("agreed", True)
        restored = more.pop("restored", RESTORED)
        about = {"known": KNOWN, "restored": restored, "lost": 3, "agreed": agreed}
        id_ = more.pop("id", "x1")
        result = {"id": id_, "state": told, "run": "r1", "anchor": about}
        root = Root(answer(code, message="restore x1 waits" if code else "", result=result))
        given = {"source": "ledger"} if state == "restored" else {"state": state, "id": "x1"}
        try:
            return root.run(restore, {**given, "anchor_dir": str(self.folder), **more})
        finally:
            self.asked = root.asked

    @property
    def files(self) -> dict[str, str]:
        return {path.name: path.read_text().strip() for path in self.folder.iterdir()}


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


MOVED = {"n1.anchor": RESTORED, "n1.anchor.before-x1": KNOWN}


def test_a_restore_that_gives_records_up_moves_the_anchor_and_says_how_many(controller: Controller) -> None:
    result = controller.ask(accept_loss=True)
    assert controller.asked == [["restore", "ledger", f"--anchor={KNOWN}", "--accept-loss"]]
    assert controller.files == MOVED
    assert "3 records that the ledger had" in result["actions"][-1]


def test_the_old_anchor_comes_back_with_the_old_state(controller: Controller) -> None:
    controller.ask(accept_loss=True)
    for _ in range(2):
        controller.ask("undone", "UNDONE")
        assert controller.files == {"n1.anchor": KNOWN}
    # What the role saw since then is of the state that goes.
    controller.ask(accept_loss=True)
    controller.anchor.write_text(f"9:{'c' * 64}\n")
    controller.ask("undone", "UNDONE")
    assert controller.files == {"n1.anchor": KNOWN}


def test_the_old_anchor_goes_with_the_old_state(controller: Controller) -> None:
    controller.ask(accept_loss=True)
    controller.anchor.write_text(f"9:{'c' * 64}\n")
    controller.ask("confirmed", "CONFIRMED")
    assert controller.files == {"n1.anchor": f"9:{'c' * 64}"}


@pytest.mark.parametrize("writes", [0, 1])
@pytest.mark.parametrize("then", ["restored", "confirmed", "undone"])
def test_killed_before_it_was_moved_the_next_request_goes_on_with_it(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, writes: int, then: str
) -> None:
    whole, left = _whole_file.write, iter(range(writes))

    def write(path: Path, data: bytes) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        whole(path, data)

    monkeypatch.setattr(_whole_file, "write", write)
    with pytest.raises(KeyboardInterrupt):
        controller.ask(accept_loss=True)
    monkeypatch.setattr(_whole_file, "write", whole)
    assert controller.anchor.read_text().strip() == KNOWN
    if then == "restored":
        result = controller.ask(code=3, accept_loss=True)
        assert result["failed"]
        assert "restore x1 waits. " in result["msg"]
        assert "3 records" in result["msg"]
    else:
        controller.ask(then, then.upper())
    assert (
        controller.files
        == {"restored": MOVED, "confirmed": {"n1.anchor": RESTORED}, "undone": {"n1.anchor": KNOWN}}[then]
    )


def test_where_no_witness_agreed_a_person_is_told_the_command_and_nothing_is_moved(
    controller: Controller,
) -> None:
    result = controller.ask(accept_loss=True, agreed=False)
    assert controller.files == {"n1.anchor": KNOWN}
    assert f"mv {controller.anchor} {controller.anchor}.lost" in result["warnings"][0]


@pytest.mark.parametrize("restored", ["", "5", "5:x", "../../x"])
def test_a_node_that_names_no_block_moves_nothing(controller: Controller, restored: str) -> None:
    with pytest.raises(AnsibleActionFail, match="no block of a ledger"):
        controller.ask(accept_loss=True, restored=restored)
    with pytest.raises(AnsibleActionFail, match="no block of a ledger"):
        controller.ask(accept_loss=True, id="../x1")
    assert controller.files == {"n1.anchor": KNOWN}


def test_data_that_is_restored_elsewhere_says_nothing_of_the_anchor(controller: Controller) -> None:
    controller.ask(told="VERIFIED", to="/root/out")
    assert controller.asked == [["restore", "ledger", "--to=/root/out"]]
    assert controller.files == {"n1.anchor": KNOWN}


def test_check_mode_wants_the_word_as_the_restore_does(controller: Controller) -> None:
    heads = {"index": 5, "hash": "a" * 64, "length": 6}
    runs = [{**one, "sources": [{**one["sources"][0], "heads": heads}]} for one in RUNS["runs"]]
    root = Root(answer(result={"runs": runs}))
    given = {"source": "ledger", "anchor_dir": str(controller.folder)}
    refused = root.run(restore, given, check=True)
    assert refused["failed"]
    assert "3 records" in refused["msg"]
    assert "accept_loss: true" in refused["msg"]
    planned = root.run(restore, {**given, "accept_loss": True}, check=True)
    assert "give up the last 3 records" in planned["actions"][-1]
    assert controller.files == {"n1.anchor": KNOWN}


@pytest.mark.parametrize("text", ["", "8", "8:xyz", "\\u00e4"])
def test_an_anchor_that_is_none_is_named_before_kosctl_is_asked(controller: Controller, text: str) -> None:
    controller.anchor.write_text(text)
    with pytest.raises(AnsibleActionFail, match=r"n1\.anchor has to hold INDEX:HASH"):
        controller.ask()
    assert controller.asked == []
