"""The configuration of a node: node.json and the layers around it, merged, checked and typed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import files, schema
from .errors import InputError
from .paths import NodePaths
from .schema import refuse, suggestion

MAX_BYTES = 1024 * 1024
# Reported as unset where they have no value (S16).
OPTIONAL = ("zone", "class", "governance_id", "tribe", "secrets")

_ORDER = {"system": 0, "organisation": 1, "node.json": 2, "node": 3, "unit": 4}
_FILE_NAME = re.compile(r"[0-9]{2}-[a-z0-9][a-z0-9-]{0,62}\.json")


@dataclass(frozen=True)
class Policy:
    """How careful a node is; what the numbers mean stands in node.schema.json."""

    deadline_s: int = 180
    bake_s: int = 20
    health_interval_s: int = 2
    health_failures: int = 3
    settle_s: int = 20
    patches: bool = True
    keep: int = 1
    reserve_bytes: int = 64 * 1024 * 1024
    mirror_timeout_s: int = 10
    mirror_total_s: int = 600


@dataclass(frozen=True)
class Config:
    """The merged configuration.

    Args:
        node_class: one of the thirteen classes; `class` in node.json.
        units: `config` and `resources` of units, by name.
        sources: which file each dotted key got its value from.
        locks: which file locked a dotted key.
    """

    node: str
    fleet: str
    release: str
    channel: str
    mirrors: tuple[str, ...]
    mirror_ca: str | None = None
    zone: str | None = None
    node_class: str | None = None
    policy: Policy = field(default_factory=Policy)
    governance_id: str | None = None
    tribe: str | None = None
    units: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    locks: Mapping[str, str] = field(default_factory=dict)

    @property
    def unset(self) -> tuple[str, ...]:
        """The optional keys that have no value (S16)."""
        values = self.effective()
        return tuple(name for name in OPTIONAL if values[name] is None)

    def authorities(self, paths: NodePaths) -> Path | None:
        """Return the file with the authorities of https mirrors; None for those of the system.

        Args:
            paths: of the node, whose root `mirror_ca` is below.
        """
        return None if self.mirror_ca is None else paths.root / self.mirror_ca.lstrip("/")

    def effective(self) -> dict[str, Any]:
        """Return the whole configuration in the form of node.json, defaults included."""
        return {
            "format": 1,
            "node": self.node,
            "fleet": self.fleet,
            "zone": self.zone,
            "class": self.node_class,
            "release": self.release,
            "channel": self.channel,
            "mirrors": list(self.mirrors),
            "mirror_ca": self.mirror_ca,
            "policy": asdict(self.policy),
            "governance_id": self.governance_id,
            "tribe": self.tribe,
            "secrets": None,
            "units": {name: dict(unit) for name, unit in self.units.items()},
        }


@dataclass(frozen=True)
class Layer:
    """One file of configuration."""

    where: str
    layer: str
    values: Mapping[str, Any]
    locked: tuple[str, ...] = ()


def load(paths: NodePaths) -> Config:
    """Read and merge the configuration of a node.

    Raises:
        InputError: names file, key and rule: no node.json, an unknown key, a value out of range, a locked key
            that a later layer sets otherwise, a deadline that leaves no time to bake.
    """
    document = _read(paths.node_json)
    layers = [parse_layer(_read(path), str(path)) for path in _layer_files(paths.conf_d)]
    return merge(document, layers, where=str(paths.node_json))


def parse_layer(document: object, where: str) -> Layer:
    """Check one file of conf.d.

    Args:
        document: what it holds.
        where: its path, for messages.

    Raises:
        InputError: names file, key and rule.
    """
    schema.check(document, "conf", where=where)
    assert isinstance(document, dict), "the schema asks for a mapping"
    values = document.get("values", {})
    schema.check_partial(values, "node", where=where, key="values")
    if "format" in values:
        refuse(where, "values.format", "belongs into node.json")
    if document["layer"] == "unit":
        for key in values:
            if key != "units":
                refuse(where, f"values.{key}", "a file of layer unit may set units only")
    for index, key in enumerate(document.get("locked", ())):
        _check_lockable(key, where, f"locked[{index}]")
    return Layer(where, document["layer"], values, tuple(document.get("locked", ())))


def merge(document: object, layers: list[Layer], *, where: str = "node.json") -> Config:
    """Merge the layers around a node.json, and check the result.

    Args:
        document: what node.json holds.
        layers: the files of conf.d in the order of their names.
        where: path of node.json, for messages.

    Raises:
        InputError: as `load`.
    """
    schema.check_partial(document, "node", where=where)
    assert isinstance(document, dict), "the schema asks for a mapping"
    own = Layer(where, "node.json", document)
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    locks: dict[str, str] = {}
    for layer in sorted([own, *layers], key=lambda each: _ORDER[each.layer]):
        for key, value in _leaves(layer.values):
            _check_unlocked(key, value, merged, locks, layer.where)
        _merge_into(merged, layer.values)
        sources.update({key: layer.where for key, _ in _leaves(layer.values)})
        for key in layer.locked:
            locks.setdefault(key, layer.where)
    schema.check(merged, "node", where=where)
    return _typed(merged, sources, locks, where)


def check_trial_times(policy: Policy, where: str, key: str) -> None:
    """Refuse a deadline that leaves a healthy release no time to bake and be confirmed.

    Args:
        policy: with times in seconds; of the node, or with what an operator asked for put in.
        where: how the source is called in messages.
        key: the key that the message names.

    Raises:
        InputError: names the sum that the deadline has to be longer than.
    """
    needed = policy.bake_s + policy.settle_s + policy.health_failures * policy.health_interval_s
    if policy.deadline_s <= needed:
        refuse(
            where,
            key,
            f"must be longer than bake_s ({policy.bake_s}) + settle_s ({policy.settle_s}) + health_failures"
            f" * health_interval_s ({policy.health_failures} * {policy.health_interval_s}),"
            f" which is {needed} seconds; it is {policy.deadline_s}",
        )


def _read(path: Path) -> Any:
    try:
        return files.read_json(path, limit=MAX_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; bootstrap writes it") from None
    except OSError as error:
        # A trial is ended also where the disk does not give its configuration.
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _layer_files(conf_d: Path) -> list[Path]:
    if not conf_d.is_dir():
        return []
    found = sorted(path for path in conf_d.iterdir() if not path.name.startswith("."))
    for path in found:
        if not _FILE_NAME.fullmatch(path.name):
            raise InputError(f"{path}: the name must be NN-name.json, such as 10-site.json")
    return found


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give each value that is no mapping (or is an empty one) with its dotted key."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _merge_into(merged: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            known = merged.get(name)
            merged[name] = dict(known) if isinstance(known, dict) else {}
            _merge_into(merged[name], value)
        else:
            merged[name] = value


def _check_unlocked(
    key: str, value: Any, merged: Mapping[str, Any], locks: Mapping[str, str], where: str
) -> None:
    for locked, locker in locks.items():
        covers = key == locked or key.startswith(f"{locked}.") or locked.startswith(f"{key}.")
        if covers and value != _get(merged, key):
            refuse(where, key, f"is locked by {locker} ({locked}) and cannot be set to another value")


def _get(values: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, the schema's default where nobody set one."""
    found: Any = values
    for name in key.split("."):
        if not isinstance(found, dict) or name not in found:
            return _default(key)
        found = found[name]
    return found


