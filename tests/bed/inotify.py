"""Says before a bed is made whether the kernel lets that many machines watch their files.

Each systemd takes a handful of inotify instances, of which the kernel gives root so many on the whole host.
One that gets none boots into a machine on which units fail for no reason that could be seen.
"""

from __future__ import annotations

from pathlib import Path

from .command import BedError, run

LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
# A node at rest holds seven: its systemd five, the message bus and the login manager one each.
OF_A_MACHINE = 8
_INSTANCE = "anon_inode:inotify"


def check(machines: int) -> None:
    """Refuse a bed that the kernel's limit does not carry.

    Args:
        machines: how many more there will be.

    Raises:
        BedError: names the limit, what is left of it and what would be enough.
    """
    limit, taken = int(LIMIT.read_text()), _taken()
    wanted = machines * OF_A_MACHINE
    if taken + wanted > limit:
        raise BedError(
            f"{machines} machines take about {wanted} inotify instances, and of "
            f"fs.inotify.max_user_instances={limit} only {max(0, limit - taken)} are free: ask for fewer "
            "machines, take another bed down, or as root set "
            f"`sysctl fs.inotify.max_user_instances={2 * (taken + wanted)}`"
        )


def _taken() -> int:
    """Return how many root's processes hold; what ends while it is looked at is not there any more."""
    where = ["/proc", "-maxdepth", "3", "-path", "/proc/[0-9]*/fd/*"]
    return len(run(["find", *where, "-user", "root", "-lname", _INSTANCE], check=False).stdout.splitlines())
