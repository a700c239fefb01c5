"""An upgrade that damages the ledger, and says that all went well, leaves all as it was (K23)."""

from __future__ import annotations

from verify import kairos, lane


def test_the_data_is_byte_for_byte_what_it_was(reach: lane.Reach) -> None:
    node = reach("node2")
    now = "cd /srv/kairos && find data -type f -exec sha256sum {} + | sort -k 2"
    assert node.check_output(f"{now} | diff - /root/data-before") == ""
    assert node.check_output("ls -A /srv/kairos | grep -c next; true") == "0"


def test_the_old_server_runs_by_its_old_unit(reach: lane.Reach) -> None:
    node = reach("node2")
    assert node.run("sha256sum --check --quiet /root/unit-before").rc == 0
    assert node.service(kairos.SERVICE).is_running
    assert '"version":"3.59.0"' in node.check_output("curl --silent http://127.0.0.1:8080/health")


def test_what_failed_is_not_kept_as_a_version_that_is_current(reach: lane.Reach) -> None:
    assert not reach("node2").file("/srv/kairos/current").exists
