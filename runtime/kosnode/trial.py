"""The state machine of a node: switch on trial, confirm, revert, roll back.

A trial begins with the file `trial` and ends when that is renamed (confirmed) or removed (by `fallback`).
Whatever is killed in between, the next command, the dead-man or the next boot brings it to one of the two.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import admission, audit, deadman, files, record, running, state
from .admission import Release, Wish
from .config import Policy, check_trial_times
from .errors import KosError, NotFoundError, RefusedError, UnhealthyError
from .node import Node, downtime_of, fetched_bytes
from .paths import NodePaths
from .record import Details, Trial
from .recovery import (
    LIVE,
    changing,
    ending_of,
    finish_confirmation,
    finish_left,
    locked,
    recover,
    reverted,
    shown_ending,
)
from .systemd import StartError
from .watch import fresh_health

# As much as `fallback` writes over it.
OUTCOME_BYTES = 1024


class MigrationError(KosError):
    """A migration of a release failed: the release is at fault, and is refused."""

    kind = "migration"


@dataclass(frozen=True)
class Activation:
    """What a switch came to: the trial and its token, or that the release was current already (`present`)."""

    root: str
    version: str
    how: str
    trial: str | None = None
    token: str | None = None
    deadline_in_s: int | None = None
    bake_s: int | None = None
    downtime_s: float | None = None
    restarted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a switch would do."""

    root: str
    name: str
    version: str
    how: str
    steps: tuple[str, ...]
    restart: tuple[str, ...]
    stop: tuple[str, ...]
    breaking: tuple[str, ...]
    sync_risk: str
    disk: Mapping[str, int]
    downgrade: bool


def plan(node: Node, root: str, wish: Wish) -> Plan:
    """Say what switching to a staged release would do, and refuse what it would refuse.

    Raises:
        RefusedError, NotFoundError, DamagedError, DiskError: as `begin`.
    """
    current, wanted = node.current(), node.release(root)
    if current is not None and current.root == root:
        return Plan(root, wanted.name, wanted.version, "present", (), (), (), (), wanted.sync_risk, {}, False)
    admission.check_named(current, wanted, wish, line=node.line, refusals=node.refusals)
    admission.check_manifest(current, wanted, wish, node.host())
    steps = _migrations(current, wanted)
    migrated = [step.unit for step in steps]
    needed, free = state.check_room(node.paths, migrated, node.policy.reserve_bytes)
    changes = _compare(node, current, wanted, migrated)
    told = [
        *(f"keep a copy of the state of {unit}" for unit in migrated),
        f"switch to {wanted.name} {wanted.version} ({root[:12]}) on trial",
        *(f"stop {name}" for name in changes.stop),
        *(f"migrate the state of {step.unit}" for step in steps),
        *(f"restart {name}" for name in changes.restart),
    ]
    return Plan(
        root=root,
        name=wanted.name,
        version=wanted.version,
        how="switch",
        steps=tuple(told),
        restart=changes.restart,
        stop=changes.stop,
        breaking=wanted.breaking,
        sync_risk=wanted.sync_risk,
        disk={"needed": needed, "free": free},
        downgrade=admission.is_downgrade(current, wanted),
    )


