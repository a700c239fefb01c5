"""`kosctl backup`: its verbs, from arguments to a result."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import boot
from ..audit import Audit, caller
from ..command import Result
from ..errors import DamagedError, InputError, KosError
from ..paths import NodePaths
from ..restore.restoring import Restoring
from . import due, host_cli, methods, metrics, restic, signing, upkeep
from .context import Context, progress
from .opening import open_all
from .run import Outcome, Run
from .source import Configured
from .upkeep import Turn
from .witness import Mounted

_MAX_KEY_BYTES = 4096
Work = Callable[[Context, argparse.Namespace], Result]


def add_parser(subparsers: Any) -> None:
    """Register `backup` and its verbs; each sets `func`, from arguments to a `Result`.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned.
    """
    said = "Back up the sources of this node, and look after the backups."
    parser = subparsers.add_parser("backup", help=said, description=said)
    verbs = parser.add_subparsers(dest="backup_verb", metavar="VERB", required=True)
    _add(verbs, "init", init)
    running = _add(verbs, "run", run)
    running.add_argument(
        "--source", action="append", default=[], metavar="NAME", help="only this one; may repeat"
    )
    running.add_argument(
        "--due", action="store_true", help="only those whose interval would be over at the next time"
    )
    running.add_argument("--dry-run", action="store_true", help="look whether it can run, and write nothing")
    checking = _add(verbs, "check", check)
    checking.add_argument(
        "--data", metavar="N/T", help="read the Nth of T parts of all data; else the next in turn"
    )
    forgetting = _add(verbs, "forget", forget)
    forgetting.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    _add(verbs, "unlock", unlock)
    for name, work in (("apply", host_cli.apply), ("remove", host_cli.remove)):
        shaping = _add(verbs, name, work)
        shaping.add_argument("--check", action="store_true", help="say what would be done")
    listing = _add(verbs, "list", list_runs)
    listing.add_argument("--source", metavar="NAME", help="only this one")


def run(context: Context, args: argparse.Namespace) -> Result:
    """Make a snapshot of each source in each repository."""
    chosen = context.config.chosen(args.source)
    with context.alone("backup"):
        if args.due:
            chosen = due.of(chosen, context.runs.all(), context.clock.now())
        if not chosen:
            return Result({"run": None, "sources": []}, text="no source is due")
        if not args.dry_run:
            # A swap that was killed half way is no state to back up.
            Restoring(context).recover()
        going = Run(
            context.config,
            context.places,
            context.who,
            restic=context.restic,
            witness=context.witness(),
            clock=context.clock,
            progress=progress,
        )
        if args.dry_run:
            going.rehearse(chosen)
            steps = [
                f"back up {one.name} to {repository.name}"
                for one in chosen
                for repository in context.config.repositories
            ]
            planned = {"run": None, "sources": [Outcome(one).as_json() for one in chosen]}
            return Result(planned, True, steps)
        try:
            outcomes = going.back_up(chosen)
        finally:
            metrics.write(context.config, context.places, context.runs)
    result = {"run": going.id, "sources": [one.as_json() for one in outcomes]}
    failed = [one for one in outcomes if one.errors]
    if failed:
        raise worst(failed, result)
    done = [f"back up {one.spec.name} to {kept.repository}" for one in outcomes for kept in one.snapshots]
    return Result(result, True, done, "\n".join([f"run {going.id}", *map(_row, outcomes)]))


def init(context: Context, args: argparse.Namespace) -> Result:
    """Make the node's key and the repositories; a recovery key comes on standard input."""
    restic.check_version()
    given = sys.stdin.read(_MAX_KEY_BYTES + 1).strip() if not sys.stdin.isatty() else ""
    if len(given) > _MAX_KEY_BYTES or "\n" in given:
        raise InputError(
            f"the recovery key must be one line of at most {_MAX_KEY_BYTES} bytes", key="recovery key"
        )
    name, watching = context.who.node, context.witness()
    with context.alone("backup"):
        public = signing.make_key(context.places.key, f"kos-{name}")
        seen = context.trail()
        if isinstance(watching, Mounted):
            watching.register(name, public)
        if watching is not None:
            seen.read(watching)
        opened = open_all(context.config, context.runs, seen.repositories(), given or None, context.restic)
        configured = _configure(context)
    made = [f"open repository {one['name']}" for one in opened if one["made"]]
    made += [f"write {path}" for one in configured for path in one["changed"]]
    said = [f"restart {one['restart']}, before it can be backed up" for one in configured if one["restart"]]
    said += [f"source {one['name']} is not ready: {one['error']}" for one in configured if one["error"]]
    result = {"repositories": opened, "node_key": public, "sources": configured}
    return Result(result, bool(made), [*made, *said])


