# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that makes a host a mirror: one probe; where something differs, the files and one module."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import tarfile
import tempfile
import typing as t
from collections.abc import Mapping
from pathlib import Path

from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.module_utils import _mirror
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, refuse_unknown_variables

# These go into the configuration of nginx as they are.
_FORMS = {
    "root": r"(/[A-Za-z0-9._-]+)+",
    "address": r"[0-9a-fA-F.:\[\]]*",
    "server_name": r"[A-Za-z0-9*._ -]+",
}
_PROBE = r"""
PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo "uid=$(id -u)"
command -v nginx >/dev/null && echo nginx=yes
systemctl is-active --quiet kos-mirror.service 2>/dev/null && echo active=yes
systemctl is-enabled --quiet kos-mirror.service 2>/dev/null && echo enabled=yes
[ -e CONFIG ] && echo config=yes
sha256sum CONFIG/* /etc/systemd/system/kos-mirror.service 2>/dev/null | sed 's/^/sum=/'
cd ROOT 2>/dev/null || exit 0
echo root=yes
find . -type f -printf 'size=%s %P\n'
find metadata -type f -exec sha256sum {} + 2>/dev/null | sed 's/^/sum=/'
"""


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.mirror."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        _validation, args = self.validate_argument_spec(_mirror.ARGUMENTS)
        refuse_unknown_variables(self._task, self._vars)
        if bool(args["tls_certificate"]) != bool(args["tls_key"]):
            raise AnsibleActionFail(
                "mirror_tls_certificate and mirror_tls_key belong together: set both, or none"
            )
        if not 1 <= args["port"] <= 65535:
            raise AnsibleActionFail(f"mirror_port must be 1 to 65535; it is {args['port']}")
        for key, rule in _FORMS.items():
            if not re.fullmatch(rule, args[key]):
                raise AnsibleActionFail(f"mirror_{key} is not of the form {rule}; it is {args[key]!r}")
        here = self._probe(args["root"])
        # All of the folder is made as the publisher's, or removed: it has to be one of ours.
        if foreign := _mirror.foreign(here["files"]):
            raise AnsibleActionFail(
                f"mirror_root names {args['root']}, which is no mirror: it holds {foreign!r}; "
                "name an empty folder"
            )
        if args["state"] == "absent":
            return self._absent(args, here)
        wanted = self._wanted(args)
        send, remove = _mirror.plan(wanted, here["files"])
        texts = self._texts(args)
        settled = here["active"] and here["enabled"] and not send and not remove
        sums = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
        if settled and here["sums"] == sums:
            return {"changed": False, "actions": [], "files": len(wanted), "sent": 0}
        actions: list[str] = []
        if not here["nginx"]:
            actions.append("install nginx")
            if not self._task.check_mode:
                self._install()
        result = self._execute_module(
            module_name="kos.fleet.mirror",
            module_args={
                "prepared": {
                    "archive": self._archive(args, send) if send and not self._task.check_mode else None,
                    "send": send,
                    "remove": remove,
                    "texts": json.dumps(texts),
                },
                "root": args["root"],
                "state": "present",
            },
            task_vars=self._vars,
        )
        if not result.get("failed"):
            result["actions"] = [*actions, *result.get("actions", [])]
            result["changed"] = bool(result["actions"])
            result.update(files=len(wanted), sent=len(send))
        return result

    def _absent(self, args: Mapping[str, t.Any], here: Mapping[str, t.Any]) -> dict[str, t.Any]:
        if not (here["config"] or here["root"] or here["sums"]):
            return {"changed": False, "actions": []}
        module_args = {"state": "absent", "root": args["root"]}
        return self._execute_module(
            module_name="kos.fleet.mirror", module_args=module_args, task_vars=self._vars
        )

    def _probe(self, root: str) -> dict[str, t.Any]:
        script = _PROBE.replace("CONFIG", _mirror.CONFIG).replace("ROOT", shlex.quote(root))
        done = self._low_level_execute_command(script, executable="/bin/sh")
        said: dict[str, t.Any] = dict.fromkeys(("nginx", "active", "enabled", "root", "config"), False)
        files: dict[str, dict[str, t.Any]] = {}
        sums: dict[str, str] = {}
        for line in done["stdout"].splitlines():
            key, _sign, value = line.partition("=")
            if key == "size":
                size, _blank, path = value.partition(" ")
                files.setdefault(path, {})["size"] = int(size)
            elif key == "sum":
                digest, path = value[:64], value[66:]
                if path.startswith("/"):
                    sums[path] = digest
                else:
                    files.setdefault(path, {})["sha256"] = digest
            elif key in said:
                said[key] = value == "yes"
            elif key == "uid" and value != "0":
                raise AnsibleActionFail("a mirror's host is shaped by root; set become: true")
        return {**said, "files": files, "sums": sums}

    def _wanted(self, args: Mapping[str, t.Any]) -> dict[str, dict[str, t.Any]]:
        if not args["source"]:
            raise AnsibleActionFail(
                "mirror_source is missing: the publisher's folder `public` on the controller"
            )
        source = Path(self._loader.path_dwim(args["source"]))
        if not (source / "metadata/timestamp.json").is_file():
            raise AnsibleActionFail(
                f"mirror_source names {source}, which holds no metadata/timestamp.json: "
                "run kos.fleet.publish first"
            )
        self._source = source
        wanted: dict[str, dict[str, t.Any]] = {}
        for folder in _mirror.FOLDERS:
            for path in sorted((source / folder).rglob("*")):
                if path.is_file() and not path.name.startswith("."):
                    inside = str(path.relative_to(source))
                    wanted[inside] = {"size": path.stat().st_size}
                    if folder == "metadata":
                        wanted[inside]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        return wanted

    def _texts(self, args: Mapping[str, t.Any]) -> dict[str, str]:
        texts = {
            f"{_mirror.CONFIG}/nginx.conf": _mirror.nginx_conf(args),
            f"/etc/systemd/system/{_mirror.SERVICE}": _mirror.unit(args),
        }
        for name, option in (("tls.crt", "tls_certificate"), ("tls.key", "tls_key")):
            if args[option]:
                path = Path(self._loader.path_dwim(args[option]))
                if not path.is_file():
                    raise AnsibleActionFail(f"mirror_{option} names {path}, which is not there")
                texts[f"{_mirror.CONFIG}/{name}"] = path.read_text(encoding="utf-8")
        return texts

    def _archive(self, args: Mapping[str, t.Any], send: list[str]) -> str:
        self._make_tmp_path()
        remote: str = self._connection._shell.join_path(self._connection._shell.tmpdir, "mirror.tar")
        with tempfile.NamedTemporaryFile(prefix="kos-mirror-", suffix=".tar") as local:
            with tarfile.open(fileobj=local, mode="w") as archive:
                for path in send:
                    archive.add(self._source / path, arcname=path, recursive=False)
            local.flush()
            self._transfer_file(local.name, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return remote

    def _install(self) -> None:
        done = self._execute_module(
            module_name="ansible.builtin.apt",
            module_args={
                "name": "nginx",
                "state": "present",
                "install_recommends": False,
                "update_cache": True,
            },
            task_vars=self._vars,
        )
        if done.get("failed"):
            raise AnsibleActionFail(f"nginx cannot be installed: {done.get('msg')}")
        # The distribution starts its own server on port 80, which nobody asked for.
        self._low_level_execute_command("systemctl disable --now nginx.service", executable="/bin/sh")
