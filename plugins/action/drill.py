# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that has a host drill the backups of another one, and keeps the report on the controller."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.plugin_utils import _backup_secrets, _drill_report
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, as_result

ARGUMENTS: dict[str, t.Any] = {
    "node": {"type": "str", "required": True},
    "seed": {"type": "str", "required": True},
    "repositories": {"type": "dict", "required": True},
    "repository": {"type": "str"},
    "environment": {"type": "dict", "no_log": True, "default": {}},
    "sources": {"type": "list", "elements": "str", "default": []},
    "time": {"type": "str"},
    "picked": {"type": "list", "elements": "str", "default": []},
    "among": {"type": "list", "elements": "str", "default": []},
    "witness_lines": {"type": "list", "elements": "dict"},
    "secrets_dir": {"type": "path", "no_log": False, "default": "secrets/backup"},
    "report_dir": {"type": "path", "default": "build/report/drills"},
    "accept_untested": {"type": "bool", "default": False},
}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_SEED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
# What a rest-server asks for.
_REST = ("RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD")


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.drill."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        self._host = str((task_vars or {}).get("inventory_hostname"))
        if self._task.delegate_to:
            self._host = str(self._task.delegate_to)
        if self._host == args["node"]:
            raise AnsibleActionFail(
                f"a drill of {args['node']} belongs on another host, and this is the same"
            )
        self._reports = Path(args["report_dir"])
        try:
            options = self._options(args)
        except _backup_secrets.SecretError as error:
            raise AnsibleActionFail(str(error)) from None
        if self._task.check_mode:
            what = ", ".join(args["sources"]) or "all critical sources and one of each other class"
            what = f"{what}, from {options['repository']}, seed {args['seed']}"
            return {"changed": True, "actions": [f"drill {args['node']} on {self._host}: {what}"]}
        answer = self.ask("drill", options, secret=True, exact=True)
        if not isinstance(answer.result.get("report"), Mapping):
            return as_result(answer)
        try:
            report = _drill_report.Report.read(answer.result, args["node"])
            page = str(answer.result.get("page"))
            kept = report.keep(self._reports, args["node"], self._host, page)
        except _drill_report.ReportError as error:
            raise AnsibleActionFail(f"the report of {self._host} cannot be kept: {error}") from None
        verified = answer.ok and report.outcome == "VERIFIED"
        accepted = args["accept_untested"] and report.outcome == "COULD_NOT_TEST"
        said = f"{args['node']} on {self._host}: {report.sentence()}; {kept['page']}"
        return {
            **{
                "changed": True,
                "failed": not (verified or accepted),
                "msg": said,
                "actions": [f"drill {args['node']}"],
            },
            **{"outcome": report.outcome, "report": dict(report.value), "kept": kept},
        }

    def _options(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        """Return what the host is asked; the rest of a drill is in a file there, which role backup wrote."""
        _check(args)
        secrets = _backup_secrets.Secrets(self._secrets_folder(args["secrets_dir"]), write=False)
        name = args["repository"] or _off_site(args["repositories"])
        return {
            "node": args["node"],
            "repository": name,
            "recovery_key": secrets.held(args["node"], "recovery.key"),
            "environment": _environment(args, name, secrets) or None,
            "seed": args["seed"],
            "sources": args["sources"] or None,
            "time": None if args["time"] is None else _utc(args["time"]),
            "picked": args["picked"] or None,
            "among": args["among"] or None,
            "lines": args["witness_lines"],
            "previous": _drill_report.newest(self._reports, self._host),
        }

    def _secrets_folder(self, given: str) -> Path:
        """Return the folder beside the playbook, as role backup does, or where the command is run.

        The collection's own playbook lies where nobody keeps secrets.
        """
        beside = Path(self._loader.path_dwim(given))
        return beside if beside.is_dir() else Path(given).absolute()


def _environment(args: Mapping[str, t.Any], name: str, secrets: _backup_secrets.Secrets) -> dict[str, str]:
    """Return the credentials for a repository; those of a rest-server stay with a proxy that only reads."""
    one = args["repositories"].get(name)
    if not isinstance(one, Mapping) or not one.get("url"):
        known = ", ".join(args["repositories"]) or "none"
        raise AnsibleActionFail(f"repository: {args['node']} has no {name} with a url; there is {known}")
    url, given = str(one["url"]), {key: str(value) for key, value in args["environment"].items()}
    # Directories and rest-servers are read through a proxy of kosctl, and SFTP with the keys of root there.
    if url.startswith("s3:") and not given:
        raise AnsibleActionFail(
            f"environment: {name} needs credentials that can only read, and not those of {args['node']}"
        )
    if not url.startswith("rest:"):
        return given
    own = {key: str(value) for key, value in (one.get("environment") or {}).items() if key in _REST}
    found = {**own, **given}
    if "RESTIC_REST_USERNAME" in found:
        return found
    word = secrets.held(args["node"], "rest-server")
    return {**found, "RESTIC_REST_USERNAME": args["node"], "RESTIC_REST_PASSWORD": word}


def _off_site(repositories: Mapping[str, t.Any]) -> str:
    """Return the first repository that is not a directory, or the first of all."""
    away = [
        name
        for name, one in repositories.items()
        if isinstance(one, Mapping) and not str(one.get("url")).startswith("/")
    ]
    return str([*away, *repositories, "repository"][0])


def _check(args: Mapping[str, t.Any]) -> None:
    for key, values, pattern, rule in (
        ("seed", [args["seed"]], _SEED, "letters, digits, dots, colons, hyphens and underscores"),
        ("sources", args["sources"], _NAME, "names of sources"),
    ):
        for value in values:
            if not pattern.fullmatch(value):
                raise AnsibleActionFail(f"{key} has to be {rule}; it is {value!r}")


def _utc(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise AnsibleActionFail(f"time has to be as 2026-01-31T12:00:00Z; it is {text!r}") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
