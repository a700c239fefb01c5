# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that brings a source of a node back, keeps what was brought, or takes it back again."""

from __future__ import annotations

import re
import shlex
import typing as t
from datetime import datetime, timezone

from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl
from ansible_collections.kos.fleet.plugins.plugin_utils._anchor import AnchorFile
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, as_result

ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["restored", "confirmed", "undone"], "default": "restored"},
    "source": {"type": "str"},
    "id": {"type": "str"},
    "run": {"type": "str"},
    "time": {"type": "str"},
    "repository": {"type": "str"},
    "to": {"type": "str"},
    "paths": {"type": "list", "elements": "str", "default": []},
    "in_place": {"type": "bool", "default": False},
    "older": {"type": "bool", "default": False},
    "no_witness": {"type": "bool", "default": False},
    "stop": {"type": "bool", "default": False},
    "accept_loss": {"type": "bool", "default": False},
    "anchor_dir": {"type": "path", "default": "build/anchors"},
}
_RULES = {
    "required_if": [
        ("state", "restored", ["source"]),
        ("state", "confirmed", ["id"]),
        ("state", "undone", ["id"]),
    ]
}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_WORDS = ("in_place", "older", "no_witness", "accept_loss", "stop")
# Options that say something to one state alone.
_OF_A_RESTORE = ("source", "run", "time", "repository", "to", "paths", *_WORDS[:-1])


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.restore."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            ARGUMENTS, mutually_exclusive=[("run", "time"), ("to", "in_place")], **_RULES
        )
        _check(args)
        anchor = AnchorFile(args["anchor_dir"], str((task_vars or {}).get("inventory_hostname")))
        known = anchor.read() if args["state"] == "restored" and args["to"] is None else None
        if self._task.check_mode:
            return self._plan(args, known)
        answer = self.as_root(words(args, known))
        # One that is refused since it waits to be confirmed was perhaps killed before it came to this.
        done, undecided = anchor.follow(answer.result)
        result = as_result(answer)
        result["actions"] = [*result.get("actions", []), *done]
        if done and not answer.ok:
            result["msg"] = f"{result['msg']} {done[0]}."
        if undecided:
            result["warnings"] = undecided
        return {**result, **answer.result} if answer.ok else result

    def _plan(self, args: t.Mapping[str, t.Any], known: str | None) -> dict[str, t.Any]:
        if args["state"] != "restored":
            return {"changed": True, "actions": [f"{args['state']}: {args['id']}"]}
        answer = self.as_root(f"backup list --source={args['source']}")
        if not answer.ok:
            return as_result(answer)
        found = _chosen(args, answer)
        if found is None:
            return {"failed": True, "msg": _nothing(args, answer.result.get("runs") or [])}
        newest = max(answer.result["runs"], key=lambda one: _moment(one["time"]))["run"]
        if found != newest and not args["older"]:
            said = f"run {found} of {args['source']} is older than run {newest}"
            return {"failed": True, "msg": f"{said}; older: true says that it is meant"}
        lost = _lost(known, next(one for one in answer.result["runs"] if one["run"] == found))
        if lost > 0 and not args["accept_loss"]:
            said = f"{lost} records that its ledger had are not in run {found} of {args['source']}"
            return {"failed": True, "msg": f"{said}; accept_loss: true says that they are given up"}
        where = args["to"] or "its place, the old state kept until it is confirmed"
        return {
            "changed": True,
            "source": args["source"],
            "run": found,
            "actions": [
                f"restore {args['source']} of run {found} into {where}",
                *([f"give up the last {lost} records that its ledger had"] if lost > 0 else []),
            ],
        }


def words(args: t.Mapping[str, t.Any], known: str | None = None) -> str:
    """Return verb and options of kosctl, for a shell.

    Args:
        known: the last block that was seen of the node's ledger.
    """
    if args["state"] != "restored":
        option = "--confirm" if args["state"] == "confirmed" else "--undo"
        return f"restore {option}={args['id']}" + (" --stop" if args["stop"] else "")
    given = [f"--{key}={args[key]}" for key in ("run", "time", "repository", "to") if args[key] is not None]
    given += [f"--path={path}" for path in args["paths"]]
    given += [f"--anchor={known}"] if known else []
    given += [f"--{key.replace('_', '-')}" for key in _WORDS if args[key]]
    return shlex.join(["restore", args["source"], *given])


