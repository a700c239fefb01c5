# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that checks the inventory on the controller and works out the waves of a rollout."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
import typing as t
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.errors import AnsibleActionFail, AnsibleTemplateError
from ansible.plugins.action import ActionBase

from ansible_collections.kos.fleet.plugins.plugin_utils import _lease_record, _rollout, _variables

ARGUMENTS: dict[str, t.Any] = {
    "nodes": {"type": "list", "elements": "str"},
    "group": {"type": "str", "default": "nodes"},
    "mirrors": {"type": "bool", "default": False},
    "roles": {"type": "list", "elements": "str", "default": []},
    "prefix": {"type": "str"},
    "variables": {"type": "list", "elements": "str", "default": []},
    "numbers": {"type": "dict", "default": {}},
    "batch": {"type": "raw", "default": 1},
    "canary": {"type": "raw", "default": "first"},
    "zone": {"type": "str"},
    "zone_order": {"type": "list", "elements": "str"},
    "lease": {"type": "str"},
    "record_dir": {"type": "path"},
}


class ActionModule(ActionBase):
    """See the documentation of module kos.fleet.inventory_check."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        variables: Mapping[str, t.Any] = task_vars or {}
        groups = variables.get("groups") or {}
        if args["prefix"]:
            told = _variables.unknown(variables, args["prefix"], args["variables"])
            if told:
                raise AnsibleActionFail("; ".join(told))
        _numbers(args["prefix"] or "", args["numbers"])
        _role_variables(
            args["roles"], variables.get("hostvars") or {}, variables.get("ansible_play_hosts_all") or []
        )
        if args["nodes"] is None:
            return {"changed": False}
        try:
            _rollout.zones(groups, list(groups.get(args["group"]) or []))
            zones = _rollout.zones(groups, args["nodes"]) if args["nodes"] else {}
            if args["zone"] is not None:
                zones = _one_zone(zones, args["zone"])
            order = [zone for zone in args["zone_order"] or zones if args["zone"] is None or zone in zones]
            waves = _rollout.waves(zones, batch=args["batch"], canary=args["canary"], zone_order=order)
        except _rollout.PlanError as error:
            raise AnsibleActionFail(str(error)) from None
        nodes = [host for wave in waves for host in wave.hosts]
        if args["mirrors"]:
            _mirrors(variables.get("hostvars") or {}, nodes)
        rollout = args["lease"] or f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
        begun = self._begun(args["record_dir"], rollout, nodes, variables)
        return {
            "changed": False,
            "rollout": rollout,
            "record": str(begun.path) if begun else None,
            "left": list(begun.left) if begun else [],
            "group": f"kos_rollout_{time.time_ns():020d}",
            "holder": f"{getpass.getuser()}@{socket.gethostname()}",
            "zones": zones,
            "waves": [wave.as_dict() for wave in waves],
            "nodes": nodes,
        }

    def _begun(
        self, folder: str | None, rollout: str, nodes: Sequence[str], variables: Mapping[str, t.Any]
    ) -> _lease_record.Begun | None:
        """Note the rollout in a folder of the controller."""
        if folder is None:
            return None
        try:
            return _lease_record.begin(
                Path(folder).absolute(),
                variables.get("ansible_inventory_sources") or [],
                rollout,
                nodes,
                # Actions run in a process of their own, which ends with the task; the run is its parent.
                os.getppid(),
                write=not self._task.check_mode,
            )
        except _lease_record.StillRunsError as error:
            raise AnsibleActionFail(str(error)) from None
        except OSError as error:
            raise AnsibleActionFail(f"the rollout cannot be noted in {folder}: {error}") from None


def _role_variables(roles: Sequence[str], hostvars: Mapping[str, t.Any], hosts: Sequence[str]) -> None:
    """Refuse variables of any host that begin with the name of a role and are none of its own."""
    folder = Path(__file__).resolve().parents[2] / "roles"
    told: dict[str, list[str]] = {}
    for role in roles:
        known = _variables.role_variables(folder / role)
        for host in hosts:
            for sentence in _variables.unknown(hostvars[host], f"{role}_", known):
                told.setdefault(sentence, []).append(host)
    if told:
        raise AnsibleActionFail("; ".join(f"{sentence} ({', '.join(who)})" for sentence, who in told.items()))


def _numbers(prefix: str, values: Mapping[str, t.Any]) -> None:
    """Refuse what is no number of seconds or nodes; an empty one is left to its default."""
    for name, value in values.items():
        text = str(value).strip()
        if text and not (text.isascii() and text.isdigit()):
            raise AnsibleActionFail(f"{prefix}{name} must be a whole number, 0 or more; it is {text!r}")


def _one_zone(zones: Mapping[str, list[str]], wish: str) -> dict[str, list[str]]:
    name = wish.removeprefix(_rollout.ZONE_PREFIX)
    if name not in zones:
        raise _rollout.PlanError(f"zone {wish!r} has no nodes here; zones are {', '.join(zones)}")
    return {name: zones[name]}


def _mirrors(hostvars: Mapping[str, t.Any], nodes: Sequence[str]) -> None:
    without = [node for node in nodes if not _mirrors_of(hostvars[node])]
    if without:
        raise AnsibleActionFail(
            f"bootstrap_mirrors is empty for {', '.join(without)}: "
            "a node needs at least one address to fetch from"
        )


def _mirrors_of(variables: Mapping[str, t.Any]) -> t.Any:
    try:
        return variables.get("bootstrap_mirrors")
    except AnsibleTemplateError:
        # It is worked out from other hosts, which only a task of the node can do: bootstrap looks again.
        return True
