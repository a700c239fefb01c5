"""The status page for people: complete without JavaScript, refreshed in place with it."""

from __future__ import annotations

from html import escape

from kosd.answers import unit as unit_document
from kosd.daemon import Daemon
from kosd.events import Event
from kosd.observer import SLOT_S, History, Seen
from kosd.verdict import Status, Verdict

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "interest-cohort=()",
}
SHOWN_EVENTS = 25
NOTHING = "&ndash;"
NUMBER = ' class="number"'
NUMBERS = ("Restarts", "Memory")
WORDS = {Status.OK: "well", Status.DEGRADED: "degraded", Status.FAILING: "failing"}
# A shape beside each colour: who sees no colours sees the state all the same.
SIGNS = {Status.OK: "✓", Status.DEGRADED: "!", Status.FAILING: "✕"}


def render(daemon: Daemon) -> str:
    """Returns the page as HTML."""
    node = escape(daemon.loaded.config.node)
    found = daemon.health()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{node}: {WORDS[found.status]}</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/status.css">
<script src="/static/status.js" defer></script>
<noscript><meta http-equiv="refresh" content="10"></noscript>
</head>
<body>
<p id="lost" role="alert" hidden>The node does not answer; what you see is from <span></span>.</p>
<main data-status="{found.status.value}">
{_head(daemon, found.status, found.reason)}
{_units(daemon)}
{_checks(found.checks)}
{_events(daemon.events.newest(SHOWN_EVENTS))}
</main>
<footer>
<nav aria-label="Machine-readable">
<a href="/health">health</a> <a href="/metrics">metrics</a> <a href="/v1/status">status</a>
<a href="/v1/units">units</a> <a href="/v1/events">events</a> <a href="/openapi.json">OpenAPI</a>
</nav>
<span>Times are UTC. This page refreshes itself.</span>
</footer>
</body>
</html>
"""


def _head(daemon: Daemon, status: Status, reason: str | None) -> str:
    release, config = daemon.release, daemon.loaded.config
    root = (
        f'<code title="{escape(release.root)}">{escape(release.root[:12])}</code>'
        if release.root
        else "unknown"
    )
    age = daemon.observer.age_s()
    pairs = {
        "Release": f"{escape(release.name or 'unknown')} <strong>{escape(release.version or '')}</strong>",
        "Release root": root,
        "Zone": escape(config.zone or "none"),
        "Up for": _span(daemon.uptime_s),
        "Last look": "never" if age is None else f"{_span(age)} ago",
    }
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs.items())
    because = f'<p class="reason">{escape(reason)}</p>' if reason else ""
    return f"""<header class="{status.value}">
<h1>{escape(config.node)} {_pill(status, WORDS[status], ' role="status"')}</h1>
{because}
<dl>{facts}</dl>
</header>"""


def _units(daemon: Daemon) -> str:
    sample = daemon.observer.sample
    if sample is None or not sample.seen:
        return '<section><h2>Units</h2><p class="none">No unit is known.</p></section>'
    now = daemon.monotonic()
    rows = "\n".join(
        _unit(daemon, seen, daemon.observer.history.get(name, History()), now)
        for name, seen in sample.seen.items()
    )
    minutes = int(len(History().strip(0)) * SLOT_S / 60)
    columns = ("Unit", "State", f"Last {minutes} minutes", "Since", "Restarts", "Memory", "Tier", "From")
    return _table("Units", columns, rows)


def _unit(daemon: Daemon, seen: Seen, history: History, now: float) -> str:
    document = unit_document(daemon, seen)
    status, name = seen.verdict.status, escape(seen.unit.name)
    version = f" <small>{escape(seen.unit.version)}</small>" if seen.unit.version else ""
    kind = " <small>periodic</small>" if seen.unit.timer else ""
    since = document["last_start"] if seen.unit.timer else document["since"]
    state, detail = _state(seen)
    return (
        f'<tr class="{status.value}" id="unit-{name}">'
        f'<th scope="row"><a href="/v1/units/{name}">{name}</a>{version}{kind}'
        f"<td>{_pill(status, state)}"
        f' <span class="detail">{escape(detail)}</span>'
        f"<td>{_strip(seen.unit.name, history.strip(now))}"
        f"<td>{_moment(since)}"
        f"<td{NUMBER}>{seen.service.restarts}"
        f"<td{NUMBER}>{_bytes(seen.service.memory_bytes)}"
        f"<td>{seen.unit.tier}<td>{seen.unit.origin}</tr>"
    )


def _state(seen: Seen) -> tuple[str, str]:
    """Returns the word for the pill and what there is to say beyond it."""
    state, detail = seen.service.active, seen.verdict.detail
    if seen.timer is not None and state == "inactive" and seen.timer.active == "active":
        # "inactive" is what a periodic unit rightly is between two runs.
        state = "waiting"
    return state, detail.removeprefix(state).strip() if detail.startswith(f"{state} (") else detail


def _strip(name: str, strip: list[Status | None]) -> str:
    """Draws one bar for each half minute; classes carry the colours, as the policy forbids inline styles."""
    bars = "".join(
        f'<rect class="{each.value}" x="{index * 3}" y="{0 if each is not Status.OK else 4}" width="2" '
        f'height="{16 if each is not Status.OK else 12}"/>'
        for index, each in enumerate(strip)
        if each is not None
    )
    bad = sum(1 for each in strip if each is not None and each is not Status.OK)
    label = (
        f"{escape(name)}: {bad} half minutes that were not well" if bad else f"{escape(name)}: always well"
    )
    box = f"0 0 {len(strip) * 3} 16"
    return f'<svg viewBox="{box}" role="img" aria-label="{label}"><title>{label}</title>{bars}</svg>'


def _checks(checks: dict[str, Verdict]) -> str:
    ordered = sorted(checks.items(), key=lambda pair: -pair[1].status.rank)
    items = "\n".join(
        f'<li class="{check.status.value}">'
        f'<span class="sign" aria-label="{WORDS[check.status]}">{SIGNS[check.status]}</span>'
        f" <b>{escape(name)}</b> <span>{escape(check.detail)}</span></li>"
        for name, check in ordered
        if not name.startswith("unit:")
    )
    return f'<section id="checks"><h2>Checks</h2><ul>\n{items}\n</ul></section>'


def _events(events: list[Event]) -> str:
    rows = "\n".join(
        f'<tr class="{event.level}"><td>{_moment(event.ts)}<td>{escape(event.kind)}'
        f"<td>{escape(event.unit or '')}<td>{escape(event.message)}</tr>"
        for event in events
    )
    return _table("Events", ("Time", "Kind", "Unit", "What happened"), rows)


def _table(title: str, columns: tuple[str, ...], rows: str) -> str:
    head = "".join(
        f'<th scope="col"{NUMBER if column in NUMBERS else ""}>{escape(column)}</th>' for column in columns
    )
    return f"""<section id="{title.lower()}"><h2>{title}</h2><div class="scroll"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div></section>"""


def _pill(status: Status, text: str, attributes: str = "") -> str:
    return f'<span class="pill {status.value}"{attributes}>{SIGNS[status]} {escape(text)}</span>'


def _moment(text: str | None) -> str:
    """Shows the clock time and keeps the date for whoever points at it."""
    return NOTHING if text is None else f'<time datetime="{text}" title="{text}">{text[11:19]}</time>'


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _bytes(count: int | None) -> str:
    return NOTHING if count is None else f"{count / 1e6:.1f} MB"
