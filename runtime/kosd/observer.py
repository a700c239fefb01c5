"""Takes samples of the node's units every few seconds, and turns changes into events."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from kosd import systemctl
from kosd.config import Config
from kosd.events import Clock, EventRing
from kosd.identity import Release, read_release
from kosd.restarts import RestartHistory
from kosd.systemctl import Shown, SystemctlError
from kosd.units import Inventory, Unit, read_inventory
from kosd.verdict import Status, Verdict, judge

log = logging.getLogger("kosd.observer")
Ask = Callable[[Sequence[str], float], Awaitable[dict[str, Shown]]]

SLOT_S = 30.0
SLOTS = 60


@dataclass(frozen=True)
class Seen:
    """One unit in one sample."""

    unit: Unit
    service: Shown
    timer: Shown | None
    verdict: Verdict
    restarts: int


@dataclass(frozen=True)
class Sample:
    """The node at one moment of the monotonic clock, in seconds."""

    taken_s: float
    duration_s: float
    release: Release
    inventory: Inventory
    seen: dict[str, Seen]


class History:
    """The worst status of each half minute of the last thirty minutes, for the page's strips."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, Status]] = deque(maxlen=SLOTS)

    def note(self, status: Status, now_s: float) -> None:
        slot = int(now_s // SLOT_S)
        if self._slots and self._slots[-1][0] == slot:
            before = self._slots.pop()[1]
            status = max(before, status, key=lambda each: each.rank)
        self._slots.append((slot, status))

    def strip(self, now_s: float) -> list[Status | None]:
        """Returns one status for each slot, oldest first; None where nothing was seen."""
        known = dict(self._slots)
        last = int(now_s // SLOT_S)
        return [known.get(slot) for slot in range(last - SLOTS + 1, last + 1)]


@dataclass
class Observer:
    """Holds the last sample; nobody who asks for it has to wait for systemd."""

    config: Config
    events: EventRing
    restarts: RestartHistory
    monotonic: Clock
    ask: Ask = systemctl.show
    sample: Sample | None = None
    error: str | None = None
    taken: int = 0
    failed: int = 0
    history: dict[str, History] = field(default_factory=dict)
    _unsettled: dict[str, float] = field(default_factory=dict)

    def age_s(self) -> float | None:
        """Returns the age of the last good sample in seconds, None before the first."""
        return None if self.sample is None else self.monotonic() - self.sample.taken_s

    async def observe(self) -> None:
        """Takes one sample; what goes wrong is kept in `error` and leaves the last sample to age."""
        config, began = self.config, self.monotonic()
        inventory = read_inventory(config.current, config.node_units)
        release = self._release()
        names = [name for unit in inventory.units.values() for name in (unit.service, unit.timer) if name]
        try:
            shown = await self.ask(names, config.timeout_s)
        except SystemctlError as error:
            self.failed += 1
            if self.error != str(error):
                self.events.add("observer.failed", str(error), level="error")
                log.error(str(error), extra={"event": "observer.failed"})
            self.error = str(error)
            return
        if self.error is not None:
            self.events.add("observer.recovered", "systemd answers again")
        self.error = None
        self.taken += 1
        now = self.monotonic()
        seen = {unit.name: self._see(unit, shown, now) for unit in inventory.units.values()}
        before, self.sample = self.sample, Sample(now, now - began, release, inventory, seen)
        self._tell_changes(before, self.sample)
        self._save_restarts()

    async def run(self, after_each: Callable[[], None]) -> None:
        """Samples for ever, calling `after_each` behind every sample."""
        while True:
            await asyncio.sleep(self.config.every_s)
            await self.observe()
            after_each()

    def _release(self) -> Release:
        """Reads the manifest again only when the link moved: it never changes within a slot."""
        if self.sample is not None and self.sample.release.problem is None:
            known = self.sample.release
            try:
                if known.root is not None and self.config.current.readlink().name == known.root:
                    return known
            except OSError as error:
                return replace(
                    known, problem=f"{self.config.current}: is no link to a slot: {error.strerror}"
                )
        return read_release(self.config.current)

    def _see(self, unit: Unit, shown: dict[str, Shown], now: float) -> Seen:
        service = shown[unit.service]
        timer = shown[unit.timer] if unit.timer else None
        rise = self.restarts.note(unit.service, service.restarts, now)
        recent = self.restarts.within(unit.service, self.config.flapping_window_s, now)
        settled = (timer or service).active == "active"
        if settled:
            self._unsettled.pop(unit.name, None)
        since = now if settled else self._unsettled.setdefault(unit.name, now)
        verdict = judge(
            unit,
            service,
            timer,
            unsettled_s=now - since,
            grace_s=self.config.start_grace_s,
            restarts=recent,
            limit=self.config.flapping_restarts,
        )
        if rise:
            times = "once" if rise == 1 else f"{rise} times"
            self._tell("unit.restarted", f"systemd restarted {unit.service} {times}", "warning", unit.name)
        self.history.setdefault(unit.name, History()).note(verdict.status, now)
        return Seen(unit, service, timer, verdict, recent)

    def _tell_changes(self, before: Sample | None, now: Sample) -> None:
        if before is None:
            for seen in now.seen.values():
                self._tell_state(seen, None)
            return
        if before.release.root != now.release.root:
            new, old = now.release, before.release
            text = f"release is {new.name} {new.version} ({new.root}), was {old.root}"
            self._tell("release.changed", text)
        for name, seen in now.seen.items():
            if name not in before.seen:
                self._tell("unit.added", f"{name} is in the list of the {seen.unit.origin}", unit=name)
            earlier = before.seen.get(name)
            if earlier is None or _looks(earlier) != _looks(seen):
                self._tell_state(seen, earlier)
        for name in before.seen.keys() - now.seen.keys():
            self._tell("unit.removed", f"{name} is in no list any more", unit=name)
            self.history.pop(name, None)
            self._unsettled.pop(name, None)

    def _tell_state(self, seen: Seen, earlier: Seen | None) -> None:
        level = {Status.OK: "info", Status.DEGRADED: "warning", Status.FAILING: "error"}[seen.verdict.status]
        was = f", was: {earlier.verdict.detail}" if earlier and earlier.verdict != seen.verdict else ""
        self._tell("unit.state", f"{seen.verdict.detail}{was}", level, seen.unit.name)

    def _tell(self, kind: str, message: str, level: str = "info", unit: str | None = None) -> None:
        self.events.add(kind, message, level=level, unit=unit)
        number = logging.getLevelName(level.upper())
        log.log(number, message, extra={"event": kind, "unit": unit})

    def _save_restarts(self) -> None:
        try:
            self.restarts.save()
        except OSError as error:
            log.debug("restarts are not saved: %s", error.strerror, extra={"event": "state.unwritable"})


def _looks(seen: Seen) -> tuple[object, ...]:
    """What of a unit is news when it changes; a periodic unit's every run is not."""
    if seen.unit.timer:
        return (seen.verdict.status, seen.service.load, seen.service.result, seen.timer and seen.timer.active)
    return (
        seen.verdict.status,
        seen.service.load,
        seen.service.active,
        seen.service.sub,
        seen.service.result,
    )
