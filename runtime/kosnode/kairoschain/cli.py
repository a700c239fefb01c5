"""The hidden verbs `kosctl kairoschain …`, for roles, timers and the server's own unit."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import boot, files
from ..audit import Audit, caller
from ..command import Result
from ..errors import UnhealthyError
from ..paths import NodePaths
from . import apply as applying
from . import guard as guarding
from . import health, record, units
from . import remove as removing
from .places import Places
from .resources import Machine

MAX_SPEC_BYTES = 1024 * 1024


def add_parser(subparsers: Any) -> None:
    """Register the hidden verb `kairoschain` and what it can do; each sets `func`.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned.
    """
    parser = subparsers.add_parser("kairoschain", description="Make this host a KairosChain node (as root).")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, func, said in (
        ("apply", _apply, "Make the node as the spec on standard input says."),
        ("remove", _remove, "Take server, proxy and code off the host; the data stays."),
        ("check", _check, "Look at server, ledger and token, and write the metrics (exit 11: not well)."),
        ("guard", _guard, "Allow a start of the server: its ledger is whole."),
    ):
        verb = verbs.add_parser(name, description=said)
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object")
        verb.set_defaults(run=func, func=func, verb="kairoschain")
        if name in ("apply", "remove"):
            verb.add_argument("--check", action="store_true", help="say what would be done")
        if name == "remove":
            verb.add_argument("--purge", action="store_true", help="also data, tokens and account")
        if name == "guard":
            verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="data directory")
            verb.add_argument(
                "--code", type=Path, required=True, metavar="DIR", help="folder of the versions"
            )


def _apply(args: argparse.Namespace) -> Result:
    paths = NodePaths(args.root)
    value = files.parse(sys.stdin.buffer.read(MAX_SPEC_BYTES + 1), limit=MAX_SPEC_BYTES, what="the spec")
    done = applying.apply(value, paths, check=args.check)
    if done.changes and not args.check:
        _audited(paths, "apply", {"version": done.version})
    return Result(done.as_dict(), bool(done.changes), [change.action for change in done.changes])


def _remove(args: argparse.Namespace) -> Result:
    paths = NodePaths(args.root)
    changes = removing.remove(paths, purge=args.purge, check=args.check)
    if changes and not args.check:
        _audited(paths, "remove", {"purge": args.purge})
    return Result({}, bool(changes), [change.action for change in changes])


def _check(args: argparse.Namespace) -> Result:
    places = Places(args.root)
    code, data, wanted = record.read(places.record).require()
    machine = Machine(NodePaths(args.root))
    application = machine.application(code / "current")
    report = health.look(wanted, data, places.token, application, machine.systemd, machine.ask_health)
    if wanted.metrics:
        health.write_metrics(Path(wanted.metrics), report, wanted)
    if not report.ok:
        raise UnhealthyError("; ".join(report.findings), detail=report.as_dict())
    return Result(report.as_dict(), text=report.verdict.sentence())


def _guard(args: argparse.Namespace) -> Result:
    places = Places(args.root)
    head = guarding.guard(args.data, args.code, places.started, places.unit(units.SERVICE))
    return Result({"head": head.as_dict()}, text=f"{head.length} blocks, all sound")


def _audited(paths: NodePaths, verb: str, options: dict[str, Any]) -> None:
    what = {"verb": f"kairoschain {verb}", "options": options, "exit": 0, "changed": True}
    Audit(paths.audit, boot.SystemClock()).append(what, caller())
