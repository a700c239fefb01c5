# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run did to the fleet, as data and as one HTML page with a table and a timeline. Pure."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from urllib.parse import quote

COLUMNS = ("node", "zone", "release", "outcome", "seconds", "bytes", "downtime")
GOOD = ("confirmed", "present", "staged", "absent")
_ROW_PX, _LEFT_PX, _WIDTH_PX = 22, 110, 900


@dataclass
class Run:
    """One run of a playbook.

    Args:
        playbook: its name.
        started, ended: seconds since 1970.
        waves: name and hosts of each wave, in order.
        zones: node to zone.
        stopped: why a rollout stopped.
        trials: one row a node and task.
    """

    playbook: str
    started: float
    ended: float = 0.0
    waves: list[dict[str, t.Any]] = field(default_factory=list)
    zones: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    trials: list[dict[str, t.Any]] = field(default_factory=list)
    _begun: dict[str, float] = field(default_factory=dict)

    def begin(self, node: str, now: float) -> None:
        """Note when a node's task began."""
        self._begun[node] = now

    def end(self, node: str, said: Mapping[str, t.Any], now: float) -> None:
        """Note how a node's task ended."""
        outcome = said.get("outcome") or (
            "unreachable" if said.get("unreachable") else "failed" if said.get("failed") else "unknown"
        )
        wave = next((wave["name"] for wave in self.waves if node in wave["hosts"]), None)
        self.trials.append(
            {
                "node": node,
                "zone": self.zones.get(node),
                "wave": wave,
                "release": said.get("release"),
                "root": said.get("root"),
                "outcome": outcome,
                "reason": said.get("reason") or (said.get("msg") if outcome not in GOOD else None),
                "seconds": said.get("seconds"),
                "bytes": said.get("bytes"),
                "downtime_s": said.get("downtime_s"),
                "mirror": said.get("mirror"),
                "how": said.get("how"),
                "evidence": said.get("evidence"),
                "started": self._begun.get(node, now),
                "ended": now,
            }
        )

    @property
    def eventful(self) -> bool:
        """Whether anything happened that is worth a report."""
        return any(trial["outcome"] not in ("present", "planned") for trial in self.trials)

    def as_dict(self) -> dict[str, t.Any]:
        """Return what is written to the run's JSON file."""
        return {
            "format": 1,
            "playbook": self.playbook,
            "started": self.started,
            "ended": self.ended,
            "stopped": self.stopped,
            "waves": self.waves,
            "trials": self.trials,
        }


def html(runs: Sequence[Mapping[str, t.Any]], pages: Sequence[str] = ()) -> str:
    """Return one page over all runs, which needs no other file and no script.

    Args:
        runs: oldest first.
        pages: names of other pages in its folder.
    """
    body = "\n".join(_run(run) for run in reversed(runs)) or "<p>No run yet.</p>"
    links = ", ".join(f'<a href="{escape(quote(name))}">{escape(name)}</a>' for name in pages)
    also = f"<p>Also here: {links}</p>" if pages else ""
    return f"{_HEAD}{also}{_timeline(runs)}{body}</main></body></html>\n"


