# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that fails where a node is not healthy."""

from __future__ import annotations

import typing as t

from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, as_result


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.health."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        self.validate_argument_spec({})
        answer = self.ask("health")
        failure = {} if answer.ok else as_result(answer)
        return {"changed": False, **failure, "healthy": answer.ok, "health": answer.result}
