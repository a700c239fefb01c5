"""Finishes what an earlier process left: a trial without a process, a half confirmation, a bare outcome."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import boot, deadman, evidence, files, health, record, render, state
from .errors import BusyError, DamagedError, KosError, RevertedError, RevertedUnhealthyError
from .lock import Lock
from .node import Node, downtime_of, measure
from .record import Details, Outcome, Trial
from .refusals import Refusal
from .systemd import SystemdError
from .watch import read_health

# Commands of these hold the lock for a moment only, so that others wait for them.
PATIENT = ("recover", "fallback", "confirm")
RECOVER_WAIT_S = 120.0
# The dead-man acts by itself; only when it is this late does another command do its work.
DEADMAN_GRACE_S = 30

_TEMPORARY = (".current.", ".previous.", ".trial.", ".outcome.", ".running.", ".refusals.", ".lease.")
# What `finish_left` says of a trial that runs.
LIVE: Mapping[str, Any] = {"trial": "live"}


def recover(node: Node) -> dict[str, Any] | None:
    """Finish what an earlier process left.

    Returns:
        The ending of a trial that is now written down, None where there was nothing.

    Raises:
        BusyError: another command holds the lock for long; DamagedError: `trial` cannot be read.
    """
    with locked(node, "recover", wait_s=RECOVER_WAIT_S):
        found = finish_left(node)
    return None if found is LIVE or found is None else dict(found)


@contextlib.contextmanager
def changing(node: Node, verb: str) -> Iterator[Lock]:
    """Hold the lock for a command that changes the node, after what an earlier one left was finished.

    Raises:
        BusyError: another command holds the lock, or a trial is running.
    """
    with locked(node, verb) as lock:
        if finish_left(node) is LIVE:
            trial = record.read_trial(node.paths.trial)
            assert trial is not None, "recover has just read it"
            left = max(0, int(trial.deadline - node.clock.boottime()))
            raise BusyError(
                f"a trial of {trial.release[:12]} is running and ends by itself in {left} s: "
                "confirm or revert it first",
                detail={"trial": trial.id, "deadline_in_s": left},
            )
        yield lock


@contextlib.contextmanager
def locked(node: Node, verb: str, *, wait_s: float = 0.0) -> Iterator[Lock]:
    """Hold the lock, after trials that lost their process were ended by `fallback`.

    Raises:
        BusyError: another command holds it.
    """
    lock = Lock(node.paths.lock)
    for _ in range(3):
        lock.acquire(verb, wait_s=wait_s, patient=PATIENT, patience_s=RECOVER_WAIT_S)
        try:
            lost = _lost(node)
            if lost is None:
                yield lock
                return
        finally:
            lock.release()
        trial, reason = lost
        node.progress(f"trial {trial} lost its process ({reason}): ending it")
        deadman.fall_back(node.paths, reason, detail="its process was lost", trial=trial)
    raise KosError("a trial that lost its process cannot be ended; see its messages above")


def finish_left(node: Node) -> Mapping[str, Any] | None:
    """Finish what is left, with the lock held; returns an ending, LIVE for a running trial, or None."""
    paths = node.paths
    if record.read_trial(paths.trial) is not None:
        return LIVE
    ending: Mapping[str, Any] | None = None
    if paths.trial_confirmed.exists():
        ending = finish_confirmation(node)
    outcome = record.read_outcome(paths.outcome)
    if outcome is not None:
        ending = _finish_revert(node, outcome)
    elif paths.trial_json.exists():
        ending = _finish_unwritten(node) or ending
    state.drop(paths)
    for name in ("outcome", "trial.json", "trial.health"):
        (paths.var / name).unlink(missing_ok=True)
    _sweep(paths.var)
    return ending


def finish_confirmation(node: Node) -> dict[str, Any]:
    """Do what follows the commit point; each step may have been done before."""
    paths = node.paths
    trial = record.read_trial(paths.trial_confirmed)
    assert trial is not None, "the caller has looked"
    details = record.read_details(paths.trial_json)
    if trial.previous != record.NONE:
        files.link_durable(paths.previous, f"releases/{trial.previous}")
    entry = node.journal.of_trial(trial.id, "CONFIRMED")
    if entry is None:
        entry = node.journal.append("CONFIRMED", **_about(node, trial, details), health="healthy")
    _leave(node, paths.trial_confirmed)
    return shown_ending(entry)


def ending_of(node: Node, trial_id: str) -> dict[str, Any] | None:
    """Return how a trial ended, as `last` in status; None where that is not written down."""
    for name in ("REVERTED", "CONFIRMED"):
        entry = node.journal.of_trial(trial_id, name)
        if entry is not None:
            return shown_ending(entry)
    return None


def reverted(ending: Mapping[str, Any] | None, why: str) -> KosError:
    """Return the error that says how a trial ended in the old release."""
    if ending is None:
        return RevertedUnhealthyError(f"{why}; how healthy the node is now is not known")
    words = ": ".join(str(ending[key]) for key in ("reason", "detail") if ending.get(key))
    detail = dict(ending)
    if ending["outcome"] == "reverted-healthy":
        return RevertedError(f"{why} ({words}); the release before runs again and is healthy", detail=detail)
    known = "is NOT healthy" if ending["outcome"] == "reverted-unhealthy" else "may or may not be healthy"
    return RevertedUnhealthyError(f"{why} ({words}); the node is back and {known}", detail=detail)


def shown_ending(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry CONFIRMED or REVERTED of the journal as `last` in status."""
    confirmed = entry["state"] == "CONFIRMED"
    outcome = "confirmed" if confirmed else f"reverted-{entry.get('health', 'unknown')}"
    downtime = entry.get("downtime_ms")
    return {
        "trial": entry.get("trial"),
        "root": entry.get("release"),
        "version": entry.get("version"),
        "outcome": outcome,
        "reason": entry.get("reason"),
        "detail": entry.get("detail"),
        "evidence": entry.get("evidence"),
        "time": entry["time"],
        "seconds": entry.get("seconds"),
        "downtime_s": None if downtime is None else downtime / 1000,
        "bytes": entry.get("bytes"),
    }


