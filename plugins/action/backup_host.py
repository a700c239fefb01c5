# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that makes a host one that is backed up, a target of backups, or their witness."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Mapping
from pathlib import Path

from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl
from ansible_collections.kos.fleet.plugins.plugin_utils import _backup_secrets
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, refuse_unknown_variables

ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "step": {"type": "str", "choices": ["files", "witness", "repositories", "drills"], "default": "files"},
    "repositories": {"type": "dict", "default": {}},
    "sources": {"type": "dict", "default": {}},
    "witness_url": {"type": "str", "default": ""},
    "settings": {"type": "dict", "default": {}},
    "calendar": {"type": "dict", "default": {}},
    "secrets_dir": {"type": "path", "no_log": False, "default": "secrets/backup"},
    "drilled": {"type": "list", "elements": "str", "default": []},
    "drills": {"type": "dict", "default": {}},
    "drill_scratch": {"type": "str"},
    "server": {"type": "bool", "default": False},
    "server_root": {"type": "str", "default": "/srv/kos-backup"},
    "server_address": {"type": "str", "default": ""},
    "server_port": {"type": "int", "default": 8100},
    "server_nodes": {"type": "list", "elements": "str", "default": []},
    "server_tls_certificate": {"type": "path"},
    "server_tls_key": {"type": "path", "no_log": False},
    "node_keys": {"type": "dict", "no_log": False, "default": {}},
    "known_hosts": {"type": "list", "elements": "str", "default": []},
}
_PROBE = r"""
PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo "uid=$(id -u)"
[ -x PROGRAM ] && echo kosctl=yes
dpkg-query --show --showformat='${db:Status-Status}=${Package}\n' restic restic-rest-server 2>/dev/null
echo
"""
# What the table says of a repository; its environment is a secret, and no part of the table.
_SECRET_KEY = "environment"


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.backup_host."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        refuse_unknown_variables(self._task, self._vars)
        self._node = str(self._vars.get("inventory_hostname"))
        self._secrets = _backup_secrets.Secrets(
            Path(self._loader.path_dwim(args["secrets_dir"])), write=not self._task.check_mode
        )
        try:
            if args["state"] == "absent":
                return self._absent()
            return {
                "files": self._files,
                "witness": self._witness,
                "repositories": self._repositories,
                "drills": self._drills,
            }[args["step"]](args)
        except _backup_secrets.SecretError as error:
            raise AnsibleActionFail(str(error)) from None

    def _files(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        if self._node in args["drilled"]:
            raise AnsibleActionFail(
                f"backup_drill_host of {self._node} is itself; a drill belongs on another host"
            )
        there = self._probe()
        packages = [
            name
            for name, wanted in (
                ("restic", args["repositories"] or args["drilled"]),
                ("restic-rest-server", args["server"]),
            )
            if wanted and name not in there
        ]
        spec: dict[str, t.Any] = {"format": 1, "drill": args["drilled"]}
        if args["repositories"]:
            spec["node"] = self._node_section(args)
        if args["server"]:
            spec["server"] = self._server_section(args)
        actions = [f"make secret {path.name} on the controller" for path in self._secrets.made]
        actions += self._install(packages)
        if "kosctl" not in there:
            return self._without_kosctl(actions)
        if self._task.check_mode and "restic-rest-server" in packages:
            # Its account comes with the package.
            actions.append("serve backups of other nodes")
            del spec["server"]
        return self._apply(spec, actions)

    def _node_section(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        repositories, kept = {}, {}
        for name, one in args["repositories"].items():
            if not isinstance(one, Mapping) or not isinstance(one.get(_SECRET_KEY, {}), Mapping):
                raise AnsibleActionFail(
                    f"backup_repositories.{name} has to be a mapping with url, and environment as one"
                )
            repositories[name] = {key: value for key, value in one.items() if key != _SECRET_KEY}
            environment = {key: str(value) for key, value in one.get(_SECRET_KEY, {}).items()}
            if str(one.get("url")).startswith("rest:") and "RESTIC_REST_USERNAME" not in environment:
                environment["RESTIC_REST_USERNAME"] = self._node
                environment["RESTIC_REST_PASSWORD"] = self._secrets.rest(self._node)
            kept[name] = {
                "password": self._secrets.repository(self._node, name),
                "environment": environment,
            }
        table = {
            **args["settings"],
            "format": 1,
            "repositories": repositories,
            "sources": dict(args["sources"]),
        }
        if args["witness_url"]:
            table["witness"] = {"url": args["witness_url"]}
        section = {"table": table, "secrets": kept, "calendar": dict(args["calendar"])}
        # A machine that takes the place of another goes on with its backups: what that one signed counts.
        former = self._secrets.public_keys(self._node)
        return {**section, "former_keys": former} if former else section

    def _server_section(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        if bool(args["server_tls_certificate"]) != bool(args["server_tls_key"]):
            raise AnsibleActionFail(
                "backup_server_tls_certificate and backup_server_tls_key belong together: set both, or none"
            )
        if not 1 <= args["server_port"] <= 65535:
            raise AnsibleActionFail(f"backup_server_port must be 1 to 65535; it is {args['server_port']}")
        section = {
            "users": {
                node: _backup_secrets.digest(self._secrets.rest(node)) for node in args["server_nodes"]
            },
            "root": args["server_root"],
            "listen": f"{args['server_address']}:{args['server_port']}",
        }
        for key in ("certificate", "key"):
            place = args[f"server_tls_{key}"]
            if place:
                path = Path(self._loader.path_dwim(place))
                if not path.is_file():
                    raise AnsibleActionFail(f"backup_server_tls_{key} names {path}, which is not there")
                section[key] = path.read_text(encoding="utf-8")
        return section

    def _witness(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        known = {node: key for node, key in args["node_keys"].items() if key}
        missing = sorted(set(args["node_keys"]) - set(known))
        actions = [f"take {node} as a node, once it has a key" for node in missing]
        if "kosctl" not in self._probe():
            return self._without_kosctl(actions)
        return self._apply({"format": 1, "witness": known}, actions)

    def _repositories(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        if "kosctl" not in self._probe():
            return self._without_kosctl([])
        recovery = self._secrets.recovery(self._node)
        actions = [f"make secret {path.name} on the controller" for path in self._secrets.made]
        # Without one in this play, a witness that is known stays known.
        known = {"known_hosts": list(args["known_hosts"])} if args["known_hosts"] else {}
        told = self._apply({"format": 1, **known}, actions)
        if told.get("failed") or self._task.check_mode:
            return told
        answer = self.as_root("backup init", recovery.encode(), secret=True)
        if not answer.ok:
            return _kosctl.failure(answer)
        if key := answer.result.get("node_key"):
            # Whoever restores elsewhere has to know who signed, and the node may be gone by then.
            self._secrets.note_public_key(self._node, str(key))
        return {
            **told,
            "changed": told["changed"] or answer.changed,
            "actions": [*told["actions"], *answer.actions],
            "repositories": answer.result.get("repositories") or [],
            "warnings": _left_to_do(answer.result.get("sources") or []),
        }

    def _drills(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        nodes, missing = {}, []
        for name, one in sorted(args["drills"].items()):
            keys = self._secrets.public_keys(name)
            if keys:
                nodes[name] = {**one, "node_keys": keys}
            else:
                missing.append(name)
        actions = []
        if self._task.check_mode:
            actions = [f"let {name} be drilled here, once it has a key" for name in missing]
        if "kosctl" not in self._probe():
            return self._without_kosctl(actions)
        live = {str(one["path"]) for one in args["sources"].values() if one.get("path")}
        table: dict[str, t.Any] = {"format": 1, "nodes": nodes, "production": sorted(live)}
        if args["drill_scratch"]:
            table["scratch"] = args["drill_scratch"]
        told = self._apply({"format": 1, "drill_table": table}, actions)
        if missing and not self._task.check_mode:
            told["warnings"] = [
                f"{name} is not drilled here until role backup has run on it" for name in missing
            ]
        return told

    def _apply(self, spec: Mapping[str, t.Any], actions: list[str]) -> dict[str, t.Any]:
        check = " --check" if self._task.check_mode else ""
        answer = self.as_root(f"backup apply{check}", json.dumps(spec).encode(), secret=True)
        if not answer.ok:
            return _kosctl.failure(answer)
        told = answer.result
        return {
            "changed": bool(answer.changed or actions),
            "actions": [*actions, *answer.actions],
            "diff": _kosctl.diff(answer),
            **{key: told.get(key) for key in ("node_key", "host_key", "unopened")},
        }

    def _absent(self) -> dict[str, t.Any]:
        check = " --check" if self._task.check_mode else ""
        answer = self.as_root(f"backup remove{check}")
        if not answer.installed:
            return {"changed": False, "actions": []}
        if not answer.ok:
            return _kosctl.failure(answer)
        return {"changed": answer.changed, "actions": answer.actions, "diff": _kosctl.diff(answer)}

    def _probe(self) -> set[str]:
        """Return what is there: kosctl, and the packages."""
        script = _PROBE.replace("PROGRAM", _kosctl.PROGRAM)
        done = self._low_level_execute_command(script, executable="/bin/sh")
        pairs = [line.partition("=")[::2] for line in done["stdout"].splitlines() if "=" in line]
        said = dict(pairs)
        if "uid" not in said:
            words = (done["stderr"] or done["stdout"]).strip() or "no words"
            raise AnsibleActionFail(f"{self._node} did not run the probe (exit code {done['rc']}): {words}")
        if said["uid"] != "0":
            raise AnsibleActionFail(f"{self._node}: a host is shaped by root; set become: true")
        there = {value for name, value in pairs if name == "installed"}
        return there | ({"kosctl"} if said.get("kosctl") else set())

    def _install(self, packages: list[str]) -> list[str]:
        if not packages:
            return []
        if not self._task.check_mode:
            done = self._execute_module(
                module_name="ansible.builtin.apt",
                module_args={"name": packages, "install_recommends": False, "update_cache": True},
                task_vars=self._vars,
            )
            if done.get("failed"):
                raise AnsibleActionFail(f"{', '.join(packages)} cannot be installed: {done.get('msg')}")
        return [f"install {', '.join(packages)}"]

    def _without_kosctl(self, actions: list[str]) -> dict[str, t.Any]:
        if not self._task.check_mode:
            raise AnsibleActionFail(f"{self._node} has no kosctl; run role kos.fleet.bootstrap first")
        return {
            "changed": True,
            "plan_by": "controller",
            "actions": [*actions, "set backups up, once there is kosctl (role bootstrap)"],
            **dict.fromkeys(("node_key", "host_key", "unopened")),
        }


def _left_to_do(sources: t.Sequence[Mapping[str, t.Any]]) -> list[str]:
    """Return what a person has to do before each source can be backed up."""
    restarts = [
        f"restart {one['restart']}: source {one['name']} is backed up from then on"
        for one in sources
        if one.get("restart")
    ]
    broken = [f"source {one['name']} is not ready: {one['error']}" for one in sources if one.get("error")]
    return restarts + broken
