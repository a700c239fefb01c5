"""Connection to a node that is a JSON file: enough of kosctl to run whole playbooks without a machine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: told
short_description: Nodes that are files
description: For tests alone.
options:
  told_dir:
    description: Folder with a file NODE.json for each node.
    env: [{name: KOS_TOLD_DIR}]
    required: true
"""

VERSIONS = ("1.0.0", "1.1.0")


class Connection(ConnectionBase):
    """A node file holds `current`, `lease`, and how the node behaves.

    That is `dead`, `dies`, `unhealthy`, `full`, or `silent`: it takes what is asked and never answers.
    """

    transport = "told"
    has_pipelining = True

    def _connect(self) -> Connection:
        return self

    def close(self) -> None:
        pass

    def reset(self) -> None:
        pass

    def put_file(self, in_path: str, out_path: str) -> None:
        raise AssertionError("nothing is transferred")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        raise AssertionError("nothing is transferred")

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        node = self._play_context.remote_addr
        folder = Path(self.get_option("told_dir"))
        path = folder / f"{node}.json"
        state = json.loads(path.read_text())
        request = json.loads(in_data or b"{}")
        with (folder / "log").open("a") as log:
            log.write(f"{node} {request['verb']} {json.dumps(request['options'], sort_keys=True)}\n")
        if state.get("dead"):
            raise AnsibleConnectionFailure(f"{node}: no route to host")
        if state.get("silent") == request["verb"]:
            time.sleep(600)
        answer = Node(state).answer(request["verb"], request["options"])
        path.write_text(json.dumps(state))
        return answer["exit"], json.dumps(answer).encode(), b""


class Node:
    """As much of a node as a playbook can see."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def answer(self, verb: str, options: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        error = getattr(self, f"_{verb}")(options, result)
        exit_code = 0 if error is None else 3
        return {
            **{
                "ok": error is None,
                "verb": verb,
                "exit": exit_code,
                "changed": error is None,
                "actions": [verb],
            },
            **{"result": result, "error": error and {"kind": "refused", "message": error, "key": None}},
            **{"status": self._shown()},
        }

    def _shown(self) -> dict[str, Any]:
        current, trial = self.state["current"], self.state.get("trial")
        previous = self.state.get("previous")
        shown = {"id": "t1", "baked": True, "health": "healthy", "bake_left_s": 0, "version": trial}
        return {
            **{"state": "TRIAL" if trial else "CONFIRMED", "trial": shown if trial else None},
            **{"previous": release(previous) if previous else None},
            **{"current": release(current), "last": self.state.get("last"), "lease": self.state.get("lease")},
        }

    def _status(self, _options: dict[str, Any], result: dict[str, Any]) -> None:
        result.update(self._shown())

    def _lease(self, options: dict[str, Any], result: dict[str, Any]) -> str | None:
        held = self.state.get("lease")
        if "take" in options:
            if held and held["id"] != options["take"]:
                return f"the node is leased to {held['holder']} (lease {held['id']})"
            self.state["lease"] = {"id": options["take"], "holder": options["holder"]}
        elif "release" in options:
            self.state["lease"] = None
        result["lease"] = self.state.get("lease")
        return None

    def _stage(self, options: dict[str, Any], result: dict[str, Any]) -> str | None:
        wanted = options.get("release") or VERSIONS[-1]
        wanted = self.state.get("previous", VERSIONS[0]) if wanted == "previous" else wanted
        if wanted < self.state["current"] and not options.get("allow_downgrade"):
            return f"{wanted} is older than {self.state['current']}; say allow_downgrade"
        if self.state.get("full") and wanted != self.state["current"]:
            return f"5 bytes of disk are missing for kos {wanted}"
        result.update(**release(wanted), how="patch", bytes={"total": 603})
        return None

    def _plan(self, options: dict[str, Any], result: dict[str, Any]) -> str | None:
        return self._stage(options, result)

    def _activate(self, options: dict[str, Any], result: dict[str, Any]) -> str | None:
        wanted = next(version for version in VERSIONS if release(version)["root"] == options["release"])
        if (self.state.get("lease") or {}).get("id") != options.get("lease"):
            return "leased to another"
        if wanted == self.state["current"]:
            result["how"] = "present"
            return None
        result.update(trial="t1", token="t0ken", deadline_in_s=1, version=wanted, downtime_s=0)
        if self.state.get("unhealthy"):
            self.state["last"] = {"trial": "t1", "outcome": "reverted-healthy", "reason": "health"}
        elif self.state.get("dies"):
            self.state["dead"] = True
        else:
            self.state.update(trial=wanted, previous=self.state["current"], current=wanted)
        return None

    def _confirm(self, options: dict[str, Any], result: dict[str, Any]) -> str | None:
        if options["token"] != "t0ken" or options.get("lease") != (self.state.get("lease") or {}).get("id"):
            return "wrong token or lease"
        self.state["trial"] = None
        result.update(outcome="confirmed", trial="t1")
        return None

    def _evidence(self, options: dict[str, Any], result: dict[str, Any]) -> None:
        result["files"] = {"health.json": json.dumps(options)}

    def _health(self, _options: dict[str, Any], result: dict[str, Any]) -> None:
        result["healthy"] = True

    def _doctor(self, _options: dict[str, Any], result: dict[str, Any]) -> None:
        result["findings"] = []


def release(version: str) -> dict[str, Any]:
    return {"name": "kos", "version": version, "root": version.replace(".", "") * 20}
