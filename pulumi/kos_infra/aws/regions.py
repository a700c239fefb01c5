"""Which availability zones a region has, from a dated file: settings are checked without asking a cloud."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources


@cache
def _zones_by_region() -> dict[str, tuple[str, ...]]:
    text = resources.files("kos_infra").joinpath("data/regions.json").read_text("utf-8")
    letters: dict[str, str] = json.loads(text)["regions"]
    return {region: tuple(f"{region}{letter}" for letter in found) for region, found in letters.items()}


def names() -> tuple[str, ...]:
    """Return the regions that are known."""
    return tuple(_zones_by_region())


def zones(region: str) -> tuple[str, ...]:
    """Return the availability zones of a region; none for a region that is not known."""
    return _zones_by_region().get(region, ())
