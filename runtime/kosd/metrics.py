"""What Prometheus reads: the last sample, the daemon's own costs, and how long its answers took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from kosd.verdict import Status

if TYPE_CHECKING:
    from kosd.daemon import Daemon

SMAPS_ROLLUP = Path("/proc/self/smaps_rollup")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
STATES = ("active", "activating", "deactivating", "failed", "inactive", "reloading")


def pss_bytes(rollup: Path = SMAPS_ROLLUP) -> int | None:
    """Returns the process's proportional set size in bytes, None where the kernel does not tell it."""
    try:
        for line in rollup.read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


class Metrics:
    """One registry for each daemon."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, daemon: Daemon) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_NodeCollector(daemon))
        ProcessCollector(namespace="kosd", registry=self._registry)
        self.requests = Histogram(
            "kosd_http_request_duration_seconds",
            "Time to answer, event streams left out",
            ("method", "route", "status"),
            registry=self._registry,
            buckets=BUCKETS,
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _NodeCollector(Collector):
    """Makes the node's metrics from the last sample at the moment somebody asks."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._identity()
        yield from self._health()
        yield from self._samples()
        yield from self._units()

    def _identity(self) -> Iterator[Metric]:
        daemon = self._daemon
        release = daemon.release
        build = GaugeMetricFamily(
            "kosd_build_info", "The release that the node runs", labels=("name", "version", "release", "node")
        )
        build.add_metric(
            (release.name or "", release.version or "", release.root or "", daemon.loaded.config.node), 1.0
        )
        yield build
        yield GaugeMetricFamily("kosd_uptime_seconds", "Time since the daemon's start", daemon.uptime_s)
        pss = pss_bytes()
        if pss is not None:
            yield GaugeMetricFamily("kosd_process_pss_bytes", "Proportional set size of the daemon", pss)
        reloads = CounterMetricFamily(
            "kosd_config_reloads", "Reloads of the configuration", labels=("result",)
        )
        for result, count in daemon.reloads.items():
            reloads.add_metric((result,), count)
        yield reloads

    def _health(self) -> Iterator[Metric]:
        found = self._daemon.health()
        node = GaugeMetricFamily("kosd_health", "1 for the node's present status", labels=("status",))
        for status in Status:
            node.add_metric((status.value,), float(found.status is status))
        yield node
        checks = GaugeMetricFamily("kosd_check", "0 ok, 1 degraded, 2 failing", labels=("check",))
        for name, check in found.checks.items():
            checks.add_metric((name,), check.status.rank)
        yield checks

    def _samples(self) -> Iterator[Metric]:
        observer = self._daemon.observer
        samples = CounterMetricFamily("kosd_samples", "Samples of the units", labels=("result",))
        samples.add_metric(("taken",), observer.taken)
        samples.add_metric(("failed",), observer.failed)
        yield samples
        if observer.sample is not None:
            age = observer.age_s() or 0.0
            yield GaugeMetricFamily("kosd_sample_age_seconds", "Age of the last good sample", age)
            yield GaugeMetricFamily(
                "kosd_sample_duration_seconds", "Time that it took", observer.sample.duration_s
            )
        yield CounterMetricFamily("kosd_events", "Events since the daemon's start", self._daemon.events.added)

    def _units(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "kosd_unit_state", "1 for the unit's state in systemd", labels=("unit", "state")
        )
        status = GaugeMetricFamily(
            "kosd_unit_status", "0 ok, 1 degraded, 2 failing", labels=("unit", "from", "tier")
        )
        restarts = CounterMetricFamily(
            "kosd_unit_restarts", "Automatic restarts by systemd", labels=("unit",)
        )
        recent = GaugeMetricFamily(
            "kosd_unit_recent_restarts", "Automatic restarts within the flapping window", labels=("unit",)
        )
        memory = GaugeMetricFamily("kosd_unit_memory_bytes", "Memory of the unit's cgroup", labels=("unit",))
        sample = self._daemon.observer.sample
        for name, seen in sample.seen.items() if sample else ():
            for each in STATES:
                state.add_metric((name, each), float(seen.service.active == each))
            status.add_metric((name, seen.unit.origin, str(seen.unit.tier)), seen.verdict.status.rank)
            restarts.add_metric((name,), seen.service.restarts)
            recent.add_metric((name,), seen.restarts)
            if seen.service.memory_bytes is not None:
                memory.add_metric((name,), seen.service.memory_bytes)
        yield from (state, status, restarts, recent, memory)
