"""After all that was refused the node runs on, untouched."""

from __future__ import annotations

from pathlib import Path

from verify import kairos, lane, record


def test_nothing_that_was_refused_touched_the_node(reach: lane.Reach, converged: record.Run) -> None:
    node = reach("node1")
    assert node.service(kairos.SERVICE).is_running
    assert kairos.ledger(node)["state"] == "ok"
    assert node.check_output("readlink /opt/kairos/current | cut -d- -f1") == "3.75.0"
    assert node.check_output("ls /opt/kairos | grep -c 3.75.0") == "1"


def test_the_anchor_on_the_controller_is_of_a_run_that_ended_well(reach: lane.Reach) -> None:
    anchor = Path(lane.CONTROLLER / "anchors/node1.anchor").read_text().strip()
    answered = reach("node1").run(
        f"/opt/kos/current/bin/kosctl ledger compare {kairos.DATA}/storage/blockchain.json {anchor}"
    )
    assert answered.rc == 0, answered.stderr
