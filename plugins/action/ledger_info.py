# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that has a node verify its ledger."""

from __future__ import annotations

import shlex
import typing as t

from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.plugin_utils import _anchor
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, as_result

ARGUMENTS: dict[str, t.Any] = {
    "path": {"type": "path", "default": "/var/lib/kairos/data/storage/blockchain.json"},
    "anchor": {"type": "str"},
}


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.ledger_info."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        words = f"ledger verify {shlex.quote(args['path'])}"
        if args["anchor"] is not None:
            anchor = args["anchor"].strip()
            if not _anchor.FORM.fullmatch(anchor):
                raise AnsibleActionFail(
                    f"anchor has to be INDEX:HASH with 64 hexadecimal digits; it is {anchor!r}"
                )
            words = f"ledger compare {shlex.quote(args['path'])} {anchor}"
        answer = self.as_root(words)
        if "state" not in answer.result:
            # Not a verdict: no kosctl, no right, a lock that somebody holds.
            return as_result(answer)
        return {"changed": False, **answer.result}
