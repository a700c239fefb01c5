"""Runs the programs a bed is made of (podman, ip, nft), as root, and turns a failure into one message."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class BedError(Exception):
    """What a person has to know when a bed cannot do what was asked."""


def as_root(argv: Sequence[str]) -> list[str]:
    """Return the command as root runs it: unchanged for root, through sudo for everybody else."""
    return list(argv) if os.geteuid() == 0 else ["sudo", "-n", *argv]


def run(
    argv: Sequence[str], *, stdin: bytes | None = None, check: bool = True, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as root and return what it wrote.

    Args:
        argv: The command and its arguments.
        stdin: What the command reads; nothing if None.
        check: Whether an exit code other than 0 is an error.
        timeout: Seconds after which the command is ended; None waits for ever.

    Raises:
        BedError: The program is missing, took too long, or failed while `check` was set.
    """
    try:
        done = subprocess.run(
            as_root(argv), input=stdin or b"", capture_output=True, timeout=timeout, check=False
        )
    except OSError as error:
        raise BedError(
            f"{error.filename} cannot be run ({error.strerror}); "
            "a bed needs root, or sudo without a password, and what `make setup` installs"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BedError(f"{shlex.join(argv)} did not end within {timeout} s") from error
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    if check and done.returncode != 0:
        raise BedError(f"{shlex.join(argv)} ended with {done.returncode}: {err.strip() or out.strip()}")
    return subprocess.CompletedProcess(list(argv), done.returncode, out, err)


@contextmanager
def one_at_a_time(what: Path) -> Iterator[None]:
    """Wait until no other process of this machine is in a block that names the same file, and keep it out."""
    with what.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
