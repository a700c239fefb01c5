"""`kosctl drill`: from a request to a report, and `kosctl drill status`.

Root's request is on standard input and holds all that a drill uses. That of the operator account comes
through the gate, and what root wrote down on this host completes it (`assignment.py`).
"""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from .. import boot
from .. import config as node_config
from ..audit import Audit, caller
from ..backup import signing
from ..backup.context import progress, require_root
from ..backup.places import Places
from ..command import Result
from ..errors import DamagedError, FindingsError, InputError, KosError, UntestedError
from ..lock import Lock
from ..paths import NodePaths
from . import assignment, isolation, remarks, report, request, scratch, status
from .drilling import Drilling, Found
from .places import DrillPlaces
from .reports import Kept, Reports
from .request import Request
from .scratch import Scratch

_EXITS = {
    remarks.VERIFIED_OUTCOME: 0,
    remarks.FAILED_OUTCOME: DamagedError.exit_code,
    remarks.UNTESTED_OUTCOME: UntestedError.exit_code,
}


def add_parser(subparsers: Any) -> None:
    """Register `drill` and its verb; each sets `func`, from arguments to a `Result`.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned.
    """
    said = "Restore a node's backups apart, and prove them; the request is on standard input."
    parser = subparsers.add_parser("drill", help=said, description=said)
    _add_json(parser)
    # Only the operator's gate sets these.
    parser.set_defaults(func=drill, run=drill, verb="drill", **dict.fromkeys(assignment.OPTIONS))
    verbs = parser.add_subparsers(dest="drill_verb", metavar="VERB")
    said = "Tell whether each node's drills are VERIFIED, and in time."
    shown = verbs.add_parser("status", help=said, description=said)
    shown.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="NAME",
        help="has to have been drilled; may repeat",
    )
    _add_json(shown)
    shown.set_defaults(func=show_status, run=show_status, verb="drill status")


def drill(args: argparse.Namespace) -> Result:
    """Drill the backups of a node.

    Raises:
        DamagedError: it FAILED; the report is in `detail`.
        UntestedError: it COULD_NOT_TEST; the report is in `detail`.
    """
    paths, clock = NodePaths(args.root), boot.SystemClock()
    options = {name: getattr(args, name) for name in assignment.OPTIONS}
    if options["node"] is None:
        asked = request.parse(sys.stdin.buffer.read(request.MAX_BYTES + 1))
    else:
        asked = assignment.complete(options, paths.drill_json)
    require_root()
    places = DrillPlaces(paths)
    with Lock(places.lock).hold("drill"):
        kept = _drill(asked, places, clock)
        _audit(paths, clock, kept)
    result, said = kept.as_json(), report.text(kept.report)
    outcome = kept.report["outcome"]
    if outcome == remarks.FAILED_OUTCOME:
        raise DamagedError(said, detail=result)
    if outcome == remarks.UNTESTED_OUTCOME:
        raise UntestedError(said, detail=result)
    return Result(result, True, [f"drill {asked.node}: {outcome}"], said)


def show_status(args: argparse.Namespace) -> Result:
    """Tell how the drills of each node stand.

    Raises:
        FindingsError: one is overdue, was not VERIFIED, or a report is not as it was written.
    """
    require_root()
    places = DrillPlaces(NodePaths(args.root))
    reports = Reports(places.reports, places.key)
    lines = reports.lines()
    nodes = status.of_nodes(lines, args.node, boot.SystemClock().now())
    status.write_metrics(places.metrics, lines, nodes)
    findings = reports.check()
    said = [one.text for one in findings]
    for one in nodes:
        last = one["last"]
        if last is None:
            said.append(f"{one['node']} was never drilled")
        elif last["outcome"] != remarks.VERIFIED_OUTCOME:
            said.append(f"the newest drill of {one['node']}, of {last['time']}, is {last['outcome']}")
        elif one["overdue"]:
            said.append(f"the drill of {one['node']} was due {one['due']}")
    if not nodes:
        said.append("no drill was ever run here")
    result = {
        "nodes": nodes,
        "reports": len(lines),
        "findings": [one.as_json() for one in findings],
    }
    if said:
        raise FindingsError("; ".join(said), detail=result)
    text = "\n".join(f"{one['node']}: VERIFIED {one['verified']['time']}, due {one['due']}" for one in nodes)
    return Result(result, text=text)


def _drill(asked: Request, places: DrillPlaces, clock: boot.Clock) -> Kept:
    began = clock.now()
    id_ = f"{began.strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}"
    own = Scratch(places, asked.scratch or places.var, id_)
    own.check(_production(asked, places))
    earlier = scratch.remove_killed(places)
    for one in earlier:
        progress(f"drill {one} was killed; what it left is removed")
    signer = signing.make_key(places.key, _name(places))
    reports = Reports(places.reports, places.key)
    found, left = _run(asked, places, own, reports)
    if left:
        found.remarks.append(remarks.Remark("cleanup", f"{left[0]}: could not be removed", remarks.FAILED))
    kept = reports.keep(
        report.make(
            id_,
            asked,
            found,
            began=began,
            ended=clock.now(),
            host=_name(places),
            cleanup={"ok": not left, "left": left, "earlier": earlier},
            previous=reports.last(),
            trend=reports.trend(asked.node),
            signer=signer,
        )
    )
    lines = reports.lines()
    status.write_metrics(places.metrics, lines, status.of_nodes(lines, [], clock.now()))
    return kept


def _run(asked: Request, places: DrillPlaces, own: Scratch, reports: Reports) -> tuple[Found, list[str]]:
    """Do the drill in its scratch; returns what it found, and what of scratch could not be removed."""
    own.make()
    # What is killed leaves its temporary files, and these go with the rest.
    tempfile.tempdir = str(own.path)
    left: list[str] = []
    try:
        reports.finish_killed()
        chain = reports.check(asked.previous)
        found = _contained(Drilling(asked, places, own))
        found.remarks += chain
    finally:
        tempfile.tempdir = None
        left = own.remove()
    return found, left


def _contained(drilling: Drilling) -> Found:
    try:
        return isolation.contained(drilling.run)
    except InputError:
        raise
    except KosError as error:
        return Found(reason=error.message, remarks=[remarks.of_error(error)])


def _production(asked: Request, places: DrillPlaces) -> list[Path]:
    """Return what a drill keeps away from, as far as the request and this host tell."""
    own = [places.host.etc, Places(places.host).var, places.host.state]
    if asked.repository.url.startswith("/"):
        own.append(Path(asked.repository.url))
    return [*asked.production, *own, *(spec.path for spec in asked.table or () if spec.path is not None)]


def _name(places: DrillPlaces) -> str:
    """Return how this host is called: as a node, where it is one."""
    try:
        return node_config.load(places.host).node
    except InputError:
        return socket.gethostname()


def _audit(paths: NodePaths, clock: boot.Clock, kept: Kept) -> None:
    entry = {
        "verb": "drill",
        "options": {"node": kept.report["node"], "id": kept.report["id"]},
        "exit": _EXITS[kept.report["outcome"]],
        "changed": True,
    }
    try:
        Audit(paths.audit, clock).append(entry, caller())
    except OSError as error:
        progress(f"the audit log could not be written: {error}")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="answer with one JSON object"
    )
