"""The lock of a node: one changing command at a time, and a message that says who has it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from .errors import BusyError

_STEP_S = 0.05


class Lock:
    """A flock(2) on a file in which the holder writes its process id and verb.

    `fallback` reads the file: it kills a kosctl that holds the lock and hangs. The file is never removed.

    Args:
        path: usually `/run/kos/lock`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(
        self, verb: str, *, wait_s: float = 0.0, patient: Collection[str] = (), patience_s: float = 60.0
    ) -> None:
        """Take the lock.

        Args:
            verb: what is done with it, for the message that others get.
            wait_s: seconds to wait for any holder.
            patient: verbs of holders that are waited for longer.
            patience_s: seconds to wait for those.

        Raises:
            BusyError: another process holds it; names its process id and verb.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        began = time.monotonic()
        try:
            # Whoever may open the file may lock it, if only to keep every command and confirmation away.
            os.fchmod(descriptor, 0o600)
            while not _try(descriptor):
                pid, holder = read_holder(self._path)
                limit = max(wait_s, patience_s) if holder in patient else wait_s
                if time.monotonic() - began >= limit:
                    raise _busy(pid, holder)
                time.sleep(_STEP_S)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {verb}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)

    @contextlib.contextmanager
    def hold(self, verb: str, *, wait_s: float = 0.0, patient: Collection[str] = ()) -> Iterator[None]:
        """Hold the lock for a block; arguments and errors as `acquire`."""
        self.acquire(verb, wait_s=wait_s, patient=patient)
        try:
            yield
        finally:
            self.release()


def read_holder(path: Path) -> tuple[int | None, str]:
    """Return process id and verb of who last took the lock; (None, "") where nobody says."""
    try:
        words = path.read_text(errors="replace").split()
    except OSError:
        return None, ""
    pid = int(words[0]) if words and words[0].isdecimal() else None
    return pid, words[1] if len(words) > 1 else ""


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy(pid: int | None, verb: str) -> BusyError:
    who = "another process" if pid is None else f"process {pid}"
    what = f" ({verb})" if verb else ""
    return BusyError(
        f"{who}{what} is working on this node; try again when it is done", detail={"pid": pid, "verb": verb}
    )
