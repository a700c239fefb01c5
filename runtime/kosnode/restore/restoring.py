"""A restore from the first question to the last rename: FETCHED, VERIFIED, SWAPPED, CONFIRMED or UNDONE.

Until SWAPPING is written down nothing live is touched. What an earlier restore was killed in is finished
first.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import boot, state
from ..backup import hooks, manifest, methods, scan
from ..backup.config import Repository, SourceSpec
from ..backup.context import Context, progress
from ..backup.manifest import Entry
from ..backup.memory import Trail
from ..backup.restic import BackendError, Snapshot
from ..backup.source import Finding, Move, Prepared, Restored, Root, Source, SwapPlan
from ..errors import DamagedError, InputError, KosError, NotFoundError, RefusedError
from ..ledger import Anchor
from . import swap
from .choose import Chosen, Wish, choose
from .compare import Whereabouts
from .fetch import below, check_room, fetch, places_in, settle
from .record import ENDED, OPEN, Record, Records, Step

_SHOWN = 20
# Methods whose stored paths are their live paths, so that one file of them can come back alone.
_BY_PATH = ("tree", "node")


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Args:
        wish: which snapshot.
        repository: only this one; without it the first that has it.
        to: a directory to restore into, instead of in the place of live data.
        paths: live paths, absolute; empty takes all.
        in_place: exchange what is in the live directory, and not the directory itself.
        stop: a service may be stopped for it.
        ask_witness: without it, what this node remembers of its witness has to do.
        anchor: a block that the live ledger was seen to have; says nothing to another method.
        accept_loss: the ledger may come back without that block.
    """

    wish: Wish
    repository: str | None = None
    to: Path | None = None
    paths: Sequence[Path] = ()
    in_place: bool = False
    stop: bool = False
    ask_witness: bool = True
    anchor: Anchor | None = None
    accept_loss: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.wish.source,
            "time": None if self.wish.time is None else boot.text(self.wish.time),
            "to": None if self.to is None else manifest.encode(bytes(self.to)),
            "paths": [manifest.relative(path) for path in self.paths],
            "in_place": self.in_place,
        }


