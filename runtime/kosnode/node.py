"""A node as its state machine sees it: where things are, what it may ask, and how its health is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from . import admission, boot, files, health, render, running
from .admission import Release
from .config import Policy
from .errors import DamagedError, InputError, NotFoundError
from .journal import Journal
from .lease import Leases
from .paths import NodePaths
from .refusals import Refusals
from .systemd import DOWNTIME_PROPERTIES, Systemd, downtime_s
from .unit import validate_checks


class Slots(Protocol):
    """What the state machine wants of the slots."""

    def verify(self, root: str) -> None:
        """Compare a slot with its manifest; raise DamagedError where they differ."""


class Migrator(Protocol):
    """Runs one migration of a unit's state as the unit's account."""

    def __call__(self, unit: str, user: str, argv: Sequence[str], directory: Path) -> None:
        """Raise KosError where the command fails or takes too long."""


@dataclass(frozen=True)
class Node:
    """A node and what its state machine works with; tests replace the parts that reach outside.

    Args:
        line: release line of the node.
        policy: times of trials.
        locks: which file locked a dotted key of the configuration, so that no caller may set it otherwise.
        session: finds the caller's session.
        progress: takes one line for people.
    """

    paths: NodePaths
    line: str
    policy: Policy
    systemd: Systemd
    slots: Slots
    migrate: Migrator
    clock: boot.Clock = field(default_factory=boot.SystemClock)
    health_clock: health.Clock = field(default_factory=health.SystemClock)
    session: Callable[[], boot.Session] = boot.session
    host: Callable[[], admission.Host] = admission.host_facts
    progress: Callable[[str], None] = lambda line: None
    locks: Mapping[str, str] = field(default_factory=dict)

    @property
    def journal(self) -> Journal:
        return Journal(self.paths.journal, self.clock)

    @property
    def refusals(self) -> Refusals:
        return Refusals(self.paths.refusals)

    @property
    def leases(self) -> Leases:
        return Leases(self.paths.lease, self.clock)

    @property
    def running(self) -> running.Running:
        return running.Running(self.paths, self.clock)

    def release(self, root: str) -> Release:
        """Read a release that has a slot; raises NotFoundError or DamagedError."""
        path = self.paths.slot(root) / "release.json"
        try:
            manifest = files.read_json(path)
            return Release(root, str(manifest["name"]), str(manifest["version"]), manifest)
        except FileNotFoundError:
            raise NotFoundError(f"release {root[:12]} is not staged on this node", key="release") from None
        except (InputError, KeyError, TypeError) as error:
            raise DamagedError(f"{path} cannot be read: {error}") from None

    def linked(self, link: Path) -> str | None:
        """Return the root that a link points to; None where there is no such link, or no such slot."""
        try:
            root = link.readlink().name
        except OSError:
            return None
        return root if (self.paths.slot(root) / "release.json").is_file() else None

    def current(self) -> Release | None:
        """Return the release that is current, on trial or not."""
        root = self.linked(self.paths.current)
        return None if root is None else self.release(root)

    def units(self, root: str) -> dict[str, Any]:
        """Return units.json of a slot."""
        return running.read_units(self.paths.slot(root) / "units.json")


def measure(node: Node, root: str | None, before: health.HealthReport | None = None) -> health.HealthReport:
    """Measure the units of a release and of the node, and run the checks of the release.

    Args:
        root: the release; None measures the node's own units alone.
        before: the measurement before this one.
    """
    documents = []
    checks: list[dict[str, Any]] = []
    directory = "/"
    if root is not None:
        documents.append(node.units(root))
        directory = str(node.paths.slot(root) / "tree")
        checks = render.resolve_checks(
            validate_checks(node.release(root).manifest.get("health", []), "release.json"), directory
        )
    own = node.paths.node_units / "units.json"
    if own.exists():
        documents.append(running.read_units(own))
    return health.check_all(
        documents,
        checks,
        systemd=node.systemd,
        clock=node.health_clock,
        before=before,
        release_directory=directory,
    )


def downtime_of(systemd: Systemd, names: Sequence[str]) -> float:
    """Return the longest time in seconds that one of the units was away when it was last restarted."""
    shown = systemd.show(names, DOWNTIME_PROPERTIES) if names else {}
    return max((away for one in shown.values() if (away := downtime_s(one)) is not None), default=0.0)


def fetched_bytes(node: Node, root: str) -> int:
    """Return what was fetched for a release, as the journal knows it."""
    found = [
        one for one in node.journal.entries() if one["state"] == "FETCHED" and one.get("release") == root
    ]
    return int(found[-1].get("bytes", 0)) if found else 0
