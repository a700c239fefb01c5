"""The JSON answers, made from the daemon's state; openapi.json describes them and a test compares the two."""

from __future__ import annotations

from typing import Any

from kosd.daemon import Daemon
from kosd.events import rfc3339
from kosd.health import Health
from kosd.observer import Seen


def health(daemon: Daemon, found: Health) -> dict[str, Any]:
    release = daemon.release
    return {
        "status": found.status.value,
        "reason": found.reason,
        "node": daemon.loaded.config.node,
        "release": release.root,
        "version": release.version,
        "checks": {
            name: {"status": check.status.value, "detail": check.detail}
            for name, check in found.checks.items()
        },
    }


def status(daemon: Daemon) -> dict[str, Any]:
    found, release, observer = daemon.health(), daemon.release, daemon.observer
    age = observer.age_s()
    seen = observer.sample.seen.values() if observer.sample else ()
    counts = {name: sum(1 for each in seen if each.verdict.status.value == name) for name in _STATUSES}
    return {
        "node": daemon.loaded.config.node,
        "zone": daemon.loaded.config.zone,
        "status": found.status.value,
        "reason": found.reason,
        "release": {"root": release.root, "name": release.name, "version": release.version},
        "started_from": str(daemon.tree),
        "started": rfc3339(daemon.wall() - daemon.uptime_s),
        "uptime_s": round(daemon.uptime_s, 3),
        "sample": {
            "age_s": None if age is None else round(age, 3),
            "taken": observer.taken,
            "failed": observer.failed,
            "error": observer.error,
        },
        "units": counts,
        "config": {
            "valid": daemon.loaded.problem is None,
            "problem": daemon.loaded.problem,
            "at_next_start": list(daemon.loaded.waits_for_start),
        },
        "last_event": daemon.events.last_id,
    }


def units(daemon: Daemon) -> dict[str, Any]:
    sample = daemon.observer.sample
    return {"units": [unit(daemon, seen) for seen in sample.seen.values()] if sample else []}


def unit(daemon: Daemon, seen: Seen) -> dict[str, Any]:
    service, timer = seen.service, seen.timer
    return {
        "name": seen.unit.name,
        "version": seen.unit.version,
        "from": seen.unit.origin,
        "tier": seen.unit.tier,
        "format": seen.unit.format,
        "service": seen.unit.service,
        "timer": seen.unit.timer,
        "status": seen.verdict.status.value,
        "detail": seen.verdict.detail,
        "load": service.load,
        "active": service.active,
        "sub": service.sub,
        "result": service.result,
        "timer_active": timer.active if timer else None,
        "pid": service.main_pid,
        "since": _moment(daemon, service.changed_usec),
        "last_start": _moment(daemon, service.started_usec),
        "restarts": service.restarts,
        "recent_restarts": seen.restarts,
        "memory_bytes": service.memory_bytes,
        "tasks": service.tasks,
    }


def events(daemon: Daemon, since: int, limit: int | None) -> dict[str, Any]:
    return {
        "events": [event.document() for event in daemon.events.since(since, limit)],
        "last": daemon.events.last_id,
    }


_STATUSES = ("ok", "degraded", "failing")


def _moment(daemon: Daemon, usec: int | None) -> str | None:
    """Turns a stamp of the monotonic clock into a time of day."""
    return None if usec is None else rfc3339(daemon.wall() - (daemon.monotonic() - usec / 1e6))
