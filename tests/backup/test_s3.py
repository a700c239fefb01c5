"""Targets that speak S3, with a real server: who may do what, and what happens when it is gone (K14)."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backup.backup_node import RECOVERY, BackupNode
from backup.files import listing, noise, tree
from backup.s3_gateway import NODE, PRUNER, READER, Gateway, s3_gateway


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with s3_gateway(tmp_path / "s3") as made:
        yield made


def point(node: BackupNode, gateway: Gateway, data: Path, user: str, **more: Any) -> None:
    """Have a node back a tree up to the bucket with the credentials of a user."""
    sources = {"files": {"class": "high", "method": "tree", "path": str(data)}}
    row = {"url": gateway.url, **more.pop("row", {})}
    node.configure(sources, {"main": row}, **more)
    give(node, gateway.environment(user))


def opened(node: BackupNode, gateway: Gateway, data: Path, **more: Any) -> None:
    """Have a node back a tree up to a repository in the bucket that is cheap to open."""
    node.repository(gateway.bucket / "n1")
    point(node, gateway, data, NODE, **more)
    node.init()


def give(node: BackupNode, environment: dict[str, str]) -> None:
    node.secret("main.env", "".join(f"{name}={value}\n" for name, value in environment.items()))


def test_a_bucket_is_backed_up_to_checked_and_restored_from_and_its_credentials_stay_in_their_file(
    node: BackupNode, gateway: Gateway, tmp_path: Path
) -> None:
    data, seen = tree(tmp_path), tmp_path / "bin/restic"
    point(node, gateway, data, NODE)
    before = listing(data)
    seen.parent.mkdir()
    seen.write_text(f'#!/bin/sh\necho "$@" >>"$0.log"\nexec {node.programs}/restic "$@"\n')
    seen.chmod(0o755)
    node.programs = seen.parent
    told = [node.kosctl("backup", "init", stdin=RECOVERY)]
    told += [node.kosctl("backup", verb) for verb in ("run", "list", "check")]
    shutil.rmtree(data)
    told.append(node.kosctl("restore", "files"))
    assert [one["exit"] for one in told] == [0] * len(told), told
    assert listing(data) == before
    (run,) = told[2]["result"]["runs"]
    assert run["run"] == told[1]["result"]["run"] == told[4]["result"]["run"]
    argv = seen.with_name("restic.log").read_text()
    assert "--files-from-raw" in argv
    for text in (argv, json.dumps(told)):
        assert gateway.words[NODE] not in text


@pytest.mark.fault
@pytest.mark.parametrize("wrong", ["word", "name", "rights"])
def test_wrong_credentials_are_told_at_once_and_nothing_is_touched(
    node: BackupNode, gateway: Gateway, tmp_path: Path, wrong: str
) -> None:
    data = tree(tmp_path)
    opened(node, gateway, data)
    node.run()
    good = gateway.environment(NODE)
    give(
        node,
        {
            "word": {**good, "AWS_SECRET_ACCESS_KEY": "of somebody else"},
            "name": {**good, "AWS_ACCESS_KEY_ID": "nobody"},
            "rights": gateway.environment(READER),
        }[wrong],
    )
    before, live = listing(gateway.bucket), listing(data)
    for words in ("backup run", "backup check", "backup forget", "restore files"):
        message = node.refused(13, *words.split())
        assert "repository main does not accept its credentials: " in message
        assert "\n" not in message
    assert (listing(gateway.bucket), listing(data)) == (before, live)
    assert list((node.var / "stage").iterdir()) == []


@pytest.mark.fault
def test_a_bucket_that_is_not_there_is_told_at_once(
    node: BackupNode, gateway: Gateway, tmp_path: Path
) -> None:
    opened(node, gateway, tree(tmp_path))
    shutil.rmtree(gateway.bucket)
    assert "`kosctl backup init` makes it" in node.refused(4, "backup", "run")


@pytest.mark.fault
def test_a_node_that_may_only_add_keeps_what_is_old_and_another_host_removes_it(
    node: BackupNode, gateway: Gateway, tmp_path: Path, template: Path
) -> None:
    data, retention = tree(tmp_path), {"within": "1h", "minimum": 1}
    opened(node, gateway, data, retention=retention)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 30 * 86_400))
    tags = ["--tag", "kos", "--tag", "source=files", "--tag", "run=aged"]
    mine = gateway.environment(NODE)
    node.restic("backup", "--time", when, "--host", node.name, *tags, str(data), environment=mine)
    newest = node.run()["run"]
    assert "is append-only: it kept 1 snapshots" in node.refused(3, "backup", "forget")
    point(node, gateway, data, NODE, retention=retention, row={"append_only": True})
    assert "prune it from a host with credentials of its own" in node.refused(3, "backup", "forget")

    pruner = BackupNode(tmp_path / "pruner", node.programs, template)
    pruner.configure({}, {"main": {"url": gateway.url}}, retention=retention)
    give(pruner, gateway.environment(PRUNER))
    done = pruner.kosctl("backup", "forget")
    assert done["ok"], done
    assert [one["run"] for one in done["result"]["removed"]] == ["aged"]
    assert [one["run"] for one in done["result"]["kept"]] == [newest]
    node.run()
    assert node.kosctl("backup", "check", "--data", "1/1")["ok"]
    assert node.kosctl("restore", "files", "--to", str(tmp_path / "out"))["ok"]
    assert listing(tmp_path / "out/data") == listing(data)


@pytest.mark.fault
def test_a_server_that_dies_in_the_middle_of_a_run_loses_nothing_that_was_saved(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    with s3_gateway(tmp_path / "s3") as gateway:
        opened(node, gateway, data, backend_timeout_s=5)
        before = listing(data)
        saved = node.run()["run"]
    objects = set(gateway.bucket.rglob("*"))
    noise(data / "large", 80_000_000, seed=1)
    with gateway.running() as server:
        run = node.start("backup", "run")
        while set(gateway.bucket.rglob("data/*/*")) <= objects:
            assert run.poll() is None, "the run ended before the server could die"
            time.sleep(0.01)
        server.process.kill()
        out, _ = run.communicate()
    assert json.loads(out)["exit"] == 6, out
    assert list((node.var / "stage").iterdir()) == []
    with gateway.running():
        out_of_it = ("restore", "files", "--run", saved, "--to", str(tmp_path / "out"))
        assert node.kosctl(*out_of_it)["ok"]
        assert listing(tmp_path / "out/data") == before
        node.run()
        # The lock of the run that could not take it away.
        assert node.kosctl("backup", "unlock")["changed"]
        assert node.kosctl("backup", "check", "--data", "1/1")["ok"]


@pytest.mark.fault
def test_a_server_that_hangs_or_is_gone_is_told_in_time_and_leaves_nothing_behind(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    with s3_gateway(tmp_path / "s3") as gateway:
        opened(node, gateway, data)
    point(node, gateway, data, NODE, backend_timeout_s=4)
    with gateway.running() as server:
        server.process.send_signal(signal.SIGSTOP)
        message = node.refused(6, "backup", "run")
        assert "repository main made no progress in 4 s" in message
    for words in (("backup", "run"), ("backup", "list")):
        assert "repository main" in node.refused(6, *words)
    assert list((node.var / "stage").iterdir()) == []
    with gateway.running():
        node.run()
        assert node.kosctl("backup", "check")["ok"]
