"""Restores with real restic: proven first, swapped by rename, the old state kept (K19, K21)."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault.rows import Row

from backup.backup_node import BackupNode
from backup.files import listing, noise, tree
from backup.killing import MOMENTS, calls, kill_at, kill_at_any_time
from backup.test_backup_runs import small_disk


def leftovers(folder: Path) -> list[str]:
    """Return what restores made in a folder and did not take away."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".kos-"))


def test_what_was_lost_comes_back_and_the_old_state_stays_until_it_is_confirmed(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    node.tree(data)
    before = listing(data)
    node.run()
    (data / "a").write_text("spoilt")
    (data / "below/b").unlink()
    spoilt = listing(data)
    answer = node.kosctl("restore", "files")
    assert answer["ok"], answer
    assert listing(data) == before
    result = answer["result"]
    assert (result["state"], result["verified"]["findings"]) == ("SWAPPED", [])
    assert [listing(Path(one)) for one in result["before"]] == [spoilt]
    assert "waits for" in node.refused(3, "restore", "files")
    assert node.kosctl("restore", "--undo", result["id"])["result"]["state"] == "UNDONE"
    assert listing(data) == spoilt
    again = node.kosctl("restore", "files")["result"]
    assert node.kosctl("restore", "--confirm", again["id"])["result"]["state"] == "CONFIRMED"
    assert listing(data) == before
    assert leftovers(tmp_path) == []
    once_more = node.kosctl("restore", "--confirm", again["id"])
    assert (once_more["ok"], once_more["changed"]) == (True, False)
    assert "confirmed" in node.refused(3, "restore", "--undo", again["id"])


def test_what_waits_for_a_confirmation_is_not_backed_up_with_the_tree(
    node: BackupNode, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "32m") as data:
        (data / "a").write_text("one")
        node.tree(data, reserve_bytes=0)
        node.run()
        (data / "a").write_text("spoilt")
        assert node.kosctl("restore", "files", "--in-place")["ok"]
        assert len(leftovers(data)) == 1
        assert node.run()["sources"][0]["files"] == 1


def test_a_mount_point_is_restored_in_place_with_its_old_content_kept(
    node: BackupNode, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "32m") as data:
        (data / "a").write_text("one")
        (data / "sub").mkdir()
        (data / "sub/b").write_text("two")
        node.tree(data, reserve_bytes=0)
        node.run()
        before = listing(data)
        (data / "a").write_text("spoilt")
        (data / "new").write_text("since then")
        spoilt = listing(data)
        assert "--in-place" in node.refused(2, "restore", "files")
        done = node.kosctl("restore", "files", "--in-place")
        assert done["ok"], done
        assert {key: value for key, value in listing(data).items() if not key.startswith(".kos-")} == before
        assert node.kosctl("restore", "--undo", done["result"]["id"])["ok"]
        assert listing(data) == spoilt


def test_one_file_comes_back_alone(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    before = listing(data)
    (data / "a").write_text("wanted so")
    (data / "below/b").write_text("lost")
    answer = node.kosctl("restore", "files", "--path", str(data / "below/b"))
    assert answer["ok"], answer
    assert answer["result"]["verified"]["files"] == 1
    after = listing(data, without=(f"below/.kos-before-{answer['result']['id']}",))
    assert after["below/b"] == before["below/b"]
    assert (data / "a").read_text() == "wanted so"
    assert node.kosctl("restore", "--undo", answer["result"]["id"])["ok"]
    assert (data / "below/b").read_text() == "lost"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--path", "{data}/nothing"], "has no"),
        (["--path", "/etc/passwd"], "is not in source"),
        (["--path", "a"], "absolute path"),
        (["--path", "{data}/../x"], "absolute path"),
        (["--to", "relative"], "absolute path"),
        (["--time", "yesterday"], "must be as 2026"),
        (["--time", "2001-01-01T00:00:00Z"], "is not between the first point"),
        (["--time", "2101-01-01T00:00:00Z"], "is not between the first point"),
        (["--run", "x", "--time", "2101-01-01T00:00:00Z"], "not allowed with"),
        (["--path", "{data}/a", "--in-place"], "not for a restore in place"),
    ],
)
def test_bad_input_is_one_message_and_touches_nothing(
    node: BackupNode, tmp_path: Path, words: list[str], rule: str
) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    before = listing(data)
    asked = [word.format(data=data) for word in words]
    assert rule in node.refused(2, "restore", "files", *asked)
    assert (listing(data), leftovers(tmp_path)) == (before, [])


