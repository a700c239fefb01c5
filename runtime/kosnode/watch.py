"""The watcher of a trial: measures health until the trial is over, and ends it where it is unhealthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import boot, deadman, files, health, record
from .errors import InputError
from .node import Node, measure

SAMPLES = 60


def watch(node: Node, trial_id: str) -> str:
    """Measure health until the trial is over, and end it where it is unhealthy.

    Args:
        trial_id: the trial to watch; another one is not touched.

    Returns:
        `over` when there is no such trial (any more). Where the release is unhealthy, this process becomes
        `fallback` and does not return.
    """
    details = record.read_details(node.paths.trial_json)
    trial = record.read_trial(node.paths.trial)
    if trial is None or details is None or trial.id != trial_id or details.id != trial_id:
        return "over"
    policy = node.policy
    bake = health.Bake(
        bake_s=details.bake_s,
        settle_s=policy.settle_s,
        failures=policy.health_failures,
        started_s=(details.switched_ms or details.began_ms) / 1000,
        longest_gap_s=max(60.0, 5.0 * policy.health_interval_s),
    )
    samples: list[dict[str, Any]] = []
    before: health.HealthReport | None = None
    while True:
        report = measure(node, trial.release, before)
        now = node.clock.boottime()
        there = record.read_trial(node.paths.trial)
        if there is None or there.id != trial_id:
            return "over"
        verdict = bake.feed(now, report.healthy, report.reason, report.restarted)
        samples = [*samples, _sample(report, now)][-SAMPLES:]
        try:
            _write_health(node, trial_id, now, report, verdict, samples)
        except OSError as error:
            # A release that fills the disk is judged all the same.
            node.progress(f"cannot write {node.paths.trial_health}: {error.strerror}")
        if verdict.state == "unhealthy":
            node.progress(f"trial {trial_id} is unhealthy: {verdict.reason}")
            deadman.become_fallback(node.paths, "health", detail=verdict.reason, trial=trial_id)
        before = report
        node.clock.sleep(policy.health_interval_s)


def read_health(node: Node) -> dict[str, Any] | None:
    """Return what the watcher measured last; None where there is nothing that can be read."""
    try:
        value = files.read_json(node.paths.trial_health, limit=record.MAX_BYTES)
    except (OSError, InputError):
        return None
    wanted = {"trial", "at", "healthy", "baked", "reason", "bake_left_s"}
    return value if isinstance(value, dict) and wanted <= set(value) else None


def fresh_health(node: Node, trial_id: str) -> dict[str, Any] | None:
    """Return what the watcher of a trial measured last; None where that is another trial's, or long ago."""
    seen = read_health(node)
    if seen is None or seen["trial"] != trial_id:
        return None
    # A measurement takes up to 30 s, and then the interval.
    stale_s = 35 + 2 * node.policy.health_interval_s
    return seen if node.clock.boottime() - seen["at"] <= stale_s else None


def _sample(report: health.HealthReport, now: float) -> dict[str, Any]:
    return {"at_ms": int(now * 1000), "healthy": report.healthy, "reason": report.reason}


def _write_health(
    node: Node,
    trial_id: str,
    now: float,
    report: health.HealthReport,
    verdict: health.Verdict,
    samples: Sequence[Mapping[str, Any]],
) -> None:
    left = verdict.bake_left_s
    value = {
        "format": 1,
        "trial": trial_id,
        "at": int(now),
        "time": boot.text(node.clock.now()),
        "healthy": report.healthy,
        "baked": verdict.baked,
        "bake_left_s": None if left is None else -(-int(left * 1000) // 1000),
        "verdict": verdict.state,
        "reason": verdict.reason if not report.healthy else "",
        "report": report.as_json(),
        "samples": [dict(one) for one in samples],
    }
    files.write_durable(node.paths.trial_health, files.canonical(value))
