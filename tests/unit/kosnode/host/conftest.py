"""The host, the fleet's root role and the spec that the tests of this folder start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from host_world import KEY, FakeSystem, RootKeys, unpack

from kosnode.paths import NodePaths


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    return NodePaths(tmp_path / "root")


@pytest.fixture
def system(paths: NodePaths) -> FakeSystem:
    return FakeSystem(paths)


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    folder = tmp_path / "shell"
    folder.mkdir()
    for name in ("fallback", "generator"):
        (folder / name).write_text(f"#!/bin/sh\n# {name}\n")
    return folder


@pytest.fixture
def fleet() -> RootKeys:
    return RootKeys()


@pytest.fixture
def spec(fleet: RootKeys, paths: NodePaths) -> dict[str, Any]:
    """The spec of a node whose engine is unpacked already."""
    return {
        "format": 1,
        "engine": unpack(paths, "1.0.0-aaaaaaaa"),
        "node": {
            "format": 1,
            "node": "n1",
            "fleet": "demo",
            "zone": "a",
            "release": "kos",
            "channel": "stable",
            "mirrors": ["http://127.0.0.1:8080/"],
            "units": {"kosd": {"config": {"port": 8470}}},
        },
        "conf": {"10-site.json": {"layer": "organisation", "values": {"policy": {"bake_s": 30}}}},
        "trust_root": fleet.metadata(),
        "operator": {"keys": [KEY]},
        "accounts": ["scribe"],
    }
