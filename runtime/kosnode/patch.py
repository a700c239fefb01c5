"""zstd: compressed archives and manifests, and patches of them that have the old bytes as prefix.

A patch is what `zstd --patch-from` makes: a frame whose dictionary is the raw old content. All of it is
deterministic for one version of libzstd. Undoing is bounded in output, window and memory, whatever the input.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from .errors import DamagedError, InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LEVEL = 19
# As large as a part of an archive: a patch reaches all of the old bytes as long as no more is put out.
WINDOW_LOG = 26
_WINDOW_LOG_MIN = 17
_TABLE_LOG_MAX = 26
# Long matches are worth a search: a patch is nearly nothing else (zstd(1), --patch-from).
_TARGET_LENGTH = 4096
_CHUNK = 128 * 1024
# Four bytes can stand for a block of 128 KiB: what is undone at a time has at most 32 MiB.
_INPUT = 1024


def make(old: bytes, new: bytes, level: int = LEVEL) -> bytes:
    """Return a patch that makes `new` from `old`.

    Memory is about 15 times the larger of the two, at most 2 GiB for parts of an archive.

    Args:
        old: what the node has; may be empty.
        new: what it shall have.
        level: of zstd, 1 to 22.
    """
    both = _log(len(old) + len(new), _TABLE_LOG_MAX)
    # To a fast level this number says how much to skip.
    longest = {"target_length": _TARGET_LENGTH} if level >= LEVEL else {}
    parameters = _parameters(level, len(new), len(old), chain_log=both + 1, hash_log=both, **longest)
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=_dictionary(old))
    return compressor.compress(new)


def apply(old: bytes, patch: BinaryIO, out: BinaryIO, limit: int) -> int:
    """Undo a patch.

    Args:
        old: what the patch was made against.
        patch: the patch; it is read to its end.
        out: takes the new bytes.
        limit: the most bytes that are put out.

    Returns:
        The number of bytes put out.

    Raises:
        DamagedError: not a patch of `old`, cut off, more than `limit`, or a window of more than 64 MiB.
    """
    return _copy(unpack(patch, limit, old), out)


def compress(stream: BinaryIO, out: BinaryIO, size: int, level: int = LEVEL) -> int:
    """Compress a stream.

    Args:
        stream: is read to its end.
        out: takes one zstd frame.
        size: bytes of the stream.
        level: of zstd, 1 to 22.

    Returns:
        The number of compressed bytes.

    Raises:
        InputError: the stream has another size.
    """
    parameters = _parameters(level, size, 0)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)
    # Pieces of one size, so that the frame does not depend on how the stream comes.
    source = io.BufferedReader(_Exactly(stream, size), _CHUNK)
    written = 0
    while chunk := source.read(_CHUNK):
        written += out.write(compressor.compress(chunk))
    return written + out.write(compressor.flush())


def decompress_stream(stream: BinaryIO, out: BinaryIO, limit: int) -> int:
    """Undo `compress`; arguments, result and errors as `apply`."""
    return _copy(unpack(stream, limit), out)


def unpack(stream: BinaryIO, limit: int, old: bytes = b"") -> BinaryIO:
    """Return a stream of what a patch or a compressed stream holds.

    Drop `old` after the call: it is copied, and a second copy of it counts on a small node.

    Args:
        stream: one zstd frame; it is read to its end.
        limit: the most bytes that come out.
        old: what a patch was made against.

    Raises:
        DamagedError: on reading; as `apply`.
    """
    return io.BufferedReader(_Unpacked(stream, limit, _dictionary(old)), _CHUNK)


class _Unpacked(io.RawIOBase):
    def __init__(
        self, stream: BinaryIO, limit: int, dictionary: zstandard.ZstdCompressionDict | None
    ) -> None:
        super().__init__()
        self._source = io.BufferedReader(_Plain(stream), _CHUNK)
        self._limit = limit
        self._undo = zstandard.ZstdDecompressor(
            dict_data=dictionary, max_window_size=1 << WINDOW_LOG
        ).decompressobj(write_size=_CHUNK)
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        while not self._ready and not self._undo.eof:
            self._step()
        if not self._ready:
            self._end()
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _step(self) -> None:
        data = self._source.read(_INPUT)
        if not data:
            raise DamagedError("the compressed bytes end early")
        try:
            self._ready = memoryview(self._undo.decompress(data))
        except zstandard.ZstdError as error:
            raise DamagedError(f"the compressed bytes are wrong: {error}") from None
        self._limit -= len(self._ready)
        if self._limit < 0:
            raise DamagedError("the compressed bytes hold more than is allowed")

    def _end(self) -> None:
        if self._undo.unused_data or self._source.read(1):
            raise DamagedError("more bytes follow after the compressed ones")


class _Plain(io.RawIOBase):
    """Makes a raw stream of anything with `read`, such as an answer over HTTP."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._stream.read(len(view))
        view[: len(data)] = data
        return len(data)


class _Exactly(_Plain):
    """Refuses a stream of another size than was said."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__(stream)
        self._size, self._left = size, size

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = super().readinto(buffer)
        self._left -= count
        if self._left < 0 or (count == 0 and self._left):
            kind = "more" if self._left < 0 else "fewer"
            raise InputError(f"the stream has {kind} bytes than the {self._size} that were said", key="size")
        return count


def _parameters(level: int, size: int, old_size: int, **tables: int) -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=size,
        dict_size=old_size,
        window_log=_log(size, WINDOW_LOG),
        write_content_size=1,
        write_checksum=1,
        write_dict_id=0,
        threads=0,
        **tables,
    )


def _log(size: int, highest: int) -> int:
    return max(_WINDOW_LOG_MIN, min(highest, size.bit_length()))


def _dictionary(old: bytes) -> zstandard.ZstdCompressionDict | None:
    return zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if old else None


def _copy(source: BinaryIO, out: BinaryIO) -> int:
    written = 0
    while chunk := source.read(_CHUNK):
        out.write(chunk)
        written += len(chunk)
    return written
