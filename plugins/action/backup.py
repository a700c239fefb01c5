# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that has a node back its sources up, or look after its backups: one request."""

from __future__ import annotations

import re
import typing as t

from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, as_result

ARGUMENTS: dict[str, t.Any] = {
    "verb": {
        "type": "str",
        "choices": ["run", "list", "check", "forget", "unlock", "witness"],
        "default": "run",
    },
    "sources": {"type": "list", "elements": "str", "default": []},
    "node": {"type": "str"},
}
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# What removes something is root's alone (docs/architecture.md, Over `kosctl operate`).
_OF_ROOT = ("forget", "unlock")


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.backup."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            ARGUMENTS, required_if=[("verb", "witness", ["node"])]
        )
        verb, sources = args["verb"], args["sources"]
        most = {"run": 256, "list": 1}.get(verb, 0)
        if len(sources) > most:
            raise AnsibleActionFail(f"sources: {verb} takes {most or 'none'}; {len(sources)} were given")
        if args["node"] is not None:
            return self._lines(verb, args["node"])
        if self._task.check_mode and verb in ("check", "unlock"):
            # kosctl has no rehearsal of these: a check changes nothing, and a lock may be gone by then.
            return {"changed": False, "actions": [f"{verb} the repositories"]}
        answer = self._answer(verb, sources)
        if not answer.installed and self._task.check_mode:
            action = f"{verb} the backups, once the node has kosctl (role bootstrap)"
            return {"changed": verb in ("run", *_OF_ROOT), "plan_by": "controller", "actions": [action]}
        # Also beside a failure: a snapshot may be there that lacks something.
        return {**as_result(answer), **answer.result, "changed": self._changed(answer)}

    def _answer(self, verb: str, sources: list[str]) -> _kosctl.Answer:
        rehearsal = self._task.check_mode
        if verb in _OF_ROOT:
            return self.as_root(f"backup {verb}" + (" --dry-run" if rehearsal else ""))
        options: dict[str, t.Any] = {}
        if verb == "run":
            options = {"source": sources or None, "dry_run": rehearsal or None}
        elif verb == "list":
            options = {"source": sources[0] if sources else None}
        return self.ask(f"backup {verb}", options)

    def _lines(self, verb: str, node: str) -> dict[str, t.Any]:
        """Return what this host keeps as the witness of a node."""
        if verb != "witness" or not _NODE.fullmatch(node):
            raise AnsibleActionFail(
                f"node has to be the name of a node, for verb=witness alone; it is {node!r}"
            )
        answer = self.ask("witness read", {"node": node}, exact=True)
        return {**as_result(answer), **answer.result}

    def _changed(self, answer: _kosctl.Answer) -> bool:
        """Whether there is a snapshot more, or something less."""
        made = any(one.get("snapshots") for one in answer.result.get("sources") or [])
        return made or answer.changed or bool(answer.result.get("removed") and not self._task.check_mode)
