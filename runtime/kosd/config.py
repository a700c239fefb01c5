"""The daemon's configuration: one JSON file, checked against a schema, and the old kept when it is wrong."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kosd import documents, files

SCHEMA = "config.schema.json"
DEFAULT_PATH = Path("/etc/kos/kosd.json")
# What only a new process can take over.
AT_START_ONLY = ("listen_host", "listen_port", "current", "node_units", "events_kept")


@dataclass(frozen=True)
class Config:
    """One checked configuration; times in seconds. The keys' meaning is in config.schema.json."""

    node: str
    zone: str | None
    listen_host: str
    listen_port: int
    log_level: str
    every_s: float
    timeout_s: float
    stale_after_s: float
    start_grace_s: float
    flapping_restarts: int
    flapping_window_s: float
    events_kept: int
    current: Path
    node_units: Path

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Config:
        """Makes a configuration from a document; raises DocumentError when the schema forbids it."""
        checked = documents.check(document, SCHEMA)
        full = documents.with_defaults(checked, documents.schema(SCHEMA))
        observe = full["observe"]
        if observe["stale_after_s"] <= observe["every_s"]:
            raise documents.DocumentError(
                "observe.stale_after_s: must be larger than observe.every_s, else every sample is stale; "
                f"it is {observe['stale_after_s']}"
            )
        known = _identity(Path(full["paths"]["node"]))
        return cls(
            node=full["node"]["name"] or known.get("node") or socket.gethostname(),
            zone=full["node"]["zone"] or known.get("zone"),
            listen_host=full["listen"]["host"],
            listen_port=full["listen"]["port"],
            log_level=full["log"]["level"],
            every_s=observe["every_s"],
            timeout_s=observe["timeout_s"],
            stale_after_s=observe["stale_after_s"],
            start_grace_s=observe["start_grace_s"],
            flapping_restarts=full["flapping"]["restarts"],
            flapping_window_s=full["flapping"]["window_s"],
            events_kept=full["events"]["keep"],
            current=Path(full["paths"]["current"]),
            node_units=Path(full["paths"]["node_units"]),
        )


@dataclass(frozen=True)
class Loaded:
    """The configuration in force, and what is wrong with the file if it is an older one."""

    config: Config
    problem: str | None = None
    waits_for_start: tuple[str, ...] = ()


def load(path: Path, last_good: Path) -> Loaded:
    """Reads the configuration for a start.

    A file that is not there means defaults. A wrong one is answered with the last good copy, so that a slip
    in an editor does not end the daemon at the next boot; without such a copy DocumentError is raised.
    """
    try:
        document = _read(path)
        config = Config.from_document(document)
    except documents.DocumentError as error:
        problem = _name_file(error, path)
        try:
            return Loaded(Config.from_document(documents.read(last_good, SCHEMA)), problem)
        except documents.DocumentError:
            raise documents.DocumentError(problem) from None
    _remember(document, last_good)
    return Loaded(config)


def reload(path: Path, last_good: Path, now: Config) -> Loaded:
    """Reads the configuration anew; what is in force stays so when the file is wrong."""
    try:
        document = _read(path)
        config = Config.from_document(document)
    except documents.DocumentError as error:
        return Loaded(now, _name_file(error, path))
    _remember(document, last_good)
    waiting = tuple(name for name in AT_START_ONLY if getattr(config, name) != getattr(now, name))
    return Loaded(replace(config, **{name: getattr(now, name) for name in waiting}), None, waiting)


def _identity(path: Path) -> dict[str, Any]:
    """Reads the node's name and zone, a courtesy to readers that the daemon can do without."""
    try:
        return documents.read(path, "node.schema.json")
    except documents.DocumentError:
        return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return documents.read(path, SCHEMA)
    except documents.DocumentMissingError:
        return {}


def _name_file(error: documents.DocumentError, path: Path) -> str:
    text = str(error)
    return text if text.startswith(str(path)) else f"{path}: {text}"


def _remember(document: dict[str, Any], last_good: Path) -> None:
    text = json.dumps(document, sort_keys=True) + "\n"
    try:
        if not last_good.exists() or last_good.read_text("utf-8") != text:
            files.replace(last_good, text)
    except OSError:
        # The state check of /health reports a directory that cannot be written.
        return
