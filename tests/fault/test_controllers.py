"""Two at once: one of them works, the other gets one clear message, and the node is none the worse (M09)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fault.crash import stopped
from fault.fault_fleet import ROOT, FaultFleet
from fault.fault_node import FaultNode

OLD, PLAIN, NEW = "1.0.0", "1.0.1", "1.1.0"


def test_of_two_rollouts_one_patches_the_fleet_and_the_other_is_told_whose_it_is(
    fleet: FaultFleet, tmp_path: Path
) -> None:
    for node in fleet.nodes:
        node.reset()
    first = _patch(fleet, tmp_path / "first", NEW)
    fleet.nodes[0].wait(
        lambda: fleet.nodes[0].status()["lease"] is not None, "the first rollout has its lease"
    )
    second = _patch(fleet, tmp_path / "second", PLAIN)
    told, _ = second.communicate(timeout=300)
    patched, _ = first.communicate(timeout=300)
    assert second.returncode != 0, told
    assert "lease" in told, told
    assert "Nothing was touched" in told, told
    assert first.returncode == 0, patched
    for node in fleet.nodes:
        assert node.well(node.look()) == NEW
        assert [entry["state"] for entry in node.journal()].count("TRIAL") == 2  # that of 1.0.0, and this one
        node.assert_good()


def test_of_two_operators_only_the_one_with_the_lease_switches(fleet: FaultFleet) -> None:
    node = fleet.nodes[0]
    node.staged(NEW)
    assert node.operate("lease", take="rollout-a", holder="anna").exit == 0
    taken = node.operate("lease", take="rollout-b", holder="bert")
    assert taken.exit == 3, taken
    assert "anna" in taken.message
    for options in ({"lease": "rollout-b"}, {}):
        refused = node.operate("activate", release=NEW, **options)
        assert refused.exit == 3, refused
        assert "anna" in refused.message
        assert node.well(node.look()) == OLD
    begun = node.operate("activate", release=NEW, lease="rollout-a")
    assert begun.exit == 0, begun
    node.must("revert")
    assert node.well(node.look()) == OLD


def test_of_two_commands_the_second_is_told_who_is_at_work(node: FaultNode) -> None:
    tree = f"/var/lib/kos/releases/.new-{node.releases[NEW].root}/tree"
    made = f'"{tree}", 0777'
    with stopped(node, node.reset, ("stage", NEW), after=made, until=lambda: node.has(tree)) as staging:
        for words in (("stage", PLAIN), ("activate", OLD), ("gc",)):
            refused = node.kosctl(*words)
            assert refused.exit == 5, refused
            assert "(stage)" in refused.message
    done = node.end(staging)
    assert done.exit == 0, done
    look = node.look()
    assert node.well(look) == OLD
    assert node.releases[NEW].root in look.whole


def test_a_second_trial_is_not_begun_in_a_trial(fleet: FaultFleet) -> None:
    node = fleet.nodes[0]
    node.staged(NEW)
    begun = node.activate(NEW)
    for words in (("activate", NEW), ("rollback",), ("stage", PLAIN), ("gc",)):
        refused = node.kosctl(*words)
        assert refused.exit == 5, refused
        assert "a trial of" in refused.message
    assert node.confirm(str(begun.result["token"])).exit == 0
    assert node.well(node.look()) == NEW


def _patch(fleet: FaultFleet, folder: Path, version: str) -> subprocess.Popen[str]:
    """Start the playbook that patches a fleet, as a person does."""
    settings = {
        "patch_release": version,
        "patch_bake": "1",
        "patch_batch": "100%",
        "patch_evidence_dir": f"{folder}/evidence",
        "patch_pause_file": f"{folder}/PAUSE",
    }
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "kos.fleet.patch", "-i", str(fleet.inventory)]
    command += [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "KOS_REPORT_DIR": f"{folder}/report",
    }
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
