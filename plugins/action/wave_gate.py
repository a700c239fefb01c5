# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that decides on the controller whether a rollout goes on to its next wave."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.plugins.action import ActionBase

from ansible_collections.kos.fleet.plugins.plugin_utils import _lease_record, _rollout

ARGUMENTS: dict[str, t.Any] = {
    "waves": {"type": "list", "elements": "dict", "required": True},
    "next": {"type": "list", "elements": "str"},
    "register": {"type": "list", "elements": "str", "required": True},
    "gate": {"type": "str"},
    "failures": {"type": "int", "default": 0},
    "bake": {"type": "int", "default": 0},
    "pause_file": {"type": "path"},
    "record": {"type": "path"},
    "rollout": {"type": "str"},
    "returned": {"type": "str"},
}


class ActionModule(ActionBase):
    """See the documentation of module kos.fleet.wave_gate."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            ARGUMENTS, required_by={"record": ("rollout", "returned")}
        )
        hostvars = (task_vars or {}).get("hostvars") or {}
        waves: Sequence[Mapping[str, t.Any]] = args["waves"]
        upcoming = _index(waves, args["next"])
        stopped, reason = _stopped(waves[:upcoming], hostvars, args["gate"])
        begun = waves[:stopped]
        results = {
            host: _result(hostvars[host], args["register"]) for wave in begun for host in wave["hosts"]
        }
        pause = args["pause_file"]
        paused = pause if pause and upcoming < len(waves) and Path(pause).exists() else None
        verdict = _rollout.judge(results, budget=args["failures"], paused=paused)
        stop = bool(reason) or verdict.stop
        wave = waves[upcoming] if upcoming < len(waves) else None
        latest = begun[-1]["hosts"] if begun else []
        changed = [host for host in latest if (results[host] or {}).get("changed")]
        if wave is not None and changed and not stop and not self._task.check_mode:
            self._bake(args["bake"], str(wave["name"]))
        result: dict[str, t.Any] = {
            "changed": False,
            "stop": stop,
            "reason": reason or verdict.reason,
            "failed_nodes": dict(verdict.failed),
            "wave": wave["name"] if wave else None,
            "waves": [{"name": str(one["name"]), "hosts": list(one["hosts"])} for one in waves],
        }
        untouched = [host for late in waves[stopped:] for host in late["hosts"]]
        if args["record"] and not self._task.check_mode:
            leased = [host for one in waves for host in one["hosts"]]
            answers = {host: _result(hostvars[host], [args["returned"]]) for host in leased}
            kept = _rollout.judge(answers).failed
            _lease_record.end(
                Path(args["record"]), args["rollout"], [host for host in leased if host not in kept]
            )
        result["msg"] = _story(result, verdict.story, len(results), untouched)
        return result

    def _bake(self, seconds: int, wave: str) -> None:
        if seconds <= 0:
            return
        self._display.display(f"  baking for {seconds} s before wave {wave}")
        time.sleep(seconds)


def _index(waves: Sequence[Mapping[str, t.Any]], upcoming: Sequence[str] | None) -> int:
    """Which wave the given hosts are; past the last one where none are given."""
    for index, wave in enumerate(waves):
        if upcoming and set(upcoming) & set(wave["hosts"]):
            return index
    return len(waves)


def _stopped(
    waves: Sequence[Mapping[str, t.Any]], hostvars: Mapping[str, t.Any], gate: str | None
) -> tuple[int, str]:
    """Before which of these waves an earlier gate stopped it, and why; past the last where none did."""
    for index, wave in enumerate(waves):
        for host in wave["hosts"]:
            said = hostvars[host].get(gate) if gate else None
            if said and said.get("stop"):
                return index, str(said["reason"])
    return len(waves), ""


def _story(result: Mapping[str, t.Any], failures: str, begun: int, untouched: Sequence[str]) -> str:
    failed = result["failed_nodes"]
    why = result["reason"] or failures
    if not failed and not result["stop"]:
        return f"{begun} of {begun + len(untouched)} nodes are as wanted."
    head = "The rollout stopped" if result["stop"] else "The rollout went on within its failure budget"
    rest = f" Not touched: {', '.join(untouched)}." if untouched else ""
    return (
        f"{head}: {why}. {begun - len(failed)} of {begun + len(untouched)} nodes are as wanted.{rest} "
        "Run the same command again when the cause is gone: nodes that are confirmed are skipped."
    )


def _result(variables: Mapping[str, t.Any], names: Sequence[str]) -> Mapping[str, t.Any] | None:
    """The registered result of a host: the first one that failed or is missing, else the last."""
    found: Mapping[str, t.Any] | None = None
    for name in names:
        found = variables.get(name) if name in variables else None
        if not found or _rollout.judge({"node": found}).failed:
            return found
    return found
