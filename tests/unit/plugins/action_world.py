"""A node behind a connection that is none: what it is asked is noted, its answers come from the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.play_context import PlayContext
from ansible.plugins.action import ActionBase

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl

ROOTS = {"1.0.0": "1" * 64, "1.1.0": "2" * 64}


def release(version: str) -> dict[str, Any]:
    return {"root": ROOTS[version], "name": "kos", "version": version}


class Cut(Exception):
    """Told instead of an answer: the link is cut."""


class Connection:
    """Counts how often it was made anew."""

    def __init__(self) -> None:
        self.transport = "ssh"
        self.become = None
        self.fresh = 0
        self.options: dict[str, Any] = {"ssh_extra_args": ""}
        self._shell = SimpleNamespace(tmpdir="/tmp/x", join_path=lambda *parts: "/".join(parts))

    def reset(self) -> None:
        self.fresh += 1

    def get_option(self, name: str) -> Any:
        return self.options[name]

    def set_option(self, name: str, value: Any) -> None:
        self.options[name] = value


class Node:
    """A node that answers as told.

    Args:
        answers: verb to an answer, a list of answers (the last one stays), or a function of the options.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.connection = Connection()
        self.fresh_at: list[tuple[str, int]] = []
        self.said: list[str] = []
        self.censored: dict[str, bool] = {}

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _options in self.asked]

    def action(
        self, module: Any, args: dict[str, Any], *, check: bool = False, role: Any = None
    ) -> ActionBase:
        task = SimpleNamespace(
            args=args,
            check_mode=check,
            diff=False,
            async_val=0,
            no_log=False,
            _role=role,
            action="x",
            environment=[],
        )
        task.get_search_path = list
        loader = SimpleNamespace(path_dwim=lambda path: path)
        context = PlayContext()
        action: ActionBase = module.ActionModule(task, self.connection, context, loader, None, None)
        action._low_level_execute_command = self._execute(context)  # type: ignore[method-assign]  # no node here
        action._display = SimpleNamespace(display=self.said.append)
        return action

    def run(
        self, module: Any, args: dict[str, Any], *, check: bool = False, **variables: Any
    ) -> dict[str, Any]:
        task_vars = {"inventory_hostname": "n1", **variables}
        result: dict[str, Any] = self.action(module, args, check=check).run(None, task_vars)
        return result

    def _execute(self, context: PlayContext) -> Callable[..., dict[str, Any]]:
        def execute(command: str, in_data: bytes | None = None, **_options: Any) -> dict[str, Any]:
            assert command == _kosctl.command()
            request = json.loads(in_data or b"{}")
            verb, options = request["verb"], request["options"]
            self.asked.append((verb, options))
            self.fresh_at.append((verb, self.connection.fresh))
            self.censored[verb] = bool(context.no_log)
            told = self.answers[verb]
            if isinstance(told, list):
                told = told.pop(0) if len(told) > 1 else told[0]
            if callable(told) and told is not Cut:
                told = told(options)
            if told is Cut:
                raise AnsibleConnectionFailure("timed out")
            if isinstance(told, str):
                return {"rc": 1, "stdout": "", "stderr": told}
            return {"rc": told["exit"], "stdout": json.dumps(told), "stderr": ""}

        return execute


def answer(exit_code: int = 0, *, message: str = "", key: str | None = None, **more: Any) -> dict[str, Any]:
    error = None if exit_code == 0 else {"kind": "told", "message": message, "key": key}
    return {
        **{"ok": exit_code == 0, "exit": exit_code, "changed": exit_code == 0, "actions": [], "result": {}},
        **{"error": error, "status": None},
        **more,
    }


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes by sleeping alone, and at once."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