def begin(
    node: Node,
    root: str | None,
    wish: Wish,
    *,
    bake_s: int | None = None,
    deadline_s: int | None = None,
    lease: str | None = None,
    verb: str = "activate",
) -> Activation:
    """Switch to a staged release on trial.

    Args:
        root: of the release; None is `previous`, which needs no word for a downgrade.
        bake_s: seconds of health that a confirmation needs; the node's policy by default.
        deadline_s: seconds after which the trial ends by itself; the node's policy by default.
        lease: id of the caller's lease.
        verb: for the lock.

    Returns:
        The trial with its token, which is kept nowhere; or that the release is current already.

    Raises:
        RefusedError: by policy, or a time differs from one that is locked; BusyError: another command or a
            trial; NotFoundError: not staged, or no `previous`; DamagedError: the slot differs from its
            manifest; DiskError: no room for the copy of the state.
        RevertedError, RevertedUnhealthyError: the switch failed and was taken back.
    """
    policy = _policy(node, bake_s, deadline_s)
    check_trial_times(policy, verb, "deadline_s")
    trial: Trial | None = None
    with changing(node, verb) as lock:
        node.leases.check(lease)
        current = node.current()
        if root is None:
            root, wish = _last_good(node), replace(wish, last_good=True)
        plan(node, root, wish)
        if current is not None and current.root == root:
            return Activation(root, current.version, "present")
        node.slots.verify(root)
        token = secrets.token_hex(32)
        try:
            trial, details = _prepare(node, current, node.release(root), policy, token, lease)
            details = _switch(node, trial, details, current)
        except (Exception, KeyboardInterrupt) as error:
            lock.release()
            if trial is None and record.read_trial(node.paths.trial) is None:
                # Nothing was switched yet; what was prepared goes at the next change.
                raise
            raise _taken_back(node, error) from error
    assert details.downtime_ms is not None, "the switch is done"
    left = trial.deadline - node.clock.boottime()
    return Activation(
        root=root,
        version=details.version,
        how="switch",
        trial=trial.id,
        token=token,
        deadline_in_s=max(0, int(left)),
        bake_s=details.bake_s,
        downtime_s=details.downtime_ms / 1000,
        restarted=details.restarted,
    )


def confirm(node: Node, token: str, *, lease: str | None = None) -> dict[str, Any]:
    """Make the release on trial the one that stays.

    Args:
        token: what `begin` answered.
        lease: id of the caller's lease, where it has one.

    Returns:
        The ending, as `last` in status; also where this very trial was confirmed before.

    Raises:
        RefusedError: no trial, wrong token, session older than the switch, not baked yet, deadline over.
        UnhealthyError: the watcher says that the release is not healthy, or says nothing.
        RevertedError, RevertedUnhealthyError: the trial has ended already, the other way.
    """
    with locked(node, "confirm", wait_s=10.0):
        found = finish_left(node)
        trial = record.read_trial(node.paths.trial)
        details = record.read_details(node.paths.trial_json)
        if found is not LIVE or trial is None or details is None:
            return _already_over(node, token)
        _check_confirmation(node, trial, details, token, lease)
        # The commit point: from here on the release stays, whatever happens.
        node.paths.trial.replace(node.paths.trial_confirmed)
        files.fsync_directory(node.paths.var)
        return finish_confirmation(node)


def revert(node: Node, detail: str = "") -> dict[str, Any] | None:
    """End a running trial by hand.

    Returns:
        The ending, or None where no trial was running.

    Raises:
        RevertedUnhealthyError: the old release is back and is not healthy.
    """
    trial = record.read_trial(node.paths.trial)
    if trial is None:
        return None
    deadman.fall_back(node.paths, "operator", detail=detail, trial=trial.id)
    recover(node)
    ending = ending_of(node, trial.id)
    if ending is None or ending["outcome"] == "confirmed":
        return ending
    if ending["outcome"] != "reverted-healthy":
        raise reverted(ending, "the trial was ended")
    return ending


@dataclass(frozen=True)
class _Step:
    """One migration: the unit, the command, and the release whose tree has the command."""

    unit: str
    argv: tuple[str, ...]
    root: str


def _last_good(node: Node) -> str:
    root = node.linked(node.paths.previous)
    if root is None:
        raise NotFoundError("there is no release before this one on the node", key="release")
    return root


def _policy(node: Node, bake_s: int | None, deadline_s: int | None) -> Policy:
    """Return the node's policy with the times that the caller asks for; a locked one stays as it is (S03)."""
    known = node.policy
    for name, set_to, seconds in (
        ("policy.bake_s", known.bake_s, bake_s),
        ("policy.deadline_s", known.deadline_s, deadline_s),
    ):
        locker = node.locks.get(name) or node.locks.get("policy")
        if locker is not None and seconds not in (None, set_to):
            raise RefusedError(f"{name} is locked at {set_to} by {locker}; {seconds} was asked for", key=name)
    return replace(
        known,
        bake_s=known.bake_s if bake_s is None else bake_s,
        deadline_s=known.deadline_s if deadline_s is None else deadline_s,
    )


