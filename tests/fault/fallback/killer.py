"""Runs a command and kills it, with all its children, at its Nth change to files or start of a program.

strace counts an injected fault for each process apart, and so cannot say "the fifth rename of the whole
script". This does: one counter over all processes, and at the Nth change nothing of the tree lives on.
On a node it runs as a program: `killer.py N LOG COMMAND…` prints what became of the command as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_TRACEME, _SETOPTIONS, _SYSCALL, _GET_SYSCALL_INFO = 0, 0x4200, 24, 0x420E
# good stops of system calls, follow fork, vfork and clone, tell exec, and kill all where the tracer dies
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x100000
_CREATE = os.O_CREAT | os.O_TRUNC

_CALLS = {
    "x86_64": {
        "openat": 257,
        "others": {59, 74, 77, 82, 83, 84, 86, 87, 88, 258, 263, 264, 265, 266, 306, 316, 326},
    },
    "aarch64": {"openat": 56, "others": {34, 35, 36, 37, 38, 46, 81, 82, 83, 221, 267, 276, 285}},
}


class _Entry(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
        ("more", ctypes.c_uint64 * 4),
    )


@dataclass(frozen=True)
class Run:
    """What became of a command: its exit status (None where it was killed) and the changes it came to."""

    status: int | None
    changes: int


def run(argv: Sequence[str], env: Mapping[str, str], *, at: int, log: Path) -> Run:
    """Run `argv` and kill its whole process tree on entry to change number `at` (from 1; 0 never kills).

    A change is a call that creates, renames, links, removes, truncates or flushes a file, or runs a program.

    Args:
        argv: the command; `argv[0]` is an absolute path.
        env: its whole environment.
        at: number of the change that does not happen any more.
        log: file that takes what the command prints.
    """
    calls = _CALLS[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    first = os.fork()
    if first == 0:
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            libc.ptrace(_TRACEME, 0, None, None)
            os.execve(argv[0], list(argv), dict(env))
        finally:
            os._exit(127)
    _, status = os.waitpid(first, 0)
    if not os.WIFSTOPPED(status):
        return Run(os.waitstatus_to_exitcode(status), 0)
    libc.ptrace(_SETOPTIONS, first, None, ctypes.c_void_p(_OPTIONS))
    libc.ptrace(_SYSCALL, first, None, None)
    alive, changes, exit_status = {first}, 0, 0
    entry = _Entry()
    while alive:
        pid, status = os.waitpid(-1, 0x40000000)  # __WALL: children by clone as well
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            alive.discard(pid)
            if pid == first:
                exit_status = os.waitstatus_to_exitcode(status)
            continue
        alive.add(pid)
        stop = os.WSTOPSIG(status)
        deliver = 0
        if stop == signal.SIGTRAP | 0x80:
            libc.ptrace(
                _GET_SYSCALL_INFO, pid, ctypes.c_void_p(ctypes.sizeof(entry)), ctypes.addressof(entry)
            )
            if entry.op == 1 and _is_change(calls, entry):
                changes += 1
                if changes == at:
                    _kill(alive)
                    return Run(None, changes)
        elif stop not in (signal.SIGTRAP, signal.SIGSTOP):
            deliver = stop
        libc.ptrace(_SYSCALL, pid, None, ctypes.c_void_p(deliver))
    return Run(exit_status, changes)


def _is_change(calls: Mapping[str, object], entry: _Entry) -> bool:
    if entry.nr == calls["openat"]:
        return bool(entry.args[2] & _CREATE)
    others = calls["others"]
    assert isinstance(others, set)
    return entry.nr in others


def _kill(alive: set[int]) -> None:
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    while alive:
        try:
            pid, status = os.waitpid(-1, 0x40000000)
        except ChildProcessError:
            return
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            alive.discard(pid)
        else:
            alive.add(pid)
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Run what the command line says."""
    at, log, *argv = sys.argv[1:]
    print(json.dumps(asdict(run(argv, os.environ, at=int(at), log=Path(log)))))


if __name__ == "__main__":
    main()
