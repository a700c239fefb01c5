"""Runs programs as the account that owns a database, with an environment that says nothing of ours."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, KosError

_KEPT = ("PATH", "PG_CLUSTER_CONF_ROOT")


@dataclass(frozen=True)
class Account:
    """An account of this host.

    Args:
        name: its login.
    """

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str, key: str) -> Account:
        """Look an account up; raises InputError."""
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            raise InputError(f"no account of this host is called {name}", key=key) from None
        return cls(name, known.pw_uid, known.pw_gid)

    @classmethod
    def of(cls, uid: int) -> Account:
        """Return the account with a number."""
        known = pwd.getpwuid(uid)
        return cls(known.pw_name, uid, known.pw_gid)

    def popen(
        self,
        argv: Sequence[str],
        *,
        cwd: Path = Path("/"),
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a program, which has no terminal and a session of its own; raises KosError."""
        if os.geteuid() != self.uid:
            groups = os.getgrouplist(self.name, self.gid)
            options |= {"user": self.uid, "group": self.gid, "extra_groups": groups}
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        try:
            return subprocess.Popen(
                argv,
                cwd=cwd,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **kept, "LC_ALL": "C", **(environment or {})},
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                umask=0o077,
                start_new_session=True,
                **options,
            )
        except OSError as error:
            raise KosError(f"{argv[0]} cannot be started: {error.strerror}", key=argv[0]) from None

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        cwd: Path = Path("/"),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, and return what it said; raises KosError where that takes too long."""
        process = self.popen(
            argv, cwd=cwd, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise KosError(f"{argv[0]} did not end within {timeout_s:g} s", key=argv[0]) from None
                raise
        return subprocess.CompletedProcess(argv, process.returncode, out, err)
