# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How kosctl on a node is asked and what its answers mean; knows neither Ansible nor the layout of a node."""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass, field

PROGRAM = "/opt/kos/current/bin/kosctl"
NOT_INSTALLED = 127

# Exit codes of kosctl (docs/architecture.md, Command) that callers tell apart.
INPUT, REFUSED, NOT_FOUND, BUSY = 2, 3, 4, 5
REVERTED, REVERTED_UNHEALTHY, UNHEALTHY, FINDINGS = 8, 9, 11, 12

# sudo and the shell say in such words that the account may not ask; kosctl never does.
_NOT_ALLOWED = (
    "a password is required",
    "is not allowed to",
    "is not in the sudoers",
    "not allowed to execute",
)


class AnswerError(Exception):
    """The node did not answer as kosctl does; the message says what came instead."""


@dataclass(frozen=True)
class Answer:
    """What kosctl answered.

    verb: what was asked. exit: its exit code. error: None, or `kind`, `message`, `key`.
    status: what the node is doing now, where the verb reports it.
    """

    verb: str
    ok: bool
    exit: int
    changed: bool = False
    actions: list[str] = field(default_factory=list)
    result: dict[str, t.Any] = field(default_factory=dict)
    error: dict[str, t.Any] | None = None
    status: dict[str, t.Any] | None = None

    @property
    def message(self) -> str:
        """The sentence that says what is wrong; empty where nothing is."""
        return str((self.error or {}).get("message") or "")

    @property
    def kind(self) -> str | None:
        return (self.error or {}).get("kind")

    @property
    def installed(self) -> bool:
        """Whether there is a kosctl on the node at all."""
        return self.exit != NOT_INSTALLED


def command() -> str:
    """Return the shell command that answers one request: root directly, others by the line in sudoers."""
    return (
        f"[ -x {PROGRAM} ] || exit {NOT_INSTALLED}; "
        f'if [ "$(id -u)" = 0 ]; then {PROGRAM} operate; else sudo -n {PROGRAM} operate; fi'
    )


def request(verb: str, options: t.Mapping[str, t.Any] | None = None) -> bytes:
    """Return the request for `kosctl operate`; options that are None are left out."""
    given = {key: value for key, value in (options or {}).items() if value is not None}
    return json.dumps({"format": 1, "verb": verb, "options": given}, sort_keys=True).encode("utf-8")


def parse(verb: str, rc: int, stdout: str, stderr: str) -> Answer:
    """Read an answer.

    Raises AnswerError where standard output holds no answer, with the reason as far as it is known.
    """
    if rc == NOT_INSTALLED and not stdout.strip():
        message = "kosctl is not on this node; run kos.fleet.site (role bootstrap) first"
        return Answer(verb, False, rc, error={"kind": "not-installed", "message": message, "key": None})
    start = stdout.find("{")
    try:
        value = json.loads(stdout[start:]) if start >= 0 else None
    except (ValueError, RecursionError):
        value = None
    if value is None or not _is_answer(value):
        raise AnswerError(_no_answer(verb, rc, stdout, stderr))
    return Answer(
        verb=verb,
        ok=bool(value["ok"]),
        exit=int(value["exit"]),
        changed=bool(value.get("changed")),
        actions=plain(list(value.get("actions") or [])),
        result=dict(value.get("result") or {}),
        error=plain(value.get("error")),
        status=plain(value.get("status")),
    )


def node_state(status: t.Mapping[str, t.Any] | None) -> str:
    """Return in one sentence what the node runs now."""
    if not status:
        return "the node's state is not known"
    running = _release(status.get("current"))
    trial = status.get("trial")
    if trial:
        return (
            f"the node runs a trial of {trial.get('version')}, which ends by itself "
            f"in {trial.get('deadline_in_s')} s unless it is confirmed"
        )
    if not status.get("current"):
        return "the node runs no release"
    last = status.get("last") or {}
    if status.get("state") == "REVERTED" and last:
        return f"the node runs {running} ({last.get('outcome')})"
    return f"the node runs {running}, confirmed"


def failure(answer: Answer) -> dict[str, t.Any]:
    """Return the fields of a failed task: one message that says what is wrong and what the node runs now."""
    message = answer.message or f"kosctl {answer.verb} ended with exit code {answer.exit} and said nothing"
    key = (answer.error or {}).get("key")
    if key and not re.search(rf"(?<![\w.]){re.escape(str(key))}", message):
        message = f"{key}: {message}"
    said = message.rstrip(".")
    return {
        "failed": True,
        "msg": f"{said}; {node_state(answer.status)}." if answer.status else f"{said}.",
        "kind": answer.kind or "internal",
        "key": key,
        "exit": answer.exit,
        "node_state": (answer.status or {}).get("state"),
    }


def diff(answer: Answer) -> list[dict[str, t.Any]]:
    """Return the changes of files that an answer tells, as Ansible shows them."""
    return [
        {
            "before_header": change["path"],
            "after_header": change["path"],
            "before": change["before"],
            "after": change["after"],
        }
        for change in answer.result.get("diff") or []
    ]


def host_result(answer: Answer) -> dict[str, t.Any]:
    """Return the task's result for what `kosctl host` answered."""
    if not answer.ok:
        return failure(answer)
    return {
        "changed": answer.changed,
        "actions": answer.actions,
        "diff": diff(answer),
        "unset": answer.result.get("unset") or [],
        "engine": answer.result.get("engine"),
        "previous_engine": answer.result.get("previous_engine"),
    }


def plain(value: t.Any) -> t.Any:
    """Return what a node said without what would steer the terminal of a person who reads it."""
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in value)
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    return value


def _release(current: t.Mapping[str, t.Any] | None) -> str:
    if not current:
        return "no release"
    return f"{current.get('name')} {current.get('version')}"


def _is_answer(value: t.Any) -> bool:
    """Whether each part has the form that docs/architecture.md gives it; what is absent is empty."""
    if not isinstance(value, dict) or not {"ok", "exit"} <= set(value) or not isinstance(value["exit"], int):
        return False
    forms = {"actions": list, "result": dict, "error": dict, "status": dict}
    return all(not value.get(key) or isinstance(value[key], form) for key, form in forms.items())


def _no_answer(verb: str, rc: int, stdout: str, stderr: str) -> str:
    words = " ".join(plain(stderr.strip() or stdout.strip()).split())[-500:]
    if any(said in words for said in _NOT_ALLOWED):
        return f"this account may not ask kosctl ({words}); connect as root or as the operator account kosops"
    return f"kosctl {verb} gave no answer (exit code {rc}): {words or 'no words either'}"
