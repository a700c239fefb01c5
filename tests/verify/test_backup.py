"""What role backup makes of hosts: backups that cannot be removed, a witness, and data that comes back."""

from __future__ import annotations

import json
import stat
from typing import Any

import pytest
from testinfra.host import Host

from bed import Bed
from verify import lane, record

KOSCTL = "/opt/kos/current/bin/kosctl"
DRILLS = "/etc/kos/drill.json"


@pytest.fixture
def node(reach: lane.Reach) -> Host:
    return reach("node1")


def ask(node: Host, words: str) -> Any:
    """Return what kosctl answered; fails where it failed."""
    return json.loads(node.check_output(f"{KOSCTL} {words} --json"))["result"]


def runs(node: Host, source: str) -> list[Any]:
    found: list[Any] = ask(node, f"backup list --source {source}")["runs"]
    return found


def password(user: str) -> str:
    return (lane.CONTROLLER / f"secrets/{user}/rest-server").read_text().strip()


def status(node: Host, path: str, user: str, *options: str) -> str:
    """Return the status of an answer of the target; the password comes on standard input."""
    config = f"user = {user}:{password(user)}"
    words = " ".join(options)
    return str(
        node.check_output(
            f"printf '%s' '{config}' | curl --silent --config - --output /dev/null "
            f"--write-out '%{{http_code}}' {words} http://node2:8100{path}"
        )
    )


def test_the_second_check_finds_nothing_to_change(last_check: record.Run) -> None:
    assert last_check.changed == []


@pytest.mark.parametrize("name", ["kos-backup", "kos-backup-check", "kos-backup-forget"])
def test_timers_are_up_after_a_boot(node: Host, name: str) -> None:
    """K16."""
    timer = node.service(f"{name}.timer")
    assert timer.is_enabled
    assert timer.is_running


def test_the_host_that_drills_others_looks_whether_one_is_overdue(reach: lane.Reach) -> None:
    """M13."""
    assert reach("node3").service("kos-drill-status.timer").is_running
    assert reach("node3").service("kos-drill-status.timer").is_enabled


def test_whom_a_host_drills_is_root_s_file_with_the_key_that_the_node_signs_with(
    node: Host, reach: lane.Reach
) -> None:
    """M13, K14."""
    file = reach("node3").file(DRILLS)
    assert (file.user, file.mode) == ("root", 0o600)
    (named,) = json.loads(file.content_string)["nodes"].items()
    assert named[0] == "node1"
    assert named[1]["node_keys"] == [
        node.check_output("cut --delimiter=' ' --fields=1,2 /etc/kos/keys/node.pub")
    ]
    assert "password" not in file.content_string
    for name in ("node1", "node2"):
        assert not reach(name).file(DRILLS).exists


def test_a_run_of_the_timer_s_service_ships_each_source_to_each_repository(node: Host) -> None:
    """K16, M11."""
    before = len(runs(node, "docs"))
    node.check_output("systemctl start kos-backup.service")
    for source in ("node", "docs", "app"):
        newest = runs(node, source)[-1]
        assert {kept["repository"] for kept in newest["sources"][0]["snapshots"]} == {"offsite", "here"}
    assert len(runs(node, "docs")) == before + 1


def test_the_witness_has_a_line_for_each_snapshot(node: Host, reach: lane.Reach) -> None:
    """K14."""
    kept = [
        one["id"]
        for source in ("node", "docs", "app")
        for run in runs(node, source)
        for one in run["sources"][0]["snapshots"]
    ]
    lines = reach("node3").file("/var/lib/kos/witness/node1.jsonl").content_string.splitlines()
    assert kept
    assert {json.loads(line)["snapshot"] for line in lines} >= set(kept)


def test_the_witness_s_account_runs_nothing_else(node: Host, bed: Bed) -> None:
    address = next(one.address for one in bed.nodes() if one.name == "node3")
    done = node.run(
        "ssh -i /etc/kos/keys/node -o BatchMode=yes -o UserKnownHostsFile=/etc/kos/keys/known_hosts "
        f"koswitness@{address} id"
    )
    assert done.rc == 2
    assert "uid=" not in done.stdout


