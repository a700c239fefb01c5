"""Arms the dead-man of a trial, starts and stops its watcher, and runs `fallback`, the one revert."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .errors import KosError
from .paths import NodePaths
from .systemd import Systemd, SystemdError

TIMER = "kos-deadman"
WATCHER = "kos-watch"
# More than all time limits inside fallback together.
FALLBACK_TIMEOUT_S = 600


def arm(systemd: Systemd, paths: NodePaths, trial: str, seconds: int) -> None:
    """Arm the timer that ends a trial, in place of any older one, and check that it runs.

    Args:
        systemd: that runs the timer; it needs no kosctl then.
        paths: of the node.
        trial: its id, so that a late timer ends no other trial.
        seconds: from now.

    Raises:
        KosError: `fallback` is not there; SystemdError: the timer does not run.
    """
    problems = check(paths)
    if problems:
        raise KosError(f"the dead-man cannot be armed: {'; '.join(problems)}")
    systemd.stop_timer(TIMER)
    argv = [str(paths.fallback), "--reason", "deadline", "--trial", trial]
    systemd.run_transient_timer(TIMER, seconds, argv)
    if not is_armed(systemd):
        raise SystemdError(f"the dead-man's timer {TIMER}.timer was made and does not run")


def is_armed(systemd: Systemd) -> bool:
    """Say whether the timer runs."""
    return systemd.is_active(f"{TIMER}.timer")


def stop_watcher(systemd: Systemd) -> None:
    """Stop the watcher of a trial that is over."""
    systemd.stop([f"{WATCHER}.service"])


def check(paths: NodePaths) -> list[str]:
    """Return what keeps the dead-man from being armed, in words."""
    if not paths.fallback.is_file():
        return [f"{paths.fallback} is missing"]
    if not os.access(paths.fallback, os.X_OK):
        return [f"{paths.fallback} is not executable"]
    return []


def start_watcher(systemd: Systemd, paths: NodePaths, trial: str) -> None:
    """Start `kosctl watch` as a service of its own, which outlives the connection."""
    systemd.run_transient_service(WATCHER, [*kosctl(paths), "watch", "--trial", trial])


def kosctl(paths: NodePaths) -> list[str]:
    """Return the command line of the installed kosctl."""
    program = [str(paths.opt / "current/bin/kosctl")]
    return program if paths.root == Path("/") else [*program, "--root", str(paths.root)]


def fall_back(paths: NodePaths, reason: str, *, detail: str = "", trial: str = "") -> None:
    """Run `fallback` to its end. The caller must not hold the node's lock: fallback takes it.

    Args:
        paths: of the node.
        reason: one of `record.REASONS`.
        detail: words for people; fallback takes out what is not plain.
        trial: its id; another trial is left alone.

    Raises:
        KosError: it could not end the trial; the message holds its last words.
    """
    try:
        done = subprocess.run(
            fallback_argv(paths, reason, detail=detail, trial=trial),
            env=fallback_env(paths),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=FALLBACK_TIMEOUT_S,
            # A lost connection or Ctrl-C must not reach it.
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KosError(f"fallback could not be run: {error}") from None
    said = done.stderr.decode("utf-8", "replace").strip()
    if said:
        print(said, file=sys.stderr)
    if done.returncode != 0:
        last = said.splitlines()[-1] if said else "it said nothing"
        raise KosError(f"fallback ended with {done.returncode}: {last}")


def become_fallback(paths: NodePaths, reason: str, *, detail: str = "", trial: str = "") -> None:
    """Replace this process by `fallback`; arguments as `fall_back`. Does not return."""
    argv = fallback_argv(paths, reason, detail=detail, trial=trial)
    os.execve(argv[0], argv, fallback_env(paths))


def fallback_argv(paths: NodePaths, reason: str, *, detail: str = "", trial: str = "") -> list[str]:
    """Return the command line of fallback."""
    argv = [str(paths.fallback), "--reason", reason]
    if detail:
        argv += ["--detail", detail]
    if trial:
        argv += ["--trial", trial]
    return argv


def fallback_env(paths: NodePaths) -> dict[str, str]:
    """Return the whole environment of fallback; only a root other than / is told."""
    if paths.root == Path("/"):
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "KOS_ROOT": str(paths.root)}