def _configure(context: Context) -> list[dict[str, Any]]:
    """Let each source make the host ready for it; returns those that have something to say.

    A source that is not there does not keep a node from being opened: it may be what is to be restored.
    """
    done: list[dict[str, Any]] = []
    for spec in context.config.sources:
        if spec.rank == "skip":
            continue
        found, error = Configured(), None
        try:
            found = methods.make(spec, context.places).configure()
        except KosError as problem:
            error = problem.message
        if found != Configured() or error:
            changed = [str(path) for path in found.changed]
            done.append({"name": spec.name, "changed": changed, "restart": found.restart, "error": error})
    return done


def check(context: Context, args: argparse.Namespace) -> Result:
    """Check the repositories, and read a part of their data."""
    turn = None if args.data is None else Turn.parse(args.data)
    restic.check_version()
    with context.alone("backup"):
        rows, findings = upkeep.check(context, turn)
    result: dict[str, object] = {"repositories": rows, "findings": [one.as_json() for one in findings]}
    if findings:
        raise DamagedError(f"{len(findings)} found: {findings[0].text}", detail=result)
    return Result(result, text="\n".join(f"{one['name']} is whole; read part {one['read']}" for one in rows))


def forget(context: Context, args: argparse.Namespace) -> Result:
    """Remove snapshots that the retention does not keep."""
    restic.check_version()
    with context.alone("backup"):
        answer = upkeep.forget(context, dry_run=args.dry_run)
    done = [f"remove {one['source']} of {one['time']} from {one['repository']}" for one in answer["removed"]]
    return Result(answer, bool(done), done)


def unlock(context: Context, args: argparse.Namespace) -> Result:
    """Take stale locks of the repositories away."""
    restic.check_version()
    with context.alone("backup"):
        answer = upkeep.unlock(context)
    done = [f"remove a lock of {one['host']}, process {one['pid']}" for one in answer["unlocked"]]
    left = [f"left a lock of {one['host']}, process {one['pid']}" for one in answer["left"]]
    return Result(answer, bool(done), done, "\n".join([*done, *left]))


def _row(one: Outcome) -> str:
    added = sum(kept.added_bytes for kept in one.snapshots)
    unstable = f", {len(one.unstable)} changed meanwhile" if one.unstable else ""
    return (
        f"{one.spec.name}: {one.files} files, {one.bytes} bytes, {added} added, {one.seconds:.1f} s{unstable}"
    )


def worst(failed: list[Outcome], result: Mapping[str, Any]) -> KosError:
    """Return one error for all: a failure before a partial snapshot, with every message."""
    errors = [error for one in failed for error in one.errors]
    first = next((one for one in errors if one.exit_code != 14), errors[0])
    others = len(errors) - 1
    message = first.message + (f" (and {others} more, in the result)" if others else "")
    error = type(first)(message, key=first.key, detail=dict(result))
    error.exit_code = first.exit_code
    return error