def _lost(node: Node) -> tuple[str, str] | None:
    """Return id and reason of a trial that nobody will end any more. Needs the lock."""
    trial = record.read_trial(node.paths.trial)
    if trial is None:
        return None
    if trial.boot != node.clock.boot():
        return trial.id, "reboot"
    outcome = record.read_outcome(node.paths.outcome)
    if outcome is not None and outcome.id == trial.id:
        return trial.id, outcome.reason
    details = record.read_details(node.paths.trial_json)
    if details is None or details.id != trial.id or details.switched_ms is None:
        return trial.id, "interrupted"
    if node.journal.of_trial(trial.id, "TRIAL") is None:
        return trial.id, "interrupted"
    late = node.clock.boottime() - trial.deadline
    if late > DEADMAN_GRACE_S:
        return trial.id, "deadline"
    return None


def _finish_unwritten(node: Node) -> Mapping[str, Any] | None:
    """End a trial whose outcome fallback could not write (a full disk); one that never began just goes."""
    details = record.read_details(node.paths.trial_json)
    if details is None or node.journal.of_trial(details.id, "TRIAL") is None:
        return None
    if any(node.journal.of_trial(details.id, ending) for ending in ("CONFIRMED", "REVERTED")):
        return None
    now = node.clock
    outcome = Outcome(
        id=details.id,
        release=details.release,
        previous=details.previous,
        reason="interrupted",
        detail="fallback could not write down why",
        complete=True,
        boot=now.boot(),
        at=now.boottime(),
        down_s=None,
        failed=(),
    )
    return _finish_revert(node, outcome)


def _finish_revert(node: Node, outcome: Outcome) -> dict[str, Any]:
    """Measure health, keep evidence, refuse what was unhealthy, write REVERTED; each step may come again."""
    paths = node.paths
    entry = node.journal.of_trial(outcome.id, "REVERTED")
    details = record.read_details(paths.trial_json)
    if details is not None and details.id != outcome.id:
        details = None
    if entry is None:
        with contextlib.suppress(DamagedError):
            _note_running(node, outcome, details)
        root = None if outcome.previous == record.NONE else outcome.previous
        if outcome.failed and details is not None:
            _restart_again(node, details)
        report = _settle(node, root)
        state_now = "unknown" if report is None else ("healthy" if report.healthy else "unhealthy")
        about = _about_outcome(node, outcome, details)
        _keep_evidence(node, outcome, report, about, details)
        if outcome.reason == "health":
            node.refusals.add(
                Refusal(
                    root=outcome.release,
                    name=str(about.get("name", "")),
                    version=str(about.get("version", "")),
                    reason=outcome.detail or "unhealthy",
                    time=boot.text(node.clock.now()),
                    trial=outcome.id,
                )
            )
        entry = node.journal.append(
            "REVERTED",
            **about,
            reason=outcome.reason,
            detail=outcome.detail or None,
            health=state_now,
            health_detail=None if report is None or report.healthy else report.reason,
            failed=list(outcome.failed) or None,
            evidence=str(paths.evidence / outcome.id),
        )
        evidence.prune(paths.evidence)
    _leave(node, paths.outcome)
    return shown_ending(entry)


