"""Flipped bits in slots: found, named, mended, and never switched to (S17, C16)."""

from __future__ import annotations

import random

from fault.fault_fleet import FaultFleet
from fault.fault_node import FaultNode
from fault.rows import ROUNDS, Row

OLD, NEW = "1.0.0", "1.1.0"
# Both releases have it alike, so that it is one inode with two names.
SHARED, OWN = "bin/keep", "share/version"
_KEEPS = "cat /proc/$(systemctl show --value --property MainPID kos-keeper.service)/comm"


def _patched(fleet: FaultFleet) -> FaultNode:
    node = fleet.nodes[0]
    node.patched(NEW)
    # A shell reads its script when systemd calls the unit active already: what is flipped then ends the unit.
    node.wait(lambda: "sleep" in node.sh(_KEEPS, check=False).stdout, "keeper reads its script to the end")
    return node


def test_a_flipped_bit_is_found_in_any_file_and_mended_from_a_mirror(
    fleet: FaultFleet, chance: random.Random, row: Row
) -> None:
    node = _patched(fleet)
    for _ in range(2 * ROUNDS):
        version = chance.choice((OLD, NEW))
        path = chance.choice(sorted(node.releases[version].files))
        node.flip(version, path, chance.randrange(2**16))
        found = node.kosctl("verify")
        where = f"{path} of {version}"
        assert found.exit == 10, f"{where}: {found}"
        assert path in found.message, f"{where}: {found.message}"
        assert node.well(node.look()) in (NEW, None), where
        mended = node.must("scrub")
        assert any(name.endswith(f"/tree/{path}") for name in mended.result["mended"]), f"{where}: {mended}"
        look = node.look()
        assert look.broken == (), f"{where}: {look}"
        assert node.well(look) == NEW, where
        row.count()
    node.assert_good()


def test_a_file_that_two_slots_share_is_mended_in_both(fleet: FaultFleet) -> None:
    node = _patched(fleet)
    node.flip(OLD, SHARED)
    look = node.look()
    assert set(look.broken) == {node.releases[OLD].root, node.releases[NEW].root}
    node.must("scrub")
    assert node.look().broken == ()
    node.assert_good()


def test_without_a_mirror_damage_is_told_and_what_runs_runs_on(fleet: FaultFleet) -> None:
    node = _patched(fleet)
    node.flip(NEW, OWN)
    node.set_mirrors("http://mirror1:9/")
    try:
        answer = node.kosctl("scrub")
    finally:
        node.set_mirrors(fleet.mirror)
    assert answer.exit in (6, 10), answer
    assert "mirror1:9" in answer.message
    assert set(node.look().runs) == set(node.releases[NEW].units)
    node.must("scrub")
    node.assert_good()


def test_a_damaged_manifest_of_what_runs_is_mended(fleet: FaultFleet) -> None:
    node = _patched(fleet)
    manifest = f"/var/lib/kos/releases/{node.releases[NEW].root}/release.json"
    node.sh(f"truncate --size 100 {manifest}")
    found = node.kosctl("verify")
    assert found.exit == 10, found
    assert "release.json" in found.message
    node.must("scrub")
    node.assert_good()
    assert node.well(node.look()) == NEW


def test_a_damaged_release_is_not_rolled_back_to_before_it_is_mended(fleet: FaultFleet) -> None:
    node = _patched(fleet)
    node.flip(OLD, OWN)
    refused = node.kosctl("rollback")
    assert refused.exit == 10, refused
    assert OWN in refused.message
    assert node.well(node.look()) == NEW
    node.must("scrub")
    begun = node.must("rollback")
    assert node.confirm(str(begun.result["token"])).exit == 0
    assert node.well(node.look()) == OLD


def test_a_damaged_release_is_not_switched_to(fleet: FaultFleet) -> None:
    node = fleet.nodes[0]
    node.staged(NEW)
    node.flip(NEW, OWN)
    refused = node.kosctl("activate", NEW)
    assert refused.exit == 10, refused
    assert OWN in refused.message
    assert node.well(node.look()) == OLD


def test_damage_of_the_old_slot_does_not_reach_the_new_one(node: FaultNode) -> None:
    """Neither as a hard link, nor as what a patch begins with."""
    for path in (SHARED, "share/ledger"):
        node.flip(OLD, path)
    node.must("stage", NEW)
    assert node.releases[NEW].root in node.look().whole


def test_damage_in_the_middle_of_a_trial_does_not_stop_the_way_back(fleet: FaultFleet) -> None:
    node = fleet.nodes[0]
    node.staged(NEW)
    node.activate(NEW)
    node.sh("echo torn >/var/lib/kos/trial.json; echo torn >>/var/lib/kos/journal/journal.jsonl")
    reverted = node.kosctl("revert")
    assert reverted.exit == 0, reverted
    assert node.well(node.look()) == OLD
    node.assert_good()
