# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that gives a node the units it adds to its release, in one transaction."""

from __future__ import annotations

import base64
import json
import typing as t
from pathlib import Path

import yaml
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, refuse_unknown_variables

ARGUMENTS: dict[str, t.Any] = {
    "units": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "unit": {"type": "raw", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "mutually_exclusive": [("src", "content")],
                "required_one_of": [("src", "content")],
                "options": {
                    "path": {"type": "str", "required": True},
                    "src": {"type": "path"},
                    "content": {"type": "str"},
                    "mode": {"type": "str", "choices": ["0444", "0555"], "default": "0444"},
                },
            },
        },
    }
}


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.node_units."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        refuse_unknown_variables(self._task, task_vars or {})
        units = {unit["name"]: self._unit(unit) for unit in args["units"]}
        if len(units) != len(args["units"]):
            raise AnsibleActionFail("units: a name stands twice")
        spec = json.dumps({"format": 1, "units": units}).encode()
        result = self.host("apply", spec)
        if result.get("kind") == "not-installed" and not units:
            return {"changed": False, "actions": []}
        if self._task.check_mode and result.get("kind") == "not-installed":
            actions = [f"add unit {name}, once the node is bootstrapped" for name in units]
            return {"changed": bool(units), "actions": actions, "plan_by": "controller"}
        return result

    def _unit(self, unit: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        files = {}
        for file in unit["files"]:
            data = file["content"].encode() if file["content"] is not None else self._read(file["src"])
            encoded = base64.b64encode(data).decode()
            files[file["path"]] = {"mode": file["mode"], "base64": encoded}
        return {"unit": self._description(unit), "files": files}

    def _description(self, unit: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        wish = unit["unit"]
        if isinstance(wish, t.Mapping):
            return dict(wish)
        where = f"units.{unit['name']}.unit"
        try:
            value = yaml.safe_load(self._read(str(wish)))
        except yaml.YAMLError as error:
            raise AnsibleActionFail(f"{where}: {wish} is not YAML: {error}") from None
        if not isinstance(value, dict):
            raise AnsibleActionFail(f"{where}: {wish} does not hold the description of a unit")
        return value

    def _read(self, place: str) -> bytes:
        path = Path(self._loader.path_dwim(place))
        if not path.is_file():
            raise AnsibleActionFail(f"{path} is not there (on the controller)")
        return path.read_bytes()
