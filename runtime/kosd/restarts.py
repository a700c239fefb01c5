"""Counts each unit's automatic restarts within a window, also over restarts of the daemon itself."""

from __future__ import annotations

import json
from pathlib import Path

from kosd import documents, files

SCHEMA = "restarts.schema.json"
# Enough to tell that a unit flaps; more would only tell how much.
KEPT = 100


class RestartHistory:
    """The monotonic times, in seconds, at which systemd's restart counter of a unit was seen to rise."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id
        self._counters: dict[str, int] = {}
        self._times: dict[str, list[float]] = {}
        self._unsaved = False
        try:
            document = documents.read(path, SCHEMA)
        except documents.DocumentError:
            return
        if document["boot_id"] == boot_id:
            self._counters = document["counters"]
            self._times = document["times"]

    def note(self, service: str, counter: int, now_s: float) -> int:
        """Takes systemd's counter and returns by how much it rose.

        The first sight of a service is a baseline. A counter that fell was reset by somebody who started the
        service anew, as a revert does: what was before says nothing of what runs now.
        """
        before = self._counters.get(service)
        if before == counter:
            return 0
        if before is not None and counter < before:
            self._times.pop(service, None)
        rise = 0 if before is None else counter - before if counter > before else counter
        self._counters[service] = counter
        if rise:
            times = self._times.setdefault(service, [])
            times.extend([now_s] * min(rise, KEPT))
            del times[:-KEPT]
        self._unsaved = True
        return rise

    def within(self, service: str, window_s: float, now_s: float) -> int:
        """Returns how many restarts the last `window_s` seconds saw."""
        return sum(1 for at in self._times.get(service, ()) if 0 <= now_s - at <= window_s)

    def save(self) -> None:
        """Writes what is new; raises OSError, and keeps it for the next time."""
        if not self._unsaved:
            return
        document = {"boot_id": self._boot_id, "counters": self._counters, "times": self._times}
        files.replace(self._path, json.dumps(document, sort_keys=True) + "\n")
        self._unsaved = False
