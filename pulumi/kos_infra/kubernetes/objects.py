"""Objects of Kubernetes as plain values, before anything is registered; and words that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAME_LABEL = "app.kubernetes.io/name"
TRACK_LABEL = "kos.fleet/track"
ZONE_LABEL = "topology.kubernetes.io/zone"
NODE_LABEL = "kubernetes.io/hostname"

MAIN, CANARY = "main", "canary"


@dataclass(frozen=True)
class Object:
    """One object.

    Args:
        name: its logical name, which never changes; `metadata.name` may.
        body: the object, as YAML would hold it.
        after: `KIND/NAME` of the objects that have to be there, and ready, before it.
        protect: whether it holds data that a mistake must not delete.
    """

    name: str
    body: Mapping[str, Any]
    after: tuple[str, ...] = ()
    protect: bool = False

    @property
    def key(self) -> str:
        return f"{self.body['kind']}/{self.name}"


def labels(unit_id: str, tier: int) -> dict[str, str]:
    """Return the labels of every object that is there for a unit."""
    return {
        NAME_LABEL: unit_id,
        "app.kubernetes.io/managed-by": "kos-fleet",
        "kos.fleet/tier": str(tier),
    }


def quantity(count: int) -> str:
    """Return bytes as Kubernetes writes them, in the largest unit that is exact."""
    for factor, suffix in ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")):
        if count % factor == 0:
            return f"{count // factor}{suffix}"
    return str(count)


def literal(text: str) -> str:
    """Return text in which Kubernetes expands nothing: in commands and values `$(NAME)` is a variable."""
    return text.replace("$", "$$")
