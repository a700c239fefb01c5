"""What root wrote down of a host's drills, /etc/kos/drill.json, and how it completes what an operator asks.

The operator account names a node and brings the recovery key. Addresses, public keys, paths and commands come
from that file alone (docs/decisions/0012).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import files, schema
from ..errors import InputError, RefusedError
from . import request
from .request import Request

# What the operator's gate lets through, with a pattern for each (`operate.py`).
OPTIONS = (
    *("node", "repository", "recovery_key", "environment", "seed", "sources", "time", "picked", "among"),
    *("lines", "previous"),
)
_OF_HOST = ("scratch", "production")
_OF_NODE = ("node_keys", "witness", "table", "interval_s", "reserve_bytes", "backend_timeout_s")


def complete(options: Mapping[str, Any], path: Path) -> Request:
    """Return the request of which an operator told a part.

    Args:
        options: values by name, each of OPTIONS, None where it was not given.
        path: the file that root wrote.

    Raises:
        RefusedError: the file names no such node, or no such repository of it.
        InputError: the file is no such file; or a rule of requests is broken.
    """
    host = _load(path, options["node"])
    node = host["nodes"].get(options["node"])
    if node is None:
        raise RefusedError(f"{path} does not name {options['node']}, so it is not drilled here", key="node")
    witness = node.get("witness")
    if options["lines"] is not None:
        if witness is not None:
            raise RefusedError(f"lines: {path} says where the witness of {options['node']} is", key="lines")
        witness = {"lines": options["lines"]}
    hosts = None
    if options["picked"] is not None:
        hosts = {"picked": options["picked"], "of": options["among"] or options["picked"]}
    whole = {
        "format": 1,
        **{name: options[name] for name in ("node", "recovery_key", "seed", "sources", "time", "previous")},
        **{name: host.get(name) for name in _OF_HOST},
        **{name: node.get(name) for name in _OF_NODE},
        "repository": _repository(options, node["repositories"], path),
        "witness": witness,
        "hosts": hosts,
    }
    return request.read({name: value for name, value in whole.items() if value is not None})


def _load(path: Path, node: str) -> Mapping[str, Any]:
    try:
        document = files.read_json(path)
    except FileNotFoundError:
        raise RefusedError(
            f"{path} is not there, so {node} is not drilled here; role backup writes it", key="node"
        ) from None
    schema.check(document, "drill-host", where=str(path))
    found: Mapping[str, Any] = document
    return found


def _repository(options: Mapping[str, Any], known: Mapping[str, Any], path: Path) -> dict[str, Any]:
    name = options["repository"]
    if name not in known:
        raise RefusedError(
            f"{path} names no repository {name} of {options['node']}; there is {', '.join(known)}",
            key="repository",
        )
    found = {"name": name, "url": known[name]["url"]}
    if "ca" in known[name]:
        try:
            found["ca"] = Path(known[name]["ca"]).read_text("ascii")
        except (OSError, UnicodeDecodeError):
            raise InputError(
                f"{path}: nodes.{options['node']}.repositories.{name}.ca: cannot be read here", key="ca"
            ) from None
    if options["environment"] is not None:
        found["environment"] = options["environment"]
    return found
