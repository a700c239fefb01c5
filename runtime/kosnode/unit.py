"""A kOS Container Unit (kCU): what a unit says of itself, checked against the published schema and typed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import schema
from .schema import join, refuse

FORMATS = ("native", "oci", "wasm", "lxc", "appimage")
DEFAULT_USER = "kos"
DEFAULT_CHECK_TIMEOUT_S = 5
DEFAULT_START_TIMEOUT_S = 60
# The engine has a `kos-NAME.service` of these, or means something else by them.
RESERVED_IDS = re.compile(r"boot|deadman|fallback|recover|release|watch|migrate(-.*)?")
# An operator's account may ask for a patch; a unit that runs as it could, too.
RESERVED_USERS = frozenset({"root", "kosops"})

_UNSUPPORTED = ("locality", "hooks", "fallback", "secrets", "permissions")
_UNSUPPORTED_ON_NODES = ("affinity", *_UNSUPPORTED)
_TAKEN_ENV = re.compile(
    r"KOS_.*|LISTEN_.*|WATCHDOG_.*|NOTIFY_SOCKET|STATE_DIRECTORY|CREDENTIALS_DIRECTORY|INVOCATION_ID|MAINPID"
)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class HttpCheck:
    """A GET that has to be answered with one of the statuses, and by JSON that says what is asserted."""

    url: str
    status: tuple[int, ...] = (200,)
    json: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    timeout_s: int = DEFAULT_CHECK_TIMEOUT_S

    @property
    def label(self) -> str:
        return f"http {self.url}"

    def as_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"url": self.url, "status": list(self.status)}
        if self.json:
            body["json"] = {pointer: list(allowed) for pointer, allowed in self.json}
        return {"http": body, "timeout": f"{self.timeout_s}s"}


@dataclass(frozen=True)
class TcpCheck:
    """A port that has to accept a connection."""

    port: int
    host: str = "127.0.0.1"
    timeout_s: int = DEFAULT_CHECK_TIMEOUT_S

    @property
    def label(self) -> str:
        return f"tcp {self.host}:{self.port}"

    def as_json(self) -> dict[str, Any]:
        return {"tcp": {"host": self.host, "port": self.port}, "timeout": f"{self.timeout_s}s"}


@dataclass(frozen=True)
class CommandCheck:
    """A program that has to end with 0."""

    argv: tuple[str, ...]
    timeout_s: int = DEFAULT_CHECK_TIMEOUT_S

    @property
    def label(self) -> str:
        return f"command {self.argv[0].rsplit('/', 1)[-1]}"

    def as_json(self) -> dict[str, Any]:
        return {"command": list(self.argv), "timeout": f"{self.timeout_s}s"}


@dataclass(frozen=True)
class FileAgeCheck:
    """A file that has to be young enough."""

    path: str
    max_s: int
    timeout_s: int = DEFAULT_CHECK_TIMEOUT_S

    @property
    def label(self) -> str:
        return f"file_age {self.path}"

    def as_json(self) -> dict[str, Any]:
        return {"file_age": {"path": self.path, "max": f"{self.max_s}s"}, "timeout": f"{self.timeout_s}s"}


Check = HttpCheck | TcpCheck | CommandCheck | FileAgeCheck


@dataclass(frozen=True)
class Entry:
    """What runs, as whom, and how systemd knows that it has started; times in seconds."""

    command: tuple[str, ...]
    type: str = "simple"
    every_s: int | None = None
    watchdog_s: int | None = None
    timeout_s: int = DEFAULT_START_TIMEOUT_S
    user: str = DEFAULT_USER
    env: tuple[tuple[str, str], ...] = ()
    reload: bool = False


@dataclass(frozen=True)
class Resources:
    """Limits of a unit: bytes, processes and threads, per cent of one processor; None is no limit."""

    max_memory: int | None = None
    max_tasks: int | None = None
    max_cpu: int | None = None
    min_memory: int | None = None


@dataclass(frozen=True)
class Ingress:
    """A port that the unit listens on, and who may connect (`any`, `localhost` or networks)."""

    port: int
    proto: str = "tcp"
    sources: tuple[str, ...] = ("any",)


@dataclass(frozen=True)
class Egress:
    """What the unit may connect to (`any`, `localhost` or a network); port None is every port."""

    host: str
    port: int | None = None
    proto: str = "tcp"


@dataclass(frozen=True)
class Affinity:
    """Where replicas go: spread over `zone` or `node`, or one on every machine."""

    spread: str | None = None
    every_node: bool = False


@dataclass(frozen=True)
class Unit:
    """One checked unit.

    Args:
        entry: its command is empty where an image says what runs.
        max_replicas: how many of it a cluster may run; None is any number.
        state_bytes: room that its state needs; None where nothing is said.
    """

    id: str
    version: str
    tier: int
    entry: Entry
    trust: str = "provisional"
    format: str = "native"
    image: str | None = None
    description: str = ""
    files: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    health: tuple[Check, ...] = ()
    ingress: tuple[Ingress, ...] = ()
    egress: tuple[Egress, ...] = ()
    affinity: Affinity = field(default_factory=Affinity)
    max_replicas: int | None = None
    migrated: bool = False
    state_bytes: int | None = None

    @property
    def service(self) -> str:
        return f"kos-{self.id}.service"

    @property
    def timer(self) -> str | None:
        return None if self.entry.every_s is None else f"kos-{self.id}.timer"

    def with_resources(self, override: Mapping[str, Any], where: str) -> Unit:
        """Return the unit with a node's own `resources`, checked the same way; what is left out stays."""
        key = f"units.{self.id}.resources"
        schema.check(dict(override), "unit", where=where, definition="resources", key=key)
        asked = {
            name: value for name, value in vars(_resources(override, where, key)).items() if value is not None
        }
        resources = replace(self.resources, **asked)
        _check_resources(resources, where, key)
        return replace(self, resources=resources)


