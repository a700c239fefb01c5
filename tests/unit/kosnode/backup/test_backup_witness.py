"""The witness: takes only what continues its chain; what it holds is not cut or rewritten unseen (K08)."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kosnode import files
from kosnode.backup import signing, trail, witness, witness_cli
from kosnode.backup.memory import Trail
from kosnode.backup.restic import BackendError
from kosnode.backup.trail import Line
from kosnode.backup.witness import Folder, Mounted, Ssh, Witness
from kosnode.backup.witness_http import Http
from kosnode.errors import InputError, RefusedError, TrustError

WHAT: dict[str, Any] = {
    **{"time": "2026-11-21T12:00:00Z", "node": "n1", "run": "r", "source": "files", "heads": {"length": 1}},
    **{"repository": "1" * 64, "snapshot": "2" * 64, "manifest": "3" * 64, "tree": "4" * 64},
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signing.make_key(tmp_path / "keys/node", "n1")
    return tmp_path / "keys/node"


@pytest.fixture
def other_key(tmp_path: Path) -> Path:
    signing.make_key(tmp_path / "other/node", "n2")
    return tmp_path / "other/node"


@pytest.fixture
def folder(tmp_path: Path, key: Path) -> Path:
    Folder(tmp_path / "witness").register("n1", signing.public_key(key))
    return tmp_path / "witness"


class ForcedCommand:
    """Stands for ssh: runs what the witness's account would run, with two words of the caller."""

    def __init__(self, folder: Path, tmp_path: Path) -> None:
        self.path = tmp_path / "bin"
        self.path.mkdir()
        runtime = Path(witness.__file__).parents[2]
        script = self.path / "ssh"
        script.write_text(
            "#!/bin/sh\nfor last; do :; done\n"
            f'export SSH_ORIGINAL_COMMAND="$last" PYTHONPATH={runtime}\n'
            f"exec {sys.executable} -m kosnode witness --node n1 --folder {folder}\n"
        )
        script.chmod(0o755)


@pytest.fixture(params=["file", "http", "ssh"])
def asked(
    request: pytest.FixtureRequest, folder: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Witness]:
    """The same witness, asked in each way."""
    if request.param == "file":
        yield Mounted(folder)
    elif request.param == "http":
        server = witness_cli.server(Folder(folder), "127.0.0.1:0")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Http(f"http://127.0.0.1:{server.server_port}", timeout_s=20)
        server.shutdown()
        server.server_close()
        thread.join()
    else:
        forced = ForcedCommand(folder, tmp_path)
        monkeypatch.setenv("PATH", f"{forced.path}:{os.environ['PATH']}")
        yield Ssh("kos@127.0.0.1", 22, key, tmp_path / "known_hosts", timeout_s=60)


def memory(tmp_path: Path, key: Path, name: str = "copy") -> Trail:
    return Trail(tmp_path / f"{name}.jsonl", "n1", [signing.public_key(key)])


def add(trace: Trail, asked: Witness, key: Path, **changes: object) -> Line:
    line = trail.make({**WHAT, **changes}, trace.last, key=key)
    trace.append(asked, line)
    return line


def test_lines_are_taken_in_order_and_given_back(asked: Witness, key: Path, tmp_path: Path) -> None:
    trace = memory(tmp_path, key)
    made = [add(trace, asked, key, source=f"s{number}") for number in range(3)]
    assert asked.read("n1", 0) == made
    assert asked.read("n1", 2) == made[2:]
    fresh = memory(tmp_path, key, "another")
    fresh.read(asked)
    assert fresh.lines == made


def test_a_line_whose_answer_got_lost_may_be_sent_again(asked: Witness, key: Path, tmp_path: Path) -> None:
    line = add(memory(tmp_path, key), asked, key)
    asked.append("n1", line)
    assert asked.read("n1", 0) == [line]


def test_a_line_that_does_not_continue_the_chain_is_refused(
    asked: Witness, key: Path, tmp_path: Path
) -> None:
    trace = memory(tmp_path, key)
    first = add(trace, asked, key)
    second = trail.make(WHAT, first, key=key)
    for wrong in (trail.make({**WHAT, "run": "x"}, None, key=key), trail.make(WHAT, second, key=key)):
        with pytest.raises(RefusedError):
            asked.append("n1", wrong)
    assert asked.read("n1", 0) == [first]


def test_a_line_of_another_key_or_of_another_node_is_refused(
    asked: Witness, key: Path, other_key: Path
) -> None:
    for wrong in (trail.make(WHAT, None, key=other_key), trail.make({**WHAT, "node": "n2"}, None, key=key)):
        with pytest.raises((RefusedError, TrustError)):
            asked.append("n1", wrong)
    assert asked.read("n1", 0) == []


def test_a_cut_tail_is_found(asked: Witness, folder: Path, key: Path, tmp_path: Path) -> None:
    trace = memory(tmp_path, key)
    for _ in range(3):
        add(trace, asked, key)
    path = folder / "n1.jsonl"
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:2]) + b"\n")
    with pytest.raises(RefusedError, match="ends before line 3"):
        memory(tmp_path, key).read(asked)


