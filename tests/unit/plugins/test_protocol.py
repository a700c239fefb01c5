"""How kosctl is asked, and what becomes of what it answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl

STATUS = {"state": "CONFIRMED", "current": {"name": "kos", "version": "1.0.0"}, "trial": None, "last": None}


def answer(**more: Any) -> str:
    envelope = {"ok": True, "verb": "stage", "exit": 0, "changed": True, "actions": ["a"], "result": {"x": 1}}
    return json.dumps({**envelope, "error": None, "status": STATUS, **more})


def test_a_request_leaves_out_what_nobody_asked_for() -> None:
    assert json.loads(_kosctl.request("stage", {"release": "1.1.0", "lease": None})) == {
        "format": 1,
        "verb": "stage",
        "options": {"release": "1.1.0"},
    }


def test_an_answer_is_read_whole_also_behind_a_banner() -> None:
    read = _kosctl.parse("stage", 0, f"Welcome to n1\n{answer()}\n", "")
    assert (read.ok, read.changed, read.actions, read.result) == (True, True, ["a"], {"x": 1})


def test_a_key_is_named_also_where_a_longer_one_that_ends_like_it_is() -> None:
    error = {
        "kind": "refused",
        "message": "is not this fleet's; say bootstrap_replace_trust_root",
        "key": "trust_root",
    }
    told = _kosctl.failure(_kosctl.Answer("host", False, 3, error=error))
    assert told["msg"] == "trust_root: is not this fleet's; say bootstrap_replace_trust_root."


def test_a_failure_says_what_is_wrong_with_which_key_and_what_the_node_runs_now() -> None:
    error = {"kind": "disk", "message": "4096 bytes are missing", "key": "reserve_bytes"}
    told = _kosctl.failure(_kosctl.parse("stage", 7, answer(ok=False, exit=7, error=error), ""))
    assert told["msg"] == "reserve_bytes: 4096 bytes are missing; the node runs kos 1.0.0, confirmed."
    assert (told["kind"], told["key"], told["exit"], told["node_state"]) == (
        "disk",
        "reserve_bytes",
        7,
        "CONFIRMED",
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, "not known"),
        ({"state": "EMPTY", "current": None}, "runs no release"),
        ({"trial": {"version": "1.1.0", "deadline_in_s": 9}}, "ends by itself in 9 s unless it is confirmed"),
        (
            {**STATUS, "state": "REVERTED", "last": {"outcome": "reverted-healthy"}},
            "kos 1.0.0 (reverted-healthy)",
        ),
    ],
)
def test_the_state_of_a_node_is_one_sentence(status: dict[str, Any] | None, words: str) -> None:
    assert words in _kosctl.node_state(status)


@pytest.mark.parametrize("stdout", ["", "no json", "[1]", '{"ok": true}', "{"])
def test_what_is_no_answer_is_never_taken_for_success(stdout: str) -> None:
    with pytest.raises(_kosctl.AnswerError, match="boom"):
        _kosctl.parse("stage", 1, stdout, "boom")


def test_an_account_without_the_right_is_told_which_one_has_it() -> None:
    with pytest.raises(_kosctl.AnswerError, match="kosops"):
        _kosctl.parse("stage", 1, "", "sudo: a password is required")


def test_a_host_without_kosctl_is_told_what_to_run() -> None:
    read = _kosctl.parse("stage", _kosctl.NOT_INSTALLED, "", "")
    assert not read.installed
    assert "kos.fleet.site" in read.message


@pytest.mark.parametrize(("uid", "words"), [("0", "root operate"), ("1001", "sudo -n operate")])
def test_root_asks_directly_and_others_by_their_one_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: str, words: str
) -> None:
    program = tmp_path / "kosctl"
    program.write_text('#!/bin/sh\necho "${VIA:-root} $* $(cat)"\n')
    (tmp_path / "sudo").write_text('#!/bin/sh\nfirst=$1; shift\nVIA="sudo $first" exec "$@"\n')
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    for name in ("kosctl", "sudo", "id"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(_kosctl, "PROGRAM", str(program))
    done = subprocess.run(
        ["/bin/sh", "-c", _kosctl.command()],
        input=b"{}",
        capture_output=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=True,
    )
    assert done.stdout.decode().split("{")[0].strip() == words


def test_without_kosctl_the_command_says_so_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kosctl, "PROGRAM", str(tmp_path / "nothing"))
    assert subprocess.run(["/bin/sh", "-c", _kosctl.command()], check=False).returncode == 127
