# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that has a host drill the backups of another one, and keeps the report on the controller."""

from __future__ import annotations

import base64
import json
import re
import shlex
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
    "table": {"type": "dict", "default": {}},
    "settings": {"type": "dict", "default": {}},
    "sources": {"type": "list", "elements": "str", "default": []},
    "time": {"type": "str"},
    "picked": {"type": "list", "elements": "str", "default": []},
    "among": {"type": "list", "elements": "str", "default": []},
    "witness_url": {"type": "str", "default": ""},
    "witness_lines": {"type": "list", "elements": "dict"},
    "production": {"type": "list", "elements": "str", "default": []},
    "scratch": {"type": "str"},
    "secrets_dir": {"type": "path", "no_log": False, "default": "secrets/backup"},
    "report_dir": {"type": "path", "default": "build/report/drills"},
    "accept_untested": {"type": "bool", "default": False},
}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_SEED = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_URL_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")
# Back ends that are read through a proxy of kosctl, which lets nothing be written, whatever the credentials.
_PROXIED = ("/", "rest:")
_REPORTS = "/var/lib/kos/drill/reports/"
# Keys of role backup's settings that say something to a drill, too.
_SETTINGS = ("reserve_bytes", "backend_timeout_s")


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.drill."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            ARGUMENTS, mutually_exclusive=[("witness_url", "witness_lines")]
        )
        self._host = str((task_vars or {}).get("inventory_hostname"))
        if self._task.delegate_to:
            self._host = str(self._task.delegate_to)
        if self._host == args["node"]:
            raise AnsibleActionFail(
                f"a drill of {args['node']} belongs on another host, and this is the same"
            )
        self._reports = Path(args["report_dir"])
        try:
            request = self._request(args)
        except _backup_secrets.SecretError as error:
            raise AnsibleActionFail(str(error)) from None
        repository = request["repository"]["name"]
        if self._task.check_mode:
            what = ", ".join(args["sources"]) or "all critical sources and one of each other class"
            action = f"drill {args['node']} on {self._host}: {what}, from {repository}, seed {args['seed']}"
            return {"changed": True, "actions": [action]}
        answer = self.as_root("drill", json.dumps(request).encode(), secret=True)
        if not isinstance(answer.result.get("report"), Mapping):
            return as_result(answer)
        try:
            report = _drill_report.Report.read(answer.result, args["node"])
            kept = self._keep(args["node"], report, answer.result.get("files") or {})
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

    def _request(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        """Return what kosctl reads; everything that the controller can see is checked before."""
        _check(args)
        folder = self._secrets_folder(args["secrets_dir"])
        secrets = _backup_secrets.Secrets(folder, write=False)
        node, settings = args["node"], args["settings"]
        keys = secrets.public_keys(node)
        if not keys:
            raise AnsibleActionFail(
                f"no public key of {node} is in {folder}, so nothing tells who signed; "
                "role kos.fleet.backup notes it"
            )
        witness = {"url": args["witness_url"]} if args["witness_url"] else None
        if args["witness_lines"] is not None:
            witness = {"lines": args["witness_lines"]}
        request = {
            "format": 1,
            "node": node,
            "repository": self._repository(args, secrets),
            "recovery_key": secrets.held(node, "recovery.key"),
            "node_keys": keys,
            "witness": witness,
            "seed": args["seed"],
            "hosts": {"picked": args["picked"], "of": args["among"]} if args["picked"] else None,
            "sources": args["sources"] or None,
            "time": None if args["time"] is None else _utc(args["time"]),
            "table": args["table"] or None,
            "production": sorted(set(args["production"])) or None,
            "scratch": args["scratch"],
            "interval_s": (settings.get("drill") or {}).get("interval_s"),
            **{key: settings.get(key) for key in _SETTINGS},
            "previous": _drill_report.newest(self._reports, self._host),
        }
        return {key: value for key, value in request.items() if value is not None}

    def _secrets_folder(self, given: str) -> Path:
        """Return the folder beside the playbook, as role backup does, or where the command is run.

        The collection's own playbook lies where nobody keeps secrets.
        """
        beside = Path(self._loader.path_dwim(given))
        return beside if beside.is_dir() else Path(given).absolute()

    def _repository(self, args: Mapping[str, t.Any], secrets: _backup_secrets.Secrets) -> dict[str, t.Any]:
        name = args["repository"] or _off_site(args["repositories"])
        one = args["repositories"].get(name)
        if not isinstance(one, Mapping) or not one.get("url"):
            known = ", ".join(args["repositories"]) or "none"
            raise AnsibleActionFail(f"repository: {args['node']} has no {name} with a url; there is {known}")
        url, environment = str(one["url"]), dict(args["environment"])
        if _URL_PASSWORD.search(url):
            raise AnsibleActionFail(
                f"repository: the url of {name} holds a password, which has to be a secret"
            )
        if not url.startswith(_PROXIED) and not environment:
            raise AnsibleActionFail(
                f"environment: {name} needs credentials that can only read, and not those of {args['node']}"
            )
        if url.startswith("rest:"):
            own = {key: str(value) for key, value in (one.get("environment") or {}).items()}
            environment = {**own, **environment}
            if "RESTIC_REST_USERNAME" not in environment:
                environment["RESTIC_REST_USERNAME"] = args["node"]
                environment["RESTIC_REST_PASSWORD"] = secrets.held(args["node"], "rest-server")
        found: dict[str, t.Any] = {"name": name, "url": url}
        if environment:
            found["environment"] = {key: str(value) for key, value in environment.items()}
        if one.get("ca") and not self._task.check_mode:
            found["ca"] = self._text(str(one["ca"]), "the certificate that backup_repositories names as ca")
        return found

    def _keep(self, node: str, report: _drill_report.Report, files: Mapping[str, t.Any]) -> dict[str, str]:
        page = str(files.get("page"))
        if not page.startswith(_REPORTS) or ".." in page:
            raise _drill_report.ReportError(f"its page is said to be {page[:200]!r}")
        return report.keep(self._reports, node, self._host, self._text(page, "the page of the report"))

    def _text(self, path: str, what: str) -> str:
        """Return a text file of the host."""
        done = self._low_level_execute_command(f"base64 --wrap=0 {shlex.quote(path)}", executable="/bin/sh")
        if done["rc"] != 0:
            raise AnsibleActionFail(f"{what} is not at {path} on {self._host}: {done['stderr'].strip()}")
        try:
            return base64.b64decode(done["stdout"]).decode("utf-8")
        except ValueError:
            raise AnsibleActionFail(f"{what} at {path} on {self._host} is no text") from None


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
    unknown = [name for name in args["sources"] if args["table"] and name not in args["table"]]
    if unknown:
        raise AnsibleActionFail(
            f"sources: {args['node']} has no {unknown[0]}; there is {', '.join(args['table'])}"
        )
    scratch = args["scratch"]
    if scratch is not None and (not scratch.startswith("/") or ".." in scratch.split("/")):
        raise AnsibleActionFail(f"scratch has to be an absolute path without ..; it is {scratch!r}")


def _utc(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise AnsibleActionFail(f"time has to be as 2026-01-31T12:00:00Z; it is {text!r}") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
