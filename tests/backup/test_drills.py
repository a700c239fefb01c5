"""Drills with real restic: what is good is VERIFIED, each fault is red, and nothing stays (M13, K22)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backup.backup_node import RECOVERY, BackupNode
from backup.drill_world import DrillWorld, append_only_server, texts
from backup.files import listing, noise, tree
from backup.s3_gateway import READER, s3_gateway
from backup.servers import rest_server
from backup.test_backup_runs import small_disk
from backup.test_targets import certificate
from kosnode.backup import signing

ROUNDS = int(os.environ.get("KOS_ROUNDS", "3"))
SEED = int(os.environ.get("KOS_SEED", random.SystemRandom().randrange(1 << 32)))
__all__ = ["certificate"]
ALL_RED = dict.fromkeys(("missing-file", "flipped-byte", "missing-pack", "wrong-key"), "red")


@pytest.fixture(scope="module")
def backed_up(tools: Path, template: Path, tmp_path_factory: pytest.TempPathFactory) -> DrillWorld:
    """A node with one tree and two runs, which no test changes."""
    folder = tmp_path_factory.mktemp("backed-up")
    data = tree(folder)
    noise(data / "below/noise", 300_000, 1)
    witness = folder / "witness"
    witness.mkdir()
    node = BackupNode(folder / "n1", tools, template)
    node.tree(data, witness={"url": witness.as_uri()})
    node.run()
    (data / "a").write_text("two")
    node.run()
    return DrillWorld(node, node, str(folder / "repository"), witness)


@pytest.fixture
def world(backed_up: DrillWorld, tmp_path: Path) -> DrillWorld:
    """The same with copies of repository and witness, and a host of its own."""
    shutil.copytree(backed_up.url, tmp_path / "repository")
    assert backed_up.witness is not None
    shutil.copytree(backed_up.witness, tmp_path / "witness")
    host = BackupNode(tmp_path / "n2", backed_up.node.programs, backed_up.node.template, name="n2")
    return DrillWorld(backed_up.node, host, str(tmp_path / "repository"), tmp_path / "witness")


def test_a_good_backup_is_verified_and_every_damaged_copy_of_it_is_red(world: DrillWorld) -> None:
    before = listing(Path(world.url))
    report = world.report()
    assert {one["name"]: one["outcome"] for one in report["controls"]} == ALL_RED
    (source,) = report["sources"]
    assert [(one["kind"], one["outcome"]) for one in source["points"]] == [
        ("newest", "VERIFIED"),
        ("time", "VERIFIED"),
    ]
    assert report["files"] == {"expected": 6, "restored": 6, "missing": 0, "extra": 0, "different": 0}
    assert report["network"]["isolated"]
    assert report["cleanup"] == {"ok": True, "left": [], "earlier": []}
    assert report["findings"] == []
    # Not even a lock was left in what was only to be read.
    assert listing(Path(world.url)) == before


def test_an_append_only_server_is_read_with_its_password_known_to_the_proxy_alone(
    world: DrillWorld, tmp_path: Path
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    Path(world.url).rename(served / "n1")
    # The format of `htpasswd -s`.
    (served / ".htpasswd").write_text("n1:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")
    verifier = tmp_path / "verifier"
    seen = tmp_path / "seen"
    verifier.write_text(f"#!/bin/sh\nenv > {seen}; cat /proc/*/cmdline >> {seen} 2>&-\nexit 0\n")
    verifier.chmod(0o755)
    table = {"files": {**world.node.table["sources"]["files"], "verifier": [str(verifier)]}}
    with append_only_server(world.host.programs, served) as url:
        world.url = f"{url}n1/"
        report = world.report(15, environment=None)
        assert "answered 401" in texts(report, "untested")[0]
        world.environment = {"RESTIC_REST_USERNAME": "n1", "RESTIC_REST_PASSWORD": "password"}
        report = world.report(table=table)
    assert report["repository"]["access"] == "proxy"
    assert {one["name"]: one["outcome"] for one in report["controls"]} == ALL_RED
    assert b"kosnode" in seen.read_bytes()
    assert RECOVERY.encode() not in seen.read_bytes()
    assert b"RESTIC_REST_PASSWORD" not in seen.read_bytes()


def test_a_server_behind_tls_is_believed_by_its_certificate_alone(
    world: DrillWorld, certificate: tuple[Path, Path]
) -> None:
    made, key = certificate
    tls = ("--tls", "--tls-cert", str(made), "--tls-key", str(key))
    with rest_server(world.host.programs, Path(world.url), *tls) as server:
        url = f"rest:https://127.0.0.1:{server.port}/"
        report = world.report(15, repository={"name": "main", "url": url}, backend_timeout_s=5)
        assert "certificate" in texts(report, "untested")[0]
        world.report(repository={"name": "main", "url": url, "ca": made.read_text()})


def test_a_store_without_files_of_its_own_is_read_with_credentials_that_can_only_read(
    world: DrillWorld, tmp_path: Path
) -> None:
    with s3_gateway(tmp_path / "s3") as gateway:
        Path(world.url).rename(gateway.bucket / "n1")
        before = listing(gateway.bucket)
        world.url = gateway.url
        world.environment = {**gateway.environment(READER), "AWS_SECRET_ACCESS_KEY": "of somebody else"}
        report = world.report(15)
        assert "does not accept its credentials" in texts(report, "untested")[0]
        world.environment = gateway.environment(READER)
        report = world.report()
        assert listing(gateway.bucket) == before
    assert report["repository"]["access"] == "direct"
    assert {one["name"]: one["outcome"] for one in report["controls"]} == ALL_RED
    assert report["findings"] == []


def test_the_recovery_key_stands_in_no_file_no_log_and_no_command_line(
    world: DrillWorld, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    # A shell would give what it starts in the background nothing to read.
    watched = (
        'exec 3<&0; "$@" <&3 & while kill -0 $! 2>&-; do '
        f"cat /proc/*/cmdline /proc/*/environ >> {seen} 2>&-; done; wait $!"
    )
    answer = world.drill(wrapper=watched)
    assert answer["exit"] == 0, answer
    assert b"restic" in seen.read_bytes()
    written = [path for path in world.host.root.rglob("*") if path.is_file()]
    for path in [seen, *written]:
        assert RECOVERY.encode() not in path.read_bytes(), path
    assert RECOVERY not in json.dumps(answer)


def test_the_operator_account_has_a_node_drilled_that_root_wrote_down_and_no_other(
    world: DrillWorld, tmp_path: Path
) -> None:
    """M13, K14: without root, and with no path, address or command of its own."""
    ran = tmp_path / "ran"
    verifier = tmp_path / "verifier"
    verifier.write_text(f'#!/bin/sh\necho "$@" > {ran}\n')
    verifier.chmod(0o755)
    refused = world.ask()
    assert (refused["exit"], refused["error"]["key"], refused["result"]) == (3, "node", {})
    world.node.table["sources"]["files"]["verifier"] = [str(verifier)]
    world.let(scratch=str(tmp_path / "scratch"))
    del world.node.table["sources"]["files"]["verifier"]
    answer = world.ask()
    assert answer["exit"] == 0, answer["error"]
    report = answer["result"]["report"]
    assert (report["outcome"], report["choice"]["table"]) == ("VERIFIED", "request")
    assert {one["name"]: one["outcome"] for one in report["controls"]} == ALL_RED
    assert ran.read_text().startswith(str(tmp_path / "scratch"))
    assert answer["result"]["page"] == Path(answer["result"]["files"]["page"]).read_text()
    assert RECOVERY not in (world.host.root / "var/log/kos/audit.jsonl").read_text()
    assert list((tmp_path / "scratch").iterdir()) == []
    other = world.ask(node="n9")
    assert (other["exit"], other["result"]) == (3, {})
    assert "n9" in other["error"]["message"]
    assert str(world.host.etc / "drill.json") in other["error"]["message"]
    assert world.ask(recovery_key="a key of somebody else")["exit"] == 10


def test_a_report_is_signed_bound_to_the_one_before_and_has_a_page(world: DrillWorld) -> None:
    first, second = (world.drill()["result"] for _ in range(2))
    assert second["report"]["previous"] == {"id": first["report"]["id"], "sha3": first["sha3"]}
    assert [one["id"] for one in second["report"]["trend"]] == [
        one["report"]["id"] for one in (first, second)
    ]
    data = Path(second["files"]["report"]).read_bytes()
    signing.verify([second["signer"]], data, second["signature"])
    assert json.loads(data) == second["report"]
    page = Path(second["files"]["page"]).read_text()
    assert page.startswith("<!doctype html>")
    assert "VERIFIED" in page
    assert "<svg" in page


@pytest.mark.fault
@pytest.mark.parametrize("damage", ["changed", "missing", "forgotten"])
def test_a_report_that_was_changed_or_is_missing_is_found(world: DrillWorld, damage: str) -> None:
    first = world.drill()["result"]
    path = Path(first["files"]["report"])
    expected = None
    if damage == "changed":
        path.write_bytes(path.read_bytes().replace(b'"rpo_s":', b'"rpo_s" :', 1))
    elif damage == "missing":
        path.unlink()
    else:
        # All of it, so that only who was told of it knows.
        shutil.rmtree(world.reports)
        expected = first["sha3"]
    report = world.report(10, previous=expected)
    assert len(texts(report)) == 1
    assert {one["outcome"] for one in report["sources"]} == {"VERIFIED"}
    if damage != "forgotten":
        assert "report" in world.host.refused(12, "drill", "status")


def largest_pack(store: Path) -> Path:
    packs = (one for one in (store / "data").rglob("*") if one.is_file())
    return max(packs, key=lambda one: one.stat().st_size)


def flip(store: Path) -> None:
    pack = largest_pack(store)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)


def lose(store: Path) -> None:
    largest_pack(store).unlink()


def empty(store: Path) -> None:
    for one in (store / "snapshots").iterdir():
        one.unlink()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("damage", "said"), [(flip, "damaged"), (lose, "damaged"), (empty, "no snapshot of source files")]
)
def test_a_damaged_repository_fails_the_drill(
    world: DrillWorld, damage: Callable[[Path], None], said: str
) -> None:
    damage(Path(world.url))
    report = world.report(10)
    assert said in texts(report)[0], texts(report)
    assert [one["outcome"] for one in report["sources"]] == ["FAILED"]


@pytest.mark.fault
def test_a_wrong_recovery_key_fails_the_drill(world: DrillWorld) -> None:
    report = world.report(10, recovery_key="not the recovery key")
    assert texts(report) == ["the password of repository main is wrong"]


@pytest.mark.fault
def test_a_manifest_that_another_key_signed_fails_the_drill(world: DrillWorld, tmp_path: Path) -> None:
    report = world.report(10, node_keys=[signing.make_key(tmp_path / "other", "other")], witness=None)
    assert "signature" in texts(report)[0]


@pytest.mark.fault
def test_the_backups_of_another_node_fail_the_drill(world: DrillWorld) -> None:
    report = world.report(10, node="n3", witness=None)
    assert "is of node n1, not of n3" in texts(report)[0]


@pytest.mark.fault
def test_a_witness_that_contradicts_fails_the_drill_and_one_that_is_away_leaves_it_untested(
    world: DrillWorld, tmp_path: Path
) -> None:
    lines = tmp_path / "witness/n1.jsonl"
    whole = lines.read_text()
    lines.write_text(whole.splitlines()[1] + "\n")
    assert any("the witness" in one for one in texts(world.report(10)))
    given = [json.loads(line) for line in whole.splitlines()]
    assert world.report(witness={"lines": given})["sources"][0]["points"][0]["witness"] == "agrees"
    newest = json.loads(whole.splitlines()[-1])["snapshot"]
    (Path(world.url) / "snapshots" / newest).unlink()
    report = world.report(10, witness={"lines": given})
    assert "made no snapshot of source files" in texts(report)[0]
    report = world.report(15, witness={"url": (tmp_path / "away").as_uri()})
    assert "is it mounted?" in texts(report, "untested")[0]


@pytest.mark.fault
def test_what_lies_with_the_host_or_the_way_is_could_not_test(world: DrillWorld, tmp_path: Path) -> None:
    report = world.report(15, repository={"name": "main", "url": "rest:http://127.0.0.1:9/n1/"})
    assert "does not answer" in texts(report, "untested")[0]
    with small_disk(tmp_path / "disk", "1m") as disk:
        report = world.report(15, scratch=str(disk / "drills"), reserve_bytes=2_000_000)
    assert "bytes are missing" in texts(report, "untested")[0]
    report = world.report(15, time="2020-01-01T00:00:00Z")
    assert "is not between the first point" in texts(report, "untested")[0]


@pytest.mark.fault
def test_a_host_that_allows_no_namespace_tests_nothing_and_says_so(world: DrillWorld) -> None:
    report = world.report(15, wrapper='exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin -- "$@"')
    assert not report["network"]["isolated"]
    assert "no PID namespace" in report["network"]["reason"]
    assert report["sources"] == report["controls"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recovery_key": None}, "recovery_key: is missing"),
        ({"recovery_key": "short"}, "recovery_key: must be text of one line with 12 or more characters"),
        ({"recovery-key": "x" * 20}, "recovery-key: unknown key; did you mean recovery_key?"),
        ({"seed": 7}, "seed: must be"),
        ({"sources": ["nothing"]}, "sources: nothing is not in the table"),
        ({"table": {"a": {"class": "high", "method": "tree"}}}, "sources.a.path: is missing"),
        ({"repository": {"name": "m", "url": "rest:http://u:p@h/"}}, "repository.url: holds a password"),
        (
            {"repository": {"name": "m", "url": "/x", "environment": {"LD_PRELOAD": "x"}}},
            "repository.environment.LD_PRELOAD: is not for a backend to set",
        ),
        ({"witness": {"url": "ssh://a@b"}}, "witness.url: must be"),
        ({"witness": {"lines": [{"a": 1}]}}, "witness.lines[0]"),
        ({"time": "2026-02-31T00:00:00Z"}, "time: there is no such time"),
        (
            {"repository": {"name": "m", "url": "/x", "ca": "-----BEGIN CERTIFICATE-----\nx"}},
            "repository.ca: holds no certificate",
        ),
        ({"scratch": "/srv/../etc"}, "scratch: must be an absolute path without"),
    ],
)
def test_bad_input_gets_one_message_before_anything_is_touched(
    world: DrillWorld, changes: dict[str, Any], said: str
) -> None:
    answer = world.drill(**changes)
    assert (answer["exit"], answer["result"]) == (2, {})
    assert said in answer["error"]["message"]
    assert not world.scratch.exists()


@pytest.mark.fault
def test_a_drill_keeps_away_from_production(world: DrillWorld, tmp_path: Path) -> None:
    live = world.node.table["sources"]["files"]["path"]
    (tmp_path / "link").symlink_to(live)
    for scratch in (live, f"{live}/below", str(Path(live).parent), world.url, str(tmp_path / "link/drills")):
        answer = world.drill(scratch=scratch)
        assert answer["exit"] == 2, scratch
        assert "production" in answer["error"]["message"]
    # Also where only the snapshots say what is live, and what the request says besides.
    answer = world.drill(scratch=str(tmp_path / "x"), production=[str(tmp_path / "x/y")])
    assert "production" in answer["error"]["message"]
    assert not (tmp_path / "x").exists()


@pytest.mark.fault
def test_two_drills_at_once_are_one_and_a_message(world: DrillWorld) -> None:
    first = world.start()
    while not (world.scratch / "open.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = world.start()
    out, _ = second.communicate()
    assert json.loads(out)["exit"] == 5
    out, _ = first.communicate()
    assert json.loads(out)["exit"] == 0
    assert world.left() == []


@pytest.mark.fault
def test_a_drill_that_is_terminated_cleans_up_behind_itself(world: DrillWorld) -> None:
    drill = world.start()
    while not list(world.scratch.glob("*Z-*")):
        assert drill.poll() is None
        time.sleep(0.01)
    drill.send_signal(signal.SIGTERM)
    out, err = drill.communicate()
    assert json.loads(out)["exit"] == 143, err
    assert world.left() == []
    assert not list(world.reports.glob("*.json"))


@pytest.mark.fault
def test_a_drill_that_is_killed_at_any_time_leaves_nothing_after_the_next_one(
    world: DrillWorld, tmp_path: Path
) -> None:
    print(f"KOS_SEED={SEED}")
    draws = random.Random(SEED)
    began = time.monotonic()
    world.report()
    whole = time.monotonic() - began
    before = listing(Path(world.url))
    for number in range(ROUNDS):
        drill = world.start(scratch=str(tmp_path / f"scratch{number % 2}"))
        time.sleep(draws.uniform(0, whole))
        drill.kill()
        drill.communicate()
        assert processes_with(str(tmp_path)) == []
    report = world.report()
    assert report["findings"] == []
    assert list(tmp_path.glob("scratch*/*")) == []
    assert listing(Path(world.url)) == before
    ids = {path.stem for path in world.reports.glob("*.json") if path.name != "chain.jsonl"}
    lines = [json.loads(line)["id"] for line in (world.reports / "chain.jsonl").read_text().splitlines()]
    assert ids == set(lines)
    assert world.host.kosctl("drill", "status")["exit"] == 0


def processes_with(word: str) -> list[str]:
    """Return the command lines that name something, a moment after a process was killed."""
    for _ in range(100):
        listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
        found = [line for line in listed.splitlines() if word in line]
        if not found:
            return []
        time.sleep(0.05)
    return found


def test_the_same_seed_draws_the_same(world: DrillWorld) -> None:
    first, second = (world.report(seed="again") for _ in range(2))
    for report in (first, second):
        for one in report["controls"]:
            one.pop("ms")
    runs = [[point["run"] for point in one["sources"][0]["points"]] for one in (first, second)]
    assert runs[0] == runs[1]
    assert first["controls"][0] == second["controls"][0]


def test_a_drill_that_is_not_in_time_or_failed_is_a_failure_of_its_own(world: DrillWorld) -> None:
    assert "no drill was ever run here" in world.host.refused(12, "drill", "status")
    assert "n1 was never drilled" in world.host.refused(12, "drill", "status", "--node", "n1")
    metrics = (world.host.root / "var/lib/kos/metrics/drill.prom").read_text()
    assert 'kos_drill_overdue{node="n1"} 1' in metrics
    world.report(interval_s=60)
    answer = world.host.kosctl("drill", "status", "--node", "n1")
    assert answer["ok"], answer
    (node,) = answer["result"]["nodes"]
    assert (node["node"], node["overdue"], node["interval_s"]) == ("n1", False, 60)
    metrics = (world.host.root / "var/lib/kos/metrics/drill.prom").read_text()
    assert 'kos_drill_last_ok{node="n1"} 1' in metrics
    world.report(10, recovery_key="not the recovery key", interval_s=60)
    assert "is FAILED" in world.host.refused(12, "drill", "status")
    metrics = (world.host.root / "var/lib/kos/metrics/drill.prom").read_text()
    assert 'kos_drill_last_ok{node="n1"} 0' in metrics


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path) -> Iterator[None]:
    """No process of a test outlives it."""
    yield
    assert processes_with(str(tmp_path)) == []
