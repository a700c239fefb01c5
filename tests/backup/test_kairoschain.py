"""The data of a KairosChain node, backed up while it appends (K05, K13, K20)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backup.backup_node import BackupNode
from backup.files import listing, tree
from backup.killing import calls, kill_at
from kosnode.ledger import verifier

ROUNDS = int(os.environ.get("KOS_ROUNDS", "1"))

# Appends as the application does: under an exclusive lock, by truncating the file and writing it anew.
APPEND = """
import fcntl, hashlib, json, sys, datetime
path, count = sys.argv[1], int(sys.argv[2])
def sha(text): return hashlib.sha256(text.encode()).hexdigest()
while count:
    count -= 1
    with open(path + ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path, "r+", encoding="utf-8") as stream:
            chain = json.load(stream)
            last, data = chain[-1], [f"entry {len(chain)} \\u00e4"]
            when = datetime.datetime.utcnow().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            block = {"index": len(chain), "timestamp": when, "data": data, "previous_hash": last["hash"]}
            block["merkle_root"] = sha(data[0])
            said = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
            block["hash"] = sha(f"{len(chain)}{when}{last['hash']}{block['merkle_root']}{said}")
            stream.seek(0); stream.truncate()
            stream.write(json.dumps(chain + [block], ensure_ascii=False, indent=2))
