"""What each verb of kosctl does on a node. Arguments come from `cli` or from `operate`."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, boot, config, doctor, evidence, migration, recovery, running, status, trial, watch
from .admission import Release, Wish, is_downgrade
from .audit import Audit, caller
from .command import Result, Terminated
from .config import Policy
from .errors import DamagedError, FindingsError, InputError, KosError, RefusedError, UnhealthyError
from .lock import Lock
from .node import Node, measure
from .paths import NodePaths
from .slot import Slots
from .systemd import RealSystemd, Systemd, SystemdError

if TYPE_CHECKING:
    from .staging import Staging

PREVIOUS = "previous"
_BUSY_WAIT_S = 5.0


class Context:
    """A node as verbs work with it; parts are made when they are first needed.

    Args:
        paths: of the node.
        systemd: of the host; tests pass their own.
        clock: of the host; tests pass their own.
    """

    def __init__(
        self, paths: NodePaths, systemd: Systemd | None = None, clock: boot.Clock | None = None
    ) -> None:
        self.paths = paths
        self.systemd = systemd or RealSystemd()
        self.clock = clock or boot.SystemClock()

    @cached_property
    def config(self) -> config.Config:
        return config.load(self.paths)

    @cached_property
    def slots(self) -> Slots:
        return Slots(self.paths)

    @cached_property
    def node(self) -> Node:
        return replace(self._node(self.config.release, self.config.policy), locks=self.config.locks)

    @cached_property
    def any_node(self) -> Node:
        """The node also where its configuration is missing or wrong: to look, and to end a trial."""
        try:
            return self.node
        except InputError as error:
            progress(f"the node's configuration does not count: {error.message}")
            return self._node("", Policy())

    @cached_property
    def staging(self) -> Staging:
        # The client of TUF takes long to import, and most verbs do without.
        from .staging import Staging

        return Staging(self.node, self.config, self.slots)

    @cached_property
    def audit(self) -> Audit:
        return Audit(self.paths.audit, self.clock)

    def status(self) -> dict[str, Any]:
        """Return `status.result`."""
        try:
            known = self.config
            who = {
                "name": known.node,
                "fleet": known.fleet,
                "zone": known.zone,
                "class": known.node_class,
                "arch": platform.machine(),
            }
        except InputError:
            who = {"name": None, "fleet": None, "zone": None, "class": None, "arch": platform.machine()}
        node = self.any_node
        shown = status.status(node)
        roles = {"current": shown["current"], "previous": shown["previous"]}
        named = {value["root"]: role for role, value in roles.items() if value}
        if shown["trial"]:
            named[shown["trial"]["root"]] = "trial"
        slots = []
        for root in self.slots.list():
            try:
                version: str | None = node.release(root).version
            except DamagedError:
                version = None
            slots.append({"root": root, "version": version, "role": named.get(root)})
        return {"node": who, "kosctl": __version__, **shown, "slots": slots, "units": self.units()}

    def units(self) -> list[dict[str, Any]]:
        """Return the units of the current release and of the node, and how systemd sees them."""
        current = self.any_node.linked(self.paths.current)
        paths = [] if current is None else [self.paths.slot(current) / "units.json"]
        own = self.paths.node_units / "units.json"
        entries = {
            name: entry
            for path in (*paths, *([own] if own.exists() else []))
            for name, entry in running.read_units(path)["units"].items()
        }
        names = [str(entry["service"]) for entry in entries.values()]
        try:
            shown = self.systemd.show(names, ["ActiveState", "SubState", "NRestarts"])
        except SystemdError as error:
            progress(error.message)
            shown = {}
        return [
            {
                "name": name,
                "service": entry["service"],
                "timer": entry["timer"],
                "version": entry["version"],
                "from": entry["from"],
                "state": shown.get(entry["service"], {}).get("ActiveState", "unknown"),
                "sub": shown.get(entry["service"], {}).get("SubState", "unknown"),
                "restarts": int(shown.get(entry["service"], {}).get("NRestarts") or 0),
            }
            for name, entry in sorted(entries.items())
        ]

    def _node(self, line: str, policy: Policy) -> Node:
        return Node(
            paths=self.paths,
            line=line,
            policy=policy,
            systemd=self.systemd,
            slots=self.slots,
            migrate=migration.run,
            clock=self.clock,
            progress=progress,
        )


def progress(line: str) -> None:
    """Show what is under way; standard output holds the answer alone."""
    print(line, file=sys.stderr, flush=True)


# Looking.


def show_status(context: Context, args: argparse.Namespace) -> Result:
    """Say what the node runs."""
    shown = context.status()
    return Result(shown, text=status_text(shown))


def show_units(context: Context, args: argparse.Namespace) -> Result:
    """List the units and their states."""
    units = context.units()
    rows = [
        [one["name"], one["version"], one["from"], f"{one['state']} ({one['sub']})", str(one["restarts"])]
        for one in units
    ]
    return Result({"units": units}, text=table(["unit", "version", "from", "state", "restarts"], rows))


def show_health(context: Context, args: argparse.Namespace) -> Result:
    """Measure the health of what runs now."""
    node = context.any_node
    current = node.linked(context.paths.current)
    if current is None:
        raise UnhealthyError("no release is installed, so there is no health")
    report = measure(node, current)
    shown = report.as_json()
    if not report.healthy:
        raise UnhealthyError(f"not healthy: {report.reason}", detail=shown)
    rows = [[check["unit"], check["check"], check["detail"]] for check in shown["checks"]]
    return Result(shown, text=table(["unit", "check", "result"], rows))


def show_plan(context: Context, args: argparse.Namespace) -> Result:
    """Say what staging and activating a release would do."""
    with Lock(context.paths.lock).hold("plan", wait_s=_BUSY_WAIT_S, patient=recovery.PATIENT):
        planned = context.staging.plan(args.release, _wish(args))
    result = planned.result
    steps = list(result["steps"]) if planned.changed else []
    warnings = [f"breaking: {one}" for one in result["breaking"]]
    return Result(result, planned.changed, steps, "\n".join([*steps, *warnings]) or "nothing to do")


def show_doctor(context: Context, args: argparse.Namespace) -> Result:
    """Say in plain words what is wrong."""
    findings = doctor.examine(context)
    detail: dict[str, Any] = {"findings": [asdict(one) for one in findings]}
    if args.bundle is not None:
        doctor.write_bundle(context, findings, Path(args.bundle))
        detail["bundle"] = str(args.bundle)
    if findings:
        words = "; ".join(one.text for one in findings)
        raise FindingsError(f"{len(findings)} found: {words}", detail=detail)
    return Result(detail, text="nothing is wrong")


def show_evidence(context: Context, args: argparse.Namespace) -> Result:
    """List the evidence of failed trials, or show that of one."""
    if args.id is None:
        found = evidence.ids(context.paths.evidence)
        return Result({"ids": found}, text="\n".join(found) or "there is no evidence")
    shown = evidence.read(context.paths.evidence, args.id)
    parts = [f"== {name}\n{text}" for name, text in shown["files"].items()]
    return Result(shown, text="\n".join(parts))


# Changing.


def stage(context: Context, args: argparse.Namespace) -> Result:
    """Fetch and verify a release into a slot."""
    with recovery.changing(context.node, "stage"):
        _check_lease(context.node, args)
        context.slots.cleanup()
        staged = context.staging.stage(args.release, _wish(args))
    result = staged.as_json()
    new = staged.how != "present"
    title = f"{result['name']} {result['version']} ({result['root'][:12]})"
    how = f"staged {title}: {staged.how}, {result['bytes']['total']} bytes from {result['mirror']}"
    left = [f"mirror {one['url']} was left: {one['error']}" for one in result["mirrors"]]
    text = "\n".join([how if new else f"{title} is staged already", *left])
    return Result(result, new, [how] if new else [], text)


def activate(context: Context, args: argparse.Namespace) -> Result:
    """Switch to a staged release on trial."""
    root = context.staging.find_staged(args.release)
    wish = _wish(args)
    done = trial.begin(
        context.node, root, wish, bake_s=args.bake_s, deadline_s=args.deadline_s, lease=args.lease
    )
    return _activated(context, done)


def rollback(context: Context, args: argparse.Namespace) -> Result:
    """Go back to an earlier release of this node, on trial."""
    root = None if args.release in (None, PREVIOUS) else context.staging.find_staged(args.release)
    done = trial.begin(
        context.node,
        root,
        _wish(args),
        bake_s=args.bake_s,
        deadline_s=args.deadline_s,
        lease=args.lease,
        verb="rollback",
    )
    return _activated(context, done)


def confirm(context: Context, args: argparse.Namespace) -> Result:
    """Keep the release on trial."""
    token = args.token if args.token is not None else _read_token(args.token_file)
    ending = trial.confirm(context.node, token, lease=args.lease)
    again = bool(ending.pop("again", False))
    words = (
        f"{'confirmed already' if again else 'confirmed'}: {ending['version']} ({str(ending['root'])[:12]})"
    )
    if not again:
        _tidy(context)
    return Result(ending, not again, [] if again else [words], words)


def revert(context: Context, args: argparse.Namespace) -> Result:
    """End a running trial: back to the release before."""
    node = context.any_node
    _check_lease(node, args)
    ending = trial.revert(node)
    if ending is None:
        return Result({"outcome": None}, text="no trial is running")
    words = f"trial {ending['trial']} ended: {ending['outcome']}"
    return Result(ending, True, [words], words)


def recover(context: Context, args: argparse.Namespace) -> Result:
    """Finish what an earlier command, a revert or a boot left."""
    ending = recovery.recover(context.any_node)
    if ending is None:
        return Result({"outcome": None}, text="nothing is left to finish")
    words = f"trial {ending['trial']} ended: {ending['outcome']}"
    return Result(ending, True, [words], words)


def verify(context: Context, args: argparse.Namespace) -> Result:
    """Compare slots with their manifests, byte by byte."""
    roots = _chosen(context, args.release)
    for root in roots:
        context.slots.verify(root)
    return Result({"verified": roots}, text="\n".join(f"{root[:12]} is whole" for root in roots) or "no slot")


def scrub(context: Context, args: argparse.Namespace) -> Result:
    """Find damaged files in slots and mend them from other slots or a mirror."""
    from .transfer import Repairs

    mended: list[str] = []
    remaining: list[dict[str, Any]] = []
    reasons: list[str] = []
    with recovery.changing(context.node, "scrub"):
        for root in _chosen(context, args.release):
            if not context.slots.damages(root):
                continue
            # What is damaged may be the manifest, so the signed one is asked for.
            signed = context.staging.manifest_of(root)
            manifest = signed or context.slots.manifest(root)
            repairs = Repairs(manifest, context.paths, context.staging.mirrors(), progress=progress)
            done = context.slots.scrub(root, repairs, signed)
            repairs.close()
            mended += done.mended
            remaining += [one.as_json() for one in done.remaining]
            reasons += done.reasons
    detail: dict[str, Any] = {"mended": mended, "remaining": remaining, "reasons": reasons}
    if remaining:
        why = f": {reasons[0]}" if reasons else ""
        raise DamagedError(f"{len(remaining)} files are damaged and could not be mended{why}", detail=detail)
    return Result(detail, bool(mended), [f"mend {name}" for name in mended])


def gc(context: Context, args: argparse.Namespace) -> Result:
    """Remove slots that nothing needs: all but those to keep, or only the one that is named."""
    node = context.node
    with recovery.changing(node, "gc"):
        context.slots.cleanup()
        protected = status.protected(node)
        there = context.slots.list()
        if args.release is None:
            keep = protected | set(_newest(context, there, protected))
        else:
            found = [root for root in there if _names(context, args.release, root)]
            if len(found) > 1:
                raise InputError(f"{args.release} names several slots", key="release")
            if set(found) & protected:
                raise RefusedError(
                    f"release {args.release} is current, previous or still runs", key="release"
                )
            keep = set(there) - set(found)
        removed = context.slots.gc(keep)
    return Result({"removed": removed}, bool(removed), [f"remove slot {root}" for root in removed])


def refusals(context: Context, args: argparse.Namespace) -> Result:
    """List the refused releases, or allow one again."""
    node = context.any_node
    if args.clear is not None:
        with recovery.locked(node, "refusals", wait_s=_BUSY_WAIT_S):
            cleared = node.refusals.clear(args.clear)
        words = [f"allow {args.clear} again"] if cleared else []
        return Result({"refused": [asdict(one) for one in node.refusals.all()]}, cleared, words)
    found = [asdict(one) for one in node.refusals.all()]
    rows = [[one["version"], one["root"][:12], one["time"], one["reason"]] for one in found]
    text = table(["version", "root", "since", "reason"], rows) if rows else "no release is refused"
    return Result({"refused": found}, text=text)


def lease(context: Context, args: argparse.Namespace) -> Result:
    """Show, take, renew or give back the lease of a rollout."""
    node = context.any_node
    changed, words = False, []
    if args.take is not None and args.release is not None:
        raise InputError("a lease is taken or given back, not both", key="take")
    if args.take is not None or args.release is not None:
        with recovery.locked(node, "lease", wait_s=_BUSY_WAIT_S):
            if args.take is not None:
                taken = node.leases.take(args.take, args.holder or args.take, args.ttl_s)
                changed, words = True, [f"lease {taken.id} for {taken.holder}, {taken.ttl_s} s"]
            else:
                changed = node.leases.drop(args.release)
                words = [f"give lease {args.release} back"] if changed else []
    now = node.leases.current()
    shown = None
    if now is not None:
        shown = {"id": now.id, "holder": now.holder, "expires_in_s": node.leases.remaining_s(now)}
    text = (
        "no lease" if shown is None else f"{shown['id']} of {shown['holder']}, {shown['expires_in_s']} s left"
    )
    return Result({"lease": shown}, changed, words, text)


def watch_trial(context: Context, args: argparse.Namespace) -> Result:
    """Watch a trial until it is over; runs as kos-watch.service."""
    try:
        ended = watch.watch(context.node, args.trial)
    except Terminated:
        # A confirmation stops it, and that is no failure.
        ended = "stopped"
    return Result({"ended": ended}, text=f"watched trial {args.trial}: {ended}")


# Parts of the above.


def _check_lease(node: Node, args: argparse.Namespace) -> None:
    if args.needs_lease:
        node.leases.check(args.lease)


def audited(context: Context, verb: str, options: Mapping[str, Any], answered: Mapping[str, Any]) -> None:
    """Write who asked for what into the audit log; a log that cannot be written is told and stops nothing."""
    what = {
        "verb": verb,
        "options": {key: value for key, value in options.items() if isinstance(value, (str, int, bool))},
        "exit": answered["exit"],
        "changed": answered["changed"],
    }
    try:
        context.audit.append(what, caller())
    except (OSError, InputError) as error:
        progress(f"the audit log cannot be written: {error}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns as wide as they need to be."""
    lines = [head, *rows]
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(head))]
    shown = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    ]
    return "\n".join(line.rstrip() for line in shown)


