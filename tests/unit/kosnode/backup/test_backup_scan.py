"""What a walk finds, how files are hashed, and how a change after the walk is noticed (M11)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kosnode.backup import scan
from kosnode.backup.source import Root

LATER_NS = 3_000_000_000


def walked(folder: Path) -> scan.Walk:
    return scan.walk([Root(folder, folder)], lambda path: False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "below").mkdir(parents=True)
    (data / "below/a").write_text("one")
    (data / "link").symlink_to("below/a")
    return data


@pytest.mark.parametrize("size", [0, 1, 4096, 256 * 1024 - 1, 256 * 1024, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_the_hash_of_a_file_is_that_of_all_its_bytes_whatever_its_size(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    found = [one for one in walked(tmp_path).seen.values() if one.path.endswith("file")]
    assert [digest for _, digest in scan.digests(found)] == [hashlib.sha3_256(content).hexdigest()]


@pytest.mark.parametrize("expected", [0, 1, 9, 10, 11, 5_000_000])
def test_a_file_of_another_size_than_expected_is_read_whole(tmp_path: Path, expected: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"ten bytes.")
    digest, size, after = scan.hash_file(str(path), expected)
    assert (digest, size) == (hashlib.sha3_256(b"ten bytes.").hexdigest(), 10)
    assert after.st_size == 10


def test_a_file_that_grew_after_the_walk_is_unstable(data: Path, tmp_path: Path) -> None:
    found = walked(data)
    (data / "below/a").write_text("one and more")
    assert scan.read(found, scan.Hashes(tmp_path / "hashes")).unstable == {str(data / "below/a")}


def test_what_nobody_touched_is_untouched(data: Path) -> None:
    found = walked(data)
    assert scan.is_untouched(found, scan.now_ns() + LATER_NS)


def add(data: Path) -> None:
    (data / "below/new").touch()


def remove(data: Path) -> None:
    (data / "link").unlink()


def write(data: Path) -> None:
    before = (data / "below/a").stat()
    (data / "below/a").write_text("two")
    os.utime(data / "below/a", ns=(before.st_atime_ns, before.st_mtime_ns))


def open_up(data: Path) -> None:
    (data / "below").chmod(0o777)


def take_the_place(data: Path) -> None:
    (data / "other").write_text("one")
    (data / "other").rename(data / "below/a")


@pytest.mark.parametrize("change", [add, remove, write, open_up, take_the_place])
def test_whatever_changes_after_the_walk_is_noticed(data: Path, change: Callable[[Path], None]) -> None:
    found = walked(data)
    change(data)
    assert not scan.is_untouched(found, scan.now_ns() + LATER_NS)
    assert scan.changed(found, walked(data))


def test_a_directory_that_was_just_written_to_has_to_be_listed_again(data: Path) -> None:
    """Its time may stay the same when more comes into it."""
    found = walked(data)
    assert not scan.is_untouched(found, scan.now_ns())