def load(path: Path) -> Unit:
    """Read and check a unit that a person wrote (YAML, TOML or JSON, by suffix).

    Raises:
        InputError: names the file, the key and the rule.
    """
    from . import authored  # needs PyYAML, which only a controller has

    return validate(authored.load(path), str(path))


def validate(document: Mapping[str, Any], where: str) -> Unit:
    """Check a unit that nodes are to run, and return it typed; arguments and errors as `parse`."""
    return _typed(document, where, ("native",), _UNSUPPORTED_ON_NODES)


def parse(document: Mapping[str, Any], where: str) -> Unit:
    """Check a unit that nodes or Kubernetes can run, and return it typed.

    Args:
        document: what unit.yml or unit.json holds.
        where: how the document is called in messages, mostly its path.

    Raises:
        InputError: names the key and the rule: the schema's, or that this version does not support it yet.
    """
    return _typed(document, where, ("native", "oci"), _UNSUPPORTED)


def _typed(
    document: Mapping[str, Any], where: str, formats: Sequence[str], unsupported: Sequence[str]
) -> Unit:
    kind = document.get("format", "native")
    if kind in FORMATS and kind not in formats:
        known = " and ".join(formats)
        refuse(
            where,
            "format",
            f"format {kind} is not supported by this version; {known} {'is' if len(formats) == 1 else 'are'}",
        )
    schema.check(dict(document), "unit", where=where)
    for key in unsupported:
        if document.get(key):
            refuse(where, key, f"{key} {'are' if key.endswith('s') else 'is'} not supported yet")
    if RESERVED_IDS.fullmatch(document["id"]):
        refuse(where, "id", f"{document['id']} is a name that the engine uses itself")
    files = tuple(document.get("files", ()))
    for index, path in enumerate(files):
        _check_relative(path, where, f"files[{index}]")
    resources = _resources(document.get("resources", {}), where, "resources")
    _check_resources(resources, where, "resources")
    network, state, affinity = (document.get(key, {}) for key in ("network", "state", "affinity"))
    state_bytes = memory_bytes(state["size"]) if "size" in state else None
    return Unit(
        id=document["id"],
        version=document["version"],
        tier=document["tier"],
        trust=document.get("trust", "provisional"),
        format=kind,
        image=document.get("image"),
        description=document.get("description", ""),
        entry=_entry(document["entry"], where, kind),
        files=files,
        resources=resources,
        health=_checks(document.get("health", ()), where, "health"),
        ingress=_ingress(network.get("ingress", ()), where),
        egress=tuple(
            Egress(
                _network(item["host"], where, f"network.egress[{index}].host"),
                item.get("port"),
                item.get("proto", "tcp"),
            )
            for index, item in enumerate(network.get("egress", ()))
        ),
        affinity=Affinity(affinity.get("spread"), affinity.get("every_node", False)),
        max_replicas=document.get("max_replicas", None if state_bytes is None else 1),
        migrated=state.get("migrated", False),
        state_bytes=state_bytes,
    )


def validate_checks(document: Sequence[Any], where: str, key: str = "health") -> tuple[Check, ...]:
    """Check a list of health checks that stands on its own, such as a release's.

    Args:
        document: the list.
        where: how the document around it is called in messages.
        key: where the list stands in it.

    Raises:
        InputError: names the key and the rule.
    """
    schema.check(list(document), "unit", where=where, definition="checks", key=key)
    return _checks(document, where, key)


def seconds(text: str) -> int:
    """Return the seconds of a checked duration such as `5m`."""
    return int(text[:-1]) * _SECONDS[text[-1]]


def memory_bytes(text: str) -> int:
    """Return the bytes of a checked amount such as `128M`."""
    return int(text[:-1]) * _BYTES[text[-1]]