def _settle(node: Node, root: str | None) -> health.HealthReport | None:
    """Measure until healthy or until the time to settle is over; None where there is nothing to measure."""
    if root is None:
        return None
    end = node.clock.boottime() + node.policy.settle_s
    report: health.HealthReport | None = None
    while True:
        try:
            report = measure(node, root, report)
        except KosError as error:
            node.progress(f"health cannot be measured: {error.message}")
            return None
        if report.healthy or node.clock.boottime() >= end:
            return report
        node.clock.sleep(min(1.0, node.policy.health_interval_s))


def _restart_again(node: Node, details: Details) -> None:
    """Do once more what systemd did not do for fallback: without a reload the new units may run still."""
    try:
        node.systemd.stop(details.stop)
        node.systemd.daemon_reload()
        node.systemd.restart(details.restart)
    except SystemdError as error:
        node.progress(f"systemd still does not do it: {error.message}")


def _note_running(node: Node, outcome: Outcome, details: Details | None) -> None:
    """Write down that what the trial had restarted runs from the old slot again."""
    if outcome.previous == record.NONE:
        node.running.started((), outcome.release, {"units": {}}, list(node.running.units()))
        return
    old = node.units(outcome.previous)
    back = (
        set(old["units"])
        if details is None
        else {name for name, entry in old["units"].items() if render.starts(entry) in details.restart}
    )
    gone = [name for name in node.running.units() if name not in old["units"]]
    node.running.started(sorted(back), outcome.previous, old, gone)


def _keep_evidence(
    node: Node,
    outcome: Outcome,
    report: health.HealthReport | None,
    about: Mapping[str, Any],
    details: Details | None,
) -> None:
    paths = node.paths
    units = sorted({*(details.restarted if details else ()), *(details.restart if details else ())})
    evidence.collect(
        paths.evidence / outcome.id,
        documents={
            "outcome.json": {
                **about,
                "token": None,
                "reason": outcome.reason,
                "detail": outcome.detail,
                "failed": list(outcome.failed),
            },
            "health.json": {
                "trial": read_health(node),
                "after": None if report is None else report.as_json(),
            },
            "journal.json": node.journal.entries()[-20:],
        },
        units=units,
    )


def _about(node: Node, trial: Trial, details: Details | None) -> dict[str, Any]:
    """Return what CONFIRMED says of a trial; None leaves a field out."""
    return {
        "release": trial.release,
        "name": None if details is None else details.name,
        "version": None if details is None else details.version,
        "trial": trial.id,
        "previous": trial.previous,
        "token": None if details is None else details.token_sha256,
        "lease": None if details is None else details.lease,
        "bytes": None if details is None else details.bytes,
        "downtime_ms": None if details is None else details.downtime_ms,
        "seconds": int(node.clock.boottime() - trial.started) if trial.boot == node.clock.boot() else None,
    }


def _about_outcome(node: Node, outcome: Outcome, details: Details | None) -> dict[str, Any]:
    """Return what REVERTED says of a trial; None leaves a field out."""
    about: dict[str, Any] = {"release": outcome.release, "trial": outcome.id, "previous": outcome.previous}
    with contextlib.suppress(KosError):
        release = node.release(outcome.release)
        about.update(name=release.name, version=release.version)
    if details is not None:
        began = node.journal.of_trial(outcome.id, "TRIAL")
        same_boot = began is None or began["boot"] == outcome.boot
        about.update(
            name=details.name,
            version=details.version,
            token=details.token_sha256,
            lease=details.lease,
            bytes=details.bytes,
            seconds=max(0, int(outcome.at - details.began_ms / 1000)) if same_boot else None,
            downtime_ms=_away_ms(node, outcome, details),
        )
    return about


def _away_ms(node: Node, outcome: Outcome, details: Details) -> int | None:
    """Return how long units were away for the revert: as systemd saw it, else as fallback did."""
    if outcome.down_s is None:
        return None
    with contextlib.suppress(SystemdError):
        seen = downtime_of(node.systemd, details.restart)
        if 0 < seen <= outcome.down_s:
            return round(seen * 1000)
    return round(outcome.down_s * 1000)


def _leave(node: Node, last: Path) -> None:
    """Remove what is left of a trial, and last of all the file that says so and the timer.

    Where this is killed before, the timer has `recover` finish it. Neither watcher nor timer finds a trial
    any more, so a systemd that cannot be asked now changes nothing.
    """
    paths = node.paths
    with contextlib.suppress(SystemdError):
        deadman.stop_watcher(node.systemd)
    state.drop(paths)
    for path in (paths.trial_json, paths.trial_health, last):
        path.unlink(missing_ok=True)
    files.fsync_directory(paths.var)
    with contextlib.suppress(SystemdError):
        node.systemd.stop_timer(deadman.TIMER)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed left under temporary names."""
    for path in folder.iterdir():
        if path.name.startswith(_TEMPORARY) and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)
