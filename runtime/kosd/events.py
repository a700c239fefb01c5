"""What happened on the node, newest last, in a ring that readers can follow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

Clock = Callable[[], float]


def rfc3339(unix_s: float) -> str:
    """Writes a time as RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(unix_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Event:
    """One thing that happened: `kind` is a dotted word, `level` is info, warning or error."""

    id: int
    ts: str
    kind: str
    level: str
    message: str
    unit: str | None = None

    def document(self) -> dict[str, object]:
        return {
            "id": self.id,
            "ts": self.ts,
            "kind": self.kind,
            "level": self.level,
            "unit": self.unit,
            "message": self.message,
        }


class EventRing:
    """Keeps the last events; ids only grow, also over a restart, as they begin at the wall clock."""

    def __init__(self, keep: int, wall: Clock) -> None:
        self._wall = wall
        self._events: deque[Event] = deque(maxlen=keep)
        self._last_id = int(wall() * 1000)
        self.added = 0
        self._news = asyncio.Event()
        self.closed = False

    @property
    def last_id(self) -> int:
        return self._last_id

    def add(self, kind: str, message: str, *, level: str = "info", unit: str | None = None) -> Event:
        self._last_id += 1
        self.added += 1
        event = Event(self._last_id, rfc3339(self._wall()), kind, level, message, unit)
        self._events.append(event)
        self._wake()
        return event

    def since(self, event_id: int, limit: int | None = None) -> list[Event]:
        """Returns the events after `event_id`, oldest first, the first `limit` of them."""
        found = [event for event in self._events if event.id > event_id]
        return found if limit is None else found[:limit]

    def newest(self, count: int) -> list[Event]:
        """Returns the last `count` events, newest first."""
        return list(self._events)[: -count - 1 : -1]

    async def wait(self, event_id: int, timeout_s: float) -> list[Event]:
        """Returns what came after `event_id`, waiting up to `timeout_s` for it; empty when nothing came."""
        if not self.closed and not self.since(event_id):
            try:
                await asyncio.wait_for(self._news.wait(), timeout_s)
            except asyncio.TimeoutError:
                return []
        return self.since(event_id)

    def close(self) -> None:
        """Lets those who wait go, for the daemon's end."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
