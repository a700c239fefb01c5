"""Runs with real restic: what is saved, what is said, and what fails (M11, K14, K16)."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault.rows import ROUNDS, Row

from backup.backup_node import PASSWORD, RECOVERY, BackupNode
from backup.files import listing, noise, odd, tree
from backup.killing import MOMENTS, kill_at_any_time, restic_of

# Runs beside a writer.
RUNS = 10 if ROUNDS < 5 else 50


def test_a_run_makes_one_snapshot_and_the_list_shows_it(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    first = node.run()["sources"][0]
    assert (first["files"], first["unstable"], first["lacks"]) == (2, [], [])
    assert [one["id"] for one in first["snapshots"]] == node.snapshots()
    listed = node.kosctl("backup", "list")["result"]["runs"]
    assert [one["snapshots"] for run in listed for one in run["sources"]] == [first["snapshots"]]


def test_a_repository_is_made_with_a_recovery_key_that_opens_it(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    store = tmp_path / "new"
    sources = {"files": {"class": "low", "method": "tree", "path": str(data)}}
    node.configure(sources, {"main": {"url": str(store)}})
    assert "recovery key" in node.refused(2, "backup", "init")
    assert not store.exists()
    made = node.init()["result"]
    assert [one["made"] for one in made["repositories"]] == [True]
    given = {"RESTIC_PASSWORD": RECOVERY, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    argv = [str(node.programs / "restic"), "--no-cache", "-r", str(store), "cat", "config"]
    shown = subprocess.run(argv, env=given, capture_output=True, check=True).stdout
    assert json.loads(shown)["id"] == made["repositories"][0]["id"]
    again = node.kosctl("backup", "init")
    assert (again["changed"], again["result"]["node_key"]) == (False, made["node_key"])
    found = [
        path for path in node.root.rglob("*") if path.is_file() and RECOVERY.encode() in path.read_bytes()
    ]
    assert found == []


def test_the_second_day_adds_what_changed_and_restores_to_equal_bytes(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    noise(data / "large", 3_000_000, seed=1)
    node.tree(data)
    first = node.run()["sources"][0]
    (data / "a").write_text("changed")
    second = node.run()["sources"][0]
    assert second["added_bytes"] * 10 < first["added_bytes"]
    expected = listing(data)
    shutil.rmtree(data)
    assert node.kosctl("restore", "files")["ok"]
    assert listing(data) == expected


def test_every_kind_of_name_mode_and_owner_comes_back(node: BackupNode, tmp_path: Path) -> None:
    data = odd(tmp_path)
    node.tree(data)
    node.run()
    expected = listing(data, without=("pipe",))
    shutil.rmtree(data)
    answer = node.kosctl("restore", "files")
    assert answer["ok"], answer
    assert listing(data) == expected


# With 6 comes a pattern of more than one `**`.
@pytest.mark.parametrize("seed", sorted({*range(4 * ROUNDS), 6}))
def test_a_pattern_leaves_out_the_same_for_the_manifest_and_for_restic(
    node: BackupNode, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    data = tmp_path / "data"
    for _ in range(60):
        path = data.joinpath(*rng.choices(["a", "b", "ab", "a.b", "*", "ä"], k=rng.randint(1, 4)))
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    parts = ["a", "b", "*", "a*", "?", "**", "*.b", "ä"]
    exclude = ["/".join(rng.choices(parts, k=rng.randint(1, 3))) for _ in range(2)]
    exclude.append(f"{data}/" + "/".join(rng.choices(parts, k=2)))
    if any(set(one.removeprefix(str(data)).strip("/").split("/")) <= {"**", "*"} for one in exclude):
        exclude = ["a/b"]
    node.tree(data, exclude=exclude)
    run = node.run()
    assert node.kosctl("restore", "files", "--to", str(tmp_path / "out"))["ok"], (seed, exclude)
    shown = node.restic("ls", "--json", run["sources"][0]["snapshots"][0]["id"], str(data), "--recursive")
    nodes = [json.loads(line) for line in shown.splitlines()]
    saved = [one for one in nodes if one.get("type") == "file"]
    assert len(saved) == run["sources"][0]["files"], (seed, exclude)


@pytest.mark.fault
def test_a_source_that_is_not_there_fails_and_the_others_are_saved(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    node.configure(
        {
            "gone": {"class": "high", "method": "tree", "path": str(tmp_path / "gone")},
            "files": {"class": "high", "method": "tree", "path": str(data)},
        },
        {"main": node.repository(tmp_path / "repository")},
    )
    node.init()
    answer = node.kosctl("backup", "run")
    assert (answer["exit"], len(node.snapshots())) == (4, 1)
    assert str(tmp_path / "gone") in answer["error"]["message"]
    assert [bool(one["snapshots"]) for one in answer["result"]["sources"]] == [False, True]


@pytest.mark.fault
def test_a_file_that_nobody_may_read_makes_the_snapshot_partial_and_named(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    (data / "shut").write_text("secret")
    (data / "shut").chmod(0)
    (data / "closed").mkdir(mode=0)
    node.tree(data)
    # Even root reads nothing of another's without this.
    dropped = "-dac_override,-dac_read_search"
    for path in (data, *data.iterdir(), data / "below/b"):
        os.lchown(path, 1000, 1000)
    shell = f'exec setpriv --bounding-set={dropped} --inh-caps={dropped} "$@"'
    process = node.start("backup", "run", wrapper=shell)
    answer = json.loads(process.communicate()[0])
    assert answer["exit"] == 14, answer
    assert answer["result"]["sources"][0]["lacks"] == [str(data / "closed"), str(data / "shut")]
    restored = node.kosctl("restore", "files", "--to", str(tmp_path / "out"))
    assert restored["ok"], restored
    assert set(listing(tmp_path / "out/data")) == {"a", "below", "below/b", "link"}


WRITER = """
import os, random, sys, pathlib
folder, rng = pathlib.Path(sys.argv[1]), random.Random(int(sys.argv[2]))
log = (folder / "log").open("a")
while True:
    log.write("line\\n" * rng.randint(1, 500)); log.flush()
    path = folder / f"temporary-{rng.randint(0, 5)}"
    path.write_bytes(rng.randbytes(rng.randint(0, 50000)))
    os.replace(path, folder / f"kept-{rng.randint(0, 5)}")
    (folder / f"kept-{rng.randint(0, 5)}").unlink(missing_ok=True)