class Restoring:
    """Restores on one node.

    Args:
        context: the node; the caller holds its lock.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._records = Records(context.places.restores)

    def begin(self, order: Order) -> dict[str, Any]:
        """Restore a source; returns the answer of `kosctl restore`.

        Raises:
            KosError: nothing live was changed.
        """
        self.recover()
        spec = self._context.config.source(order.wish.source)
        source = methods.make(spec, self._context.places)
        self._check_free(order, spec)
        chosen = self._choose(order)
        self._check_chosen(order, spec, chosen)
        record, places = self._prepare(order, chosen, _lost(order, chosen))
        seconds = {"fetch": 0.0, "verify": 0.0, "swap": 0.0}
        entries = below(chosen.manifest, self._stored(order, chosen))
        record = self._fetch(order, chosen, record, places, entries, seconds)
        began = time.monotonic()
        restored, findings = self._verify(order, chosen, source, record, places, entries)
        seconds["verify"] = time.monotonic() - began
        verified = {
            "files": sum(1 for entry in entries if entry.kind == "file"),
            "bytes": sum(entry.size for entry in entries),
            "unstable": len(chosen.manifest.unstable),
            "lacks": len(chosen.manifest.lacks),
            "signature": True,
            "witness": chosen.witnessed and order.ask_witness,
            "findings": [one.as_json() for one in findings],
        }
        if findings:
            swap.remove(record.folders)
            record = self._records.save(record, state="FAILED", folders=[])
            raise DamagedError(
                f"what came back is not what was backed up, so nothing was replaced: {findings[0].text}"
                + (f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""),
                detail=_answer(record, verified, seconds),
            )
        self._refuse_another_chain(order, source, restored, record)
        record = self._records.save(record, state="VERIFIED")
        began = time.monotonic()
        record = self._swap(order, source, restored, record, places)
        seconds["swap"] = time.monotonic() - began
        return _answer(record, verified, seconds)

    def confirm(self, id_: str) -> dict[str, Any]:
        """Keep what was restored, and remove the old state; returns the answer, `changed` in it."""
        self.recover()
        record = self._records.load(id_)
        if record.state == "CONFIRMED":
            return {**_answer(record), "changed": False}
        if record.state != "SWAPPED":
            raise RefusedError(f"restore {id_} is {record.state}, so there is nothing to confirm", key="id")
        # First the word, then the removal: killed in between, the next one goes on with it.
        record = self._records.save(record, state="CONFIRMED")
        self._clean(record)
        return {**_answer(record), "changed": True}

    def undo(self, id_: str, *, stop: bool) -> dict[str, Any]:
        """Bring the old state back, or drop what was fetched; returns the answer, `changed` in it."""
        record = self._records.load(id_)
        if record.state in ("UNDONE", "FAILED"):
            # Killed after the word for it, the last one left what it made.
            return {**_answer(self._clean(record)), "changed": bool(record.folders)}
        if record.state == "CONFIRMED":
            raise RefusedError(f"restore {id_} is confirmed, so the old state is gone", key="id")
        if record.state in ("SWAPPING", "SWAPPED"):
            self._refuse_running(self._units(record.source), stop)
            record = self._records.save(record, state="UNDOING")
        return {**_answer(self._go_back(record)), "changed": True}

    def recover(self) -> list[str]:
        """Finish what an earlier restore was killed in; returns a sentence for each."""
        done = []
        for record in self._records.all():
            if record.state == "SWAPPING":
                self._finish(record)
                done.append(
                    f"restore {record.id} of {record.source} was interrupted while it swapped; it is done"
                )
            elif record.state == "UNDOING":
                self._go_back(record)
                done.append(f"restore {record.id} of {record.source} is undone")
            elif record.state in ENDED and record.folders:
                self._clean(record)
        for line in done:
            progress(line)
        return done

    def _check_free(self, order: Order, spec: SourceSpec) -> None:
        """Refuse what has to wait for a word of a person."""
        if order.to is not None:
            return
        waiting = [one for one in self._records.all() if one.source == spec.name and one.state == "SWAPPED"]
        if waiting:
            raise RefusedError(
                f"restore {waiting[0].id} of {spec.name} waits for `--confirm` or `--undo`",
                key="source",
                detail=_answer(waiting[0]),
            )
        self._refuse_running(self._units(spec.name), order.stop)

    def _units(self, source: str) -> list[str]:
        # A restore has an end also where its source is no longer in the table.
        specs = [one for one in self._context.config.sources if one.name == source]
        return [one.service for one in specs if one.service]

    def _refuse_running(self, names: Iterable[str], stop: bool) -> None:
        for name in names:
            if not stop and self._context.systemd.is_active(name):
                raise RefusedError(
                    f"{name} is running; `--stop` says that it may be stopped for this", key="stop"
                )

    def _choose(self, order: Order) -> Chosen:
        config = self._context.config
        repositories: Sequence[Repository] = config.repositories
        if order.repository is not None:
            repositories = [config.repository(order.repository)]
        trail = self._trail(ask=order.ask_witness)
        heads: dict[str, Any] = {}
        known: list[str] = []
        for entry in self._context.runs.all():
            if entry.get("kind") == "run" and entry["source"] == order.wish.source and entry["snapshots"]:
                heads[str(entry["run"])] = entry["heads"]
                known += [str(one["id"]) for one in entry["snapshots"]]
        if trail is not None and trail.newest(order.wish.source) is not None:
            lines = [line.value for line in trail.lines if line.value["source"] == order.wish.source]
            heads.update((str(line["run"]), line["heads"]) for line in lines)
            known = [str(line["snapshot"]) for line in lines]
        missed: list[KosError] = []
        for repository in repositories:
            try:
                return choose(
                    order.wish,
                    self._context.restic(repository),
                    heads=heads,
                    order=known,
                    newest=self._newest(order.wish.source, repository, trail),
                    trail=trail,
                    publics=self._context.public_keys(),
                )
            except (BackendError, NotFoundError) as error:
                progress(error.message)
                missed.append(error)
        raise missed[0]

    def _newest(self, source: str, repository: Repository, trail: Trail | None) -> Snapshot | None:
        """Return the newest snapshot that is known of a source, where this repository should have it."""
        known = self._context.runs.repositories().get(repository.name, {}).get("id")
        line = None if trail is None else trail.newest(source)
        entry = self._context.runs.newest(source)
        if line is not None:
            ids = {str(line.value["repository"]): str(line.value["snapshot"])}
            run, moment = line.value["run"], line.value["time"]
        elif entry is not None:
            ids = {str(one["repository_id"]): str(one["id"]) for one in entry["snapshots"]}
            run, moment = entry["run"], entry["time"]
        else:
            return None
        if known not in ids:
            return None
        stage = str(self._context.places.stage(source))
        who = self._context.who.node
        return Snapshot(ids[known], boot.moment(moment), who, (f"run={run}",), (stage,))

    def _trail(self, *, ask: bool) -> Trail | None:
        watching = self._context.witness()
        if watching is None:
            return None
        trail = self._context.trail()
        if not ask:
            progress(f"the witness is not asked; this node remembers {len(trail.lines)} of its lines")
            return trail
        try:
            trail.read(watching)
        except BackendError as error:
            raise BackendError(
                f"{error.message}; `--no-witness` restores without it", key=error.key
            ) from None
        return trail

    def _check_chosen(self, order: Order, spec: SourceSpec, chosen: Chosen) -> None:
        listed = chosen.manifest
        if listed.method != spec.method:
            raise InputError(
                f"run {listed.run} has source {spec.name} by method {listed.method}, not {spec.method}",
                key=f"sources.{spec.name}.method",
            )
        if order.to is None and listed.node != self._context.who.node:
            raise RefusedError(
                f"run {listed.run} is of node {listed.node}, not of this one; `--to` restores it elsewhere",
                key="node",
            )
        if order.paths and listed.method not in _BY_PATH:
            raise InputError(f"path: a source of method {listed.method} is restored whole", key="path")
        if order.paths and order.in_place:
            raise InputError("path: is not for a restore in place", key="path")
        if order.to is not None:
            for root in listed.roots:
                target = order.to / root.live.name
                if os.path.lexists(target):
                    raise InputError(f"to: {target} is there already", key="to")
            return
        for root in listed.roots:
            self._check_live(order, root)

    def _check_live(self, order: Order, root: Root) -> None:
        if order.in_place:
            if not root.live.is_dir() or root.live.is_symlink():
                raise InputError(f"in_place: {root.live} is no directory of this host", key="in_place")
        elif not order.paths and root.live.is_dir() and root.live.is_mount():
            raise InputError(
                f"{root.live} is a mount point: `--in-place` exchanges what is in it",
                key="in_place",
            )

    def _stored(self, order: Order, chosen: Chosen) -> list[str]:
        """Return the encoded stored paths of the live paths that are asked for."""
        found = []
        for path in order.paths:
            root = next(
                (one for one in chosen.manifest.roots if path == one.live or one.live in path.parents), None
            )
            if root is None:
                raise InputError(f"path: {path} is not in source {order.wish.source}", key="path")
            if order.to is None and not path.parent.is_dir():
                raise InputError(f"path: {path.parent} is not there; restore that instead", key="path")
            found.append(manifest.relative(root.stored / path.relative_to(root.live)))
        return found

    def _refuse_another_chain(self, order: Order, source: Source, restored: Restored, record: Record) -> None:
        """Refuse a ledger that goes on, and not from the block that the live one was seen to have."""
        if order.anchor is None or order.to is not None or "anchor" in record.detail:
            return
        known = {"index": order.anchor.index, "hash": order.anchor.hash}
        said = source.went_back(known, Prepared(restored.roots, restored.heads))
        if said is not None:
            swap.remove(record.folders)
            self._records.save(record, state="FAILED", folders=[])
            raise RefusedError(f"anchor: {said}; nothing was replaced", key="anchor")

    def _prepare(self, order: Order, chosen: Chosen, detail: dict[str, Any]) -> tuple[Record, list[Root]]:
        """Take up a restore of the same that was interrupted, or begin one."""
        request = order.as_json()
        for old in self._records.all():
            if old.state not in OPEN or old.source != order.wish.source:
                continue
            if old.request == request and old.snapshot == chosen.snapshot.id:
                progress(f"going on with restore {old.id}")
                return self._records.save(old, detail=detail), self._places(order, chosen, old.id)
            progress(f"restore {old.id} was not finished, and is dropped")
            self._go_back(old)
        id_ = f"{self._context.clock.now().strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}"
        places = self._places(order, chosen, id_)
        folders = sorted({self._folder(order, root, id_) for root in chosen.manifest.roots})
        record = Record(
            id=id_,
            state="FETCHING",
            source=order.wish.source,
            run=chosen.manifest.run,
            snapshot=chosen.snapshot.id,
            repository=chosen.repository.name,
            request=request,
            folders=folders,
            heads=chosen.manifest.heads,
            detail=detail,
        )
        entries = below(chosen.manifest, self._stored(order, chosen))
        for folder in folders:
            folder.parent.mkdir(parents=True, exist_ok=True)
        check_room(entries, places, self._context.config.reserve_bytes)
        return self._records.save(record), places

    def _places(self, order: Order, chosen: Chosen, id_: str) -> list[Root]:
        by_stored = {root.stored: root for root in chosen.manifest.roots}
        return places_in(chosen.manifest, lambda root: self._folder(order, by_stored[root.stored], id_))

    def _folder(self, order: Order, root: Root, id_: str) -> Path:
        if order.to is not None:
            return order.to / f".kos-restore-{id_}"
        return (root.live if order.in_place else root.live.parent) / f".kos-restore-{id_}"

    def _fetch(
        self,
        order: Order,
        chosen: Chosen,
        record: Record,
        places: Sequence[Root],
        entries: Sequence[Entry],
        seconds: dict[str, float],
    ) -> Record:
        began = time.monotonic()
        restic = self._context.restic(chosen.repository)
        fetch(restic, chosen.snapshot.id, entries, places, only=self._stored(order, chosen))
        seconds["fetch"] = time.monotonic() - began
        return self._records.save(record, state="FETCHED")

    def _verify(
        self,
        order: Order,
        chosen: Chosen,
        source: Source,
        record: Record,
        places: Sequence[Root],
        entries: Sequence[Entry],
    ) -> tuple[Restored, list[Finding]]:
        listed = chosen.manifest
        only = self._stored(order, chosen)
        compared = _narrowed(places, only)
        findings = settle(listed, entries, compared)
        live = {root.stored: root.live for root in listed.roots}
        roots = [Root(_live_of(one.live, live), one.stored) for one in compared]
        scratch = record.folders[0] / "scratch"
        state.remove_tree(scratch)
        scratch.mkdir(mode=0o711)
        restored = Restored(roots, listed.heads, scratch, order.wish.time)
        if findings or only:
            return restored, findings
        restored = source.rebuild(restored)
        return restored, check(source, restored)

    def _swap(
        self, order: Order, source: Source, restored: Restored, record: Record, places: Sequence[Root]
    ) -> Record:
        if order.to is not None:
            return self._put_down(order.to, restored, record)
        plan = SwapPlan([Move(root.live, root.stored) for root in restored.roots], self._units(record.source))
        if not order.paths:
            plan = source.swap_plan(restored)
        steps, folders = _steps(plan, record, in_place=order.in_place)
        self._refuse_running(plan.services, order.stop)
        running = [name for name in plan.services if self._context.systemd.is_active(name)]
        record = self._records.save(
            record, state="SWAPPING", steps=steps, services=running, folders=[*record.folders, *folders]
        )
        try:
            return self._finish(record)
        except (KosError, OSError):
            self._go_back(self._records.save(record, state="UNDOING"))
            raise

    def _put_down(self, to: Path, restored: Restored, record: Record) -> Record:
        for root in restored.roots:
            root.stored.rename(to / root.live.name)
        swap.remove(record.folders)
        record = self._records.save(record, folders=[], detail={"live": manifest.encode(bytes(to))})
        self._records.forget(record)
        return record

    def _finish(self, record: Record) -> Record:
        """Do a swap that is written down, whoever began it."""
        if record.services:
            self._context.systemd.stop(record.services)
        swap.forward(record.steps)
        if record.services:
            self._context.systemd.start(record.services)
        self._context.runs.append(
            {
                "kind": "restore",
                "time": boot.text(self._context.clock.now()),
                "id": record.id,
                "run": record.run,
                "source": record.source,
                "heads": dict(record.heads),
            }
        )
        swap.remove(folder for folder in record.folders if folder.name == f".kos-restore-{record.id}")
        return self._records.save(record, state="SWAPPED")

    def _go_back(self, record: Record) -> Record:
        """Undo what was done of a restore, and remove what it made."""
        if record.state == "UNDOING":
            running = [name for name in self._units(record.source) if self._context.systemd.is_active(name)]
            names = list(dict.fromkeys([*record.services, *running]))
            if names:
                self._context.systemd.stop(names)
            swap.backward(record.steps)
            if names:
                self._context.systemd.start(names)
            self._context.runs.append(
                {
                    "kind": "undo",
                    "time": boot.text(self._context.clock.now()),
                    "id": record.id,
                    "source": record.source,
                }
            )
        record = self._records.save(record, state="UNDONE")
        return self._clean(record)

    def _clean(self, record: Record) -> Record:
        swap.remove(record.folders)
        return self._records.save(record, folders=[])


def _lost(order: Order, chosen: Chosen) -> dict[str, Any]:
    """Return what a restore says of the records that were seen after the snapshot; {} where none was.

    Raises:
        RefusedError: nobody said that they are given up.
    """
    heads, anchor = chosen.manifest.heads, order.anchor
    if anchor is None or order.to is not None or "index" not in heads:
        return {}
    restored = Anchor(int(heads["index"]), str(heads["hash"]))
    lost = anchor.index - restored.index
    if lost <= 0:
        return {}
    if not order.accept_loss:
        raise RefusedError(
            f"the ledger had block {anchor.index}, and run {chosen.manifest.run} ends with block "
            f"{restored.index}: {lost} records would be lost; `--accept-loss` says that they are given up",
            key="accept_loss",
        )
    agreed = chosen.witnessed and order.ask_witness
    return {"anchor": {"known": str(anchor), "restored": str(restored), "lost": lost, "agreed": agreed}}


def check(source: Source, restored: Restored) -> list[Finding]:
    """Ask a source and its verifier about what was rebuilt, and see that the verifier did not write to it."""
    findings = source.verify(restored)
    if findings or not source.spec.verifier:
        return findings
    path = os.fspath(restored.roots[0].stored)
    before = scan.walk(restored.roots, lambda path: False)
    try:
        hooks.run(
            [*source.spec.verifier, path],
            {"KOS_SOURCE": source.spec.name, "KOS_RESTORED": path},
            folder=restored.scratch,
            user=source.spec.owner,
        )
    except hooks.HookError as error:
        return [Finding("verifier", f"the verifier says no: {error.message}", path)]
    touched = scan.changed(before, scan.walk(restored.roots, lambda path: False))
    return [Finding("side-effect", f"a check wrote to {path}", path) for path in sorted(touched)[:_SHOWN]]


def _steps(plan: SwapPlan, record: Record, *, in_place: bool) -> tuple[list[Step], list[Path]]:
    """Return the renames of a swap, and the folders that keep the old state."""
    steps: list[Step] = []
    folders: list[Path] = []
    for number, move in enumerate(plan.moves):
        above = move.live if in_place else move.live.parent
        folder = above / f".kos-before-{record.id}"
        folders.append(folder)
        kept = folder / str(number)
        if in_place:
            steps += _inside(move, kept, record)
        else:
            steps.append(Step(move.live, move.restored, kept / move.live.name))
    for number, path in enumerate(plan.absent, len(plan.moves)):
        folder = path.parent / f".kos-before-{record.id}"
        folders.append(folder)
        steps.append(Step(path, None, folder / str(number) / path.name))
    return steps, sorted(set(folders))


def _inside(move: Move, kept: Path, record: Record) -> Iterable[Step]:
    own = (f".kos-before-{record.id}", f".kos-restore-{record.id}")
    new = {child.name for child in move.restored.iterdir()}
    old = {child.name for child in move.live.iterdir()} - set(own)
    for name in sorted(old - new):
        yield Step(move.live / name, None, kept / name)
    for name in sorted(new):
        yield Step(move.live / name, move.restored / name, kept / name)


def _narrowed(places: Sequence[Root], only: Sequence[str]) -> list[Root]:
    """Return where each of some paths is; the places themselves where none is named."""
    if not only:
        return list(places)
    found = []
    where = Whereabouts(places)
    for path in only:
        now = where.of(path)
        assert now is not None, "a path was looked up in the roots"
        found.append(Root(Path(os.fsdecode(b"/" + manifest.decode(path))), Path(now)))
    return found


def _live_of(stored: Path, live: dict[Path, Path]) -> Path:
    """Return the live path of a stored one, which is a root or lies below one."""
    for root, own in live.items():
        if stored == root:
            return own
        if root in stored.parents:
            return own / stored.relative_to(root)
    raise AssertionError("a restored path lies within a root")


def _answer(
    record: Record, verified: dict[str, Any] | None = None, seconds: dict[str, float] | None = None
) -> dict[str, Any]:
    before = [manifest.encode(bytes(step.before)) for step in record.steps if os.path.lexists(step.before)]
    live = [manifest.encode(bytes(step.live)) for step in record.steps]
    return {
        "id": record.id,
        "state": record.state,
        "source": record.source,
        "run": record.run,
        "repository": record.repository,
        "verified": verified or {},
        "live": [str(record.detail["live"])] if "live" in record.detail else live,
        "before": before,
        "seconds": {key: round(value, 3) for key, value in (seconds or {}).items()},
        "bytes": (verified or {}).get("bytes", 0),
        "heads": dict(record.heads),
        "anchor": record.detail.get("anchor"),
    }
