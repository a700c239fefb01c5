"""The pictures of a report's page, as SVG: the phases of each source, and the drills so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .exam import PHASES
from .words import duration

_NAMES = {
    "choose": "find, manifest and witness",
    "fetch": "fetch",
    "compare": "compare with the manifest",
    "rebuild": "rebuild and start",
    "check": "verify",
}
_WIDTH, _LABEL, _ROW = 900, 150, 30
_COLOURS = {"VERIFIED": "var(--good)", "FAILED": "var(--bad)", "COULD_NOT_TEST": "var(--unknown)"}
_PLOT, _TOP, _BOTTOM = 90, 18, 22


def phase_bars(report: Mapping[str, Any]) -> str:
    """Return a bar for each source, of its phases on one scale, and what each colour is."""
    rows = [(str(one["name"]), one["points"][0]["ms"]) for one in report["sources"]]
    longest = max((sum(ms.values()) for _, ms in rows), default=0)
    if not longest:
        return '<p class="soft">Nothing was brought back.</p>'
    scale = (_WIDTH - _LABEL - 90) / longest
    parts = []
    for number, (name, ms) in enumerate(rows):
        y, x = number * _ROW, float(_LABEL)
        parts.append(f'<text class="ink" x="0" y="{y + 20}">{escape(_cut(name))}</text>')
        for index, phase in enumerate(PHASES):
            width = ms[phase] * scale
            if width:
                said = f"{name}, {_NAMES[phase]}: {duration(ms[phase])}"
                # A gap of the ground keeps neighbours apart.
                parts.append(
                    f'<rect x="{x:.1f}" y="{y + 5}" width="{max(1.0, width - 1.5):.1f}" height="20" rx="2" '
                    f'fill="var(--p{index})"><title>{escape(said)}</title></rect>'
                )
            x += width
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 20}">{duration(sum(ms.values()))}</text>')
    total = report["rto"]["ms"]
    legend = "".join(
        f'<li><i style="background:var(--p{index})"></i>{_NAMES[phase]} '
        f'<span class="soft">{duration(total[phase])}</span></li>'
        for index, phase in enumerate(PHASES)
    )
    box = f'viewBox="0 0 {_WIDTH} {len(rows) * _ROW}"'
    return (
        f'<svg {box} role="img" aria-label="Time of each phase by source">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul>'
    )


def trend(past: Sequence[Mapping[str, Any]]) -> str:
    """Return the time of recovery, and what would have been lost, of each drill so far."""
    charts = [
        _chart("time until all was back and proven", past, [one["rto_ms"] for one in past]),
        _chart(
            "age of the last verified record",
            past,
            [None if one["rpo_s"] is None else one["rpo_s"] * 1000 for one in past],
        ),
    ]
    legend = "".join(
        f'<li><i style="background:{colour}"></i>{name.replace("_", " ")} '
        f'<span class="soft">{sum(1 for one in past if one["outcome"] == name)}</span></li>'
        for name, colour in _COLOURS.items()
    )
    return f'{"".join(charts)}<ul class="legend">{legend}</ul>'


def _chart(title: str, past: Sequence[Mapping[str, Any]], values: Sequence[int | None]) -> str:
    highest = max((value for value in values if value is not None), default=0) or 1
    height = _TOP + _PLOT + _BOTTOM
    step = (_WIDTH - _LABEL) / max(len(past), 10)
    parts = [
        f'<text class="ink" x="0" y="12">{title}</text>',
        f'<text x="0" y="{_TOP + 14}">{duration(highest)}</text>',
        f'<line x1="{_LABEL}" x2="{_WIDTH}" y1="{_TOP + _PLOT}" y2="{_TOP + _PLOT}" stroke="var(--line)"/>',
        f'<line x1="{_LABEL}" x2="{_WIDTH}" y1="{_TOP + 4}" y2="{_TOP + 4}" stroke="var(--line)" '
        'stroke-dasharray="2 4"/>',
    ]
    for number, (one, value) in enumerate(zip(past, values, strict=True)):
        x, said = _LABEL + number * step, f"{one['time']}: {one['outcome']}"
        tall = 2.0 if value is None else max(2.0, (_PLOT - 4) * value / highest)
        shown = "unknown" if value is None else duration(value)
        parts.append(
            f'<rect x="{x + 3:.1f}" y="{_TOP + _PLOT - tall:.1f}" width="{min(step - 6, 44):.1f}" '
            f'height="{tall:.1f}" rx="2" fill="{_COLOURS[one["outcome"]]}">'
            f"<title>{escape(f'{said}, {shown}')}</title></rect>"
        )
        if number in (0, len(past) - 1):
            parts.append(f'<text x="{x + 3:.1f}" y="{height - 6}">{escape(one["time"][:10])}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _cut(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"