"""


@contextlib.contextmanager
def writing(folder: Path, seed: int) -> Iterator[None]:
    """Have another process write into a folder all the time."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(seed)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.fault
def test_what_is_written_during_the_whole_backup_is_said_and_the_rest_is_proven(
    node: BackupNode, tmp_path: Path, chance: random.Random, row: Row
) -> None:
    data = tree(tmp_path)
    (data / "busy").mkdir()
    node.tree(data)
    steady = {str(data / name) for name in ("a", "below", "below/b", "link")}
    said: set[str] = set()
    with writing(data / "busy", chance.randrange(2**32)):
        for number in range(RUNS):
            unstable = set(node.run()["sources"][0]["unstable"])
            assert not steady & unstable
            said |= unstable
            # What was not said has to be as it was listed.
            answer = node.kosctl("restore", "files", "--to", str(tmp_path / f"out{number}"))
            assert answer["ok"], (number, answer["error"], answer["result"])
            shutil.rmtree(tmp_path / f"out{number}")
            row.count()
    assert str(data / "busy/log") in said


@pytest.mark.fault
def test_two_runs_at_once_are_one_run_and_one_refusal(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    flag = tmp_path / "began"
    node.tree(data, before=[["sh", "-c", f"touch {flag}; while [ -e {flag} ]; do sleep 0.05; done"]])
    first = node.start("backup", "run")
    assert first.stdin is not None
    first.stdin.close()
    first.stdin = None
    while not flag.exists():
        time.sleep(0.02)
    assert "working" in node.refused(5, "backup", "run")
    flag.unlink()
    assert json.loads(first.communicate()[0])["ok"]
    assert len(node.snapshots()) == 1


@pytest.mark.fault
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hook_that_fails_is_a_failure_and_the_one_after_runs_all_the_same(
    node: BackupNode, tmp_path: Path, when: str
) -> None:
    mark = tmp_path / "mark"
    hooks = {"before": [], "after": [["touch", str(mark)]]}
    hooks[when] = [["sh", "-c", "echo the reason; exit 7"], *hooks[when]]
    node.tree(tree(tmp_path), **hooks)
    message = node.refused(1, "backup", "run")
    assert "ended with 7: the reason" in message
    assert mark.exists()
    assert len(node.snapshots()) == (0 if when == "before" else 1)


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Listen, take connections and say nothing; yields an address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"rest:http://127.0.0.1:{listener.getsockname()[1]}/"


def known(node: BackupNode, name: str, url: str) -> None:
    """Have the node know a repository that it cannot open."""
    path = node.var / "repositories.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    value = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**value, name: {"id": "0" * 64, "url": url}}))


@pytest.mark.fault
def test_a_backend_that_gives_no_answer_is_given_up_and_the_other_target_is_served(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    node.tree(data)
    with silent() as url:
        repositories = {"dead": {"url": url}, **node.table["repositories"]}
        node.configure(node.table["sources"], repositories, backend_timeout_s=10)
        known(node, "dead", url)
        answer = node.kosctl("backup", "run")
    assert answer["exit"] == 6, answer
    assert "dead made no progress in 10 s" in answer["error"]["message"]
    assert [one["repository"] for one in answer["result"]["sources"][0]["snapshots"]] == ["main"]


@pytest.mark.fault
def test_a_wrong_password_is_told_apart(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    node.secret("main.password", "another password")
    assert "password of repository main is wrong" in node.refused(13, "backup", "run")


def test_a_machine_with_the_recovery_key_alone_is_let_in(node: BackupNode, tmp_path: Path) -> None:
    """M12: the passwords were lost with the disk, and the key was on paper."""
    node.tree(tree(tmp_path))
    before = node.run()["sources"][0]["snapshots"]
    node.secret("main.password", "the password of a new machine")
    assert node.init()["actions"] == ["open repository main"]
    assert node.run()["sources"][0]["snapshots"] != before
    assert node.snapshots()[0] == before[0]["id"]
    assert not node.init()["changed"]


@pytest.mark.fault
def test_a_wrong_recovery_key_lets_nobody_in(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    node.secret("main.password", "another password")
    answer = node.kosctl("backup", "init", stdin="no key of this repository")
    assert (answer["exit"], answer["changed"]) == (13, False)
    assert "neither the node's password nor the recovery key opens" in answer["error"]["message"]
    assert "password of repository main is wrong" in node.refused(13, "backup", "run")


@pytest.mark.parametrize(
    ("text", "mode", "rule"), [(None, 0, "is missing"), ("", 0o600, "is empty"), ("x", 0o644, "root alone")]
)
def test_a_repository_without_a_good_password_file_is_refused_before_anything_runs(
    node: BackupNode, tmp_path: Path, text: str | None, mode: int, rule: str
) -> None:
    mark = tmp_path / "mark"
    node.tree(tree(tmp_path), before=[["touch", str(mark)]])
    path = node.secret("main.password", text or "", mode)
    if text is None:
        path.unlink()
    assert rule in node.refused(2, "backup", "run")
    assert not mark.exists()


def test_a_password_is_never_an_argument(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    assert node.kosctl("backup", "run", "--password", "x")["exit"] == 2


@pytest.mark.fault
def test_another_repository_in_the_place_of_the_known_one_is_refused_and_stays_empty(
    node: BackupNode, tmp_path: Path, make_repository: Callable[[], Path]
) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    other = make_repository()
    shutil.rmtree(tmp_path / "repository")
    shutil.copytree(other, tmp_path / "repository")
    assert "replaced" in node.refused(3, "backup", "run")
    assert node.snapshots() == []
    assert "another one" in node.refused(3, "backup", "init")


@pytest.mark.fault
def test_a_repository_that_was_rolled_back_is_refused(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    shutil.copytree(tmp_path / "repository", tmp_path / "old")
    node.run()
    shutil.rmtree(tmp_path / "repository")
    (tmp_path / "old").rename(tmp_path / "repository")
    assert "rolled back" in node.refused(3, "backup", "run")
    assert len(node.snapshots()) == 1


@pytest.mark.fault
def test_a_restic_whose_run_was_killed_ends_and_writes_nothing_more(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    with silent() as url:
        node.configure(node.table["sources"], {"dead": {"url": url}}, backend_timeout_s=600)
        known(node, "dead", url)
        process = node.start("backup", "run")
        while not (working := restic_of(process.pid)):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.communicate()
        ends = time.monotonic() + 60
        while any(Path(f"/proc/{one}").exists() for one in working):
            assert time.monotonic() < ends, "restic waits for a dead repository, and nobody waits for it"
            time.sleep(0.02)


@pytest.mark.fault
@pytest.mark.parametrize("victim", ["kosctl", "restic"])
@pytest.mark.parametrize("number", range(MOMENTS // 2))
def test_a_run_that_is_killed_at_any_time_leaves_what_the_next_one_needs(
    node: BackupNode, tmp_path: Path, victim: str, number: int, chance: random.Random
) -> None:
    data = tree(tmp_path)
    noise(data / "large", 20_000_000, number)
    node.tree(data)
    if number % 2:
        node.run()
        noise(data / "large", 20_000_000, number + MOMENTS)
    kill_at_any_time(node, chance, victim, "backup", "run")
    answer = node.kosctl("backup", "run")
    assert answer["ok"], answer
    restored = node.kosctl("restore", "files", "--to", str(tmp_path / "out"))
    assert restored["ok"], restored["error"]
    assert listing(tmp_path / "out/data") == listing(data)
    assert not (node.var / "stage/files").exists()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(node: BackupNode, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    node.tree(tree(tmp_path), before=[["touch", str(mark)]])
    answer = node.kosctl("backup", "run", "--dry-run")
    assert (answer["changed"], answer["actions"]) == (True, ["back up files to main"])
    assert (node.snapshots(), mark.exists(), (node.var / "runs.jsonl").exists()) == ([], False, False)


def test_a_run_that_is_refused_is_a_failed_one_for_metrics_and_list(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    node.run()
    text = (node.root / "var/lib/kos/metrics/backup.prom").read_text()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    labels = '{source="files",class="high",method="tree"}'
    assert values[f"kos_backup_last_run_ok{labels}"] == "1"
    assert int(values[f"kos_backup_last_success_timestamp_seconds{labels}"]) > 1_700_000_000
    node.secret("main.password", "")
    # So many that some are of one second.
    messages = [node.refused(2, "backup", "run") for _ in range(5)]
    node.secret("main.password", PASSWORD)
    listed = node.kosctl("backup", "list")["result"]["runs"]
    assert [one["error"] for run in listed for one in run["sources"]] == [None, *messages]
    made = [json.loads(line)["run"] for line in (node.var / "runs.jsonl").read_text().splitlines()]
    assert [run["run"] for run in listed] == made
    text = (node.root / "var/lib/kos/metrics/backup.prom").read_text()
    assert f"kos_backup_last_run_ok{labels} 0\n" in text


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small file system of its own for a block."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "kos-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.fault
def test_a_full_disk_at_the_target_is_told_and_the_next_run_with_room_succeeds(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    noise(data / "large", 8_000_000, seed=3)
    with small_disk(tmp_path / "disk", "4m") as disk:
        sources: dict[str, Any] = {"files": {"class": "high", "method": "tree", "path": str(data)}}
        node.configure(sources, {"main": node.repository(disk / "repository")})
        node.init()
        assert "no space" in node.refused(7, "backup", "run")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        node.run()


@pytest.mark.fault
def test_a_full_disk_at_the_source_is_told_before_anything_runs(node: BackupNode, tmp_path: Path) -> None:
    with small_disk(node.var, "1m"):
        node.tree(tree(tmp_path), reserve_bytes=2_000_000)
        assert "bytes of the reserve are missing" in node.refused(7, "backup", "run")
    assert node.snapshots() == []
