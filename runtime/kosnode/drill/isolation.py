"""Keeps a drill to itself: processes that end with it, and a network that has nothing but loopback.

Python 3.10 has no unshare(2) of its own, and the program of that name would have to be handed everything that
is known here; so the C library is called.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pickle
import select
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ..command import Terminated
from ..errors import KosError, UntestedError

_NEW_PID = 0x20000000
_NEW_NET = 0x40000000
_DIE_WITH_PARENT = 1
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
_REQUEST = "16sh14x"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")

_library = ctypes.CDLL(None, use_errno=True)


def contained(work: Callable[[], T]) -> T:
    """Do work in a process of its own, with a PID namespace that ends with it and with this process.

    Whatever the work started is gone when this returns, also where either process was killed.

    Args:
        work: its result, or the KosError that it raises, must be picklable.

    Raises:
        UntestedError: this host allows no such namespace, or the process was killed.
    """
    outer = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    reader, writer = os.pipe()
    # What a signal raises while Python forks is lost.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        _unshare(_NEW_PID, "PID")
        child = os.fork()
        if child == 0:
            os.close(reader)
            _inside(work, writer, mask)
        os.close(writer)
        writer = -1
        # Else the next process of this one would have to be born into what is dead by then.
        _set(outer, _NEW_PID)
        result: T = _outside(child, reader, mask)
        return result
    finally:
        for descriptor in (outer, reader, *([writer] if writer >= 0 else [])):
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def cut_off() -> Iterator[None]:
    """Have this thread, and all that it starts, in a network namespace with nothing but loopback.

    Other threads stay where they are.

    Raises:
        UntestedError: this host allows no such namespace.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _unshare(_NEW_NET, "network")
        try:
            _raise_loopback()
            names = [name for _, name in socket.if_nameindex()]
            if names != ["lo"]:
                raise UntestedError(f"a new network namespace has {', '.join(names)}, not loopback alone")
            yield
        finally:
            _set(before, _NEW_NET)
    finally:
        os.close(before)


def _inside(work: Callable[[], object], writer: int, mask: Iterable[int]) -> None:
    """Do the work and hand its result on; this process ends here."""
    code = 1
    try:
        _library.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        parent = select.poll()
        parent.register(writer, 0)
        if parent.poll(0):
            # It died before this process could be bound to it.
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            answer: tuple[bool, object] = (True, work())
        except KosError as error:
            answer = (False, (type(error), error.message, error.key, error.detail))
        with os.fdopen(os.dup(writer), "wb") as stream:
            stream.write(pickle.dumps(answer))
        code = 0
    except (KeyboardInterrupt, Terminated):
        code = 2
    except BaseException as error:
        traceback.print_exc()
        with os.fdopen(os.dup(writer), "wb") as stream:
            said = f"unexpected {type(error).__name__}: {error}"
            stream.write(pickle.dumps((False, (KosError, said, None, None))))
        code = 0
    finally:
        os._exit(code)


def _outside(child: int, reader: int, mask: Iterable[int]) -> Any:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with os.fdopen(os.dup(reader), "rb") as stream:
            data = stream.read()
    except BaseException:
        _end(child)
        raise
    _, status = os.waitpid(child, 0)
    if not data:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"{os.WEXITSTATUS(status)}"
        raise UntestedError(f"the process of the drill ended with {how}")
    # What it holds was written by this very program.
    good, value = pickle.loads(data)
    if good:
        return value
    kind, message, key, detail = value
    raise kind(message, key=key, detail=detail)


def _end(child: int) -> None:
    """Have the process clean up and end; kill it where somebody is in a hurry."""
    os.kill(child, signal.SIGTERM)
    try:
        os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _unshare(flag: int, what: str) -> None:
    if _library.unshare(flag) != 0:
        raise UntestedError(
            f"this host lets kosctl make no {what} namespace ({os.strerror(ctypes.get_errno())}), "
            "so nothing can be tested apart"
        )


def _set(descriptor: int, flag: int) -> None:
    if _library.setns(descriptor, flag) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        got = fcntl.ioctl(one, _GET_FLAGS, struct.pack(_REQUEST, b"lo", 0))
        flags = struct.unpack(_REQUEST, got)[1]
        fcntl.ioctl(one, _SET_FLAGS, struct.pack(_REQUEST, b"lo", flags | _UP))
