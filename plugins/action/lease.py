# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that takes or gives back the lease of a rollout on a node."""

from __future__ import annotations

import typing as t

from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, as_result

ARGUMENTS: dict[str, t.Any] = {
    "id": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "holder": {"type": "str"},
    "ttl": {"type": "int", "default": 3600},
}


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.lease."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        held = self.ask("lease")
        if not held.ok:
            return as_result(held)
        lease = held.result.get("lease") or (held.status or {}).get("lease") or {}
        ours = lease.get("id") == args["id"]
        taking = args["state"] == "present"
        if self._task.check_mode or (not taking and not ours):
            return {"changed": taking and not lease, "actions": [], "lease": lease or None}
        if taking:
            wish = {"take": args["id"], "holder": args["holder"], "ttl_s": args["ttl"]}
        else:
            wish = {"release": args["id"]}
        answer = self.ask("lease", wish)
        result = as_result(answer)
        if answer.ok:
            result["changed"] = ours != taking
            result["lease"] = answer.result.get("lease")
        return result