def _check(args: t.Mapping[str, t.Any]) -> None:
    for key, pattern, rule in (
        ("source", _NAME, "the name of a source"),
        ("repository", _NAME, "the name of a repository"),
        ("run", _ID, "the id of a run"),
        ("id", _ID, "the id that a restore answered"),
    ):
        if args[key] is not None and not pattern.fullmatch(args[key]):
            raise AnsibleActionFail(f"{key} has to be {rule}; it is {args[key]!r}")
    if args["time"] is not None:
        _moment(args["time"])
    for key, path in (("to", args["to"]), *(("paths", path) for path in args["paths"])):
        if path is not None and (not path.startswith("/") or ".." in path.split("/")):
            raise AnsibleActionFail(f"{key} has to be an absolute path without ..; it is {path!r}")
    if args["state"] == "restored" and args["id"] is not None:
        raise AnsibleActionFail("id says nothing to state=restored; it belongs to confirmed and undone")
    said = [key for key in _OF_A_RESTORE if args["state"] != "restored" and args[key]]
    if said:
        raise AnsibleActionFail(
            f"{', '.join(said)} says nothing to state={args['state']}, which takes id alone"
        )


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise AnsibleActionFail(f"time has to be as 2026-01-31T12:00:00Z; it is {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _chosen(args: t.Mapping[str, t.Any], answer: _kosctl.Answer) -> str | None:
    """Return the run that would be restored, as kosctl chooses it; None where there is none."""
    runs = [one for one in answer.result.get("runs") or [] if _in_repository(one, args["repository"])]
    runs.sort(key=lambda one: _moment(one["time"]))
    if args["run"] is not None:
        runs = [one for one in runs if one["run"] == args["run"]]
    if args["time"] is None or not runs:
        return str(runs[-1]["run"]) if runs else None
    wanted = _moment(args["time"])
    spans = [(str(one["run"]), *_span(one)) for one in runs]
    if wanted > max(end for _run, _begin, end in spans):
        return None
    within = [run for run, begin, end in spans if begin <= wanted <= end]
    before = [run for run, _begin, end in spans if end <= wanted]
    return next(iter(within), before[-1] if before else None)


def _span(run: t.Mapping[str, t.Any]) -> tuple[datetime, datetime]:
    """Return the first and the last moment that a run can be restored to; a tree knows one."""
    heads = run["sources"][0].get("heads") or {}
    if isinstance(heads.get("from"), str) and isinstance(heads.get("time"), str):
        return _moment(heads["from"]), _moment(heads["time"])
    return _moment(run["time"]), _moment(run["time"])


def _lost(known: str | None, run: t.Mapping[str, t.Any]) -> int:
    """Return how many blocks the ledger of a run lacks of those that were seen."""
    index = (run["sources"][0].get("heads") or {}).get("index")
    return 0 if known is None or index is None else int(known.partition(":")[0]) - int(index)


def _in_repository(run: t.Mapping[str, t.Any], repository: str | None) -> bool:
    kept = {one["repository"] for source in run["sources"] for one in source["snapshots"]}
    return bool(kept) if repository is None else repository in kept


def _nothing(args: t.Mapping[str, t.Any], runs: list[dict[str, t.Any]]) -> str:
    wanted = (
        f" of run {args['run']}" if args["run"] else f" that can give {args['time']}" if args["time"] else ""
    )
    where = f" in repository {args['repository']}" if args["repository"] else ""
    times = sorted(one["time"] for one in runs)
    there = (
        f"; the first one is of {times[0]}, the last of {times[-1]}" if times else "; there is none at all"
    )
    return f"source: {args['source']} has no snapshot{wanted}{where}{there}."
