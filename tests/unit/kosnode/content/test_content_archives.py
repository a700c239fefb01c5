"""The archive of a release follows from its manifest, and no other bytes are taken for it (S17)."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_trees import APP, Content, only_part, packed, release, rounds, trees, write_tree

from kosnode import archive
from kosnode.errors import DamagedError
from kosnode.manifest import Entry, FileEntry, LinkEntry, Manifest


class Taken:
    """Takes an archive into memory."""

    def __init__(self) -> None:
        self.contents: dict[str, Content] = {}

    def file(self, entry: FileEntry, chunks: Iterator[bytes]) -> None:
        self.contents[entry.path] = b"".join(chunks)

    def link(self, entry: LinkEntry) -> None:
        self.contents[entry.path] = entry.target


def taken(manifest: Manifest, data: bytes) -> dict[str, Content]:
    sink = Taken()
    archive.read_part(manifest, only_part(manifest), io.BytesIO(data), sink)
    return sink.contents


def refusal(manifest: Manifest, data: bytes) -> DamagedError:
    with pytest.raises(DamagedError) as caught:
        taken(manifest, data)
    return caught.value


@rounds
@given(contents=trees())
def test_any_tree_comes_back_from_its_archive(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, Content]
) -> None:
    tree = tmp_path_factory.mktemp("tree")
    manifest = release(tree, contents)
    data = packed(manifest, tree)
    assert len(data) == only_part(manifest).size == archive.archive_size(manifest.files)
    assert taken(manifest, data) == contents


@rounds
@given(contents=trees())
def test_other_programs_read_the_archive_as_a_tar(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, Content]
) -> None:
    tree = tmp_path_factory.mktemp("tree")
    manifest = release(tree, contents)
    with tarfile.open(fileobj=io.BytesIO(packed(manifest, tree))) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [entry.path for entry in manifest.files]
        for member, entry in zip(members, manifest.files, strict=True):
            assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
            if isinstance(entry, LinkEntry):
                assert (member.issym(), member.linkname) == (True, entry.target)
            else:
                stream = tar.extractfile(member)
                assert stream is not None
                assert stream.read() == contents[entry.path]
                assert f"{member.mode:04o}" == entry.mode


def test_the_archive_depends_on_nothing_but_the_manifest(tmp_path: Path) -> None:
    """Other order on disk, times and modes: the same bytes."""
    one = write_tree(tmp_path / "one", APP)
    other = write_tree(tmp_path / "other", dict(reversed(APP.items())))
    for path in other.rglob("*"):
        os.utime(path, (7, 7), follow_symlinks=False)
    (other / "bin/kosd").chmod(0o711)
    made = [Manifest.build(tree, name="kos", version="1.0.0") for tree in (one, other)]
    assert packed(made[0], one) == packed(made[1], other)


@rounds
@given(contents=trees(), position=st.integers(0), value=st.integers(1, 255))
def test_every_changed_byte_of_an_archive_is_refused(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, Content], position: int, value: int
) -> None:
    tree = tmp_path_factory.mktemp("tree")
    manifest = release(tree, contents)
    data = bytearray(packed(manifest, tree))
    data[position % len(data)] ^= value
    assert refusal(manifest, bytes(data)).key in contents


def test_a_change_at_each_single_place_is_refused(tmp_path: Path) -> None:
    """Headers, extended headers, contents, padding and the end: no byte is ignored."""
    contents: dict[str, Content] = {"é": b"abc", "x" * 120: b"", "z": "é"}
    manifest = release(tmp_path, contents)
    data = packed(manifest, tmp_path)
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 0x20]) + data[position + 1 :]
        assert refusal(manifest, changed).key in contents


def test_an_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    manifest = release(tmp_path, {"a": b"12345", "b": "a"})
    data = packed(manifest, tmp_path)
    for length in range(0, len(data), 7):
        assert "early" in refusal(manifest, data[:length]).message


@pytest.mark.parametrize("more", [b"\0", bytes(512), bytes(9216), b"garbage"])
def test_bytes_after_the_end_are_refused(tmp_path: Path, more: bytes) -> None:
    manifest = release(tmp_path, APP)
    assert "follow after its end" in refusal(manifest, packed(manifest, tmp_path) + more).message


def test_the_end_is_two_blocks_of_zeros_and_no_more(tmp_path: Path) -> None:
    manifest = release(tmp_path, {"a": b""})
    data = packed(manifest, tmp_path)
    assert data[512:] == bytes(1024)
    assert "end of the archive" in refusal(manifest, data[:-512]).message


def test_a_file_of_zeros_at_the_end_is_not_taken_for_the_end(tmp_path: Path) -> None:
    contents: dict[str, Content] = {"a": bytes(2048)}
    manifest = release(tmp_path, contents)
    data = packed(manifest, tmp_path)
    assert taken(manifest, data) == contents
    assert "early" in refusal(manifest, data[:-1024]).message


def test_a_wrong_content_is_named_before_the_sink_has_seen_its_end(tmp_path: Path) -> None:
    manifest = release(tmp_path, APP)
    data = packed(manifest, tmp_path).replace(b"print('core')", b"print('evil')", 1)
    sink = Taken()
    with pytest.raises(DamagedError, match=r"lib/app/core\.py has another content") as caught:
        archive.read_part(manifest, only_part(manifest), io.BytesIO(data), sink)
    assert caught.value.key == "lib/app/core.py"
    assert "lib/app/core.py" not in sink.contents


def test_a_sink_that_looks_at_nothing_takes_no_unchecked_bytes(tmp_path: Path) -> None:
    class Blind(Taken):
        def file(self, entry: FileEntry, chunks: Iterator[bytes]) -> None:
            return

    manifest = release(tmp_path, APP)
    data = packed(manifest, tmp_path)
    archive.read_part(manifest, only_part(manifest), io.BytesIO(data), Blind())
    broken = data.replace(b"print('core')", b"print('evil')", 1)
    with pytest.raises(DamagedError, match="another content"):
        archive.read_part(manifest, only_part(manifest), io.BytesIO(broken), Blind())


def test_a_stream_that_gives_a_byte_at_a_time_is_read_alike(tmp_path: Path) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(1, size or 0))

    manifest = release(tmp_path, {"a": b"12345", "b": "a"})
    sink = Taken()
    archive.read_part(manifest, only_part(manifest), Slow(packed(manifest, tmp_path)), sink)
    assert sink.contents == {"a": b"12345", "b": "a"}


# ---- written from a slot, which a disk may have damaged


def test_a_tree_that_differs_from_the_manifest_makes_no_archive(tmp_path: Path) -> None:
    manifest = release(tmp_path, APP)
    notes, current = tmp_path / "share/notes", tmp_path / "lib/current"
    for wrong in (b"First\n", b"first", b"first\n\n"):
        notes.write_bytes(wrong)
        with pytest.raises(DamagedError, match=r"kos 1\.0\.0: share/notes differs from the manifest"):
            packed(manifest, tmp_path)
    notes.unlink()
    with pytest.raises(DamagedError, match="share/notes cannot be read"):
        packed(manifest, tmp_path)
    notes.symlink_to("../bin/kosd")
    with pytest.raises(DamagedError, match="share/notes cannot be read"):
        packed(manifest, tmp_path)
    current.unlink()
    current.symlink_to("other")
    with pytest.raises(DamagedError, match="lib/current is a link to something else"):
        packed(manifest, tmp_path)


# ---- parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_BYTES", 8192)
    monkeypatch.setattr(archive, "PREFIX_BYTES", 9216)


@pytest.mark.usefixtures("small_parts")
@rounds
@given(sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_parts_hold_every_file_once_in_order_and_are_bounded(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    tree = tmp_path_factory.mktemp("tree")
    contents: dict[str, Content] = {f"f{n:02}": bytes([n]) * size for n, size in enumerate(sizes)}
    manifest = release(tree, contents)
    parts = archive.parts(manifest)
    assert [entry for part in parts for entry in part.entries] == list(manifest.files)
    assert [part.index for part in parts] == list(range(len(parts)))
    assert all(part.size <= archive.PART_BYTES for part in parts)
    sink = Taken()
    for part in parts:
        archive.read_part(manifest, part, io.BytesIO(packed(manifest, tree, part)), sink)
    assert sink.contents == contents


@pytest.mark.usefixtures("small_parts")
def test_a_part_is_filled_up_to_its_last_byte(tmp_path: Path) -> None:
    room = archive.PART_BYTES - 1024 - 512
    fits = release(tmp_path / "fits", {"a": bytes(room - 512), "b": b""})
    over = release(tmp_path / "over", {"a": bytes(room - 511), "b": b""})
    assert [part.size for part in archive.parts(fits)] == [archive.PART_BYTES]
    assert [len(part.entries) for part in archive.parts(over)] == [1, 1]


@pytest.mark.usefixtures("small_parts")
def test_a_file_larger_than_a_part_has_one_of_its_own(tmp_path: Path) -> None:
    manifest = release(tmp_path, {"a": b"", "b": bytes(20_000), "c": b""})
    parts = archive.parts(manifest)
    assert [[entry.path for entry in part.entries] for part in parts] == [["a"], ["b"], ["c"]]
    assert [(part.start, part.stop) for part in parts] == [("", "b"), ("b", "c"), ("c", None)]


@pytest.mark.usefixtures("small_parts")
def test_a_part_of_one_release_does_not_pass_for_another(tmp_path: Path) -> None:
    manifest = release(tmp_path, {"a": bytes(6000), "b": bytes(6000)})
    first, second = archive.parts(manifest)
    with pytest.raises(DamagedError, match="a has a wrong header"):
        archive.read_part(manifest, first, io.BytesIO(packed(manifest, tmp_path, second)), Taken())


@pytest.mark.usefixtures("small_parts")
@rounds
@given(old=trees(), new=st.lists(st.integers(0, 5000), min_size=1, max_size=10))
def test_the_old_files_of_all_ranges_are_each_used_once_at_most(
    tmp_path_factory: pytest.TempPathFactory, old: dict[str, Content], new: list[int]
) -> None:
    old_tree = tmp_path_factory.mktemp("old")
    before = release(old_tree, old)
    after = release(tmp_path_factory.mktemp("new"), {f"f{n:02}": bytes(size) for n, size in enumerate(new)})
    seen: list[Entry] = []
    for part in archive.parts(after):
        chosen = archive.old_range(before, part)
        for entry in chosen:
            path = entry.path.encode()
            assert path >= part.start.encode()
            assert part.stop is None or path < part.stop.encode()
        data = archive.old_bytes(before, part, old_tree)
        assert len(data) <= archive.PREFIX_BYTES
        assert len(data) == (archive.archive_size(chosen) if chosen else 0)
        seen += chosen
    assert len(seen) == len(set(seen))
    if sum(map(len, old.values())) < 2000 and len(old) < 4:
        assert seen == list(before.files)


def test_the_range_of_a_release_in_one_part_is_all_of_the_old_one(tmp_path: Path) -> None:
    before = release(tmp_path / "old", {**APP, "aaa": b"", "zzz": b""})
    after = release(tmp_path / "new", APP)
    assert archive.old_range(before, only_part(after)) == before.files
    assert archive.old_bytes(before, only_part(after), tmp_path / "old") == packed(before, tmp_path / "old")
