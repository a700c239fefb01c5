"""Tells boots, times and sessions apart: which boot this is, and when a caller's session began."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

TIME = "%Y-%m-%dT%H:%M:%SZ"
_SSHD = ("sshd", "sshd-session")


class Clock(Protocol):
    """The times that the engine works with; tests have one of their own."""

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC. It may be wrong or jump."""

    def boottime(self) -> float:
        """Return seconds since the kernel started, sleep included; never goes back."""

    def boot(self) -> str:
        """Return the identity of this boot."""

    def uptime(self) -> float:
        """Return seconds since PID 1 of this machine or container started."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The clocks of this host."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot(self) -> str:
        return boot_identity()

    def uptime(self) -> float:
        return self.boottime() - read_process(1).started

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Process:
    """What /proc says of a process.

    Args:
        started: seconds of CLOCK_BOOTTIME.
    """

    pid: int
    name: str
    parent: int
    session: int
    start_ticks: int
    started: float


@dataclass(frozen=True)
class Session:
    """The session a caller belongs to.

    Args:
        kind: `ssh` where a server of it is an ancestor, else `local`.
        pid: the process that stands for the session.
        started: seconds of CLOCK_BOOTTIME.
    """

    kind: str
    pid: int
    started: float


def boot_identity(proc: Path = Path("/proc")) -> str:
    """Return what tells this boot from others: the kernel's boot id and the start of PID 1 in clock ticks.

    Containers share the kernel's id and have a PID 1 of their own; `fallback` makes the same text.
    """
    kernel = (proc / "sys/kernel/random/boot_id").read_text().strip()
    return f"{kernel}:{read_process(1, proc).start_ticks}"


def read_process(pid: int, proc: Path = Path("/proc")) -> Process:
    """Read /proc/PID/stat (proc(5)).

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process {pid}") from None
    # The name stands in parentheses and may hold blanks and parentheses itself.
    start, end = text.index("("), text.rindex(")")
    fields = text[end + 2 :].split()
    ticks = int(fields[19])
    return Process(
        pid=pid,
        name=text[start + 1 : end],
        parent=int(fields[1]),
        session=int(fields[3]),
        start_ticks=ticks,
        started=ticks / os.sysconf("SC_CLK_TCK"),
    )


def session(pid: int | None = None, proc: Path = Path("/proc")) -> Session:
    """Find the session of a process: its nearest ssh server, else its session leader.

    A connection that many commands share has one server process, so all of them are as old as the connection.
    Where the leader is gone, the oldest ancestor of the same session stands for it.

    Args:
        pid: by default this process.
    """
    caller = read_process(os.getpid() if pid is None else pid, proc)
    ancestors = _ancestors(caller, proc)
    for one in ancestors:
        if one.name.split(":")[0] in _SSHD:
            return Session("ssh", one.pid, one.started)
    try:
        leader = read_process(caller.session, proc)
    except ProcessLookupError:
        same = [one for one in ancestors if one.session == caller.session]
        leader = min(same, key=lambda one: one.started)
    return Session("local", leader.pid, leader.started)


def _ancestors(process: Process, proc: Path) -> list[Process]:
    chain = [process]
    while chain[-1].parent > 0:
        try:
            chain.append(read_process(chain[-1].parent, proc))
        except ProcessLookupError:
            break
    return chain


def text(moment: datetime) -> str:
    """Return a time as the project writes it: UTC, whole seconds."""
    return moment.astimezone(timezone.utc).strftime(TIME)


def moment(written: str) -> datetime:
    """Read what `text` wrote; raises ValueError."""
    return datetime.strptime(written, TIME).replace(tzinfo=timezone.utc)
