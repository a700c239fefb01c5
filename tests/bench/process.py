"""Runs a command and says what it cost: time, processor time, memory and bytes written.

It is also a program, `python process.py REPORT COMMAND …`: a small process of its own starts the command,
since the kernel counts the memory of whoever starts a process as the memory of that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What a command and the processes it waited for took.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time, user and system.
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
    """Start the command, wait for it and write what it took to `report`."""
    started = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    # A process that has ended and that nobody has waited for still has its accounts in /proc.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    seconds = time.monotonic() - started
    accounts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text("ascii").splitlines())
    _, status, usage = os.wait4(pid, 0)
    measured = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        "written_bytes": int(accounts["write_bytes"]),
    }
    Path(report).write_text(json.dumps(measured), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