def status_text(shown: Mapping[str, Any]) -> str:
    """Return `status.result` for a person."""
    who = shown["node"]
    named = [f"{key} {who[key]}" for key in ("fleet", "zone", "class") if who[key]]
    rows = [["node", ", ".join([who["name"] or "not configured", *named, who["arch"]])]]
    rows.append(["state", shown["state"]])
    for role in ("current", "previous"):
        one = shown[role]
        if one:
            rows.append([role, f"{one['name']} {one['version']}  {one['root'][:12]}"])
    now = shown["trial"]
    if now:
        left = "baked" if now["baked"] else f"{now['bake_left_s']} s to bake"
        rows.append(
            ["trial", f"{now['version']} {now['health']}, {left}, ends by itself in {now['deadline_in_s']} s"]
        )
    last = shown["last"]
    if last:
        why = ": ".join(str(last[key]) for key in ("reason", "detail") if last[key])
        rows.append(
            ["last", f"{last['time']} {last['version']} {last['outcome']}{f' ({why})' if why else ''}"]
        )
    if shown["lease"]:
        rows.append(["lease", f"{shown['lease']['holder']}, {shown['lease']['expires_in_s']} s left"])
    rows += [["refused", f"{one['version']} {one['root'][:12]}: {one['reason']}"] for one in shown["refused"]]
    rows += [["unit", f"{one['name']} {one['version']} {one['state']}"] for one in shown["units"]]
    return "\n".join(f"{name:<9} {value}" for name, value in rows)