def _migrations(current: Release | None, wanted: Release) -> list[_Step]:
    """Return what has to run: the new release's ways up, or on the way back the old one's ways down."""
    if current is not None and admission.is_downgrade(current, wanted):
        return [_Step(str(m["unit"]), tuple(m["down"]), current.root) for m in current.migrations]
    return [_Step(str(m["unit"]), tuple(m["up"]), wanted.root) for m in wanted.migrations]


def _compare(
    node: Node, current: Release | None, wanted: Release, migrated: Sequence[str]
) -> running.Changes:
    return running.compare(
        None if current is None else node.units(current.root),
        node.units(wanted.root),
        running=node.running.units(),
        systemd=node.systemd,
        stopped=migrated,
    )


def _prepare(
    node: Node, current: Release | None, wanted: Release, policy: Policy, token: str, lease: str | None
) -> tuple[Trial, Details]:
    """Write everything down and arm the dead-man; with the file `trial`, the last of it, the trial begins."""
    migrated = tuple(step.unit for step in _migrations(current, wanted))
    changes = _compare(node, current, wanted, migrated)
    now = node.clock.boottime()
    stamp = node.clock.now().strftime("%Y%m%dT%H%M%SZ")
    trial = Trial(
        id=f"{stamp}-{secrets.token_hex(4)}",
        release=wanted.root,
        previous=record.NONE if current is None else current.root,
        boot=node.clock.boot(),
        started=int(now),
        deadline=int(now) + policy.deadline_s,
        restart=changes.back_restart,
        stop=changes.back_stop,
        migrates=migrated,
    )
    details = Details(
        id=trial.id,
        release=trial.release,
        name=wanted.name,
        version=wanted.version,
        previous=trial.previous,
        token_sha256=digest_of(token),
        bake_s=policy.bake_s,
        deadline_s=policy.deadline_s,
        lease=lease,
        bytes=fetched_bytes(node, wanted.root),
        began_ms=int(now * 1000),
        who=audit.caller(),
        restarted=changes.restart,
        restart=trial.restart,
        stop=trial.stop,
    )
    details.write(node.paths.trial_json)
    _lay_way_back(node.paths, trial)
    deadman.arm(node.systemd, node.paths, trial.id, policy.deadline_s)
    files.write_durable(node.paths.trial, trial.text())
    return trial, details


def _lay_way_back(paths: NodePaths, trial: Trial) -> None:
    """Lay ready what `fallback` renames and writes over, so that a revert needs no room on the disk."""
    ready = paths.var / ".fallback"
    ready.mkdir(exist_ok=True)
    files.write_durable(ready / "outcome", b" " * (OUTCOME_BYTES - 1) + b"\n")
    if trial.previous != record.NONE:
        files.link_durable(ready / "current", f"releases/{trial.previous}")


