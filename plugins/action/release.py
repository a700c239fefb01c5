# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that takes a node to a release: stage, activate, look at it over a fresh connection, confirm."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Mapping
from pathlib import Path

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.utils.version import SemanticVersion

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl
from ansible_collections.kos.fleet.plugins.plugin_utils import _evidence, _trial
from ansible_collections.kos.fleet.plugins.plugin_utils._node import (
    NodeAction,
    as_result,
    refuse_unknown_variables,
)

ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "staged", "confirmed", "absent"], "default": "confirmed"},
    "release": {"type": "str"},
    "bake": {"type": "int"},
    "deadline": {"type": "int"},
    "allow_downgrade": {"type": "bool", "default": False},
    "accept_risk": {"type": "bool", "default": False},
    "lease": {"type": "str"},
    "timeout": {"type": "int", "default": 120},
    "evidence_dir": {"type": "path", "default": "build/evidence"},
}


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.release."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            ARGUMENTS, required_if=[("state", "absent", ["release"])]
        )
        for key in ("bake", "deadline", "timeout"):
            if args.get(key) is not None and args[key] < 0:
                raise AnsibleActionFail(f"{key} must not be negative; it is {args[key]}")
        refuse_unknown_variables(self._task, task_vars or {})
        self._args = args
        self._node = str((task_vars or {}).get("inventory_hostname", "node"))
        self._started = time.time()
        if args["state"] == "absent":
            return self._absent()
        if args["state"] == "present":
            standing = self._standing()
            if standing is not None:
                return standing
        elif args["state"] == "confirmed" and args["release"] == "previous":
            back = self._back_already()
            if back is not None:
                return back
        if self._task.check_mode:
            return self._plan()
        return self._staged() if args["state"] == "staged" else self._confirmed()

    @property
    def _wish(self) -> dict[str, t.Any]:
        return {
            "release": self._args["release"],
            "allow_downgrade": self._args["allow_downgrade"] or None,
            "accept_risk": self._args["accept_risk"] or None,
        }

    def _standing(self) -> dict[str, t.Any] | None:
        """The result for a node on which some release is confirmed already, which is then left alone."""
        answer = self.ask("status")
        if not answer.ok:
            return None if not answer.installed else as_result(answer)
        status = answer.result
        trial = status.get("trial") or {}
        first = trial and trial.get("previous") in (None, "none")
        if status.get("current") and not first:
            return {"changed": False, "outcome": "present", "actions": [], **self._named(status["current"])}
        return None

    def _back_already(self) -> dict[str, t.Any] | None:
        """The result for a node that was taken back already: `previous` never leads forward again."""
        answer = self.ask("status")
        status = answer.result
        current, previous = status.get("current") or {}, status.get("previous") or {}
        if not answer.ok or status.get("trial") or not _is_older(current, previous):
            return None
        message = (
            f"already rolled back to {current['version']} from {previous['version']}; "
            "name a version to go elsewhere"
        )
        return {
            "changed": False,
            "outcome": "present",
            "actions": [],
            "msg": message,
            **self._named(current),
        }

    def _absent(self) -> dict[str, t.Any]:
        if self._task.check_mode:
            answer = self.ask("status")
            if not answer.ok:
                return as_result(answer)
            slots = answer.result.get("slots") or []
            wanted = self._args["release"]
            found = [slot for slot in slots if wanted in (slot.get("root"), slot.get("version"))]
            actions = [
                f"remove slot {slot['root']}" for slot in found if slot.get("role") in (None, "", "spare")
            ]
            return {"changed": bool(actions), "actions": actions, "outcome": "planned"}
        answer = self.ask("gc", {"release": self._args["release"]})
        return {**as_result(answer), "outcome": "absent" if answer.ok else None}

    def _plan(self) -> dict[str, t.Any]:
        answer = self.ask("plan", self._wish)
        wanted = self._args["release"] or "the newest release of its channel"
        if not answer.installed:
            return {
                "changed": True,
                "outcome": "planned",
                "how": "unknown",
                "plan_by": "controller",
                "actions": [f"bootstrap the node, which has no kosctl yet, and then install {wanted}"],
                "diff": {"before": "no release\n", "after": f"{wanted}\n"},
            }
        if not answer.ok:
            return as_result(answer)
        plan = answer.result
        steps = [str(step) for step in plan.get("steps") or answer.actions]
        return {
            "changed": answer.changed,
            "outcome": "planned",
            "plan_by": "node",
            "plan": plan,
            "how": plan.get("how"),
            "bytes": _total(plan),
            "actions": steps if answer.changed else [],
            "diff": self._diff((answer.status or {}).get("current"), plan) if answer.changed else {},
            **self._named(plan),
        }

    def _staged(self) -> dict[str, t.Any]:
        answer = self._ask_to_stage()
        if not answer.ok:
            return as_result(answer)
        return {
            **self._of_stage(answer),
            "changed": answer.changed,
            "outcome": "staged",
            "actions": answer.actions,
        }

    def _ask_to_stage(self) -> _kosctl.Answer:
        return self.ask("stage", {**self._wish, "lease": self._args["lease"]})

    def _confirmed(self) -> dict[str, t.Any]:
        staged = self._ask_to_stage()
        if not staged.ok:
            return as_result(staged)
        before = (staged.status or {}).get("current")
        if not before or before.get("root") != staged.result.get("root"):
            self.fresh()  # so that activation, too, notices a link that is cut
        activated = self.ask(
            "activate",
            {
                **self._wish,
                "release": staged.result["root"],
                "bake_s": self._args["bake"],
                "deadline_s": self._args["deadline"],
                "lease": self._args["lease"],
            },
            secret=True,
        )
        result = self._of_stage(staged)
        if not activated.ok:
            return {**result, **as_result(activated)}
        if not activated.result.get("token"):
            actions = [*staged.actions, *activated.actions]
            return {
                **result,
                "changed": activated.changed or staged.changed,
                "outcome": "present",
                "actions": actions,
            }
        ending = _trial.Trial(
            activated.result,
            self._ask_patiently,
            self.fresh,
            lease=self._args["lease"],
            patience=self._args["timeout"],
            say=self._say,
        ).finish()
        result.update(
            changed=True,
            trial=activated.result["trial"],
            outcome=ending.outcome,
            reason=ending.reason,
            downtime_s=ending.last.get("downtime_s", activated.result.get("downtime_s")),
            seconds=round(time.time() - self._started, 2),
            actions=[*staged.actions, *activated.actions],
            diff=self._diff(before, {**staged.result, "restart": activated.result.get("restarted") or []}),
        )
        if ending.outcome == "confirmed":
            result["actions"].append(f"confirm {result['release']}")
            return result
        return {**result, **self._not_confirmed(result, ending)}

    def _not_confirmed(self, result: Mapping[str, t.Any], ending: _trial.Ending) -> dict[str, t.Any]:
        if ending.outcome == "unreachable":
            message = (
                f"trial of {result['release']} on {self._node}: {ending.reason}. The node falls back by "
                "itself at the deadline; ask it with kos.fleet.status when the link is back"
            )
            return {"unreachable": True, "msg": message, "node_state": None, "evidence": None}
        evidence, note = self._evidence(str(result["trial"]))
        healthy = {
            "reverted-healthy": "and is healthy again",
            "reverted-unhealthy": "and is NOT healthy",
        }.get(ending.outcome, "and its health is not known")
        now = self._named((ending.status or {}).get("current") or {}).get("release")
        where = f" Evidence: {evidence}." if evidence else f" {note}"
        return {
            "failed": True,
            "evidence": evidence,
            "node_state": (ending.status or {}).get("state"),
            "msg": (
                f"{self._node} was not confirmed on {result['release']}: {ending.reason or ending.outcome}. "
                f"It went back to {now or 'no release'} {healthy} ({ending.outcome}).{where}"
            ),
        }

    def _evidence(self, trial: str) -> tuple[str | None, str]:
        """Bring what the failed trial left to the controller; its place, or why there is none."""
        try:
            answer = self.ask("evidence", {"id": trial})
        except (AnsibleConnectionFailure, AnsibleActionFail) as error:
            return None, f"Evidence {trial} stays on the node: {error}."
        if not answer.ok:
            return None, f"Evidence {trial} stays on the node: {answer.message}."
        folder = Path(self._args["evidence_dir"]) / self._node
        try:
            return str(_evidence.store(folder, trial, answer.result.get("files") or {})), ""
        except (OSError, ValueError) as error:
            return None, f"Its evidence could not be kept here: {error}."

    def _ask_patiently(
        self, verb: str, options: Mapping[str, t.Any] | None = None, *, secret: bool = False
    ) -> _kosctl.Answer:
        try:
            answer = self.ask(verb, options, secret=secret)
        except AnsibleConnectionFailure as error:
            raise _trial.Unreachable(f"no connection: {error.message}") from None
        except AnsibleActionFail as error:
            raise _trial.Unreachable(str(error.message)) from None
        if not answer.installed:
            raise _trial.Unreachable("kosctl is gone from the node")
        return answer

    def _of_stage(self, answer: _kosctl.Answer) -> dict[str, t.Any]:
        staged = answer.result
        return {
            **self._named(staged),
            "how": staged.get("how"),
            "bytes": _total(staged),
            "mirror": staged.get("mirror"),
            "mirrors_left": staged.get("mirrors") or [],
            "evidence": None,
            "started": self._started,
            "seconds": round(time.time() - self._started, 2),
        }

    def _diff(self, before: Mapping[str, t.Any] | None, after: Mapping[str, t.Any]) -> dict[str, str]:
        restart = "".join(f"restart {unit}\n" for unit in after.get("restart") or [])
        stop = "".join(f"stop {unit}\n" for unit in after.get("stop") or [])
        return {
            "before_header": f"{self._node} (running)",
            "after_header": f"{self._node} (wanted)",
            "before": f"{_line(before)}\n",
            "after": f"{_line(after)}\n{restart}{stop}",
        }

    def _say(self, line: str) -> None:
        self._display.display(f"  {self._node}: {line}")

    @staticmethod
    def _named(release: Mapping[str, t.Any]) -> dict[str, t.Any]:
        return {"release": release.get("version"), "root": release.get("root"), "name": release.get("name")}


def _line(release: Mapping[str, t.Any] | None) -> str:
    if not release:
        return "no release"
    return f"{release.get('name')} {release.get('version')} ({str(release.get('root'))[:12]})"


def _is_older(release: Mapping[str, t.Any], other: Mapping[str, t.Any]) -> bool:
    """Whether a release of the same line came before the other, by the precedence of SemVer 2.0.0."""
    if not release or not other or release.get("name") != other.get("name"):
        return False
    return SemanticVersion(str(release["version"])) < SemanticVersion(str(other["version"]))


def _total(staged: Mapping[str, t.Any]) -> int | None:
    found = staged.get("bytes")
    total = found.get("total") if isinstance(found, Mapping) else found
    return int(total) if isinstance(total, (int, float)) else None
