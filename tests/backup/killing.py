"""Kills kosctl or its restic without a warning: at a moment of chance, or at a call that changes names."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fault.rows import ROUNDS

from backup.backup_node import BackupNode

# How often each kind of process is killed: 10 times, and 100 in `make test-all`.
MOMENTS = min(10 * ROUNDS, 100)
_CALLS = "?rename,?renameat,renameat2,?mkdir,mkdirat,?unlink,unlinkat,?rmdir,fsync"
_LINE = re.compile(r"(\w+)\((.*)")


def kill_at_any_time(node: BackupNode, chance: random.Random, victim: str, *words: str) -> None:
    """Start kosctl, kill it (`kosctl`) or the restic that it runs (`restic`), and wait for what it left.

    Half of the moments are after so much of a second, the others while restic runs, whenever that is.
    """
    process = node.start(*words)
    if chance.random() < 0.5:
        time.sleep(chance.random() * 1.5)
    else:
        while process.poll() is None and not restic_of(process.pid):
            time.sleep(0.005)
        time.sleep(chance.random() * 0.4)
    if victim == "kosctl":
        process.send_signal(signal.SIGKILL)
    else:
        for child in restic_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    process.communicate()
    # It ends with its kosctl, and takes its lock away before.
    mark = bytes(node.root)
    while any(mark in environment for environment in _environments()):
        time.sleep(0.05)


@dataclass(frozen=True)
class Call:
    """A call of kosctl that changes a name or makes one durable.

    Args:
        name: of the call.
        nth: its number among those of this name, which is what strace counts.
        about: its arguments.
    """

    name: str
    nth: int
    about: str


def calls(node: BackupNode, trace: Path, *words: str) -> list[Call]:
    """Run kosctl to its end, which has to be good, and return its calls in order."""
    answer = node.kosctl(*words, wrapper=f'exec strace -qq -o {trace} -e trace={_CALLS} "$@"')
    assert answer["ok"], answer
    found: list[Call] = []
    counts: Counter[str] = Counter()
    for line in trace.read_text().splitlines():
        if match := _LINE.match(line):
            counts[match[1]] += 1
            found.append(Call(match[1], counts[match[1]], match[2]))
    return found


def kill_at(node: BackupNode, call: Call, *words: str) -> bool:
    """Run kosctl and kill it on entry to a call; returns whether it came to that call."""
    inject = f"-e trace={_CALLS} -e inject={call.name}:signal=SIGKILL:when={call.nth}"
    process = node.start(*words, wrapper=f'exec strace -qq -o /dev/null {inject} "$@"')
    process.communicate()
    return process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)


def restic_of(pid: int) -> Sequence[int]:
    """Return the numbers of the processes of restic that work on a repository for a kosctl."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in children if _name(one) == "restic" and b"version" not in _command(one)]
    return []


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _command(pid: str) -> Sequence[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _environments() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*"):
        if _name(path.name) == "restic":
            with contextlib.suppress(OSError):
                yield (path / "environ").read_bytes()