def _wish(args: argparse.Namespace) -> Wish:
    return Wish(
        allow_downgrade=bool(args.allow_downgrade),
        accept_risk=bool(args.accept_risk),
        last_good=args.release == PREVIOUS,
    )


def _activated(context: Context, done: trial.Activation) -> Result:
    result = {
        "trial": done.trial,
        "token": done.token,
        "root": done.root,
        "version": done.version,
        "deadline_in_s": done.deadline_in_s,
        "bake_s": done.bake_s,
        "downtime_s": done.downtime_s,
        "restarted": list(done.restarted),
        "how": done.how,
    }
    if done.trial is None:
        return Result(result, text=f"{done.version} ({done.root[:12]}) is current already")
    actions = [
        f"switch to {done.version} ({done.root[:12]}) on trial",
        *(f"restart {one}" for one in done.restarted),
    ]
    text = [
        *actions,
        f"trial {done.trial} ends by itself in {done.deadline_in_s} s",
        f"after {done.bake_s} s of health confirm it over a new connection: kosctl confirm, with the token",
        f"token {done.token}",
    ]
    return Result(result, True, actions, "\n".join(text))


def _read_token(source: str | None) -> str:
    if source is None:
        raise InputError(
            "confirm needs the token: --token-file FILE, or - for standard input", key="token_file"
        )
    if source == "-":
        return sys.stdin.readline(256).strip()
    with Path(source).open() as stream:
        return stream.read(256).strip()


