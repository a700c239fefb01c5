"""Keeps a ledger still by the lock that the application takes for each append; readers are not held off."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import BusyError

_STEP_S = 0.02


@contextlib.contextmanager
def shared(ledger: Path, *, wait_s: float = 30.0) -> Iterator[None]:
    """Hold off appends to a ledger for a block; other readers are not held off.

    The lock is flock(2) on the file of the ledger's real path with `.lock` added. It is never made here and
    never removed: a file of another owner would lock the application out, and a new one would be another
    lock than the one that is held. Where there is none, nothing has been appended by a version that locks.

    Args:
        ledger: path of the ledger.
        wait_s: seconds to wait for an append that is under way.

    Raises:
        BusyError: the lock was held all that time.
    """
    path = Path(f"{ledger.resolve()}.lock")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield
        return
    try:
        end = time.monotonic() + wait_s
        while not _try(descriptor):
            if time.monotonic() >= end:
                raise BusyError(f"{path} has been held for {wait_s:g} s; somebody appends, or hangs")
            time.sleep(_STEP_S)
        yield
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