def test_the_target_takes_snapshots_and_gives_none_away(node: Host) -> None:
    """K18."""
    snapshot = next(
        one["id"]
        for one in runs(node, "docs")[-1]["sources"][0]["snapshots"]
        if one["repository"] == "offsite"
    )
    path = f"/node1/snapshots/{snapshot}"
    assert status(node, path, "node1") == "200"
    assert status(node, path, "node1", "--request", "DELETE") == "403"
    assert status(node, path, "node1") == "200"


def test_a_node_cannot_reach_another_s_repository(node: Host) -> None:
    assert status(node, "/node1/config", "node3") in ("401", "403")


def test_secrets_are_root_s_alone_on_the_node_and_ours_alone_on_the_controller(node: Host) -> None:
    found = "find /etc/kos/backup.json /etc/kos/backup.secrets /etc/kos/keys"
    assert node.check_output(f"{found} -perm /077 ! -name '*.pub'") == ""
    assert node.check_output(f"{found} ! -user root") == ""
    kept = [path for path in (lane.CONTROLLER / "secrets").rglob("*") if path.is_file()]
    assert {path.name for path in kept} >= {"recovery.key", "offsite.password", "rest-server"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


def test_the_recovery_key_opens_the_repository_and_is_nowhere_on_the_fleet(reach: lane.Reach) -> None:
    """K14."""
    key = (lane.CONTROLLER / "secrets/node1/recovery.key").read_text().strip()
    node = reach("node1")
    opened = node.run(f"RESTIC_PASSWORD={key} restic --repo /srv/backup-here cat config --no-lock")
    assert opened.rc == 0, opened.stderr
    for name in ("node1", "node2", "node3"):
        done = reach(name).run(f"grep -rlF {key} /etc /var/lib/kos /var/log /srv /root")
        assert done.stdout == "", f"{name}: {done.stdout}"


def test_a_tree_comes_back_beside_the_live_one_and_is_then_kept(node: Host) -> None:
    """K19, K21."""
    node.check_output("rm /srv/docs/plan.txt && echo other >/srv/docs/deep/two.txt")
    done = ask(node, "restore docs")
    assert done["state"] == "SWAPPED"
    assert node.file("/srv/docs/plan.txt").content_string == "first\n"
    assert node.file("/srv/docs/deep/two.txt").content_string == "two\n"
    assert node.file("/srv/docs/deep/two.txt").mode == 0o600
    assert node.file("/srv/docs/deep/link").linked_to == "/srv/docs/plan.txt"
    assert ask(node, f"restore --confirm {done['id']}")["state"] == "CONFIRMED"
    assert node.check_output("find /srv -maxdepth 1 -name '.kos-*'") == ""


def test_a_database_comes_back_and_can_be_undone(node: Host) -> None:
    """M11."""
    node.check_output("sqlite3 /srv/app/app.db 'insert into record values (4)'")
    done = ask(node, "restore app")
    assert node.check_output("sqlite3 /srv/app/app.db 'select max(n) from record'") == "3"
    assert ask(node, f"restore --undo {done['id']}")["state"] == "UNDONE"
    assert node.check_output("sqlite3 /srv/app/app.db 'select max(n) from record'") == "4"


def test_a_run_that_fails_leaves_a_failed_unit_and_says_so_to_monitoring(node: Host) -> None:
    """K16, K17."""
    node.check_output("mv /srv/docs /srv/docs-away")
    try:
        assert node.run("systemctl start kos-backup.service").rc != 0
        assert node.run("systemctl is-failed kos-backup.service").stdout.strip() == "failed"
    finally:
        node.check_output("mv /srv/docs-away /srv/docs && systemctl reset-failed kos-backup.service")
    node.check_output("systemctl start kos-backup.service")
    metrics = node.file("/var/lib/kos/metrics/backup.prom")
    assert metrics.mode == 0o644
    assert 'kos_backup_last_run_ok{source="docs",class="high",method="tree"} 1' in metrics.content_string
