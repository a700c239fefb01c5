"""How the files of slots are written, made durable, hashed and removed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

# What a full disk, a full quota and a limit on the size of files say.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_BYTES = 1024 * 1024
_OPEN_MODE = 0o755
# Syncs wait for the disk and not for a core; the file system writes many down at once.
_SYNC_THREADS = 16

T = TypeVar("T")
U = TypeVar("U")

_thread = threading.local()


def write(path: Path, chunks: Iterable[bytes], mode: int) -> None:
    """Write a new file; it is not there where something fails. It is durable only after `sync`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def make_directory(path: Path, mode: int = _OPEN_MODE) -> None:
    """Make a directory with this mode, whatever the umask is."""
    path.mkdir()
    path.chmod(mode)


def sync(path: Path) -> None:
    """Make a file or the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Sequence[Path]) -> None:
    """Make files and directories durable, many at a time."""
    with ThreadPoolExecutor(_SYNC_THREADS) as threads:
        for _ in threads.map(sync, paths):
            pass


def digest(path: Path) -> str:
    """Return the SHA3-256 of a file, hex; a link is not followed.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    view: memoryview | None = getattr(_thread, "view", None)
    if view is None:
        # One for each thread: making it anew would cost more than to read a small file.
        view = _thread.view = memoryview(bytearray(_READ_BYTES))
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        computed = hashlib.sha3_256()
        while count := os.readv(descriptor, [view]):
            computed.update(view[:count])
    finally:
        os.close(descriptor)
    return computed.hexdigest()


def on_all_cores(work: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """Do work that mostly hashes, which lets other threads run.

    Args:
        work: done for each item.
        items: the largest stand best at the front.

    Returns:
        The results, in no order.
    """
    count = min(len(os.sched_getaffinity(0)), len(items))
    if count < 2:
        return [work(item) for item in items]
    numbers, lock = itertools.count(), threading.Lock()

    def work_off(_: int) -> list[U]:
        done: list[U] = []
        while True:
            with lock:
                number = next(numbers)
            if number >= len(items):
                return done
            done.append(work(items[number]))

    with ThreadPoolExecutor(count) as threads:
        return [result for results in threads.map(work_off, range(count)) for result in results]


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[None]:
    """Let who is not root change a read-only directory for a moment."""
    if os.access(directory, os.W_OK):
        yield
        return
    mode = stat.S_IMODE(directory.stat().st_mode)
    directory.chmod(_OPEN_MODE)
    try:
        yield
    finally:
        directory.chmod(mode)


def remove(path: Path) -> None:
    """Remove a file, a link or a directory with all in it, also where it is read-only or not there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for directory, _, _ in os.walk(path):
        if not os.access(directory, os.W_OK | os.X_OK):
            Path(directory).chmod(0o700)
    shutil.rmtree(path)
