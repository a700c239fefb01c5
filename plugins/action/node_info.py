# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that asks a node what it runs, how it is, and what is wrong with it."""

from __future__ import annotations

import typing as t

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, as_result

ARGUMENTS: dict[str, t.Any] = {
    "gather": {
        "type": "list",
        "elements": "str",
        "choices": ["status", "health", "doctor", "refusals"],
        "default": ["status"],
    }
}
# These exit codes are what the question was about, not a failure to answer it.
ANSWERS = (0, _kosctl.UNHEALTHY, _kosctl.FINDINGS)


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.node_info."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        result: dict[str, t.Any] = {"changed": False, "installed": True}
        for verb in args["gather"]:
            answer = self.ask(verb)
            if not answer.installed:
                return {"changed": False, "installed": False}
            if answer.exit not in ANSWERS:
                return as_result(answer)
            result[verb] = answer.result
        return result
