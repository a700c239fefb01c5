"""The verbs `kosctl ledger …`: they read, and change nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..command import Result
from ..errors import RefusedError
from . import anchor, repair
from .lock import shared
from .verifier import Verdict, verify


def add_parser(subparsers: Any) -> None:
    """Register `ledger` and its verbs; each sets `func`, from the parsed arguments to a `Result`.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned.
    """
    text = "verify the ledger of a KairosChain node from its file alone"
    parser = subparsers.add_parser("ledger", help=text, description=f"{text[0].upper()}{text[1:]}.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, func, said in (
        ("verify", _verify, "Verify every block, every link and the genesis block."),
        ("head", _head, "Tell the last block of a ledger that is whole."),
        ("anchor", _anchor, "Print INDEX:HASH of the last block, to be kept on another host."),
        ("compare", _compare, "Compare a ledger with an anchor or with another copy (exit 3: not its past)."),
        ("repair-plan", _repair_plan, "Say how each damage could be mended; nothing is changed."),
    ):
        verb = verbs.add_parser(name, help=said, description=said)
        verb.add_argument("path", type=Path, metavar="PATH", help="the ledger, blockchain.json")
        if name == "compare":
            verb.add_argument(
                "other", metavar="OTHER", help="an anchor (INDEX:HASH) or the path of another copy"
            )
        if name == "repair-plan":
            verb.add_argument("copies", type=Path, nargs="*", metavar="COPY", help="other copies, all whole")
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object")
        verb.set_defaults(run=func, func=func, verb="ledger")


def _verify(args: argparse.Namespace) -> Result:
    verdict = _verdict(args.path)
    verdict.require_ok()
    return Result(verdict.as_dict(), text=verdict.sentence())


def _head(args: argparse.Namespace) -> Result:
    verdict = _verdict(args.path)
    head = verdict.require_ok()
    said = f"{head.index} {head.hash} of {head.timestamp}, {head.length} blocks"
    return Result({**verdict.as_dict(), "timestamp": head.timestamp}, text=said)


def _anchor(args: argparse.Namespace) -> Result:
    verdict = _verdict(args.path)
    made = str(anchor.anchor_of(verdict.require_ok()))
    return Result({**verdict.as_dict(), "anchor": made}, text=made)


def _compare(args: argparse.Namespace) -> Result:
    with shared(args.path):
        if args.other.partition(":")[0].isdecimal():
            found = anchor.compare(args.path, anchor.parse(args.other, "OTHER"))
        else:
            found = anchor.compare_ledgers(args.path, Path(args.other))
    told = {**found.verdict.as_dict(), "relation": found.relation, "common": found.common}
    said = f"{args.path} {_RELATIONS[found.relation]} {args.other}"
    if not found.continues:
        raise RefusedError(said, detail=told)
    return Result(told, text=said)


def _repair_plan(args: argparse.Namespace) -> Result:
    with shared(args.path):
        verdict, steps = repair.plan(args.path, args.copies)
    told = {**verdict.as_dict(), "steps": [step.as_dict() for step in steps]}
    lines = [verdict.sentence(), *map(_said, steps)]
    return Result(told, text="\n".join(lines))


_RELATIONS = {
    anchor.SAME: "ends with the same block as",
    anchor.GROWN: "goes on from",
    anchor.CUT: "ends before",
    anchor.FORKED: "is another chain than",
}


def _said(step: repair.Step) -> str:
    to = "the end" if step.last is None else str(step.last)
    blocks = f"block {step.first}" if step.first == step.last else f"blocks {step.first} to {to}"
    if step.do == repair.REWRITE:
        return f"{blocks}: the next block proves what it holds; write it again with the hash of that"
    if step.do == repair.COPY:
        return f"{blocks}: take from {step.source}"
    return f"{blocks}: lost; no copy that was given has the right one"


def _verdict(path: Path) -> Verdict:
    with shared(path):
        return verify(path)
