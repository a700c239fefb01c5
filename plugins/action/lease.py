# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that takes or gives back the lease of a rollout on a node."""

from __future__ import annotations

import shlex
import typing as t

from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, as_result

ARGUMENTS: dict[str, t.Any] = {
    "id": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "holder": {"type": "str"},
    "ttl": {"type": "int", "default": 3600},
    "takeover": {"type": "str"},
    "left": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.lease."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        held = self.ask("lease")
        if not held.ok:
            return as_result(held)
        lease = _shown(held)
        ours, left = lease.get("id") == args["id"], lease.get("id") in args["left"]
        taking = args["state"] == "present"
        if self._task.check_mode and taking and lease and not ours and not left:
            return self._of_another(
                {"failed": True, "kind": "refused", "msg": _held(lease), "lease": lease}, args, lease
            )
        if self._task.check_mode or not (taking or ours or left):
            return {"changed": taking and not lease, "actions": [], "lease": lease or None}
        if left or not taking:
            given_back = self.ask("lease", {"release": lease["id"]})
            if not taking or not given_back.ok:
                return {**as_result(given_back), "changed": given_back.ok, "lease": None}
        answer = self.ask("lease", {"take": args["id"], "holder": args["holder"], "ttl_s": args["ttl"]})
        result = as_result(answer)
        if answer.ok:
            return {**result, "changed": not ours, "lease": _shown(answer) or None}
        if answer.exit == _kosctl.REFUSED:
            return self._of_another(result, args, _shown(answer) or lease)
        return result

    def _of_another(
        self, result: dict[str, t.Any], args: t.Mapping[str, t.Any], lease: t.Mapping[str, t.Any]
    ) -> dict[str, t.Any]:
        """The refusal with the words that take the lease over."""
        if args["takeover"] and lease.get("id") not in (None, args["id"]):
            # The line is there to be copied into a shell.
            held = shlex.quote(str(lease["id"]))
            result["msg"] += f" If its controller is gone, take it over: -e {args['takeover']}={held}"
        return result


def _shown(answer: _kosctl.Answer) -> dict[str, t.Any]:
    """The lease that an answer shows; empty where there is none."""
    lease = answer.result.get("lease") or (answer.status or {}).get("lease") or {}
    if not isinstance(lease, dict):
        raise AnsibleActionFail(f"kosctl {answer.verb} gave a lease that is none: {lease!r}")
    return lease


def _held(lease: t.Mapping[str, t.Any]) -> str:
    return (
        f"the node is leased to {lease.get('holder')} (lease {lease.get('id')}) "
        f"for another {lease.get('expires_in_s')} s."
    )
