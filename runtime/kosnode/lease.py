"""The lease of a rollout on a node, so that two controllers collide at once and with one clear message."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from . import boot, files
from .errors import InputError, RefusedError

MAX_TTL_S = 24 * 3600
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
HOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/ -]{0,127}")


@dataclass(frozen=True)
class Lease:
    """Who may move the releases of this node, and until when.

    Args:
        id: of the rollout.
        holder: who runs it, for people.
        ttl_s: seconds that it lasts.
        taken: wall clock, UTC.
        boot: boot in which it was taken.
        boottime: seconds of CLOCK_BOOTTIME at which it was taken.
    """

    id: str
    holder: str
    ttl_s: int
    taken: str
    boot: str
    boottime: int


class Leases:
    """The one lease of a node. The caller holds the node's lock while it changes it.

    In the boot in which it was taken a lease counts by the clock that never jumps. In a later boot it counts
    by the wall clock, and where that stands before the time it was taken (no battery), from the boot on: it
    never lasts longer than its time after a boot.
    """

    def __init__(self, path: Path, clock: boot.Clock) -> None:
        self._path = path
        self._clock = clock

    def current(self) -> Lease | None:
        """Return the lease that counts now; a file that cannot be read is no lease."""
        lease = self._read()
        return lease if lease is not None and self.remaining_s(lease) > 0 else None

    def stale(self) -> bool:
        """Say whether a lease is written down that does not count any more."""
        return self._path.exists() and self.current() is None

    def remaining_s(self, lease: Lease) -> int:
        """Return how many seconds a lease still counts, 0 or less where it is over."""
        if lease.boot == self._clock.boot():
            gone = self._clock.boottime() - lease.boottime
        else:
            wall = (self._clock.now() - boot.moment(lease.taken)) / timedelta(seconds=1)
            gone = max(wall, self._clock.uptime())
        return int(lease.ttl_s - gone)

    def take(self, lease_id: str, holder: str, ttl_s: int) -> Lease:
        """Take the lease, or renew it where it is one's own.

        Raises:
            InputError: an id, a holder or a time that breaks the rules.
            RefusedError: another has it; names the holder and the seconds it still lasts.
        """
        if not ID.fullmatch(lease_id):
            raise InputError(
                "lease id: 1 to 64 letters, digits and . _ : -, beginning with a letter or digit", key="take"
            )
        if not HOLDER.fullmatch(holder):
            raise InputError("lease holder: 1 to 128 letters, digits, blanks and . _ : @ / -", key="holder")
        if not 1 <= ttl_s <= MAX_TTL_S:
            raise InputError(f"lease time: must be 1 to {MAX_TTL_S} seconds, is {ttl_s}", key="ttl_s")
        self.check(lease_id)
        now = self._clock
        lease = Lease(lease_id, holder, ttl_s, boot.text(now.now()), now.boot(), int(now.boottime()))
        files.write_durable(self._path, files.canonical({"format": 1, **asdict(lease)}), mode=0o600)
        return lease

    def drop(self, lease_id: str) -> bool:
        """Give a lease back; says whether there was one. Another's lease raises RefusedError."""
        self.check(lease_id)
        there = self._path.exists()
        self._path.unlink(missing_ok=True)
        if there:
            files.fsync_directory(self._path.parent)
        return there

    def check(self, lease_id: str | None) -> None:
        """Refuse where the lease is another's.

        Args:
            lease_id: the caller's own, None where it has none.
        """
        lease = self.current()
        if lease is not None and lease.id != lease_id:
            left = self.remaining_s(lease)
            raise RefusedError(
                f"the node is leased to {lease.holder} (lease {lease.id}) for another {left} s",
                key="lease",
                detail={"lease": lease.id, "holder": lease.holder, "expires_in_s": left},
            )

    def _read(self) -> Lease | None:
        try:
            value: Any = files.read_json(self._path, limit=64 * 1024)
            lease = Lease(**{key: item for key, item in value.items() if key != "format"})
            boot.moment(lease.taken)
            numbers = (lease.ttl_s, lease.boottime)
        except (OSError, InputError, TypeError, ValueError, AttributeError):
            return None
        return lease if all(isinstance(number, int) for number in numbers) else None