def _entry(document: Mapping[str, Any], where: str, kind: str) -> Entry:
    command = tuple(document.get("command", ()))
    if kind == "oci" and command and not command[0].startswith("/"):
        refuse(where, "entry.command[0]", f"must be an absolute path in the image; it is {command[0]!r}")
    entry = Entry(
        command=_argv(command, where, "entry.command") if command else (),
        type=document.get("type", "simple"),
        every_s=_optional_seconds(document, "every"),
        watchdog_s=_optional_seconds(document, "watchdog"),
        timeout_s=seconds(document.get("timeout", f"{DEFAULT_START_TIMEOUT_S}s")),
        user=document.get("user", DEFAULT_USER),
        env=tuple(sorted(document.get("env", {}).items())),
        reload="reload" in document,
    )
    if entry.every_s is not None and entry.type != "oneshot":
        refuse(where, "entry.every", f"only a unit of type oneshot is periodic; it is {entry.type}")
    if entry.watchdog_s is not None and entry.type != "notify":
        refuse(where, "entry.watchdog", f"only a unit of type notify feeds a watchdog; it is {entry.type}")
    if entry.reload and entry.type == "oneshot":
        refuse(where, "entry.reload", "a unit of type oneshot has nothing to reload")
    if entry.user in RESERVED_USERS:
        refuse(where, "entry.user", f"{entry.user} is not allowed; a unit runs as an account without rights")
    for name, _ in entry.env:
        if _TAKEN_ENV.fullmatch(name):
            refuse(where, f"entry.env.{name}", "the name belongs to systemd or to the engine")
    return entry


def _argv(words: Sequence[str], where: str, key: str) -> tuple[str, ...]:
    if not words[0].startswith("/"):
        _check_relative(words[0], where, f"{key}[0]")
    return tuple(words)


def _check_relative(path: str, where: str, key: str) -> None:
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        refuse(where, key, f"must be a relative path without empty, . or .. parts; it is {path!r}")


def _resources(document: Mapping[str, Any], where: str, key: str) -> Resources:
    most, least = document.get("max", {}), document.get("min", {})
    if "cpu" in least:
        refuse(where, join(key, "min.cpu"), "a least share of the processor is not supported yet")
    return Resources(
        max_memory=memory_bytes(most["memory"]) if "memory" in most else None,
        max_tasks=most.get("tasks"),
        max_cpu=int(most["cpu"][:-1]) if "cpu" in most else None,
        min_memory=memory_bytes(least["memory"]) if "memory" in least else None,
    )


def _check_resources(resources: Resources, where: str, key: str) -> None:
    most, least = resources.max_memory, resources.min_memory
    if most is not None and least is not None and least > most:
        refuse(where, join(key, "min.memory"), f"{least} bytes are more than max.memory, which is {most}")


def _ingress(items: Sequence[Mapping[str, Any]], where: str) -> tuple[Ingress, ...]:
    found: list[Ingress] = []
    for index, item in enumerate(items):
        key = f"network.ingress[{index}]"
        sources = tuple(
            _network(text, where, f"{key}.from[{number}]")
            for number, text in enumerate(item.get("from", ("any",)))
        )
        one = Ingress(item["port"], item.get("proto", "tcp"), sources)
        if any((one.port, one.proto) == (other.port, other.proto) for other in found):
            refuse(where, f"{key}.port", f"{one.proto} port {one.port} is listed twice")
        found.append(one)
    return tuple(found)


def _network(text: str, where: str, key: str) -> str:
    if text in ("any", "localhost"):
        return text
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        refuse(where, key, f"is no IP address or network: {error}")


def _checks(items: Sequence[Mapping[str, Any]], where: str, key: str) -> tuple[Check, ...]:
    checks = [_check(item, where, f"{key}[{index}]") for index, item in enumerate(items)]
    return tuple(check for check in checks if check is not None)


def _check(item: Mapping[str, Any], where: str, key: str) -> Check | None:
    kinds = sorted(set(item) - {"timeout"})
    if len(kinds) != 1:
        named = " and ".join(kinds) or "none"
        refuse(where, key, f"must have exactly one of command, file_age, http, tcp, unit; it has {named}")
    timeout_s = seconds(item["timeout"]) if "timeout" in item else DEFAULT_CHECK_TIMEOUT_S
    body = item[kinds[0]]
    if kinds[0] == "http":
        _check_url(body["url"], where, f"{key}.http.url")
        status = body.get("status", 200)
        return HttpCheck(
            url=body["url"],
            status=tuple(status) if isinstance(status, list) else (status,),
            json=tuple(
                (pointer, tuple(value) if isinstance(value, list) else (value,))
                for pointer, value in sorted(body.get("json", {}).items())
            ),
            timeout_s=timeout_s,
        )
    if kinds[0] == "tcp":
        return TcpCheck(port=body["port"], host=body.get("host", "127.0.0.1"), timeout_s=timeout_s)
    if kinds[0] == "command":
        return CommandCheck(argv=_argv(body, where, f"{key}.command"), timeout_s=timeout_s)
    if kinds[0] == "file_age":
        path = body["path"]
        _check_relative(path.removeprefix("/"), where, f"{key}.file_age.path")
        return FileAgeCheck(path=path, max_s=seconds(body["max"]), timeout_s=timeout_s)
    # That the unit is active is checked for every unit, said or not.
    return None


def _check_url(url: str, where: str, key: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        refuse(where, key, f"is no address: {error}")
    if not host:
        refuse(where, key, "names no host")
    if parts.username is not None or parts.password is not None:
        refuse(where, key, "must not hold a user or a password")


def _optional_seconds(document: Mapping[str, Any], key: str) -> int | None:
    return seconds(document[key]) if key in document else None
