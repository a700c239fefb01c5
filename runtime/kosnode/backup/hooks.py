"""Runs the commands of a source before and after it is read; one that fails is a failure of the source."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import KosError

TIMEOUT_S = 3600


class HookError(KosError):
    """A command of a source failed; the message holds its last words."""

    kind = "hook"


@contextlib.contextmanager
def around(
    before: Sequence[Sequence[str]], after: Sequence[Sequence[str]], environment: Mapping[str, str]
) -> Iterator[None]:
    """Run commands before a block, and others after it however it ends.

    Args:
        before, after: commands.
        environment: what they get besides PATH and LC_ALL.

    Raises:
        HookError: one failed. A failure of the block counts more than one of a command after it.
    """
    failed = True
    try:
        for argv in before:
            run(argv, environment)
        yield
        failed = False
    finally:
        problems = [error for argv in after if (error := _try(argv, environment)) is not None]
        if problems and not failed:
            raise problems[0]


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    timeout_s: float = TIMEOUT_S,
    folder: Path | None = None,
    user: str | None = None,
) -> None:
    """Run one command.

    Args:
        folder: its working directory.
        user: account that it runs as, with its groups.

    Raises:
        HookError: it fails, takes too long, or cannot be started.
    """
    given = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C", **environment}
    # A file, because what the command leaves running would hold a pipe open.
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=given,
                cwd=folder,
                start_new_session=True,
                **_account(user),
            )
        except OSError as error:
            raise HookError(f"{argv[0]} cannot be started: {error.strerror}", key=argv[0]) from None
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise HookError(f"{argv[0]} did not end within {timeout_s:g} s", key=argv[0]) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            said.seek(max(0, said.seek(0, os.SEEK_END) - 4096))
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
            last = lines[-1][:200] if lines else "it said nothing"
            raise HookError(f"{argv[0]} ended with {code}: {last}", key=argv[0])


def _account(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    try:
        one = pwd.getpwnam(user)
    except KeyError:
        raise HookError(f"there is no account {user}", key="owner") from None
    return {"user": one.pw_uid, "group": one.pw_gid, "extra_groups": os.getgrouplist(user, one.pw_gid)}


def _try(argv: Sequence[str], environment: Mapping[str, str]) -> HookError | None:
    try:
        run(argv, environment)
    except HookError as error:
        return error
    return None