"""


def data_directory(folder: Path) -> Path:
    """Make a data directory as a node of version 3 has it."""
    data = folder / "data"
    for name in (
        ".kairos_meta.yml config/safety.yml skills/config.yml skills/kairos.rb skills/action_log.jsonl "
        "knowledge/k/k.md context/s/n/n.md skillsets/config.yml storage/tokens.json storage/tls/key.pem "
        "storage/snapshots/snapshot_1.json storage/embeddings/skills/x.bin storage/export/e.json"
    ).split():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name)
    genesis = {
        "index": 0,
        "timestamp": "1970-01-01T00:00:00.000000Z",
        "data": ["Genesis Block"],
        "previous_hash": "0" * 64,
        "merkle_root": "0" * 64,
    }
    text = f"0{genesis['timestamp']}{'0' * 64}{'0' * 64}" + '["Genesis Block"]'
    genesis["hash"] = hashlib.sha256(text.encode()).hexdigest()
    (data / "storage/blockchain.json").write_text(json.dumps([genesis], indent=2))
    (data / "storage/blockchain.json.lock").touch()
    return data


def append(data: Path, count: int) -> None:
    ledger = str(data / "storage/blockchain.json")
    subprocess.run([sys.executable, "-W", "ignore", "-c", APPEND, ledger, str(count)], check=True)


@contextlib.contextmanager
def appending(data: Path) -> Iterator[None]:
    """Have another process append all the time."""
    ledger = str(data / "storage/blockchain.json")
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", APPEND, ledger, "-1"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def configure(node: BackupNode, data: Path, **more: object) -> None:
    source = {"class": "critical", "method": "kairoschain", "path": str(data)}
    repository = node.repository(data.parent / "repository")
    node.configure({"ledger": source}, {"main": repository}, **more)
    node.init()


@pytest.mark.fault
def test_every_run_during_continuous_appends_holds_a_whole_ledger(node: BackupNode, tmp_path: Path) -> None:
    data = data_directory(tmp_path)
    configure(node, data)
    lengths = []
    with appending(data):
        for number in range(10 if ROUNDS < 6 else 50):
            heads = node.run()["sources"][0]["heads"]
            lengths.append(heads["length"])
            out = tmp_path / f"out{number}"
            answer = node.kosctl("restore", "ledger", "--to", str(out))
            assert answer["ok"], (number, answer["error"])
            head = verifier.head(out / "data/storage/blockchain.json")
            assert head.as_dict() == heads
            shutil.rmtree(out)
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0]


def test_each_file_has_its_class_and_what_the_application_makes_again_is_not_there(
    node: BackupNode, tmp_path: Path
) -> None:
    data = data_directory(tmp_path)
    configure(node, data)
    run = node.run()
    snapshot = run["sources"][0]["snapshots"][0]["id"]
    path = f"{node.var}/stage/ledger/manifest/manifest.json"
    listed = json.loads(node.restic("dump", snapshot, path))
    found = {
        one["path"].partition("/data/data/")[2]: one for one in listed["entries"] if one["type"] == "file"
    }
    ranks = {name: one.get("class", listed["class"]) for name, one in found.items()}
    assert ranks == {
        ".kairos_meta.yml": "high",
        "config/safety.yml": "high",
        "context/s/n/n.md": "medium",
        "knowledge/k/k.md": "high",
        "skills/action_log.jsonl": "low",
        "skills/config.yml": "critical",
        "skills/kairos.rb": "critical",
        "skillsets/config.yml": "high",
        "storage/blockchain.json": "critical",
        "storage/export/e.json": "low",
        "storage/snapshots/snapshot_1.json": "medium",
        "storage/tls/key.pem": "critical",
        "storage/tokens.json": "critical",
    }


def test_after_a_restore_the_ledger_is_as_long_as_the_manifest_says(node: BackupNode, tmp_path: Path) -> None:
    data = data_directory(tmp_path)
    append(data, 5)
    configure(node, data)
    heads = node.run()["sources"][0]["heads"]
    before = {
        key: value for key, value in listing(data).items() if "embeddings" not in key and ".lock" not in key
    }
    shutil.rmtree(data)
    assert node.kosctl("restore", "ledger")["ok"]
    assert verifier.head(data / "storage/blockchain.json").as_dict() == heads
    assert listing(data) == before


@pytest.mark.fault
def test_a_ledger_that_was_cut_made_anew_or_is_another_nodes_is_not_backed_up(
    node: BackupNode, tmp_path: Path
) -> None:
    data = data_directory(tmp_path)
    append(data, 5)
    configure(node, data)
    node.run()
    ledger = data / "storage/blockchain.json"
    whole = ledger.read_text()
    ledger.write_text(json.dumps(json.loads(whole)[:3], indent=2))
    assert "ends before block 5" in node.refused(3, "backup", "run")
    append(data, 4)
    assert "another block 5" in node.refused(3, "backup", "run")
    ledger.write_text(whole)
    append(data, 1)
    node.run()
    assert len(node.snapshots()) == 2


def test_after_a_restore_to_an_older_state_the_next_run_goes_on_from_there(
    node: BackupNode, tmp_path: Path
) -> None:
    data = data_directory(tmp_path)
    append(data, 5)
    configure(node, data)
    first = node.run()["run"]
    append(data, 5)
    node.run()
    done = node.kosctl("restore", "ledger", "--run", first, "--older")
    assert done["ok"], done
    append(data, 1)
    assert node.run()["sources"][0]["heads"]["length"] == 7


@pytest.mark.fault
def test_a_ledger_that_is_absent_damaged_or_torn_is_a_failure(node: BackupNode, tmp_path: Path) -> None:
    data = data_directory(tmp_path)
    append(data, 3)
    configure(node, data)
    ledger = data / "storage/blockchain.json"
    whole = ledger.read_text()
    ledger.write_text(whole.replace("entry 2", "entry X"))
    node.refused(10, "backup", "run")
    ledger.write_text(whole[:-10])
    node.refused(2, "backup", "run")
    ledger.unlink()
    assert "is not there" in node.refused(4, "backup", "run")
    assert node.snapshots() == []


@pytest.mark.fault
def test_a_data_directory_that_another_program_synchronises_is_refused(
    node: BackupNode, tmp_path: Path
) -> None:
    data = data_directory(tmp_path)
    configure(node, data)
    (tmp_path / ".stfolder").mkdir()
    assert "synchronises" in node.refused(2, "backup", "run")


def lost_after_backup(node: BackupNode, folder: Path, *, witness: bool = True) -> tuple[Path, str, str]:
    """Back a ledger up, let it grow by 3, and lose it; returns the data directory and both anchors."""
    data = data_directory(folder)
    append(data, 5)
    (folder / "witness").mkdir()
    configure(node, data, **({"witness": {"url": (folder / "witness").as_uri()}} if witness else {}))
    node.run()
    backed_up = anchor(data)
    append(data, 3)
    seen = anchor(data)
    shutil.rmtree(data)
    return data, backed_up, seen


def anchor(data: Path) -> str:
    head = verifier.head(data / "storage/blockchain.json")
    return f"{head.index}:{head.hash}"


@pytest.mark.fault
def test_a_restore_that_loses_records_which_were_seen_wants_the_word_for_it_and_says_how_many(
    node: BackupNode, tmp_path: Path
) -> None:
    """K08."""
    data, backed_up, seen = lost_after_backup(node, tmp_path)
    ask = ("restore", "ledger", "--anchor", seen)
    message = node.refused(3, *ask)
    assert "the ledger had block 8" in message
    assert "ends with block 5: 3 records would be lost; `--accept-loss`" in message
    assert [one.name for one in tmp_path.glob(".kos-*")] == []
    done = node.kosctl(*ask, "--accept-loss")
    told = {"known": seen, "restored": backed_up, "lost": 3, "agreed": True}
    assert (done["result"]["anchor"], anchor(data)) == (told, backed_up), done
    assert "without the last 3 records" in done["actions"][0]
    # Whoever was killed before he knew is told when he asks again, and when it ends.
    again = node.kosctl(*ask, "--accept-loss")
    assert (again["exit"], again["result"]["anchor"]) == (3, told)
    ended = node.kosctl("restore", "--undo", done["result"]["id"])
    assert (ended["result"]["state"], ended["result"]["anchor"]) == ("UNDONE", told)


@pytest.mark.fault
def test_killed_at_any_rename_a_restore_tells_what_is_given_up_to_whoever_asks_again(
    node: BackupNode, tmp_path: Path, chance: random.Random
) -> None:
    data, backed_up, seen = lost_after_backup(node, tmp_path)
    ask = ("restore", "ledger", "--anchor", seen, "--accept-loss")
    renames = [one for one in calls(node, tmp_path / "trace", *ask) if one.name.startswith("rename")]
    for call in (None, *chance.sample(renames, min(2 * ROUNDS, len(renames)))):
        killed = call is not None and kill_at(node, call, *ask)
        again = node.kosctl(*ask)
        assert again["exit"] in (0, 3), (call, again)
        assert again["result"]["anchor"]["lost"] == 3, (call, killed)
        assert anchor(data) == backed_up
        assert node.kosctl("restore", "--undo", again["result"]["id"])["ok"]
        assert not data.exists()


@pytest.mark.fault
@pytest.mark.parametrize("how", ["none", "not asked"])
def test_without_a_witness_nobody_agrees_that_a_ledger_ended_where_it_does(
    node: BackupNode, tmp_path: Path, how: str
) -> None:
    _data, _backed_up, seen = lost_after_backup(node, tmp_path, witness=how != "none")
    words = ["--no-witness"] if how == "not asked" else []
    done = node.kosctl("restore", "ledger", "--anchor", seen, "--accept-loss", *words)
    assert (done["exit"], done["result"]["anchor"]["agreed"]) == (0, False)


def test_a_ledger_that_has_every_block_which_was_seen_comes_back_without_a_word(
    node: BackupNode, tmp_path: Path
) -> None:
    data, backed_up, _seen = lost_after_backup(node, tmp_path)
    done = node.kosctl("restore", "ledger", "--anchor", backed_up)
    assert (done["exit"], done["result"]["anchor"]) == (0, None)
    assert anchor(data) == backed_up


def test_an_anchor_says_nothing_to_a_source_without_a_ledger(node: BackupNode, tmp_path: Path) -> None:
    node.tree(tree(tmp_path))
    node.run()
    done = node.kosctl("restore", "files", "--anchor", f"8:{'a' * 64}")
    assert (done["exit"], done["result"]["anchor"]) == (0, None)


@pytest.mark.fault
@pytest.mark.parametrize("index", [3, 5])
def test_no_word_restores_a_ledger_with_another_block_than_the_one_that_was_seen(
    node: BackupNode, tmp_path: Path, index: int
) -> None:
    data, _backed_up, _seen = lost_after_backup(node, tmp_path)
    other = f"{index}:{'a' * 64}"
    message = node.refused(3, "restore", "ledger", "--anchor", other, "--accept-loss")
    assert f"has another block {index}" in message
    assert not data.exists()
    assert [one.name for one in tmp_path.glob(".kos-*")] == []
    assert node.kosctl("restore", "ledger", "--anchor", other, "--to", str(tmp_path / "out"))["ok"]


@pytest.mark.fault
@pytest.mark.parametrize("text", ["", "8", "8:xyz", "-1:" + "a" * 64, "8:" + "A" * 64])
def test_an_anchor_that_is_none_is_refused(node: BackupNode, tmp_path: Path, text: str) -> None:
    lost_after_backup(node, tmp_path, witness=False)
    assert "is not an anchor" in node.refused(2, "restore", "ledger", f"--anchor={text}")
