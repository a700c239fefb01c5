"""The page of the demo's second act: what was lost, how long each phase took, what a drill found. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from tools.fleet_losses import Loss

LOSS_COLUMNS = ("store", "acknowledged", "restored", "lost", "of the last")
CONTROL_COLUMNS = ("damaged copy", "of", "outcome", "what was found")


@dataclass
class Told:
    """What the act has to tell, gathered on the way.

    Args:
        node: that is lost.
        seconds: of each phase, in order.
        losses: one for each store.
        head: of the ledger, the same here and at the witness; None before it was compared.
        drill: its report; None before it ran.
        drill_page: where the page of that is, relative to this one.
    """

    node: str
    seconds: dict[str, float] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    head: Mapping[str, Any] | None = None
    drill: Mapping[str, Any] | None = None
    drill_page: str = ""


def loss_rows(told: Told) -> list[Sequence[str]]:
    """Return what each store lost."""
    return [
        (loss.store, str(loss.acknowledged), str(loss.kept), str(loss.lost), f"{loss.seconds:.1f} s")
        for loss in told.losses
    ]


def phase_rows(told: Told) -> list[Sequence[str]]:
    """Return how long each phase took."""
    return [(name, f"{seconds:.1f}") for name, seconds in told.seconds.items()]


def control_rows(told: Told) -> list[Sequence[str]]:
    """Return which damaged copies of the drill turned red, and why."""
    controls = told.drill["controls"] if told.drill else ()
    return [(one["name"], one["source"], one["outcome"], str(one["found"])) for one in controls]


def html(told: Told) -> str:
    """Return the page, which needs no other file and no script."""
    parts = [f"<p>{escape(told.node)} was destroyed while it took writes; a new machine took its place.</p>"]
    parts.append(_table("What was lost", LOSS_COLUMNS, loss_rows(told)))
    if told.head is not None:
        parts.append(
            f"<p>The ledger ends with block {int(told.head['index'])}, "
            f"<code>{escape(str(told.head['hash']))}</code>, here and at the witness.</p>"
        )
    parts.append(_bars(told.seconds))
    if told.drill is not None:
        outcome = escape(str(told.drill["outcome"]))
        link = f'<a href="{escape(told.drill_page)}">its own report</a>'
        parts.append(_table(f"Drill: {outcome}", CONTROL_COLUMNS, control_rows(told)) + f"<p>{link}</p>")
    else:
        parts.append("<p>The act is under way, or ended before its drill.</p>")
    return f"{_HEAD}{''.join(parts)}</main></body></html>\n"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h2>{title}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _bars(seconds: Mapping[str, float]) -> str:
    longest = max(seconds.values(), default=1.0) or 1.0
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{took:.1f} s</td>"
        f'<td><div style="width:{took / longest * 100:.0f}%"></div></td></tr>'
        for name, took in seconds.items()
    )
    return f'<h2>How long it took</h2><table class="bars"><tbody>{rows}</tbody></table>'


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kOS Fleet: a node is lost</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d4d9de; --bar: #0969da; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6e9ec; --paper: #14181d; --line: #363d45; --bar: #58a6ff; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-x: auto; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
a { color: var(--bar); } code { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
.bars td:last-child { width: 50%; } .bars div { height: .8rem; background: var(--bar); border-radius: 3px; }
</style></head><body><main><p><a href="index.html">All runs</a></p>
<h1>A node is lost, and has its data back</h1>
"""
