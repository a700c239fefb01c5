"""`kosctl restore`: from arguments to a result."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..backup import restic
from ..backup.cli import bind
from ..backup.context import Context
from ..command import Result
from ..errors import InputError
from ..ledger import parse_anchor
from .choose import Wish
from .restoring import Order, Restoring


def add_parser(subparsers: Any) -> None:
    """Register `restore`; it sets `func`, from arguments to a `Result`.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned.
    """
    said = "Bring a source back: fetched beside the live data, verified, then exchanged with it."
    parser = subparsers.add_parser("restore", help=said, description=said)
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="its name in backup.json")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--run", dest="run_id", metavar="ID", help="the snapshot of this run")
    when.add_argument("--time", metavar="T", help="the state at this time, such as 2026-01-31T12:00:00Z")
    parser.add_argument("--repository", metavar="NAME", help="from this one; else the first that has it")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="into this directory, and leave live data alone"
    )
    parser.add_argument(
        "--path", type=Path, action="append", default=[], metavar="P", help="only this path; may repeat"
    )
    parser.add_argument("--in-place", action="store_true", help="exchange what is in the live directory")
    parser.add_argument("--older", action="store_true", help="older than the newest snapshot is meant")
    parser.add_argument(
        "--no-witness", action="store_true", help="do not ask the witness, which is gone or cannot be reached"
    )
    parser.add_argument(
        "--anchor",
        metavar="INDEX:HASH",
        help="a block that the ledger was seen to have, as `ledger anchor` says",
    )
    parser.add_argument(
        "--accept-loss", action="store_true", help="the ledger may come back without that block"
    )
    parser.add_argument("--stop", action="store_true", help="its service may be stopped")
    parser.add_argument("--confirm", metavar="ID", help="keep what was restored; the old state goes")
    parser.add_argument("--undo", metavar="ID", help="bring the old state back")
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="answer with one JSON object"
    )
    parser.set_defaults(func=bind(restore), run=bind(restore), verb="restore")


def restore(context: Context, args: argparse.Namespace) -> Result:
    """Restore a source, confirm a restore, or undo one."""
    asked = [name for name in ("source", "confirm", "undo") if getattr(args, name) is not None]
    if len(asked) != 1:
        raise InputError("restore takes a source, or --confirm ID, or --undo ID", key="source")
    restic.check_version()
    with context.alone("restore"):
        restoring = Restoring(context)
        if args.confirm is not None:
            return _ended(restoring.confirm(args.confirm), "kept what was restored")
        if args.undo is not None:
            return _ended(restoring.undo(args.undo, stop=args.stop), "brought the old state back")
        done = restoring.begin(order(args))
    words = f"restored {done['source']} of run {done['run']}"
    if done["anchor"] is not None:
        words += f", without the last {done['anchor']['lost']} records that its ledger had"
    text = [f"{words}: {done['verified']['files']} files, {done['bytes']} bytes, {done['state']}"]
    if done["state"] == "SWAPPED":
        text += [
            f"the old state stays until `kosctl restore --confirm {done['id']}`, or comes back with --undo"
        ]
    return Result(done, True, [words], "\n".join(text))


def order(args: argparse.Namespace) -> Order:
    """Return what the command line asks for; raises InputError."""
    for path in (*args.path, *([args.to] if args.to else [])):
        if not path.is_absolute() or ".." in path.parts:
            raise InputError(f"{path} must be an absolute path without ..", key="path")
    return Order(
        Wish(args.source, args.run_id, None if args.time is None else utc(args.time), args.older),
        repository=args.repository,
        to=args.to,
        paths=tuple(args.path),
        in_place=args.in_place,
        stop=args.stop,
        ask_witness=not args.no_witness,
        anchor=None if args.anchor is None else parse_anchor(args.anchor),
        accept_loss=args.accept_loss,
    )


def utc(text: str) -> datetime:
    """Read a time as a person writes it, with a zone or in UTC; raises InputError."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise InputError(f"time: must be as 2026-01-31T12:00:00Z; it is {text[:60]!r}", key="time") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _ended(answer: dict[str, Any], words: str) -> Result:
    changed = bool(answer.pop("changed"))
    return Result(answer, changed, [f"{words}: {answer['id']}"] if changed else [])
