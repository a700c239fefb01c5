"""Where a drill has its things on the host that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..backup.places import Places
from ..paths import NodePaths


@dataclass(frozen=True)
class DrillPlaces:
    """Paths of the drills of one host.

    Args:
        host: paths of the host that runs them.
    """

    host: NodePaths

    @property
    def var(self) -> Path:
        return self.host.var / "drill"

    @property
    def lock(self) -> Path:
        return self.var / "lock"

    @property
    def open(self) -> Path:
        """What says where the scratch of the drill is that runs, or that was killed."""
        return self.var / "open.json"

    @property
    def reports(self) -> Path:
        return self.var / "reports"

    @property
    def sockets(self) -> Path:
        """Where the servers of a drill have their sockets, whose paths have to be short."""
        return self.host.run / "drill"

    @property
    def metrics(self) -> Path:
        return self.host.var / "metrics/drill.prom"

    @property
    def key(self) -> Path:
        return Places(self.host).key


@dataclass(frozen=True)
class DrilledPaths(NodePaths):
    """Paths of the node that is drilled, of which nothing is touched; what runs, runs here.

    Args:
        sockets: as `DrillPlaces` has it.
    """

    sockets: Path = Path("/run/kos/drill")

    @property
    def run(self) -> Path:
        return self.sockets
