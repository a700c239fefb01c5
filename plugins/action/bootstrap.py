# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action that makes a host a node: one probe, the bundle only where it is missing, one transaction."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.module_utils._bootstrap import ARGUMENTS
from ansible_collections.kos.fleet.plugins.plugin_utils import _bundle, _host, _rollout
from ansible_collections.kos.fleet.plugins.plugin_utils._node import NodeAction, refuse_unknown_variables

CACHE = Path("build/bundles")
# Where the node keeps what section mirror_ca of its specification holds.
MIRROR_CA = "/etc/kos/trust/mirror-ca.pem"


class ActionModule(NodeAction):
    """See the documentation of module kos.fleet.bootstrap."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        refuse_unknown_variables(self._task, self._vars)
        self._node = str(args["node"] or self._vars.get("inventory_hostname"))
        if args["state"] == "absent":
            return self._remove()
        spec = self._spec(args)
        bundle = self._find_bundle(args)
        spec["engine"] = bundle.version
        probe = self._probe(bundle.version)
        missing = probe.missing()
        if missing:
            raise AnsibleActionFail(_host.lacks(self._node, missing))
        if probe.has_engine(bundle.sha256):
            program = f"/opt/kos/{bundle.version}/bin/kosctl"
            result = self.host("apply", json.dumps(spec).encode(), program=program)
        else:
            result = self._with_bundle(bundle, spec)
        return {**result, "arch": probe.arch}

    def _spec(self, args: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        absent = [name for name in ("fleet", "trust_root") if not args[name]]
        if absent:
            raise AnsibleActionFail("; ".join(f"bootstrap_{name} is missing" for name in absent))
        if not args["mirrors"]:
            raise AnsibleActionFail(
                "bootstrap_mirrors is empty: a node needs at least one address to fetch from"
            )
        authorities = self._mirror_ca(args["mirror_ca"] or "")
        node = {
            "format": 1,
            "node": self._node,
            "fleet": args["fleet"],
            "zone": args["zone"] or self._zone(),
            "class": args["node_class"],
            "release": args["release_name"],
            "channel": args["channel"],
            "mirrors": list(args["mirrors"]),
            "mirror_ca": MIRROR_CA if authorities else None,
            "policy": dict(args["policy"]),
            "governance_id": args["governance_id"] or None,
            "tribe": args["tribe"] or None,
            "units": dict(args["unit_settings"]),
        }
        spec: dict[str, t.Any] = {
            "format": 1,
            "node": {key: value for key, value in node.items() if value is not None},
            "trust_root": self._trust_root(args["trust_root"]),
            "replace_trust_root": args["replace_trust_root"],
            "mirror_ca": authorities,
            "operator": {"keys": list(args["operator_keys"])},
            "accounts": list(args["service_accounts"]),
        }
        if args["conf"] is not None:
            spec["conf"] = dict(args["conf"])
        return spec

    def _zone(self) -> str:
        groups = dict((self._vars.get("groups") or {}).items())
        try:
            return next(iter(_rollout.zones(groups, [self._node])))
        except _rollout.PlanError as error:
            raise AnsibleActionFail(str(error)) from None

    def _trust_root(self, wish: t.Any) -> str:
        if isinstance(wish, t.Mapping):
            return json.dumps(wish)
        text = str(wish).strip()
        if text.startswith("{"):
            return str(wish)
        return self._read(
            "trust_root", text, "it is the root of trust that kos.fleet.publish made (root.json)"
        )

    def _mirror_ca(self, wish: str) -> str:
        if not wish.strip() or "-----BEGIN " in wish:
            return wish.strip()
        text = self._read("mirror_ca", wish, "it is a PEM file of the authorities that certify https mirrors")
        if not text.strip():
            raise AnsibleActionFail(f"bootstrap_mirror_ca names {wish}, which is empty")
        return text

    def _read(self, name: str, wish: str, what: str) -> str:
        """Return the text of a file on the controller that a variable names."""
        path = Path(self._loader.path_dwim(wish))
        if not path.is_file():
            raise AnsibleActionFail(f"bootstrap_{name} names {path}, which is not there: {what}")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise AnsibleActionFail(f"bootstrap_{name} names {path}, which is not text: {what}") from None

    def _find_bundle(self, args: t.Mapping[str, t.Any]) -> _bundle.Bundle:
        try:
            if args["bundle"]:
                return _bundle.named(args["bundle"], args["bundle_sha256"], CACHE)
            return _bundle.of_collection(Path(__file__).resolve().parents[2] / "roles/bootstrap/files")
        except _bundle.BundleError as error:
            raise AnsibleActionFail(str(error)) from None

    def _probe(self, version: str) -> _host.Probe:
        done = self._low_level_execute_command(_host.script(version), executable="/bin/sh")
        probe = _host.read(done["stdout"])
        if not probe.facts.get("uid"):
            words = (done["stderr"] or done["stdout"]).strip() or "no words"
            raise AnsibleActionFail(f"{self._node} did not run the probe (exit code {done['rc']}): {words}")
        if not probe.root:
            raise AnsibleActionFail(
                f"{self._node}: bootstrap shapes the host and needs root; set become: true"
            )
        return probe

    def _with_bundle(self, bundle: _bundle.Bundle, spec: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, bundle.path.name)
        self._transfer_file(str(bundle.path), remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return self._execute_module(
            module_name="kos.fleet.bootstrap",
            module_args={
                "prepared": {
                    "archive": remote,
                    "sha256": bundle.sha256,
                    "version": bundle.version,
                    "spec": json.dumps(spec),
                }
            },
            task_vars=self._vars,
        )

    def _remove(self) -> dict[str, t.Any]:
        probe = self._probe("none")
        if not probe.bootstrapped:
            return {"changed": False, "actions": []}
        return self.host("remove --purge", None)
