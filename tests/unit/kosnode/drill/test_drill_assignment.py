"""A drill that the operator account asks for is what root wrote down, and no more (decision 0012)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kosnode.drill import assignment
from kosnode.errors import InputError, KosError, RefusedError

PUBLIC = "ssh-ed25519 " + "A" * 68
KEY = "the recovery key of n1"
NODE = {"repositories": {"offsite": {"url": "rest:https://192.0.2.1/n1/"}}, "node_keys": [PUBLIC]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path)


def write(folder: Path, node: dict[str, Any] | None = None, **of_host: Any) -> Path:
    path = folder / "drill.json"
    path.write_text(json.dumps({"format": 1, "nodes": {"n1": {**NODE, **(node or {})}}, **of_host}))
    return path


def complete(path: Path, **options: Any) -> Any:
    asked = {"node": "n1", "repository": "offsite", "recovery_key": KEY, "seed": "7", **options}
    return assignment.complete({**dict.fromkeys(assignment.OPTIONS), **asked}, path)


def test_addresses_keys_paths_and_commands_are_those_of_the_file(tmp_path: Path) -> None:
    """K14, M13."""
    docs = {"class": "high", "method": "tree", "path": "/srv/docs", "verifier": ["/usr/bin/true"]}
    path = write(
        tmp_path,
        {"table": {"docs": docs}, "witness": {"url": "https://witness.example/"}, "interval_s": 60},
        scratch="/srv/drill",
        production=["/srv/live"],
    )
    asked = complete(path, sources=["docs"], picked=["n1"], among=["n1", "n2"], time="2026-01-31T12:00:00Z")
    assert (asked.node, asked.repository.url) == ("n1", "rest:https://192.0.2.1/n1/")
    assert (asked.node_keys, asked.witness, asked.interval_s) == ((PUBLIC,), "https://witness.example/", 60)
    assert (asked.scratch, asked.production) == (Path("/srv/drill"), (Path("/srv/live"),))
    assert asked.table[0].verifier == ("/usr/bin/true",)
    assert (asked.wanted, asked.hosts) == (("docs",), {"picked": ["n1"], "of": ["n1", "n2"]})
    assert asked.recovery_key == KEY


def test_a_node_that_the_file_does_not_name_is_refused_with_both_names(file: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        complete(file, node="n2")
    assert caught.value.message == f"{file} does not name n2, so it is not drilled here"


def test_a_host_that_drills_nobody_says_who_would_write_the_file(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="is not there, so n1 is not drilled here; role backup writes it"):
        complete(tmp_path / "drill.json")


def test_a_repository_that_the_file_does_not_name_is_refused(file: Path) -> None:
    with pytest.raises(RefusedError, match="names no repository here of n1; there is offsite"):
        complete(file, repository="here")


def test_a_witness_that_root_named_is_not_replaced_by_lines_of_the_caller(tmp_path: Path) -> None:
    path = write(tmp_path, {"witness": {"url": "https://witness.example/"}})
    with pytest.raises(RefusedError, match="says where the witness of n1 is"):
        complete(path, lines=[])
    assert complete(write(tmp_path), lines=[]).lines == ()


def test_a_source_that_root_did_not_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"table": {"docs": {"class": "high", "method": "tree", "path": "/srv/docs"}}})
    with pytest.raises(InputError, match="shadow is not in the table"):
        complete(path, sources=["shadow"])


def test_certificates_are_read_here_and_by_the_path_of_root(tmp_path: Path) -> None:
    made = tmp_path / "ca.pem"
    repositories = {"offsite": {"url": "rest:https://192.0.2.1/n1/", "ca": str(made)}}
    path = write(tmp_path, {"repositories": repositories})
    with pytest.raises(InputError, match=r"nodes\.n1\.repositories\.offsite\.ca: cannot be read here"):
        complete(path)
    words = [
        *("req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=c", "-out", str(made)),
        "-keyout",
    ]
    subprocess.run([str(shutil.which("openssl")), *words, "/dev/null"], check=True, capture_output=True)
    assert complete(path).certificates == made.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("[]", "must be a mapping"),
        ('{"format":1}', "nodes: is missing"),
        (
            '{"format":1,"nodes":{"../n":{"repositories":{"x":{"url":"/x"}},"node_keys":["'
            + PUBLIC
            + '"]}}}',
            "is not allowed; it must be the name of a node",
        ),
        ('{"format":1,"nodes":{"n1":{"node_keys":["x"]}}}', "repositories: is missing"),
        ('{"format":1,"nodes":{},"scratsh":"/x"}', "scratsh: unknown key; did you mean scratch?"),
    ],
)
def test_a_file_that_is_none_is_named_with_key_and_rule(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "drill.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        complete(path)
    assert str(path) in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize(
    "options",
    [
        {"environment": {"LD_PRELOAD": KEY}},
        {"recovery_key": f"{KEY}\n"},
        {"lines": [{"text": KEY}]},
        {"environment": {"AWS_ACCESS_KEY_ID": f"{KEY}\n"}},
    ],
)
def test_no_refusal_repeats_a_secret(file: Path, options: dict[str, Any]) -> None:
    with pytest.raises(KosError) as caught:
        complete(file, **options)
    assert KEY not in caught.value.message