def _chosen(context: Context, ref: str | None) -> list[str]:
    there = context.slots.list()
    if ref is None:
        return there
    if ref == PREVIOUS:
        return [root for root in (context.any_node.linked(context.paths.previous),) if root]
    found = [root for root in there if _names(context, ref, root)]
    if not found:
        raise InputError(f"no slot of this node is called {ref}", key="release")
    return found


def _names(context: Context, ref: str, root: str) -> bool:
    """Say whether a version, a root or 12 or more digits of one name a slot, also one that is damaged."""
    if len(ref) >= 12 and root.startswith(ref):
        return True
    try:
        return context.slots.manifest(root).version == ref
    except DamagedError:
        return False


def _newest(context: Context, there: Sequence[str], protected: set[str]) -> list[str]:
    """Return what policy keeps beside what is protected: earlier releases, and those staged for later."""
    node = context.node
    current = node.current()
    spare = [root for root in there if root not in protected]
    later = [] if current is None else [root for root in spare if _is_later(node, root, current)]
    room = context.config.policy.keep - len(protected - {node.linked(context.paths.current)})
    confirmed = [one["release"] for one in reversed(node.journal.entries()) if one["state"] == "CONFIRMED"]
    earlier = [root for root in dict.fromkeys(confirmed) if root in spare and root not in later]
    return [*later, *earlier[: max(0, room)]]


def _is_later(node: Node, root: str, current: Release) -> bool:
    try:
        release = node.release(root)
    except DamagedError:
        return False
    return is_downgrade(release, current) and node.refusals.find(root) is None


def _tidy(context: Context) -> None:
    """Remove slots that policy does not keep, after a confirmation; what fails waits for `gc`."""
    try:
        gc(context, argparse.Namespace(release=None))
    except (KosError, OSError) as error:
        progress(f"old releases stay for now: {error}")