def test_an_unknown_source_run_or_repository_is_not_found(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    assert "has no snapshot" in node.refused(4, "restore", "files")
    node.run()
    assert "no source is called x" in node.refused(4, "restore", "x")
    assert "made no snapshot" in node.refused(4, "restore", "files", "--run", "x")
    assert "no repository is called x" in node.refused(4, "restore", "files", "--repository", "x")
    assert "no restore x" in node.refused(4, "restore", "--confirm", "x")
    assert node.kosctl("restore", "--undo", "../x")["exit"] == 2
    assert node.kosctl("restore")["exit"] == 2


def test_an_older_snapshot_needs_the_word_for_it(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    node.tree(data)
    first = node.run()["run"]
    before = listing(data)
    time.sleep(1.1)
    between = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(1.1)
    (data / "a").write_text("newer")
    node.run()
    for words in (["--run", first], ["--time", between]):
        assert "--older" in node.refused(3, "restore", "files", *words)
        done = node.kosctl("restore", "files", *words, "--older")
        assert done["ok"], done
        assert (listing(data), done["result"]["run"]) == (before, first)
        assert node.kosctl("restore", "--undo", done["result"]["id"])["ok"]


@pytest.mark.fault
def test_too_little_room_is_told_in_bytes_before_anything_is_fetched(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    noise(data / "large", 6_000_000, seed=2)
    node.tree(data, reserve_bytes=1_000_000)
    node.run()
    with small_disk(tmp_path / "disk", "4m") as disk:
        message = node.refused(7, "restore", "files", "--to", str(disk))
        assert "bytes are missing" in message
        assert list(disk.iterdir()) == []


def test_a_directory_that_has_it_already_is_not_written_into(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    assert "is there already" in node.refused(2, "restore", "files", "--to", str(tmp_path))


def lose(node: BackupNode, pattern: str) -> None:
    """Remove the largest pack of the repository, or turn a byte of it over."""
    store = Path(node.table["repositories"]["main"]["url"])
    pack = max(
        (path for path in (store / "data").rglob("*") if path.is_file()), key=lambda one: one.stat().st_size
    )
    if pattern == "missing pack":
        pack.unlink()
        return
    pack.chmod(0o600)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)


@pytest.mark.fault
@pytest.mark.parametrize("pattern", ["missing pack", "flipped byte"])
def test_a_damaged_repository_never_replaces_live_data(
    node: BackupNode, tmp_path: Path, pattern: str
) -> None:
    data = tree(tmp_path)
    noise(data / "large", 3_000_000, seed=4)
    node.tree(data)
    node.run()
    lose(node, pattern)
    live = listing(data)
    assert "damaged" in node.refused(10, "restore", "files")
    assert listing(data) == live
    assert node.kosctl("backup", "check", "--data", "1/1")["exit"] == 10


def doctored(node: BackupNode, change: Callable[[Path], None], tmp_path: Path) -> str:
    """Replace the newest snapshot by one with other content and the same manifest; returns its id."""
    newest = node.snapshots()[-1]
    shown = json.loads(node.restic("snapshots", "--json", newest))[0]
    out = tmp_path / "doctored"
    node.restic("restore", newest, "--target", str(out))
    change(out)
    root = tmp_path / "chroot"
    root.mkdir()
    script = (
        f"mount --bind {out} {root} && mkdir -p {root}/kos-bin {root}/kos-store && "
        f"cp {node.programs}/restic {root}/kos-bin/ && for d in usr lib lib64 etc dev proc; do "
        f"mkdir -p {root}/$d && mount --rbind /$d {root}/$d; done && "
        f"mount --bind {node.table['repositories']['main']['url']} {root}/kos-store && "
        f"exec chroot {root} /kos-bin/restic --no-cache -r /kos-store backup --host n1 "
        + " ".join(f"--tag {tag}" for tag in shown["tags"])
        + " "
        + " ".join(f"'{path}'" for path in shown["paths"])
    )
    given = {"PATH": os.environ["PATH"], "HOME": "/", "RESTIC_PASSWORD": "the password of these tests"}
    subprocess.run(["unshare", "--mount", "sh", "-ec", script], env=given, check=True, capture_output=True)
    node.restic("forget", newest)
    return node.snapshots()[-1]


def remove(path: Path) -> None:
    path.unlink()


def grow(path: Path) -> None:
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def turn(path: Path) -> None:
    status = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def add(path: Path) -> None:
    (path.parent / "added").write_text("x")


def own(path: Path) -> None:
    os.chown(path, 4711, 4711)


def open_up(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (remove, "missing"),
        (grow, "size"),
        (turn, "differs"),
        (add, "extra"),
        (own, "owner"),
        (open_up, "mode"),
    ],
)
def test_a_whole_snapshot_that_is_not_what_the_manifest_says_replaces_nothing(
    node: BackupNode, tmp_path: Path, change: Callable[[Path], None], code: str
) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    doctored(node, lambda out: change(out / str(data).lstrip("/") / "a"), tmp_path)
    live = listing(data)
    answer = node.kosctl("restore", "files")
    assert answer["exit"] == 10, answer
    assert code in {one["code"] for one in answer["result"]["verified"]["findings"]}
    assert (listing(data), leftovers(tmp_path)) == (live, [])


@pytest.mark.fault
def test_a_manifest_that_this_node_did_not_sign_is_not_believed(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    for path in (node.etc / "keys").iterdir():
        path.unlink()
    node.init()
    assert "signature" in node.refused(13, "restore", "files")


@pytest.mark.fault
def test_the_verifier_of_the_application_has_the_last_word(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    node.tree(data, verifier=["sh", "-c", 'grep -q one "$0/a"'])
    node.run()
    assert node.kosctl("restore", "files", "--to", str(tmp_path / "good"))["ok"]
    (data / "a").write_text("nonsense")
    node.run()
    live = listing(data)
    assert "the verifier says no" in node.refused(10, "restore", "files")
    assert listing(data) == live


@pytest.mark.fault
def test_a_verifier_that_writes_to_what_it_checks_is_a_finding(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path), verifier=["sh", "-c", 'touch "$0/made"'])
    node.run()
    assert "a check wrote" in node.refused(10, "restore", "files")


def test_another_machine_takes_the_place_of_one_that_is_gone(
    node: BackupNode, tmp_path: Path, template: Path
) -> None:
    data = tree(tmp_path)
    (tmp_path / "witness").mkdir()
    witness = {"url": f"file://{tmp_path}/witness"}
    node.tree(data, witness=witness)
    public = node.init()["result"]["node_key"]
    node.run()
    before = listing(data)
    shutil.rmtree(node.root)
    shutil.rmtree(data)
    new = BackupNode(tmp_path / "n1-again", node.programs, template)
    new.configure(node.table["sources"], node.table["repositories"], witness=witness)
    assert new.kosctl("backup", "init")["exit"] == 3
    (new.etc / "keys/node.former").write_text(public + "\n")
    with (tmp_path / "witness/n1.pub").open("a") as stream:
        stream.write((new.etc / "keys/node.pub").read_text())
    new.init()
    answer = new.kosctl("restore", "files")
    assert answer["ok"], answer
    assert answer["result"]["verified"]["witness"]
    assert listing(data) == before
    new.run()


def test_the_data_of_another_node_is_restored_elsewhere_alone(node: BackupNode, tmp_path: Path) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    node.name = "n2"
    node.configure(node.table["sources"], node.table["repositories"])
    live = listing(data)
    assert "is of node n1" in node.refused(3, "restore", "files")
    assert listing(data) == live
    assert node.kosctl("restore", "files", "--to", str(tmp_path / "out"))["ok"]
    assert listing(tmp_path / "out/data") == live


def witnessed(node: BackupNode, tmp_path: Path) -> Path:
    """Configure a tree with a witness, make two runs; returns the witness's file."""
    (tmp_path / "witness").mkdir()
    data = tree(tmp_path)
    node.tree(data, witness={"url": f"file://{tmp_path}/witness"})
    node.run()
    (data / "a").write_text("changed")
    node.run()
    return tmp_path / "witness/n1.jsonl"


def test_a_restore_agrees_with_the_witness_and_so_does_the_next_run(node: BackupNode, tmp_path: Path) -> None:
    lines = witnessed(node, tmp_path)
    assert len(lines.read_text().splitlines()) == 2
    answer = node.kosctl("restore", "files")
    assert (answer["ok"], answer["result"]["verified"]["witness"]) == (True, True)


@pytest.mark.fault
def test_a_cut_witness_stops_runs_and_restores_before_anything_is_written(
    node: BackupNode, tmp_path: Path
) -> None:
    lines = witnessed(node, tmp_path)
    lines.write_text(lines.read_text().splitlines()[0] + "\n")
    snapshots = node.snapshots()
    assert "contradicts" in node.refused(3, "backup", "run")
    assert "contradicts" in node.refused(3, "restore", "files")
    assert node.snapshots() == snapshots


@pytest.mark.fault
def test_a_witness_that_is_away_stops_a_run_before_anything_is_written(
    node: BackupNode, tmp_path: Path
) -> None:
    witnessed(node, tmp_path)
    (tmp_path / "witness").rename(tmp_path / "away")
    assert "is not there" in node.refused(6, "backup", "run")
    assert len(node.snapshots()) == 2


@pytest.mark.fault
def test_a_witness_that_is_away_stops_a_restore_until_it_is_said_to_do_without(
    node: BackupNode, tmp_path: Path
) -> None:
    witnessed(node, tmp_path)
    data = tmp_path / "data"
    good = listing(data)
    shutil.rmtree(tmp_path / "witness")
    shutil.rmtree(data)
    assert "--no-witness" in node.refused(6, "restore", "files")
    assert not data.exists()
    answer = node.kosctl("restore", "files", "--no-witness")
    assert (answer["ok"], listing(data)) == (True, good), answer
    assert answer["result"]["verified"]["witness"] is False
    # What this node remembers of it counts all the same.
    node.restic("forget", node.snapshots()[-1])
    assert "older than run" in node.refused(
        3, "restore", "files", "--no-witness", "--to", str(tmp_path / "out")
    )


@pytest.mark.fault
def test_a_repository_without_the_newest_snapshot_is_told_by_the_witness(
    node: BackupNode, tmp_path: Path
) -> None:
    witnessed(node, tmp_path)
    node.restic("forget", node.snapshots()[-1])
    assert "rolled back" in node.refused(3, "backup", "run")
    message = node.refused(3, "restore", "files")
    assert "which repository main lacks" in message
    assert node.kosctl("restore", "files", "--older")["ok"]


@pytest.mark.fault
def test_a_snapshot_that_the_witness_does_not_know_is_not_restored(node: BackupNode, tmp_path: Path) -> None:
    witnessed(node, tmp_path)
    table = json.loads((node.etc / "backup.json").read_text())
    witness = table.pop("witness")
    (node.etc / "backup.json").write_text(json.dumps(table))
    unknown = node.run()["run"]
    (node.etc / "backup.json").write_text(json.dumps({**table, "witness": witness}))
    assert "does not know" in node.refused(3, "restore", "files", "--run", unknown)


@pytest.mark.fault
@pytest.mark.parametrize("number", range(MOMENTS))
def test_a_restore_that_is_killed_at_any_time_is_finished_or_gone_on_with(
    node: BackupNode, tmp_path: Path, number: int, chance: random.Random
) -> None:
    data = tree(tmp_path)
    for part in range(5):
        noise(data / f"large{part}", 4_000_000, number * 10 + part)
    node.tree(data)
    node.run()
    good = listing(data)
    (data / "a").write_text("spoilt")
    spoilt = listing(data)
    kill_at_any_time(node, chance, chance.choice(["kosctl", "kosctl", "restic"]), "restore", "files")
    assert not data.exists() or listing(data) in (good, spoilt)
    waiting = finished(node)
    assert listing(data) == good
    assert node.kosctl("restore", "--confirm", waiting)["ok"]
    assert (listing(data), leftovers(tmp_path)) == (good, [])


def finished(node: BackupNode) -> str:
    """Restore once more after one that was killed; returns the id of the one that waits for its end."""
    answer: dict[str, Any] = node.kosctl("restore", "files")
    if answer["exit"] == 3:
        assert "waits for" in answer["error"]["message"], answer
    else:
        assert answer["ok"], (answer["error"], answer["progress"])
    records = (node.var / "restores").glob("*/state.json")
    states = {path.parent.name: json.loads(path.read_text())["state"] for path in records}
    (waiting,) = (name for name, state in states.items() if state == "SWAPPED")
    return waiting


@pytest.mark.fault
def test_a_swap_and_an_undo_that_are_killed_at_any_call_are_finished_by_the_next_command(
    node: BackupNode, tmp_path: Path, chance: random.Random, row: Row
) -> None:
    data = tree(tmp_path)
    node.tree(data)
    node.run()
    good = listing(data)
    (data / "a").write_text("spoilt")
    spoilt = listing(data)
    restoring = calls(node, tmp_path / "trace", "restore", "files")
    undoing = calls(node, tmp_path / "trace", "restore", "--undo", finished(node))
    assert listing(data) == spoilt
    # From where it is written down that it was verified.
    saved = [
        at for at, call in enumerate(restoring) if call.name.startswith("rename") and "state" in call.about
    ]
    swapping = restoring[saved[2] + 1 :]
    assert len(swapping) > 10
    while row.runs < MOMENTS:
        if row.runs % 2:
            killed = kill_at(node, chance.choice(swapping), "restore", "files")
            assert not data.exists() or listing(data) in (good, spoilt)
            waiting = finished(node)
            assert listing(data) == good
        else:
            waiting = finished(node)
            killed = kill_at(node, chance.choice(undoing), "restore", "--undo", waiting)
            assert not data.exists() or listing(data) in (good, spoilt)
        assert node.kosctl("restore", "--undo", waiting)["ok"]
        assert (listing(data), leftovers(tmp_path)) == (spoilt, [])
        if killed:
            row.count()


@pytest.mark.fault
def test_a_restore_that_was_interrupted_goes_on_and_drops_what_another_wish_left(
    node: BackupNode, tmp_path: Path
) -> None:
    data = tree(tmp_path)
    noise(data / "large", 3_000_000, seed=8)
    node.tree(data)
    node.run()
    (data / "a").write_text("the manifest of this is in a pack of its own")
    node.run()
    lose(node, "missing pack")
    node.refused(10, "restore", "files")
    node.refused(10, "restore", "files")
    assert len(list((node.var / "restores").iterdir())) == 1
    node.refused(10, "restore", "files", "--to", str(tmp_path / "out"))
    states = [json.loads(path.read_text())["state"] for path in (node.var / "restores").glob("*/state.json")]
    assert sorted(states) == ["FETCHING", "UNDONE"]
    assert leftovers(tmp_path) == []
