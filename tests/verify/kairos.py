"""Talks to a KairosChain node over HTTPS and to its files, for the tests that look at it."""

from __future__ import annotations

import contextlib
import json
import shlex
from typing import Any

from testinfra.host import Host

DATA = "/var/lib/kairos/data"
SERVICE = "kairos-chain.service"
VERIFY: dict[str, Any] = {"name": "chain_verify", "arguments": {}}


def call(
    node: Host, params: dict[str, Any], token: str = "$(cat /etc/kairos/admin.token)"
) -> tuple[str, str]:
    """Call a tool over HTTPS; return the status and the text of the answer."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    bearer = f'--header "Authorization: Bearer {token}"' if token else ""
    said = node.check_output(
        f"curl --silent --cacert /etc/kairos/proxy/tls.crt {bearer} --write-out '\\n%{{http_code}}' "
        f"--data {shlex.quote(body)} https://node1/mcp"
    )
    text, _, status = said.rpartition("\n")
    with contextlib.suppress(ValueError, KeyError):
        text = json.loads(text)["result"]["content"][0]["text"]
    return status, text


def record(node: Host, *logs: str) -> str:
    """Append a block."""
    return call(node, {"name": "chain_record", "arguments": {"logs": list(logs)}})[1]


def ledger(node: Host, data: str = DATA) -> dict[str, Any]:
    """Return the verdict on the ledger."""
    said = node.run(f"/opt/kos/current/bin/kosctl ledger verify {data}/storage/blockchain.json --json").stdout
    found: dict[str, Any] = json.loads(said)["result"]
    return found


def invocation(node: Host) -> str:
    """Return what systemd calls the present run of the server: another after a restart."""
    return str(node.check_output(f"systemctl show --property InvocationID --value {SERVICE}"))
