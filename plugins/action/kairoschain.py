# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that makes a host a KairosChain node: one probe, what is missing, one request to kosctl."""

from __future__ import annotations

import hashlib
import json
import typing as t
from collections.abc import Mapping
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.urls import open_url

from ansible_collections.kos.fleet.plugins.module_utils import _kairoschain, _kosctl
from ansible_collections.kos.fleet.plugins.plugin_utils import _whole_file
from ansible_collections.kos.fleet.plugins.plugin_utils._anchor import AnchorFile
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, refuse_unknown_variables

CACHE = Path("build/gems")
MAX_GEM_BYTES = 64 * 1024 * 1024
_PROBE = r"""
PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo "uid=$(id -u)"
[ -x PROGRAM ] && echo kosctl=yes
dpkg-query --show --showformat='${db:Status-Status}=${Package}\n' PACKAGES 2>/dev/null
if command -v ruby >/dev/null; then ruby -e 'puts "ruby=" + RUBY_VERSION'
else apt-cache policy ruby 2>/dev/null | sed -n 's/^ *Candidate: */ruby=/p'; fi
cat CODE/*/.sha256 2>/dev/null | tr -c '0-9a-f' '\n' | sed 's/^/gem=/'
echo
"""


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.kairoschain."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        _validation, args = self.validate_argument_spec(_kairoschain.ARGUMENTS)
        refuse_unknown_variables(self._task, self._vars)
        self._node = str(self._vars.get("inventory_hostname"))
        if args["state"] == "absent":
            return self._absent(args)
        spec = self._spec(args)
        here = self._probe(args)
        actions = self._packages(args, here)
        if not here["kosctl"]:
            return self._without_kosctl(args, actions)
        if args["gem_sha256"] not in here["gems"]:
            gem = self._find_gem(args)
            if not self._task.check_mode:
                spec["gem"] = self._bring(gem)
        check = " --check" if self._task.check_mode else ""
        answer = self.as_root(f"kairoschain apply{check}", json.dumps(spec).encode(), secret=True)
        if not answer.ok:
            return self._failure(args, answer)
        return self._result(args, answer, actions)

    def _spec(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        absent = [
            f"kairoschain_{name} is missing" for name in ("version", "gem", "gem_sha256") if not args[name]
        ]
        if absent:
            raise AnsibleActionFail("; ".join(absent))
        if bool(args["tls_certificate"]) != bool(args["tls_key"]):
            raise AnsibleActionFail(
                "kairoschain_tls_certificate and kairoschain_tls_key belong together: set both, or none"
            )
        spec = _kairoschain.spec(args)
        if args["tls_certificate"]:
            pem = [self._text(args, name) for name in ("tls_certificate", "tls_key")]
            spec["proxy"] = _kairoschain.proxy(args, *pem)
        if (anchor := self._anchor(args).read()) is not None:
            spec["anchor"] = anchor
        return spec

    def _text(self, args: Mapping[str, t.Any], name: str) -> str:
        path = Path(self._loader.path_dwim(args[name]))
        if not path.is_file():
            raise AnsibleActionFail(f"kairoschain_{name} names {path}, which is not there")
        return path.read_text(encoding="utf-8")

    def _anchor(self, args: Mapping[str, t.Any]) -> AnchorFile:
        return AnchorFile(args["anchor_dir"], self._node)

    def _probe(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        wanted = _kairoschain.packages(bool(args["tls_certificate"]))
        script = _PROBE.replace("PROGRAM", _kosctl.PROGRAM).replace("PACKAGES", " ".join(wanted))
        # The node checks the path itself; here it may not be more than one.
        script = script.replace("CODE", f"'{str(args['code_dir']).replace(chr(39), '')}'")
        done = self._low_level_execute_command(script, executable="/bin/sh")
        pairs = [line.partition("=")[::2] for line in done["stdout"].splitlines() if "=" in line]
        said = dict(pairs)
        if "uid" not in said:
            words = (done["stderr"] or done["stdout"]).strip() or "no words"
            raise AnsibleActionFail(f"{self._node} did not run the probe (exit code {done['rc']}): {words}")
        if said["uid"] != "0":
            raise AnsibleActionFail(f"{self._node}: a node is shaped by root; set become: true")
        if _kairoschain.too_old(said.get("ruby", "")):
            raise AnsibleActionFail(
                f"{self._node} has Ruby {said['ruby']}, and KairosChain needs 3.3 or later, as in Debian 13"
            )
        there = {value for name, value in pairs if name == "installed"}
        return {
            "kosctl": said.get("kosctl") == "yes",
            "missing": [name for name in wanted if name not in there],
            "gems": {value for name, value in pairs if name == "gem"},
        }

    def _packages(self, args: Mapping[str, t.Any], here: Mapping[str, t.Any]) -> list[str]:
        missing = here["missing"]
        if not missing:
            return []
        if not self._task.check_mode:
            done = self._execute_module(
                module_name="ansible.builtin.apt",
                module_args={"name": missing, "install_recommends": False, "update_cache": True},
                task_vars=self._vars,
            )
            if done.get("failed"):
                raise AnsibleActionFail(f"{', '.join(missing)} cannot be installed: {done.get('msg')}")
            if "nginx" in missing:
                # The distribution starts its own server on port 80, which nobody asked for.
                self._low_level_execute_command("systemctl disable --now nginx.service", executable="/bin/sh")
        return [f"install {', '.join(missing)}"]

    def _without_kosctl(self, args: Mapping[str, t.Any], actions: list[str]) -> dict[str, t.Any]:
        if not self._task.check_mode:
            raise AnsibleActionFail(f"{self._node} has no kosctl; run role kos.fleet.bootstrap first")
        install = f"install {_kairoschain.GEM} {args['version']}, once there is kosctl (role bootstrap)"
        return {"changed": True, "actions": [*actions, install]}

    def _find_gem(self, args: Mapping[str, t.Any]) -> Path:
        """Return the gem on the controller, its digest checked."""
        place, wanted = str(args["gem"]), str(args["gem_sha256"])
        if place.startswith(("http://", "https://")):
            return self._fetch(_kairoschain.gem_address(place, args["version"]), wanted)
        path = Path(self._loader.path_dwim(place))
        if not path.is_file():
            raise AnsibleActionFail(f"kairoschain_gem names {path}, which is not there")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != wanted:
            raise AnsibleActionFail(
                f"{path} has the digest {found}, and kairoschain_gem_sha256 says {wanted}; "
                "nothing was changed"
            )
        return path

    def _fetch(self, address: str, wanted: str) -> Path:
        path = CACHE / f"{wanted}.gem"
        if not path.is_file():
            try:
                data = open_url(address, timeout=60).read(MAX_GEM_BYTES + 1)
            except OSError as error:
                raise AnsibleActionFail(f"{address} did not give the gem: {error}") from None
            found = hashlib.sha256(data).hexdigest()
            if found != wanted:
                raise AnsibleActionFail(
                    f"{address} gave a gem of the digest {found}, and kairoschain_gem_sha256 says {wanted}; "
                    "nothing was changed"
                )
            _whole_file.write(path, data)
        return path

    def _bring(self, gem: Path) -> str:
        self._make_tmp_path()
        remote: str = self._connection._shell.join_path(self._connection._shell.tmpdir, "kairos-chain.gem")
        self._transfer_file(str(gem), remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return remote

    def _result(
        self, args: Mapping[str, t.Any], answer: _kosctl.Answer, actions: list[str]
    ) -> dict[str, t.Any]:
        told = answer.result
        if told.get("anchor") and not self._task.check_mode:
            self._anchor(args).write(told["anchor"])
        return {
            "changed": bool(answer.changed or actions),
            "actions": [*actions, *answer.actions],
            "diff": _kosctl.diff(answer),
            "version": told.get("version"),
            "previous": told.get("previous"),
            "ledger": told.get("head"),
            "anchor": told.get("anchor"),
            "upgrade": told.get("upgrade"),
        }

    def _failure(self, args: Mapping[str, t.Any], answer: _kosctl.Answer) -> dict[str, t.Any]:
        told = _kosctl.failure(answer)
        if told["key"] == "anchor":
            put_aside = self._anchor(args).put_aside("lost")
            told["msg"] += (
                f" If what is gone is given up, run on the controller, and then this again: {put_aside}"
            )
        return told

    def _absent(self, args: Mapping[str, t.Any]) -> dict[str, t.Any]:
        words = "kairoschain remove" + (" --purge" if args["purge"] else "")
        answer = self.as_root(words + (" --check" if self._task.check_mode else ""))
        if not answer.installed:
            return {"changed": False, "actions": []}
        if not answer.ok:
            return _kosctl.failure(answer)
        if args["purge"] and not self._task.check_mode:
            self._anchor(args).remove()
        return {"changed": answer.changed, "actions": answer.actions}
