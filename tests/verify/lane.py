"""What all scenarios share: the machines of the bed, where things are, and which releases there are."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from pathlib import Path

from testinfra.host import Host
from world import Wish, World

from bed import Plan

# Gives a machine by its name, reached over SSH as root or as another account.
Reach = Callable[..., Host]

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build/molecule"
INVENTORY = FOLDER / "inventory"
SCENARIOS = REPOSITORY / "molecule"
INVENTORIES = (INVENTORY, SCENARIOS / "inventory")
AS_NEW = FOLDER / "as-new.json"
RUNS = FOLDER / "runs.jsonl"
# What playbooks keep on the controller; empty before each scenario.
CONTROLLER = FOLDER / "controller"
WORLD = REPOSITORY / "build/world/molecule"
# Another fleet's, with keys of its own.
OTHER_WORLD = REPOSITORY / "build/world/molecule-other"
# Machines are found by this name, so each copy of the project has its own.
BED = f"molecule{hashlib.sha256(str(REPOSITORY).encode()).hexdigest()[:8]}"
# node1 and node2 are zone a, node3 and node4 zone b; zone c has the odd ones, which are no part of the fleet.
PLAN = Plan(
    inventory=INVENTORY,
    nodes=6,
    zones=("a", "b", "c"),
    suites={"node5": "bookworm"},
    small_disks={"node6": "48M"},
)
FLEET = ("node1", "node2", "node3", "node4")
OTHER_ARCHITECTURE = "aarch64" if platform.machine() == "x86_64" else "x86_64"


RELEASES = (
    Wish("1.0.0", channels=("lts", "stable")),
    Wish("1.1.0", channels=("beta", "stable")),
    # Starts, and then says that it is not well.
    Wish("1.2.0", fault={"fail_health_after_s": 2}),
    Wish("1.3.0", channels=("beta",)),
    Wish("1.4.0", arch=OTHER_ARCHITECTURE),
)


def publish(say: Callable[[str], None] = print) -> World:
    """Publish the releases that the scenarios use, unless they are there, and return their world."""
    world = World(WORLD, say)
    world.publish(*RELEASES)
    world.expired_root()
    World(OTHER_WORLD, say)
    return world


def as_new() -> dict[str, list[str]]:
    """Return what the machines held and ran when they were new."""
    taken: dict[str, list[str]] = json.loads(AS_NEW.read_text())
    return taken