def list_runs(context: Context, args: argparse.Namespace) -> Result:
    """List the snapshots that the repositories have, and what failed since the last good run."""
    if args.source is not None:
        context.config.source(args.source)
    restic.check_version()
    runs = [entry for entry in context.runs.all() if entry.get("kind") == "run"]
    known = {(entry["run"], entry["source"]): entry for entry in runs}
    found: dict[str, dict[str, Any]] = {}
    for repository in context.config.repositories:
        tags = [f"source={args.source}"] if args.source else []
        for snapshot in context.restic(repository).snapshots(*tags):
            run_id, name = snapshot.tag("run"), snapshot.tag("source")
            if run_id is None or name is None:
                continue
            entry = known.get((run_id, name), {})
            row = _row_of(found, run_id, boot.text(snapshot.time), name, entry)
            row["snapshots"] = [old for old in row["snapshots"] if old["repository"] != repository.name]
            row["snapshots"].append({"repository": repository.name, "id": snapshot.id})
    wanted = [args.source] if args.source else [spec.name for spec in context.config.sources]
    for failed in _failed_since(runs):
        if failed["source"] in wanted:
            _row_of(found, failed["run"], failed["time"], failed["source"], failed)
    # Runs of one second are in the order in which this node made them.
    order = {entry["run"]: number for number, entry in enumerate(runs)}
    ids = sorted(found, key=lambda run: (run.partition("-")[0], order.get(run, -1)))
    listed = [{**found[run], "sources": list(found[run]["sources"].values())} for run in ids]
    lines = [
        f"{one['time']}  {one['run']}  "
        + ", ".join(f"{row['name']} ({row['error'] or len(row['snapshots'])})" for row in one["sources"])
        for one in listed
    ]
    return Result({"runs": listed}, text="\n".join(lines) or "there is no snapshot")


def _row_of(
    found: dict[str, dict[str, Any]], run_id: str, time: str, source: str, entry: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the row of a source in a run, made where it is missing."""
    errors = entry.get("errors") or [{"message": None}]
    one = found.setdefault(run_id, {"run": run_id, "time": time, "sources": {}})
    row = {"name": source, "snapshots": [], "heads": entry.get("heads", {}), "error": errors[0]["message"]}
    kept: dict[str, Any] = one["sources"].setdefault(source, row)
    return kept


def _failed_since(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the runs of each source that failed after its last good one, those that were refused as well."""
    failed: dict[str, list[Mapping[str, Any]]] = {}
    for entry in runs:
        failed[entry["source"]] = [] if entry["ok"] else [*failed.get(entry["source"], ()), entry]
    return [entry for entries in failed.values() for entry in entries]


def _add(verbs: Any, name: str, work: Work) -> argparse.ArgumentParser:
    said = (work.__doc__ or "").strip()
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=said, description=said)
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="answer with one JSON object"
    )
    parser.set_defaults(func=bind(work), verb=f"backup {name}", run=bind(work))
    return parser


def bind(work: Work) -> Callable[[argparse.Namespace], Result]:
    """Return a verb as the command line calls it, with a line in the audit log where it changes something."""

    def call(args: argparse.Namespace) -> Result:
        # A run holds values by the hundred thousand, none of which holds itself: to look for circles in them
        # as often as Python does takes a sixth of its time.
        gc.set_threshold(200_000, 50, 50)
        context = Context(NodePaths(args.root))
        try:
            done = work(context, args)
        except KosError as error:
            _audit(
                context,
                args,
                {"exit": error.exit_code, "changed": bool(error.detail), "error": error.message},
            )
            raise
        if done.changed and not (getattr(args, "dry_run", False) or getattr(args, "check", False)):
            _audit(context, args, {"exit": 0, "changed": True})
        return done

    return call


def _audit(context: Context, args: argparse.Namespace, outcome: Mapping[str, Any]) -> None:
    hidden = ("verb", "json", "debug", "func", "run", "root", "backup_verb", "make_context")
    asked = {
        key: value for key, value in vars(args).items() if key not in hidden and value not in (None, False)
    }
    options = {
        key: value if isinstance(value, (bool, int, str)) else str(value)
        for key, value in asked.items()
        if value != []
    }
    try:
        Audit(context.paths.audit, context.clock).append(
            {"verb": args.verb, "options": options, **outcome}, caller()
        )
    except OSError as error:
        progress(f"the audit log could not be written: {error}")
