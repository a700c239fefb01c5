"""The node itself: its configuration, the state of its units, its trust, journal and audit log.

Releases are not in it, since mirrors have them, nor the passwords of repositories: a repository does not hold
the key to itself. Each part is a root of its own, so that a restore leaves alone what lies between them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .. import files, schema
from ..errors import DamagedError, InputError
from ..running import read_units
from .source import Finding, Move, Prepared, Restored, Root, Source, SwapPlan

_OF_ETC = ("backup.json", "conf.d", "keys", "node.json", "trust", "unit.d", "units.d")
_OF_VAR = ("evidence", "host.json", "journal", "node-units", "refusals.json", "state", "trust")


class Node(Source):
    """The configuration and state of this node."""

    def check(self) -> None:
        if not self.places.node.node_json.is_file():
            raise InputError(
                f"{self.places.node.node_json}: is missing; this is no node", key=f"sources.{self.spec.name}"
            )

    @contextlib.contextmanager
    def prepare(self, stage: Path) -> Iterator[Prepared]:
        self.check()
        paths = self.places.node
        wanted = [
            *(paths.etc / name for name in _OF_ETC),
            *(paths.var / name for name in _OF_VAR),
            *sorted(paths.audit.parent.glob(f"{paths.audit.name}*")),
        ]
        yield Prepared([Root(path, path) for path in wanted if os.path.lexists(path)])

    def verify(self, restored: Restored) -> list[Finding]:
        for root in restored.roots:
            if root.live == self.places.node.node_json:
                try:
                    schema.check(files.read_json(root.stored), "node", where=str(root.live))
                except InputError as error:
                    return [Finding("integrity", error.message, str(root.live))]
        return []

    def swap_plan(self, restored: Restored) -> SwapPlan:
        # A log of what was done since then is worth more than an old one, and goes on from none of it.
        # A machine keeps its own key, too: that of the one before it is not what its witness lets in.
        audit, keys = self.places.node.audit, self.places.key.parent
        kept = [keys] if self.places.key.exists() else []
        if audit.exists():
            kept += [root.live for root in restored.roots if root.live.parent == audit.parent]
        moves = [Move(root.live, root.stored) for root in restored.roots if root.live not in kept]
        return SwapPlan(moves, self._services())

    def _services(self) -> list[str]:
        """Return the services of all units: one that runs on could no longer write to its state."""
        paths = self.places.node
        found: list[str] = []
        for path in (paths.current / "units.json", paths.node_units / "units.json"):
            # One that is missing or damaged does not keep a node from being restored.
            with contextlib.suppress(DamagedError):
                found += [str(unit["service"]) for unit in read_units(path)["units"].values()]
        return found