def _run(run: Mapping[str, t.Any]) -> str:
    rows = "\n".join(_row(trial) for trial in run["trials"])
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    stopped = f'<p class="bad">stopped: {escape(str(run["stopped"]))}</p>' if run.get("stopped") else ""
    return (
        f"<section><h2>{escape(str(run['playbook']))} <small>{_clock(run['started'])} UTC, "
        f"{run['ended'] - run['started']:.0f} s</small></h2>{stopped}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _row(trial: Mapping[str, t.Any]) -> str:
    outcome = str(trial["outcome"])
    why = f"<br><small>{escape(str(trial['reason']))}</small>" if trial.get("reason") else ""
    evidence = (
        f"<br><small>evidence: {escape(str(trial['evidence']))}</small>" if trial.get("evidence") else ""
    )
    cells = (
        escape(str(trial["node"])),
        escape(str(trial.get("zone") or "-")),
        escape(str(trial.get("release") or "-")),
        f'<span class="{_class(outcome)}">{escape(outcome)}</span>{why}{evidence}',
        _number(trial.get("seconds"), "{:.1f}"),
        _number(trial.get("bytes"), "{:,.0f}"),
        _number(trial.get("downtime_s"), "{:.3f} s"),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _timeline(runs: Sequence[Mapping[str, t.Any]]) -> str:
    """Bars of trials over time, a line for each node, a band for each wave."""
    trials = [trial for run in runs for trial in run["trials"]]
    if not trials:
        return ""
    scale = _Scale(
        start=min(trial["started"] for trial in trials),
        end=max(trial["ended"] for trial in trials),
        nodes=tuple(sorted({str(trial["node"]) for trial in trials})),
    )
    parts = [*_bands(runs, scale), *_lines(scale), *(_bar(trial, scale) for trial in trials), *_ticks(scale)]
    return (
        '<section><h2>Timeline</h2><p class="legend"><span class="good">confirmed</span> '
        '<span class="bad">reverted or failed</span> <span class="wave">wave</span> '
        "(point at a bar for its story)</p>"
        f'<svg viewBox="0 0 {_WIDTH_PX} {scale.height}" role="img" aria-label="Trials over time">'
        f"{''.join(parts)}</svg></section>"
    )


@dataclass(frozen=True)
class _Scale:
    """Where a moment and a node are in the picture."""

    start: float
    end: float
    nodes: tuple[str, ...]

    @property
    def height(self) -> int:
        return _ROW_PX * len(self.nodes) + 44

    def x(self, moment: float) -> float:
        return _LEFT_PX + (moment - self.start) / max(self.end - self.start, 1.0) * (
            _WIDTH_PX - _LEFT_PX - 10
        )

    def y(self, node: str) -> int:
        return 22 + self.nodes.index(node) * _ROW_PX


def _bands(runs: Sequence[Mapping[str, t.Any]], scale: _Scale) -> Iterator[str]:
    for run in runs:
        for wave in run["waves"]:
            trials = [trial for trial in run["trials"] if trial["wave"] == wave["name"]]
            if not trials:
                continue
            left = scale.x(min(trial["started"] for trial in trials))
            right = scale.x(max(trial["ended"] for trial in trials))
            title = escape(f"{run['playbook']}, wave {wave['name']}")
            yield (
                f'<rect class="wave" x="{left:.1f}" y="18" width="{max(right - left, 2):.1f}" '
                f'height="{_ROW_PX * len(scale.nodes) + 4}"><title>{title}</title></rect>'
            )


def _lines(scale: _Scale) -> Iterator[str]:
    for node in scale.nodes:
        y = scale.y(node)
        yield f'<text x="4" y="{y + 13}">{escape(node)}</text>'
        yield f'<line class="grid" x1="{_LEFT_PX}" x2="{_WIDTH_PX - 10}" y1="{y + 9}" y2="{y + 9}"></line>'


def _bar(trial: Mapping[str, t.Any], scale: _Scale) -> str:
    left, right = scale.x(trial["started"]), scale.x(trial["ended"])
    seconds = trial["ended"] - trial["started"]
    title = escape(f"{trial['node']}: {trial.get('release')} {trial['outcome']}, {seconds:.0f} s")
    return (
        f'<rect class="{_class(str(trial["outcome"]))}" x="{left:.1f}" y="{scale.y(str(trial["node"])) + 2}" '
        f'rx="3" width="{max(right - left, 3):.1f}" height="14"><title>{title}</title></rect>'
    )


def _ticks(scale: _Scale) -> Iterator[str]:
    for step, anchor in enumerate(("start", "middle", "middle", "middle", "end")):
        moment = scale.start + max(scale.end - scale.start, 1.0) * step / 4
        yield (
            f'<text class="tick" x="{scale.x(moment):.1f}" y="{scale.height - 6}" '
            f'text-anchor="{anchor}">{_clock(moment)[11:]}</text>'
        )


def _class(outcome: str) -> str:
    return "good" if outcome in GOOD else "plain" if outcome == "planned" else "bad"


def _number(value: t.Any, form: str) -> str:
    return form.format(value) if isinstance(value, (int, float)) else "-"


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kOS Fleet report</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d4d9de; --faint: #59636e;
  --good: #1a7f37; --bad: #c62a2a; --wave: #0969da22; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6e9ec; --paper: #14181d; --line: #363d45; --faint: #9aa4ae;
  --good: #4cc26a; --bad: #ff7b72; --wave: #58a6ff33; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
small, .legend, .tick { color: var(--faint); font-weight: normal; }
section { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
th { font-size: .8rem; color: var(--faint); }
span.good { color: var(--good); } span.bad, p.bad { color: var(--bad); }
.legend span.wave { background: var(--wave); }
svg { width: 100%; min-width: 40rem; height: auto; font-size: 11px; }
svg text { fill: var(--ink); } svg .tick { fill: var(--faint); } svg .grid { stroke: var(--line); }
rect.good { fill: var(--good); } rect.bad { fill: var(--bad); } rect.plain { fill: var(--faint); }
rect.wave { fill: var(--wave); }
</style></head><body><main><h1>kOS Fleet report</h1>
"""