def _switch(node: Node, trial: Trial, details: Details, current: Release | None) -> Details:
    """Do what a trial does, between its first and its last word in the journal."""
    paths, systemd = node.paths, node.systemd
    wanted = node.release(trial.release)
    steps = _migrations(current, wanted)
    old = None if current is None else node.units(current.root)
    new = node.units(trial.release)
    changes = _compare(node, current, wanted, trial.migrates)
    if steps:
        known = {} if old is None else old["units"]
        systemd.stop([n for u in trial.migrates if u in known for n in _services(known[u])])
        node.progress(f"keeping a copy of the state of {', '.join(trial.migrates)}")
        state.copy_before(paths, trial.release, trial.migrates)
    files.link_durable(paths.current, f"releases/{trial.release}")
    if changes.stop:
        systemd.stop(changes.stop)
    systemd.daemon_reload()
    _migrate(node, steps, old, new)
    if changes.restart:
        node.progress(f"restarting {', '.join(changes.restart)}")
        try:
            systemd.restart(changes.restart)
        except StartError as error:
            # The watcher judges that: the unit may come up yet.
            node.progress(f"not everything started: {error.message}")
    node.running.started(changes.units, trial.release, new, changes.gone)
    away = 0.0 if current is None else downtime_of(systemd, changes.restart)
    done = replace(
        details,
        switched_ms=int(node.clock.boottime() * 1000),
        downtime_ms=round(away * 1000),
        restarted=changes.restart,
    )
    done.write(paths.trial_json)
    node.journal.append(
        "TRIAL",
        release=trial.release,
        name=done.name,
        version=done.version,
        trial=trial.id,
        previous=trial.previous,
        restarted=list(changes.restart),
        downtime_ms=done.downtime_ms,
        bytes=done.bytes,
        lease=done.lease,
    )
    deadman.start_watcher(systemd, paths, trial.id)
    return done


def _migrate(
    node: Node, steps: Sequence[_Step], old: Mapping[str, Any] | None, new: Mapping[str, Any]
) -> None:
    for step in steps:
        document = new if step.unit in new["units"] else old
        entry = {} if document is None else document["units"].get(step.unit, {})
        node.progress(f"migrating the state of {step.unit}")
        try:
            node.migrate(
                step.unit, str(entry.get("user", "kos")), step.argv, node.paths.slot(step.root) / "tree"
            )
        except KosError as error:
            raise MigrationError(f"the migration of {step.unit} failed: {error.message}") from error


def _taken_back(node: Node, error: BaseException) -> BaseException:
    """End a switch that failed; returns what to raise."""
    why = error.message if isinstance(error, KosError) else f"{type(error).__name__}: {error}"
    reason = "health" if isinstance(error, MigrationError) else "interrupted"
    node.progress(f"taking the switch back: {why}")
    trial = record.read_trial(node.paths.trial)
    deadman.fall_back(node.paths, reason, detail=why, trial="" if trial is None else trial.id)
    recover(node)
    if isinstance(error, KeyboardInterrupt):
        return error
    return reverted(None if trial is None else ending_of(node, trial.id), f"the switch failed: {why}")


def _check_confirmation(node: Node, trial: Trial, details: Details, token: str, lease: str | None) -> None:
    if not hmac.compare_digest(digest_of(token), details.token_sha256):
        raise RefusedError("the token is not that of this trial", key="token")
    if lease is not None:
        node.leases.check(lease)
    now = node.clock.boottime()
    if now >= trial.deadline:
        raise RefusedError(
            "the deadline is over: the node falls back to the release before", key="deadline_s"
        )
    session = node.session()
    if details.switched_ms is None or session.started * 1000 <= details.switched_ms:
        raise RefusedError(
            f"this {session.kind} session is older than the switch, so it does not show that the node can "
            "still be reached: confirm over a new connection",
            key="session",
        )
    seen = fresh_health(node, trial.id)
    if seen is None:
        raise UnhealthyError("nobody has measured this trial lately: kos-watch.service does not run")
    if not seen["healthy"]:
        raise UnhealthyError(f"the release on trial is not healthy: {seen['reason']}")
    if not seen["baked"]:
        raise RefusedError(
            f"the release on trial is healthy and has to stay so for another {seen['bake_left_s']} s",
            key="bake_s",
        )


def _already_over(node: Node, token: str) -> dict[str, Any]:
    digest = digest_of(token)
    for entry in reversed(node.journal.entries()):
        if entry["state"] in ("CONFIRMED", "REVERTED") and entry.get("token") == digest:
            ending = shown_ending(entry)
            if entry["state"] == "CONFIRMED":
                return {**ending, "again": True}
            raise reverted(ending, "the trial is over")
    raise RefusedError("no trial is running that this token belongs to", key="token")


def _services(entry: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in (entry["timer"], entry["service"]) if name]


def digest_of(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