def _default(key: str) -> Any:
    rules: Any = schema.load("node")
    for name in key.split("."):
        rules = rules.get("properties", {}).get(name, {})
    return rules.get("default")


def _check_lockable(key: str, where: str, at: str) -> None:
    rules: Any = schema.load("node")
    for depth, name in enumerate(key.split(".")):
        known = sorted(rules.get("properties", {}))
        if key.startswith("units.") and depth == 1:
            rules = rules["additionalProperties"]
        elif name in known:
            rules = rules["properties"][name]
        elif known:
            refuse(where, at, f"{key} is no key of a node's configuration; {suggestion(name, known)}")
        elif rules.get("type") == "object":
            # A unit's own configuration has keys that only the unit knows.
            return
        else:
            refuse(where, at, f"{key} is no key of a node's configuration; it has nothing below it")


def _typed(
    merged: Mapping[str, Any], sources: Mapping[str, str], locks: Mapping[str, str], where: str
) -> Config:
    for index, mirror in enumerate(merged["mirrors"]):
        _check_mirror(mirror, sources.get("mirrors", where), f"mirrors[{index}]")
    policy = Policy(**merged.get("policy", {}))
    check_trial_times(policy, sources.get("policy.deadline_s", where), "policy.deadline_s")
    units = merged.get("units", {})
    for name, unit in units.items():
        if "resources" in unit:
            key = f"units.{name}.resources"
            schema.check(unit["resources"], "unit", where=where, definition="resources", key=key)
    return Config(
        node=merged["node"],
        fleet=merged["fleet"],
        zone=merged.get("zone"),
        node_class=merged.get("class"),
        release=merged["release"],
        channel=merged["channel"],
        mirrors=tuple(merged["mirrors"]),
        mirror_ca=merged.get("mirror_ca"),
        policy=policy,
        governance_id=merged.get("governance_id"),
        tribe=merged.get("tribe"),
        units=units,
        sources=sources,
        locks=locks,
    )


def _check_mirror(mirror: str, where: str, key: str) -> None:
    try:
        parts = urlsplit(mirror)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        refuse(where, key, f"is no address: {error}")
    if parts.username is not None or parts.password is not None:
        refuse(where, key, "must not hold a user or a password: the file is no place for secrets")
    if parts.query or parts.fragment:
        refuse(where, key, "must not hold a query or a fragment")
    if parts.scheme == "file":
        if host or not parts.path.startswith("/"):
            refuse(where, key, "must name an absolute path, as in file:///srv/mirror")
    elif not host:
        refuse(where, key, "names no host")
