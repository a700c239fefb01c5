"""Patches give back the new bytes, are small, and are bounded whatever a mirror sends (S17)."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from release_trees import rounds

from kosnode import patch
from kosnode.errors import DamagedError, InputError

FAST = 3
OLD = random.Random(1).randbytes(300_000)
NEW = OLD[:100_000] + b"something new" + OLD[120_000:] + b"the end"


def applied(old: bytes, data: bytes, limit: int) -> bytes:
    out = io.BytesIO()
    count = patch.apply(old, io.BytesIO(data), out, limit)
    assert count == len(out.getvalue())
    return out.getvalue()


def refusal(old: bytes, data: bytes, limit: int) -> str:
    out = io.BytesIO()
    with pytest.raises(DamagedError) as caught:
        patch.apply(old, io.BytesIO(data), out, limit)
    assert len(out.getvalue()) <= limit
    return caught.value.message


def compressed(data: bytes, level: int = FAST) -> bytes:
    out = io.BytesIO()
    assert patch.compress(io.BytesIO(data), out, len(data), level) == len(out.getvalue())
    return out.getvalue()


@rounds
@given(old=st.binary(max_size=3000), new=st.binary(max_size=3000), level=st.sampled_from([1, 3, 12, 19]))
def test_a_patch_gives_back_the_new_bytes(old: bytes, new: bytes, level: int) -> None:
    assert applied(old, patch.make(old, new, level), len(new)) == new


@rounds
@given(data=st.binary(max_size=3000), repeat=st.integers(1, 200), level=st.sampled_from([1, 3, 12]))
def test_what_is_compressed_comes_back(data: bytes, repeat: int, level: int) -> None:
    whole = data * repeat
    out = io.BytesIO()
    assert patch.decompress_stream(io.BytesIO(compressed(whole, level)), out, len(whole)) == len(whole)
    assert out.getvalue() == whole


def test_a_patch_holds_only_what_is_new() -> None:
    data = patch.make(OLD, NEW)
    assert len(data) < 300 < len(compressed(NEW)) / 100
    assert applied(OLD, data, len(NEW)) == NEW


def test_a_patch_reaches_back_to_the_beginning_of_the_old_bytes() -> None:
    """Further than the level by itself would look back."""
    old = random.Random(2).randbytes(9 << 20)
    new = old[5 << 20 :] + old[: 5 << 20]
    assert len(patch.make(old, new, 9)) < 10_000


def test_the_same_bytes_give_the_same_patch_however_they_come() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(7, size or 0))

    assert patch.make(OLD, NEW) == patch.make(bytes(bytearray(OLD)), bytes(bytearray(NEW)))
    out = io.BytesIO()
    patch.compress(Slow(NEW[:50_000]), out, 50_000, FAST)
    assert out.getvalue() == compressed(NEW[:50_000])


def test_a_patch_of_something_else_is_refused() -> None:
    assert "wrong" in refusal(OLD[::-1], patch.make(OLD, NEW, FAST), len(NEW))
    assert "wrong" in refusal(b"", patch.make(OLD, NEW, FAST), len(NEW))


@rounds
@given(position=st.integers(0), value=st.integers(1, 255))
def test_a_changed_patch_is_refused_or_gives_no_more_than_the_limit(position: int, value: int) -> None:
    """The frame's own checksum finds nearly all; what a file is, its SHA-3 says."""
    data = bytearray(patch.make(OLD, NEW, FAST))
    data[position % len(data)] ^= value
    out = io.BytesIO()
    try:
        patch.apply(OLD, io.BytesIO(data), out, len(NEW))
    except DamagedError:
        assert len(out.getvalue()) <= len(NEW)
    else:
        assert out.getvalue() == NEW


def test_a_patch_cut_anywhere_is_refused() -> None:
    data = patch.make(OLD, NEW, FAST)
    for length in range(0, len(data), 5):
        assert "end early" in refusal(OLD, data[:length], len(NEW))


@pytest.mark.parametrize("more", [b"\0", b"garbage", compressed(b"a second frame"), bytes(100_000)])
def test_bytes_after_the_frame_are_refused(more: bytes) -> None:
    assert "follow after" in refusal(b"", compressed(b"first") + more, 1000)
    long = compressed(random.Random(3).randbytes(5000))
    assert "follow after" in refusal(b"", long + more, 1 << 20)


@pytest.mark.parametrize("data", [b"", b"\x28\xb5\x2f\xfd", b"no frame at all", bytes(100)])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    refusal(OLD, data, 1000)


def test_a_bomb_is_refused_at_the_limit() -> None:
    """64 MiB of zeros in a few KiB: not more than the limit comes out, nor is more than that in memory."""
    bomb = compressed(bytes(64 << 20))
    assert len(bomb) < 10_000
    assert "more than is allowed" in refusal(b"", bomb, 1_000_000)
    stream = patch.unpack(io.BytesIO(bomb), 1 << 30)
    assert len(stream.read(10)) == 10
    assert "more than is allowed" in refusal(b"", compressed(b"12345"), 4)
    assert applied(b"", compressed(b"12345"), 5) == b"12345"


def test_a_bomb_is_undone_in_small_pieces() -> None:
    """300 MiB in one read of the input: what Python holds of it at a time stays small."""
    bomb = compressed(bytes(300 << 20))
    tracemalloc.start()
    try:
        patch.unpack(io.BytesIO(bomb), 1 << 30).read(1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 << 20


def test_a_frame_that_asks_for_a_large_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27, write_content_size=0)
    wide = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = wide.compress(b"x") + wide.flush()
    assert zstandard.get_frame_parameters(data).window_size == 1 << 27
    assert "wrong" in refusal(b"", data, 1 << 20)


@pytest.mark.parametrize("said", [4, 6, 0, 1 << 30])
def test_a_stream_of_another_size_than_was_said_is_refused(said: int) -> None:
    with pytest.raises(InputError, match=f"bytes than the {said} that were said"):
        patch.compress(io.BytesIO(b"12345"), io.BytesIO(), said, FAST)


def test_sizes_and_checksums_stand_in_the_frame() -> None:
    for data in (compressed(NEW), patch.make(OLD, NEW, FAST)):
        frame = zstandard.get_frame_parameters(data)
        assert (frame.content_size, frame.has_checksum, frame.dict_id) == (len(NEW), True, 0)
        assert frame.window_size <= 1 << patch.WINDOW_LOG


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd command is not installed")
def test_the_zstd_command_and_this_undo_each_other(tmp_path: Path) -> None:
    old, new, made, back = (tmp_path / name for name in ("old", "new", "patch", "back"))
    old.write_bytes(OLD)
    new.write_bytes(NEW)
    subprocess.run(["zstd", "-q", "--patch-from", old, new, "-o", made], check=True)
    assert applied(OLD, made.read_bytes(), len(NEW)) == NEW
    made.write_bytes(patch.make(OLD, NEW))
    subprocess.run(["zstd", "-q", "-d", "--patch-from", old, made, "-o", back], check=True)
    assert back.read_bytes() == NEW
