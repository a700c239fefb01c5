"""The units that a node should run: read from the lists that its release and the node itself rendered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kosd import documents

SCHEMA = "units.schema.json"


@dataclass(frozen=True)
class Unit:
    """One rendered unit: its systemd names, and whether the release or the node brought it."""

    name: str
    service: str
    timer: str | None = None
    version: str | None = None
    tier: int = 0
    format: str = "native"
    origin: str = "release"

    @property
    def required(self) -> bool:
        """A release answers for its own units; one that the node added can only degrade the node."""
        return self.origin == "release"


@dataclass(frozen=True)
class Inventory:
    """All units by name, and what is wrong with the lists."""

    units: dict[str, Unit]
    problems: tuple[str, ...] = ()


def read_inventory(current: Path, node_units: Path) -> Inventory:
    """Reads both lists. A node without units of its own has no list; a release without one is a problem."""
    units: dict[str, Unit] = {}
    problems: list[str] = []
    for path, origin in ((current / "units.json", "release"), (node_units, "node")):
        try:
            found = _read_list(path, origin)
        except documents.DocumentMissingError as error:
            if origin == "release":
                problems.append(str(error))
            continue
        except documents.DocumentError as error:
            problems.append(str(error))
            continue
        for name, unit in found.items():
            if name in units:
                problems.append(f"{path}: unit {name} is in the release already")
            else:
                units[name] = unit
    return Inventory(units, tuple(problems))


def _read_list(path: Path, origin: str) -> dict[str, Unit]:
    document = documents.read(path, SCHEMA)
    return {
        name: Unit(
            name=name,
            service=entry["service"],
            timer=entry.get("timer"),
            version=entry.get("version"),
            tier=entry.get("tier", 0),
            format=entry.get("format", "native"),
            origin=entry.get("from", origin),
        )
        for name, entry in sorted(document["units"].items())
    }
