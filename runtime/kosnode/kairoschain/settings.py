"""skills/config.yml: an operator's settings laid over what the application wrote there itself (K26)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..host import Change, Owned, System
from .application import ACCOUNT, read_yaml, to_yaml


@dataclass(frozen=True)
class Settings:
    """The file, with some of its keys as an operator wants them.

    Args:
        path: the file.
        wanted: settings that have been checked; keys that are not in it stay as they are.
    """

    path: Path
    wanted: Mapping[str, Any]

    def plan(self, system: System) -> list[Change]:
        del system
        before = self._now()
        after = merge(before, self.wanted)
        if before == after:
            return []
        return [Change(f"change settings in {self.path}", str(self.path), _pretty(before), _pretty(after))]

    def apply(self, system: System) -> None:
        files.write_durable(self.path, to_yaml(merge(self._now(), self.wanted)), mode=0o600)
        Owned(ACCOUNT, ACCOUNT, 0o600).give(self.path, system)

    def _now(self) -> dict[str, Any]:
        return read_yaml(self.path) if self.path.is_file() else {}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings laid over others; mappings are merged, all else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        if isinstance(value, Mapping):
            value = merge(known if isinstance(known, Mapping) else {}, value)
        merged[key] = value
    return merged


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n" if value else ""
