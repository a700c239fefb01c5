"""Draws the rows of a benchmark as SVG: a bar for our figure, one for each peer, a line for the goal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any

from .figures import Goal

WIDTH = 800
LABEL = 310
PLOT = 340
BAR = 20
GAP = 6
TITLE = 30
GOAL = 18
MARGIN = 16

HALO = 'paint-order="stroke" stroke="#fff" stroke-width="4"'
OURS, PEER, MISSED, LINE, TEXT = "#0b7285", "#b8c4ce", "#c2410c", "#9a3412", "#1c2733"


def quantity(value: float, unit: str) -> str:
    """Return a value with its unit, as people read it."""
    if value == int(value) and abs(value) >= 10:
        return f"{int(value):,} {unit}".replace(",", " ")
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f} {unit}"


def chart(rows: Sequence[dict[str, Any]]) -> str:
    """Return a picture of rows; those of one name share a panel."""
    body: list[str] = []
    top = MARGIN
    for name, found in groupby(rows, key=lambda row: row["name"]):
        panel, height = _panel(name, list(found), top)
        body += panel
        top += height
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    label = escape("; ".join(dict.fromkeys(row["name"] for row in rows)), quote=True)
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}"'
    style = f'font-family="system-ui, sans-serif" font-size="13" fill="{TEXT}"'
    return "\n".join(
        [f"{opening} {style}>", f'<rect width="{WIDTH}" height="{top}" fill="#fff"/>', *body, "</svg>"]
    )


def _panel(name: str, rows: list[dict[str, Any]], top: int) -> tuple[list[str], int]:
    first, unit = rows[0], rows[0]["unit"]
    missed = any(row["met"] is False for row in rows)
    bars = [("kOS Fleet", first["value"], MISSED if missed else OURS)]
    bars += [(row["peer"], row["peer_value"], PEER) for row in rows if row["peer_value"] is not None]
    goals = [(Goal(row["goal"]), row) for row in rows if row["goal"]]
    bounds = [(goal, goal.bound * (row["peer_value"] if goal.relative else 1)) for goal, row in goals]
    longest = max(value for value in [*(value for _, value, _ in bars), *(bound for _, bound in bounds)])
    scale = PLOT / longest if longest else 0

    lines = [f'<text x="{MARGIN}" y="{top + 16}" font-weight="600">{escape(name)}</text>']
    labels = []
    y = top + TITLE
    for label, value, colour in bars:
        width = max(1.5, value * scale)
        lines += [
            f'<text x="{LABEL - 10}" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
        ]
        labels.append(
            f'<text x="{LABEL + width + 8:.1f}" y="{y + 15}" {HALO}>{escape(quantity(value, unit))}</text>'
        )
        y += BAR + GAP
    for goal, bound in bounds:
        x = LABEL + bound * scale
        path = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top + TITLE - 4}" y2="{y}"'
        anchor = "end" if x > LABEL + PLOT / 2 else "start"
        lines += [
            f'<line {path} stroke="{LINE}" stroke-width="1.5" stroke-dasharray="4 3"/>',
            f'<text x="{x:.1f}" y="{y + 12}" font-size="11" fill="{LINE}" text-anchor="{anchor}">'
            f"goal: {escape(goal.text)}</text>",
        ]
        y += GOAL
    # Over the line of the goal, not under it.
    return [*lines, *labels], y - top + MARGIN
