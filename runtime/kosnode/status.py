"""Says what a node runs, and which slots nobody may remove. Changes nothing and takes no lock."""

from __future__ import annotations

from typing import Any

from . import record
from .admission import Release
from .node import Node
from .record import Trial
from .recovery import shown_ending
from .watch import fresh_health


def status(node: Node) -> dict[str, Any]:
    """Return what the node runs, without the node's name and the like; takes no lock and changes nothing."""
    current = node.current()
    previous_root = node.linked(node.paths.previous)
    previous = None if previous_root is None else node.release(previous_root)
    ending = node.journal.last("CONFIRMED", "REVERTED")
    trial = record.read_trial(node.paths.trial)
    shown_trial = None if trial is None else _shown_trial(node, trial)
    lease = node.leases.current()
    if trial is not None:
        state_now = "TRIAL"
    elif current is None:
        state_now = "EMPTY"
    else:
        state_now = "CONFIRMED" if ending is None else str(ending["state"])
    return {
        "state": state_now,
        "current": _shown(current),
        "previous": _shown(previous),
        "trial": shown_trial,
        "last": None if ending is None else shown_ending(ending),
        "refused": [
            {"root": one.root, "version": one.version, "reason": one.reason, "time": one.time}
            for one in node.refusals.all()
        ],
        "lease": None
        if lease is None
        else {"id": lease.id, "holder": lease.holder, "expires_in_s": node.leases.remaining_s(lease)},
    }


def protected(node: Node) -> set[str]:
    """Return the slots that nobody may remove: current, previous, of a trial, and those a unit runs from."""
    roots = {root for link in (node.paths.current, node.paths.previous) if (root := node.linked(link))}
    for path in (node.paths.trial, node.paths.trial_confirmed):
        trial = record.read_trial(path)
        if trial is not None:
            roots |= {trial.release, trial.previous} - {record.NONE}
    return roots | node.running.roots()


def _shown(release: Release | None) -> dict[str, str] | None:
    return (
        None if release is None else {"root": release.root, "name": release.name, "version": release.version}
    )


def _shown_trial(node: Node, trial: Trial) -> dict[str, Any]:
    now = node.clock.boottime()
    same_boot = trial.boot == node.clock.boot()
    details = record.read_details(node.paths.trial_json)
    value = fresh_health(node, trial.id)
    return {
        "id": trial.id,
        "root": trial.release,
        "version": None if details is None else details.version,
        "previous": None if trial.previous == record.NONE else trial.previous,
        "started_s_ago": int(now - trial.started) if same_boot else None,
        "deadline_in_s": max(0, int(trial.deadline - now)) if same_boot else 0,
        "bake_left_s": None if value is None else value["bake_left_s"],
        "baked": bool(value and value["baked"]),
        "health": "unknown" if value is None else ("healthy" if value["healthy"] else "unhealthy"),
        "reason": None if value is None else value["reason"],
        "lease": None if details is None else details.lease,
    }
