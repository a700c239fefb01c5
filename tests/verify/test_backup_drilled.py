"""What playbook drill leaves: a report that counts, a host without scratch, the recovery key nowhere."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from verify import lane, plays
from verify.node import as_operator

KOSCTL = "/opt/kos/current/bin/kosctl"
DRILLS = "/etc/kos/drill.json"
REPORTS = lane.CONTROLLER / "drills/node1"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    (path,) = REPORTS.glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_newest_state_and_an_earlier_one_came_back_on_another_host(report: dict[str, Any]) -> None:
    """M13."""
    assert (report["outcome"], report["node"], report["host"]["name"]) == ("VERIFIED", "node1", "node3")
    assert {one["name"]: one["outcome"] for one in report["sources"]} == dict.fromkeys(
        ("node", "docs", "app"), "VERIFIED"
    )
    assert {point["kind"] for one in report["sources"] for point in one["points"]} == {"newest", "time"}
    assert {point["witness"] for one in report["sources"] for point in one["points"]} == {"agrees"}
    assert report["network"]["isolated"] is True
    assert report["repository"]["access"] == "proxy"


def test_every_copy_that_was_damaged_on_purpose_turned_red(report: dict[str, Any]) -> None:
    """M13."""
    found = {one["name"]: one["outcome"] for one in report["controls"]}
    assert found.keys() >= {"flipped-byte", "missing-pack", "wrong-key", "missing-file"}
    assert set(found.values()) == {"red"}


def test_the_report_can_be_read_and_its_signature_checked_by_anyone(tmp_path: Path) -> None:
    (path,) = REPORTS.glob("*.json")
    assert "VERIFIED" in path.with_suffix(".html").read_text()
    signers = tmp_path / "signers"
    signers.write_text(f"node3 {path.with_name(f'{path.name}.pub').read_text()}")
    signature = path.with_name(f"{path.name}.sig")
    words = ["-Y", "verify", "-f", str(signers), "-I", "node3", "-n", "kos-backup", "-s", str(signature)]
    done = subprocess.run(["ssh-keygen", *words], input=path.read_bytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_that_was_restored_is_left_and_the_recovery_key_is_nowhere(reach: lane.Reach) -> None:
    """K14, M13."""
    key = (lane.CONTROLLER / "secrets/node1/recovery.key").read_text().strip()
    left = reach("node3").check_output("find /var/lib/kos/drill -mindepth 1 -maxdepth 1 -type d")
    assert left == "/var/lib/kos/drill/reports"
    for name in ("node1", "node2", "node3"):
        done = reach(name).run(f"grep -rlF {key} /etc /var /srv /root /run /tmp /dev/shm")
        assert done.stdout == "", f"{name}: {done.stdout}"
        assert key not in reach(name).check_output("journalctl --boot --no-pager --output cat | cat")


def test_a_node_that_was_never_drilled_is_overdue_and_the_other_is_not(reach: lane.Reach) -> None:
    """M13."""
    assert reach("node3").run("systemctl start kos-drill-status.service").rc == 0
    assert reach("node3").run(f"{KOSCTL} drill status --node node1 --node node9").rc == 12
    assert "kos_drill" in reach("node3").file("/var/lib/kos/metrics/drill.prom").content_string


def test_a_drill_in_a_folder_of_live_data_is_refused_and_no_drill(reach: lane.Reach) -> None:
    """K19."""
    host, before = reach("node3"), sorted(REPORTS.iterdir())
    written = host.file(DRILLS).content_string
    live = json.dumps({**json.loads(written), "scratch": "/srv/docs"})
    try:
        host.check_output(f"printf '%s' {shlex.quote(live)} > {DRILLS}")
        done = plays.run("kos.fleet.drill", limit="backup_hosts")
    finally:
        host.check_output(f"printf '%s' {shlex.quote(written)} > {DRILLS}")
    assert (done.rc != 0, "scratch" in done.words, "/srv/docs" in done.words) == (True, True, True), done.text
    assert sorted(REPORTS.iterdir()) == before
    assert not host.file("/srv/docs").exists


def test_the_operator_account_has_no_other_node_drilled_and_nothing_restored_elsewhere(
    reach: lane.Reach,
) -> None:
    """K14, M13."""
    good = {"node": "node1", "repository": "offsite", "recovery_key": "a key of somebody", "seed": "7"}
    for wish, said in (
        ({"node": "node2"}, f"{DRILLS} does not name node2"),
        ({"node": "../node1"}, "node: must be the name of a node"),
        ({"repository": "elsewhere"}, "names no repository elsewhere"),
        ({"scratch": "/srv/mine"}, "scratch: no option of drill"),
        ({"environment": {"RESTIC_PASSWORD_COMMAND": "id"}}, "RESTIC_PASSWORD_COMMAND: may not be set here"),
    ):
        request = json.dumps({"format": 1, "verb": "drill", "options": {**good, **wish}})
        command = f"printf '%s' {shlex.quote(request)} | sudo -n {KOSCTL} operate"
        answer = json.loads(as_operator(reach("node3"), command).stdout)
        assert not answer["ok"]
        assert said in answer["error"]["message"]
        assert answer["result"] == {}


@pytest.mark.parametrize("time", ["2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"])
def test_a_restore_to_a_time_that_no_backup_covers_touches_nothing(reach: lane.Reach, time: str) -> None:
    """K21."""
    node = reach("node1")
    before = node.check_output("stat --format='%i %Y' /srv /srv/docs")
    wish = {"restore_node": "node1", "restore_source": "docs", "restore_time": time}
    done = plays.run("kos.fleet.restore", variables=wish, limit="backup_hosts")
    assert (done.rc != 0, f"{time} is not between the first point" in done.words) == (True, True), done.text
    assert node.check_output("stat --format='%i %Y' /srv /srv/docs") == before
