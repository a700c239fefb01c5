"""Finds out how this host's cgroups let systemd boot in a container, and keeps what that needs.

systemd 257 wants cgroup v2. Where the host has only that, Podman does all by itself. Where the host is
in hybrid mode, each node gets one directory of the unified hierarchy as its whole /sys/fs/cgroup, and
runc has to start it, for crun refuses such hosts.
"""

from __future__ import annotations

import resource
from pathlib import Path

from .command import BedError, run

ROOT = Path("/sys/fs/cgroup")
HYBRID_ROOT = ROOT / "unified"


def is_hybrid() -> bool:
    """Tell whether cgroup v1 and v2 are mounted side by side.

    Raises:
        BedError: There is no cgroup v2 hierarchy at all.
    """
    if (ROOT / "cgroup.controllers").exists():
        return False
    if (HYBRID_ROOT / "cgroup.procs").exists():
        return True
    raise BedError(f"this host has no cgroup v2 hierarchy, neither at {ROOT} nor at {HYBRID_ROOT}")


def podman_options(container: str) -> list[str]:
    """Make the cgroup directory of a container where one is needed, and return the options that use it."""
    options = [*_limits(), "--pids-limit=-1", "--privileged", "--systemd=always"]
    if is_hybrid():
        directory = HYBRID_ROOT / container
        run(["mkdir", "-p", str(directory)])
        options += ["--volume", f"{directory}:{ROOT}:rw"]
    return options


def podman_runtime() -> list[str]:
    """Return the options of podman itself that this host needs."""
    return ["--runtime", "runc"] if is_hybrid() else []


def remove(prefix: str) -> None:
    """Remove the cgroup directories that containers of a name prefix left, innermost first."""
    for directory in HYBRID_ROOT.glob(f"{prefix}*"):
        run(["find", str(directory), "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"])


def _limits() -> list[str]:
    # Where the host withholds CAP_SYS_RESOURCE a node may not have more than podman's own process, and
    # podman lowers its number of processes to the kernel's number of process ids.
    processes = min(_hard_limit(resource.RLIMIT_NPROC), int(Path("/proc/sys/kernel/pid_max").read_text()))
    files = _hard_limit(resource.RLIMIT_NOFILE)
    return [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={processes}:{processes}"]


def _hard_limit(kind: int) -> int:
    limit = resource.getrlimit(kind)[1]
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit
