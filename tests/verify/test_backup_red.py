"""What playbooks say of damaged, lost and contradicted backups, and of data in use: red, and by name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from verify import lane, plays

STORE = "/srv/kos-backup/node1/data"
REPORTS = lane.CONTROLLER / "drills/node1"
WITNESSED = "/var/lib/kos/witness/node1.jsonl"
TABLE = "/etc/kos/backup.json"
_FLIP = """
import sys
from pathlib import Path
for path in Path(sys.argv[1]).glob("*/*"):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
"""


@contextlib.contextmanager
def changed(host: Host, path: str, script: str) -> Iterator[None]:
    """Have something else at a path of a host for a while."""
    host.check_output(f"cp --archive {path} {path}.kept && {script}")
    try:
        yield
    finally:
        host.check_output(f"rm --recursive --force {path} && mv {path}.kept {path}")


@contextlib.contextmanager
def stopped(host: Host, unit: str) -> Iterator[None]:
    host.check_output(f"systemctl stop {unit}")
    try:
        yield
    finally:
        host.check_output(f"systemctl start {unit}")


def drill(**variables: object) -> tuple[plays.Outcome, str]:
    """Run a drill; returns what came of it, and the outcome that its report has."""
    known = set(REPORTS.glob("*.json"))
    done = plays.run("kos.fleet.drill", variables={"drill_seed": 11, **variables}, limit="backup_hosts")
    (report,) = set(REPORTS.glob("*.json")) - known
    return done, str(json.loads(report.read_text())["outcome"])


def snapshots(host: Host) -> list[str]:
    listed = host.check_output("/opt/kos/current/bin/kosctl backup list --json --source docs")
    runs = json.loads(listed)["result"]["runs"]
    return [saved["id"] for run in runs for source in run["sources"] for saved in source["snapshots"]]


def test_backups_whose_packs_are_damaged_fail_their_drill(reach: lane.Reach) -> None:
    """M13, K14."""
    target = reach("node2")
    with changed(target, STORE, f"python3 -c '{_FLIP}' {STORE}"):
        done, outcome = drill()
    assert (done.rc != 0, outcome, "FAILED" in done.words) == (True, "FAILED", True), done.text


@pytest.mark.parametrize("accepted", [False, True])
def test_backups_that_nobody_can_read_are_untested_and_red_without_the_word_for_it(
    reach: lane.Reach, accepted: bool
) -> None:
    """K16, M13."""
    with stopped(reach("node2"), "kos-backup-server.service"):
        done, outcome = drill(drill_accept_untested=accepted)
    assert (done.rc == 0, outcome) == (accepted, "COULD_NOT_TEST"), done.text
    assert "COULD_NOT_TEST" in done.words


@pytest.mark.parametrize(
    ("path", "script", "said"),
    [
        (WITNESSED, f"sed --in-place '2,$d' {WITNESSED}", "contradicts"),
        ("/var/lib/koswitness/.ssh", "rm /var/lib/koswitness/.ssh/authorized_keys", "cannot be asked"),
    ],
    ids=["contradicts", "is not reached"],
)
def test_nothing_is_backed_up_or_restored_past_a_witness_that(
    reach: lane.Reach, path: str, script: str, said: str
) -> None:
    """K19."""
    node = reach("node1")
    before = snapshots(node), node.check_output("stat --format='%i %Y' /srv /srv/docs")
    with changed(reach("node3"), path, script):
        backup = plays.run("kos.fleet.backup", variables={"backup_only": ["docs"]}, limit="backup_hosts")
        wish = {"restore_node": "node1", "restore_source": "docs"}
        restore = plays.run("kos.fleet.restore", variables=wish, limit="backup_hosts")
    for done in (backup, restore):
        assert (done.rc != 0, said in done.words) == (True, True), done.text
    assert (snapshots(node), node.check_output("stat --format='%i %Y' /srv /srv/docs")) == before


def test_data_of_a_running_service_is_not_replaced_without_the_word_to_stop_it(reach: lane.Reach) -> None:
    """K21."""
    node = reach("node1")
    table = json.loads(node.file(TABLE).content_string)
    table["sources"]["docs"]["service"] = "systemd-journald.service"
    before = node.check_output("stat --format='%i %Y' /srv /srv/docs")
    with changed(node, TABLE, f"printf '%s' '{json.dumps(table)}' >{TABLE}"):
        wish = {"restore_node": "node1", "restore_source": "docs"}
        done = plays.run("kos.fleet.restore", variables=wish, limit="backup_hosts")
    assert (done.rc != 0, "systemd-journald.service is running" in done.words) == (True, True), done.text
    assert node.check_output("stat --format='%i %Y' /srv /srv/docs") == before
