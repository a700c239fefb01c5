"""The daemon's state and what it does besides answering: start, sample, reload, probe, end."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from kosd import config, files, health, logs, systemctl
from kosd.config import Loaded
from kosd.events import Clock, EventRing
from kosd.identity import Fault, Release, read_fault, read_release
from kosd.notify import Notifier
from kosd.observer import Ask, Observer
from kosd.restarts import RestartHistory
from kosd.verdict import Status

log = logging.getLogger("kosd")
# A probe writes to a disk that may be an SD card: rarely while all is well, at every sample while it is not.
PROBE_EVERY_S = 30.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Daemon:
    """Everything that the endpoints tell of; one for each process, made by `start`."""

    def __init__(
        self,
        tree: Path,
        config_path: Path,
        state: Path,
        loaded: Loaded,
        notifier: Notifier,
        *,
        ask: Ask = systemctl.show,
        wall: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self.tree = tree
        self.loaded = loaded
        self.notifier = notifier
        self.wall = wall
        self.monotonic = monotonic
        self.started_s = monotonic()
        self.events = EventRing(loaded.config.events_kept, wall)
        self.reloads = {"taken": 0, "refused": 0}
        self.fault: Fault | None = read_fault(tree)
        self.state_problem: str | None = None
        self._config_path = config_path
        self._state = state
        self._probed_s: float | None = None
        self._told: Status | None = None
        self._first_release = read_release(loaded.config.current)
        restarts = RestartHistory(state / "restarts.json", BOOT_ID.read_text("ascii").strip())
        self.observer = Observer(loaded.config, self.events, restarts, monotonic, ask)

    @classmethod
    def start(cls, tree: Path, config_path: Path, state: Path, notifier: Notifier) -> Daemon:
        """Reads configuration and fault switch; raises DocumentError when they allow no start."""
        return cls(tree, config_path, state, config.load(config_path, state / "config.good.json"), notifier)

    @property
    def release(self) -> Release:
        """The release of the last sample, before the first one that of the start."""
        sample = self.observer.sample
        return sample.release if sample else self._first_release

    @property
    def uptime_s(self) -> float:
        return self.monotonic() - self.started_s

    def log_context(self) -> dict[str, object]:
        """What every log line carries."""
        release = self.release
        return {"node": self.loaded.config.node, "release": release.root, "version": release.version}

    def health(self) -> health.Health:
        return health.evaluate(
            health.Facts(
                loaded=self.loaded,
                sample=self.observer.sample,
                sample_age_s=self.observer.age_s(),
                observer_error=self.observer.error,
                state_problem=self.state_problem,
                uptime_s=self.uptime_s,
                fault=self.fault,
            )
        )

    async def first_sample(self) -> None:
        """Looks once, so that the first answer is already one about the node."""
        self.events.add("daemon.started", f"kosd runs from {self.tree}")
        if self.loaded.problem:
            self.events.add("config.refused", self.loaded.problem, level="error")
            log.error(self.loaded.problem, extra={"event": "config.refused"})
        await self.observer.observe()
        self.after_sample()

    def after_sample(self) -> None:
        """Probes the state directory when it is time, and tells when health changed."""
        now = self.monotonic()
        if self._probed_s is None or self.state_problem or now - self._probed_s >= PROBE_EVERY_S:
            self._probed_s = now
            try:
                files.prove_writable(self._state)
                self.state_problem = None
            except OSError as error:
                self.state_problem = f"{self._state}: takes no writes: {error.strerror}"
        found = self.health()
        if found.status is self._told:
            return
        self._told = found.status
        level = {Status.OK: "info", Status.DEGRADED: "warning", Status.FAILING: "error"}[found.status]
        text = f"node is {found.status.value}" + (f": {found.reason}" if found.reason else "")
        self.events.add("health.changed", text, level=level)
        log.log(logging.getLevelName(level.upper()), text, extra={"event": "health.changed"})
        self.notifier.status(text)

    def reload(self) -> None:
        """Reads the configuration anew; a wrong one is told everywhere and changes nothing."""
        self.notifier.reloading()
        before = self.loaded
        self.loaded = config.reload(self._config_path, self._state / "config.good.json", before.config)
        self.observer.config = self.loaded.config
        if self.loaded.problem:
            self.reloads["refused"] += 1
            self.events.add(
                "config.refused", f"{self.loaded.problem}; the old one stays in force", level="error"
            )
            log.error(self.loaded.problem, extra={"event": "config.refused"})
        else:
            self.reloads["taken"] += 1
            logs.set_level(self.loaded.config.log_level)
            waiting = self.loaded.waits_for_start
            text = "configuration is reloaded" + (
                f"; at the next start: {', '.join(waiting)}" if waiting else ""
            )
            self.events.add("config.reloaded", text)
            log.info(text, extra={"event": "config.reloaded"})
        self.notifier.ready(f"node is {self.health().status.value}")

    def end(self) -> None:
        """Tells systemd and lets the readers of events go."""
        self.notifier.stopping()
        self.events.add("daemon.stopping", "kosd ends")
        self.events.close()
