"""Verification: everything that a node would fetch is checked whole, and what is wrong is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from publisher_world import World

from kosnode.errors import DamagedError, InputError, TrustError
from kosnode.publish import catalogue, verify


@pytest.fixture
def full(opened: World) -> World:
    """Two releases and the patch between them, published."""
    opened.release("1.0.0")
    opened.release("1.1.0")
    return opened


def one(world: World, pattern: str) -> Path:
    (path,) = world.repository.public.glob(pattern)
    return path


def test_what_was_published_is_right(full: World, tmp_path: Path) -> None:
    report = verify.verify(full.repository.path, now=full.clock)
    assert report.releases == ["kos 1.0.0 (any)", "kos 1.1.0 (any)"]
    assert report.patches == 2
    full.publish(tmp_path / "mirror")
    root = tmp_path / "pinned.json"
    root.write_bytes((full.repository.metadata_dir / "1.root.json").read_bytes())
    assert verify.verify(tmp_path / "mirror", root, now=full.clock).notes == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def swap(path: Path) -> None:
    """Put the other release's file in its place."""
    others = [other for other in path.parent.iterdir() if other.suffixes == path.suffixes and other != path]
    path.write_bytes(others[0].read_bytes())


@pytest.mark.parametrize("damage", [flip, truncate, append, swap, Path.unlink])
@pytest.mark.parametrize("suffix", ["json", "json.zst", "tar.zst"])
def test_each_damaged_file_of_a_release_is_named(
    full: World, suffix: str, damage: Callable[[Path], None]
) -> None:
    """C16: the verify command names the file."""
    root = next(row["root"] for row in catalogue.table(full.repository) if row["version"] == "1.1.0")
    path = full.repository.public / f"releases/{root}.{suffix}"
    damage(path)
    with pytest.raises(DamagedError, match=rf"releases/{root}\.{suffix}") as caught:
        verify.verify(full.repository.path, now=full.clock)
    findings = caught.value.detail["findings"]
    assert isinstance(findings, list)
    assert findings[0]["file"] == f"releases/{root}.{suffix}"


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("suffix", [".zst", ".json.zst"])
def test_a_patch_that_gives_other_bytes_is_named(
    full: World, suffix: str, damage: Callable[[Path], None]
) -> None:
    names = sorted(path.name for path in (full.repository.public / "patches").iterdir())
    (name,) = [name for name in names if name[129:] == suffix]
    damage(full.repository.public / "patches" / name)
    with pytest.raises(DamagedError, match=rf"patches/{name}"):
        verify.verify(full.repository.path, now=full.clock)


def test_all_that_is_wrong_is_listed(full: World) -> None:
    for path in (full.repository.public / "releases").glob("*.tar.zst"):
        flip(path)
    with pytest.raises(DamagedError, match=r"files that are wrong: [2-9]") as caught:
        verify.verify(full.repository.path, now=full.clock)
    findings = caught.value.detail["findings"]
    assert isinstance(findings, list)
    assert len([one for one in findings if one["file"].endswith(".tar.zst")]) == 2


def test_metadata_that_do_not_hold_are_not_trusted(full: World) -> None:
    path = full.repository.metadata_dir / "3.releases.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"stable"', b'"stabel"', 1))
    assert path.read_bytes() != data
    with pytest.raises(TrustError):
        verify.verify(full.repository.path, now=full.clock)
    path.unlink()
    with pytest.raises(DamagedError, match=r"3\.releases\.json"):
        verify.verify(full.repository.path, now=full.clock)


def test_an_expired_timestamp_is_not_trusted(full: World) -> None:
    full.clock.pass_days(3)
    with pytest.raises(TrustError, match="timestamp version 3 expired"):
        verify.verify(full.repository.path, now=full.clock)


def test_another_pinned_root_is_not_trusted(full: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other").open()
    with pytest.raises(TrustError):
        verify.verify(full.repository.path, other.repository.metadata_dir / "1.root.json", now=full.clock)


def test_patches_from_a_withdrawn_release_cannot_be_checked_and_that_is_said(full: World) -> None:
    catalogue.withdraw(full.repository, "1.0.0")
    full.sign("releases", "alice", "bob")
    full.publish()
    report = verify.verify(full.repository.path, now=full.clock)
    assert report.patches == 0
    assert any("its old release is not here" in note for note in report.notes)


def test_files_that_belong_to_nothing_are_noted(full: World) -> None:
    (full.repository.public / "releases/README").write_text("hello")
    report = verify.verify(full.repository.path, now=full.clock)
    assert "releases/README belongs to no release" in report.notes


def test_a_folder_that_is_neither_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a repository nor a mirror"):
        verify.verify(tmp_path)


def test_verification_writes_nothing(full: World, tmp_path: Path) -> None:
    shutil.copytree(full.repository.path, tmp_path / "before")
    verify.verify(full.repository.path, now=full.clock)
    before = {path.relative_to(tmp_path / "before") for path in (tmp_path / "before").rglob("*")}
    assert {path.relative_to(full.repository.path) for path in full.repository.path.rglob("*")} == before
