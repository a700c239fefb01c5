"""The command line of the conformance suite updates, downloads, and ends with 0 or 1."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from unit.kosnode.transport import hostile
from unit.kosnode.transport.hostile import HostileMirror
from unit.kosnode.trust.tiny import TinyRepository, signers

from kosnode.tuf_client import main


@pytest.fixture
def server(repository: TinyRepository) -> Iterator[HostileMirror]:
    # As of the time of this host: the command line takes no other.
    repository.now = datetime.now(timezone.utc).replace(microsecond=0)
    repository.publish_root()
    repository.targets.clear()
    repository.release("1.0.0", document=b"content")
    repository.publish()
    with HostileMirror(repository.folder) as running:
        yield running


def run(server: HostileMirror, directory: Path, *arguments: str) -> int:
    options = ["--metadata-dir", str(directory / "m"), "--metadata-url", f"{server.url}/metadata"]
    return main([*options, *arguments])


@pytest.fixture
def directory(tmp_path: Path, repository: TinyRepository, server: HostileMirror) -> Path:
    (tmp_path / "m").mkdir()
    (tmp_path / "root").write_bytes(repository.first_root)
    assert run(server, tmp_path, "init", str(tmp_path / "root")) == 0
    assert server.requests == []
    return tmp_path


def download(server: HostileMirror, directory: Path, *names: str) -> int:
    targets = [word for name in names for word in ("--target-name", name)]
    where = ["--target-base-url", server.url, "--target-dir", str(directory / "t")]
    return run(server, directory, *targets, *where, "download")


def test_a_refresh_keeps_metadata_by_their_plain_names(server: HostileMirror, directory: Path) -> None:
    assert run(server, directory, "refresh") == 0
    assert {path.name for path in (directory / "m").glob("*.json")} == {
        "root.json",
        "timestamp.json",
        "snapshot.json",
        "targets.json",
    }


def test_a_refresh_that_is_refused_ends_with_1(
    server: HostileMirror, directory: Path, repository: TinyRepository
) -> None:
    repository.holders["timestamp"] = signers(1)
    repository.publish_timestamp()
    assert run(server, directory, "refresh") == 1


def test_a_target_is_downloaded_once(
    server: HostileMirror, directory: Path, repository: TinyRepository
) -> None:
    (name,) = repository.targets
    served = f"releases/{hashlib.sha3_256(b'content').hexdigest()}.{name.split('/')[1]}"
    (repository.folder / "releases").mkdir()
    (repository.folder / served).write_bytes(b"content")
    assert download(server, directory, name) == 0
    assert [path.read_bytes() for path in (directory / "t").iterdir()] == [b"content"]
    assert download(server, directory, name, name) == 0
    assert len(server.asked(served)) == 1


def test_a_target_that_is_not_there_or_wrong_ends_with_1(
    server: HostileMirror, directory: Path, repository: TinyRepository
) -> None:
    (name,) = repository.targets
    assert download(server, directory, name) == 1
    server.misbehave(r"releases/.*", hostile.lie(b"c0ntent"))
    assert download(server, directory, name) == 1
    assert download(server, directory, "releases/unknown") == 1
