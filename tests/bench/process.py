"""Runs a command and says what it cost: time, processor time, memory and bytes written.

It is also a program, `python process.py REPORT COMMAND …`: a small process of its own starts the command,
since the kernel counts the memory of whoever starts a process as the memory of that process.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 60


@dataclass(frozen=True)
class Cost:
    """What a command and the processes it waited for took.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time, user and system; that of processes left behind is waited for and counted.
        peak_bytes: The largest resident memory of any one of the processes.
        written_bytes: What the processes caused to be written to disk (`write_bytes` of proc(5)).
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    written_bytes: int


class CommandError(Exception):
    """A command that is measured failed; the text holds what it said."""


@dataclass(frozen=True)
class Done:
    """A command that ended.

    Attributes:
        exit_code: Its exit code.
        stdout: What it wrote to standard output.
        stderr: What it wrote to standard error.
        cost: What it took.
    """

    exit_code: int
    stdout: str
    stderr: str
    cost: Cost


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, check: bool = True) -> Done:
    """Run a command to its end.

    Args:
        command: The program and its arguments.
        env: Added to the environment.
        check: Whether an exit code other than 0 is an error.

    Raises:
        CommandError: The command failed while `check` was set.
    """
    with tempfile.TemporaryDirectory(prefix="kos-bench-") as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [sys.executable, "-IS", __file__, str(report), *command],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            check=False,
        )
        if not report.exists():
            raise CommandError(f"{command[0]} could not be started: {done.stderr.strip()}")
        measured = json.loads(report.read_text("utf-8"))
    exit_code = measured.pop("exit_code")
    if check and exit_code != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-4000:]
        raise CommandError(f"{' '.join(command[:6])} … ended with {exit_code}: {said}")
    return Done(exit_code, done.stdout, done.stderr, Cost(**measured))


def main(report: str, command: list[str]) -> int:
    """Start the command, wait for it and for what it left behind, and write what it took to `report`."""
    # Processes whose parent is gone become ours, such as the connections that Ansible keeps for a while.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    # A process that has ended and that nobody has waited for still has its accounts in /proc.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    seconds = time.monotonic() - started
    accounts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text("ascii").splitlines())
    _, status, usage = os.wait4(pid, 0)
    left_behind = sum(_left_behind())
    measured = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime + left_behind,
        "peak_bytes": usage.ru_maxrss * 1024,
        "written_bytes": int(accounts["write_bytes"]),
    }
    Path(report).write_text(json.dumps(measured), "utf-8")
    return 0


def _left_behind() -> Iterator[float]:
    """Yield the processor time of each process that the command left behind, as they end."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            yield usage.ru_utime + usage.ru_stime
        else:
            time.sleep(0.05)
    raise CommandError(f"a process that the command left behind still runs after {PATIENCE_S} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
