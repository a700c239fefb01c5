"""Checks a repository or a mirror's folder as a node would, and then every file of every release in it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import DamagedError, InputError, KosError
from ..fetch import Limits, mirrors
from ..paths import NodePaths
from ..trust import Available, Trust
from . import documents
from .repository import RELEASE_FOLDERS, Progress, silent


@dataclass(frozen=True)
class Report:
    """What was found right.

    Args:
        releases: the titles of the releases, each checked whole.
        patches: number of patches that give exactly what they should.
        notes: what cannot be checked, or belongs to nothing.
    """

    releases: list[str] = field(default_factory=list)
    patches: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {"releases": self.releases, "patches": self.patches, "notes": self.notes}