def test_a_file_that_was_emptied_is_found(asked: Witness, folder: Path, key: Path, tmp_path: Path) -> None:
    add(memory(tmp_path, key), asked, key)
    (folder / "n1.jsonl").write_bytes(b"")
    with pytest.raises(RefusedError, match="ends before line 1"):
        memory(tmp_path, key).read(asked)


def test_a_chain_that_was_written_anew_is_found(
    asked: Witness, folder: Path, key: Path, tmp_path: Path
) -> None:
    trace = memory(tmp_path, key)
    add(trace, asked, key)
    (folder / "n1.jsonl").unlink()
    add(memory(tmp_path, key, "another"), asked, key, source="else")
    with pytest.raises(RefusedError, match="is another one"):
        trace.read(asked)


def test_a_line_that_was_put_in_by_the_witness_is_not_believed(
    asked: Witness, folder: Path, key: Path, other_key: Path, tmp_path: Path
) -> None:
    trace = memory(tmp_path, key)
    forged = trail.make(WHAT, add(trace, asked, key), key=other_key)
    with (folder / "n1.jsonl").open("ab") as stream:
        stream.write(forged.raw + b"\n")
    with pytest.raises(TrustError, match="line 2"):
        trace.read(asked)


def test_a_node_that_nobody_registered_is_refused(folder: Path, key: Path) -> None:
    with pytest.raises(RefusedError, match="does not know node n9"):
        Folder(folder).append("n9", trail.make({**WHAT, "node": "n9"}, None, key=key))


def test_a_replaced_machine_goes_on_with_a_key_of_its_own(folder: Path, key: Path, other_key: Path) -> None:
    first = trail.make(WHAT, None, key=key)
    Folder(folder).append("n1", first)
    with (folder / "n1.pub").open("a") as stream:
        stream.write(signing.public_key(other_key) + "\n")
    Folder(folder).append("n1", trail.make(WHAT, first, key=other_key))
    assert len(Folder(folder).read("n1", 0)) == 2


def test_a_second_key_does_not_take_a_nodes_place(folder: Path, other_key: Path) -> None:
    with pytest.raises(RefusedError, match="another key"):
        Folder(folder).register("n1", signing.public_key(other_key))


@pytest.mark.parametrize(
    "asked_for", ["", "appendix", "read x", "read 1; id", "append\nread", "sh", "read -1", "append extra"]
)
def test_over_ssh_nothing_but_two_words_is_answered(
    monkeypatch: pytest.MonkeyPatch, folder: Path, asked_for: str
) -> None:
    import argparse

    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", asked_for)
    args = argparse.Namespace(what=None, node="n1", since=0, folder=folder, listen="")
    with pytest.raises(InputError):
        witness_cli.witness(args)


@pytest.mark.parametrize("name", ["", "..", "../n1", "a/b", ".hidden", "n1\n", "x" * 300])
def test_a_node_is_no_path(folder: Path, name: str) -> None:
    with pytest.raises(InputError):
        Folder(folder).read(name, 0)


@pytest.mark.parametrize("key_of", ["seq", "time", "manifest", "heads", "previous"])
@pytest.mark.parametrize("value", [None, 0, -1, "", "x", [], {}, True])
def test_a_line_with_a_wrong_value_is_no_line(key: Path, key_of: str, value: object) -> None:
    line = trail.make(WHAT, None, key=key)
    changed = {**line.value, key_of: value}
    if key_of == "heads" and value == {}:
        changed["format"] = 2
    with pytest.raises(InputError):
        trail.parse(files.canonical(changed))


def test_a_line_has_one_form(key: Path) -> None:
    line = trail.make(WHAT, None, key=key)
    with pytest.raises(InputError, match="canonical"):
        trail.parse(json.dumps(dict(line.value)).encode())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "file:///nowhere/at/all"])
def test_a_witness_that_cannot_be_reached_is_a_failure_of_its_own(
    url: str, key: Path, tmp_path: Path
) -> None:
    asked = witness.connect(url, identity=key, known_hosts=tmp_path / "k", timeout_s=5)
    with pytest.raises(BackendError):
        asked.read("n1", 0)


def test_an_address_says_how_a_witness_is_asked(key: Path, tmp_path: Path) -> None:
    kinds = {
        "ssh://kos@w.example:2222": Ssh,
        "https://w.example/kos": Http,
        "file:///mnt/w": Mounted,
    }
    for url, kind in kinds.items():
        assert isinstance(witness.connect(url, identity=key, known_hosts=tmp_path, timeout_s=5), kind)


def test_a_changed_line_has_another_hash(key: Path) -> None:
    line = trail.make(WHAT, None, key=key)
    assert dataclasses.replace(line, raw=line.raw + b" ").hash != line.hash
