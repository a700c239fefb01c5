"""Which units a switch restarts, and which slot each unit was last started from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import boot, files, render
from .errors import DamagedError, InputError
from .paths import NodePaths
from .systemd import Systemd


@dataclass(frozen=True)
class Changes:
    """What a switch from one release to another does to units, by systemd's names unless said otherwise.

    Args:
        restart: of the new release, to restart or start.
        stop: of the old release, that the new one does not have.
        back_restart: of the old release, to restart or start on a revert.
        back_stop: of the new release, to stop on a revert.
        units: kOS names of the units that run from the new slot afterwards.
        gone: kOS names of the units that do not run any more.
    """

    restart: tuple[str, ...]
    stop: tuple[str, ...]
    back_restart: tuple[str, ...]
    back_stop: tuple[str, ...]
    units: tuple[str, ...]
    gone: tuple[str, ...]


class Running:
    """`running.json`: for each unit the slot and the digest it was last started from, in one boot.

    After a boot everything runs from the current release, and what is written of another boot says nothing.

    Args:
        paths: of the node.
        clock: tells the boot.
    """

    def __init__(self, paths: NodePaths, clock: boot.Clock) -> None:
        self._paths = paths
        self._clock = clock

    def units(self) -> dict[str, dict[str, str]]:
        """Return `{"root", "digest"}` by unit; empty where nothing is known of this boot."""
        try:
            value = files.read_json(self._paths.running, limit=1 << 20)
            if value["boot"] == self._clock.boot():
                return {str(name): dict(unit) for name, unit in value["units"].items()}
        except (OSError, InputError, KeyError, TypeError, AttributeError, ValueError):
            return {}
        return {}

    def roots(self) -> set[str]:
        """Return the slots that a unit still runs from, which nobody may remove."""
        return {unit["root"] for unit in self.units().values() if "root" in unit}

    def started(
        self, names: Iterable[str], root: str, document: Mapping[str, Any], gone: Iterable[str]
    ) -> None:
        """Write down that units were started from a slot, and that others are gone.

        Args:
            names: kOS names.
            root: of the release.
            document: its units.json.
            gone: kOS names of units that do not run any more.
        """
        units = {name: one for name, one in self.units().items() if name not in set(gone)}
        for name in names:
            units[name] = {"root": root, "digest": str(document["units"][name]["digest"])}
        value = {"format": 1, "boot": self._clock.boot(), "units": units}
        files.write_durable(self._paths.running, files.canonical(value))


def read_units(path: Path) -> dict[str, Any]:
    """Read a units.json.

    Raises:
        DamagedError: it is missing or cannot be read.
    """
    try:
        value = files.read_json(path)
    except (OSError, InputError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None
    units = value.get("units") if isinstance(value, dict) else None
    if not isinstance(units, dict) or not all(isinstance(entry, dict) for entry in units.values()):
        raise DamagedError(f"{path} is no list of units")
    return dict(value)


def compare(
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any],
    *,
    running: Mapping[str, Mapping[str, str]],
    systemd: Systemd,
    stopped: Iterable[str] = (),
) -> Changes:
    """Compare two releases with what runs.

    A unit restarts when the digest of its rendering and files differs from what it was started from, when it
    does not run, or when it is stopped for a migration.

    Args:
        old: units.json of the release that is current, None where there is none.
        new: units.json of the release that is wanted.
        running: as `Running.units`.
        systemd: is asked what runs.
        stopped: kOS names of units that are stopped for a migration.
    """
    before: Mapping[str, Mapping[str, Any]] = {} if old is None else old["units"]
    after: Mapping[str, Mapping[str, Any]] = new["units"]
    halted = set(stopped)
    restart = []
    for name, entry in sorted(after.items()):
        known = running.get(name, before.get(name, {})).get("digest")
        same = name in before and known == entry["digest"] and name not in halted
        if not same or not systemd.is_active(render.starts(entry)):
            restart.append(name)
    gone = sorted(set(before) - set(after))
    old_names, new_names = _names(before.values()), _names(after.values())
    back = [name for name in sorted(before) if name in restart or name in gone]
    return Changes(
        restart=tuple(render.starts(after[name]) for name in restart),
        stop=tuple(name for name in old_names if name not in new_names),
        back_restart=tuple(render.starts(before[name]) for name in back),
        back_stop=tuple(name for name in new_names if name not in old_names),
        units=tuple(restart),
        gone=tuple(gone),
    )


def _names(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the services and timers of units, in a fixed order."""
    return sorted(str(name) for entry in entries for name in (entry["service"], entry["timer"]) if name)
