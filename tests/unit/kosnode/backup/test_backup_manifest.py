"""Manifests: every name can be said, the encoding is canonical, and what was changed does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosnode import files
from kosnode.backup import manifest
from kosnode.backup.manifest import Entry, Manifest
from kosnode.backup.source import Root
from kosnode.errors import DamagedError

SHA3 = "a" * 64


def entry(path: str, kind: str = "file") -> Entry:
    made = Entry(path, kind, 0o644, 1, 2, "user", "group", 1_000_000_007)
    if kind == "file":
        return dataclasses.replace(made, size=3, sha3=SHA3)
    return dataclasses.replace(made, target="x") if kind == "link" else made


LISTED = Manifest(
    node="n1",
    fleet="demo",
    run="20261121T120000Z-1a2b3c4d",
    time="2026-11-21T12:00:00Z",
    source="files",
    rank="high",
    method="tree",
    roots=(Root(Path("/srv"), Path("/srv")),),
    entries=(entry("srv", "directory"), entry("srv/a"), entry("srv/b/c"), entry("srv/l", "link")),
    heads={"length": 3},
    unstable=("srv/a",),
)


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
@settings(max_examples=300, derandomize=True)
def test_any_name_is_said_in_one_way_and_read_back(name: bytes) -> None:
    text = manifest.encode(name)
    text.encode("utf-8")
    assert manifest.decode(text) == name


@given(st.binary(), st.binary())
@settings(max_examples=300, derandomize=True)
def test_no_two_names_are_said_alike(one: bytes, other: bytes) -> None:
    assert (manifest.encode(one) == manifest.encode(other)) == (one == other)


def test_what_is_written_is_canonical_and_is_read_back_the_same() -> None:
    data = LISTED.encoded()
    assert data == files.canonical(json.loads(data))
    assert manifest.parse(data) == LISTED


@pytest.mark.parametrize("key", ["size", "sha3", "mode", "path"])
def test_an_entry_that_was_changed_does_not_fit_the_tree(key: str) -> None:
    value = json.loads(LISTED.encoded())
    changes: dict[str, object] = {"size": 4, "sha3": "b" * 64, "mode": "0600", "path": "srv/z"}
    value["entries"][1][key] = changes[key]
    with pytest.raises(DamagedError, match="contradicts itself"):
        manifest.parse(files.canonical(value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        LISTED.encoded()[:-2],
        LISTED.encoded().replace(b'"format":1', b'"format":2'),
    ],
)
def test_what_is_no_manifest_is_damaged_and_not_a_surprise(data: bytes) -> None:
    with pytest.raises(DamagedError):
        manifest.parse(data)


@pytest.mark.parametrize("key", ["entries", "roots", "heads", "unstable"])
@pytest.mark.parametrize("value", [None, 1, "x", [1], [[]], [{}], [None]])
def test_a_value_of_the_wrong_kind_is_damage(key: str, value: object) -> None:
    document = json.loads(LISTED.encoded())
    document[key] = value
    with pytest.raises(DamagedError):
        manifest.parse(json.dumps(document).encode())
