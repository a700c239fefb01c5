"""Tasks that back up and restore: one request each, a plan in check mode, changed by snapshots."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from action_world import Node, answer
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.action import backup, restore

KEPT = [{"repository": "offsite", "id": "ab12"}]


def made(name: str, *, kept: bool = True) -> dict[str, Any]:
    return {"name": name, "snapshots": KEPT if kept else []}


class Root:
    """Notes what root asks kosctl for, and answers as told."""

    def __init__(self, told: dict[str, Any] | None = None) -> None:
        self.told = told or answer()
        self.asked: list[list[str]] = []

    def run(self, module: Any, args: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        made = Node().action(module, args, check=check)

        def execute(command: str, **_options: Any) -> dict[str, Any]:
            self.asked.append(shlex.split(command.partition("exit 127; ")[2])[1:-1])
            return {"rc": self.told["exit"], "stdout": json.dumps(self.told), "stderr": ""}

        made._low_level_execute_command = execute  # type: ignore[method-assign]  # no host here
        result: dict[str, Any] = made.run(None, {"inventory_hostname": "n1"})
        return result


def test_a_run_is_changed_by_its_snapshots() -> None:
    node = Node(**{"backup run": answer(result={"run": "r1", "sources": [made("docs")]})})
    result = node.run(backup, {"sources": ["docs"]})
    assert node.asked == [("backup run", {"source": ["docs"]})]
    assert (result["changed"], result["run"]) == (True, "r1")


def test_a_partial_snapshot_is_a_failure_that_tells_what_there_is() -> None:
    """K16."""
    told = answer(
        14, message="docs: 1 path could not be read", result={"run": "r1", "sources": [made("docs")]}
    )
    result = Node(**{"backup run": told}).run(backup, {})
    assert (result["failed"], result["exit"], result["changed"]) == (True, 14, True)
    assert result["sources"][0]["snapshots"] == KEPT


def test_a_run_that_reached_no_repository_changed_nothing() -> None:
    """K16."""
    told = answer(
        6, message="offsite does not answer", result={"run": "r1", "sources": [made("docs", kept=False)]}
    )
    result = Node(**{"backup run": told}).run(backup, {})
    assert (result["failed"], result["changed"]) == (True, False)


def test_check_mode_asks_whether_it_could_run_and_makes_no_snapshot() -> None:
    told = answer(changed=True, actions=["back up docs to offsite"], result={"run": None, "sources": []})
    node = Node(**{"backup run": told})
    result = node.run(backup, {}, check=True)
    assert node.asked == [("backup run", {"dry_run": True})]
    assert result["actions"] == ["back up docs to offsite"]


def test_looking_at_backups_changes_nothing_and_needs_no_root() -> None:
    node = Node(
        **{
            "backup list": answer(changed=False, result={"runs": []}),
            "backup check": answer(changed=False, result={"repositories": [], "findings": []}),
        }
    )
    assert node.run(backup, {"verb": "list", "sources": ["docs"]})["changed"] is False
    assert node.run(backup, {"verb": "check"})["findings"] == []
    assert node.asked == [("backup list", {"source": "docs"}), ("backup check", {})]


def test_what_removes_something_is_asked_as_root_and_rehearsed_in_check_mode() -> None:
    """K15."""
    told = answer(changed=True, result={"removed": [{"id": "a"}], "kept": []})
    root = Root(told)
    assert root.run(backup, {"verb": "forget"})["changed"]
    assert root.run(backup, {"verb": "forget"}, check=True)["removed"] == [{"id": "a"}]
    assert root.run(backup, {"verb": "unlock"}, check=True)["changed"] is False
    assert root.asked == [["backup", "forget"], ["backup", "forget", "--dry-run"]]


@pytest.mark.parametrize(("verb", "words"), [("list", "list takes 1; 2"), ("check", "check takes none; 2")])
def test_sources_that_a_verb_does_not_know_are_refused(verb: str, words: str) -> None:
    with pytest.raises(AnsibleActionFail, match=words):
        Node().run(backup, {"verb": verb, "sources": ["a", "b"]})


def test_check_mode_on_a_clean_host_is_what_the_controller_knows() -> None:
    node = Node(**{"backup run": {"exit": 127, "ok": False}})
    made = node.action(backup, {}, check=True)
    made._low_level_execute_command = lambda *_, **__: {"rc": 127, "stdout": "", "stderr": ""}  # type: ignore[method-assign]  # no host here
    result = made.run(None, {"inventory_hostname": "n1"})
    assert (result["changed"], result["plan_by"]) == (True, "controller")


RUNS = {
    "runs": [
        {"run": "r1", "time": "2026-01-01T00:00:00Z", "sources": [made("docs")]},
        {"run": "r2", "time": "2026-01-03T00:00:00Z", "sources": [made("docs")]},
    ]
}


def test_a_restore_is_one_command_whose_words_the_shell_does_not_read() -> None:
    """K21."""
    root = Root(answer(result={"id": "x1", "state": "SWAPPED", "run": "r1"}))
    args = {
        "source": "docs",
        "run": "r1",
        "paths": ["/srv/a b; reboot"],
        "stop": True,
        "older": True,
        "no_witness": True,
    }
    result = root.run(restore, args)
    assert root.asked == [
        ["restore", "docs", "--run=r1", "--path=/srv/a b; reboot", "--older", "--no-witness", "--stop"]
    ]
    assert (result["id"], result["state"], result["changed"]) == ("x1", "SWAPPED", True)


def test_a_restore_is_kept_or_taken_back_by_its_id() -> None:
    root = Root(answer(changed=False, result={"id": "x1", "state": "CONFIRMED"}))
    assert root.run(restore, {"state": "confirmed", "id": "x1"})["changed"] is False
    root.run(restore, {"state": "undone", "id": "x1", "stop": True})
    assert root.asked == [["restore", "--confirm=x1"], ["restore", "--undo=x1", "--stop"]]


@pytest.mark.parametrize(
    ("wish", "run"),
    [
        ({}, "r2"),
        ({"run": "r1", "older": True}, "r1"),
        ({"time": "2026-01-02T00:00:00Z", "older": True}, "r1"),
        ({"time": "2026-01-03T00:00:00Z"}, "r2"),
    ],
)
def test_check_mode_names_the_run_that_would_be_restored(wish: dict[str, Any], run: str) -> None:
    root = Root(answer(result=RUNS))
    assert root.run(restore, {"source": "docs", **wish}, check=True)["run"] == run
    assert root.asked == [["backup", "list", "--source=docs"]]


def test_check_mode_knows_that_a_database_can_be_wound_back_within_a_snapshot() -> None:
    """M11."""
    later = {**RUNS["runs"][1], "sources": [{**made("docs"), "heads": {"from": "2026-01-01T06:00:00Z"}}]}
    later["sources"][0]["heads"]["time"] = "2026-01-02T23:00:00Z"
    root = Root(answer(result={"runs": [RUNS["runs"][0], later]}))
    wish = {"source": "docs", "time": "2026-01-02T00:00:00Z"}
    assert root.run(restore, wish, check=True)["run"] == "r2"
    beyond = root.run(restore, {**wish, "time": "2026-01-02T23:30:00Z"}, check=True)
    assert "no snapshot that can give 2026-01-02T23:30:00Z" in beyond["msg"]


def test_check_mode_wants_the_word_for_an_older_state_as_the_restore_does() -> None:
    result = Root(answer(result=RUNS)).run(restore, {"source": "docs", "run": "r1"}, check=True)
    assert result["failed"]
    assert result["msg"] == "run r1 of docs is older than run r2; older: true says that it is meant"


@pytest.mark.parametrize(
    "wish",
    [
        {"run": "r9"},
        {"time": "2025-12-31T23:59:59Z"},
        {"time": "2026-01-03T00:00:01Z"},
        {"repository": "elsewhere"},
    ],
)
def test_a_plan_without_a_snapshot_fails_and_says_what_there_is(wish: dict[str, str]) -> None:
    result = Root(answer(result=RUNS)).run(restore, {"source": "docs", **wish}, check=True)
    assert result["failed"]
    assert "docs has no snapshot" in result["msg"]
    assert "the first one is of 2026-01-01T00:00:00Z, the last of 2026-01-03T00:00:00Z" in result["msg"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"source": "--undo=x"}, "source has to be the name"),
        ({"source": "docs", "time": "yesterday"}, "time has to be as"),
        ({"source": "docs", "to": "restored"}, "to has to be an absolute path"),
        ({"source": "docs", "paths": ["/a/../b"]}, "paths has to be an absolute path"),
        ({"source": "docs", "id": "x1"}, "id says nothing"),
        ({"state": "confirmed", "id": "x1", "source": "docs"}, "source says nothing"),
        ({"state": "undone"}, "id"),
        ({}, "source"),
        ({"source": "docs", "run": "r1", "time": "2026-01-01"}, "mutually exclusive"),
    ],
)
def test_a_bad_wish_is_refused_before_the_node_is_asked(args: dict[str, Any], words: str) -> None:
    root = Root()
    with pytest.raises(AnsibleActionFail, match=words):
        root.run(restore, args)
    assert root.asked == []
