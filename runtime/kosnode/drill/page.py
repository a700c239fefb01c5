"""The page of a report: one file, with pictures, that a person reads in a browser without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from .pictures import phase_bars, trend
from .words import duration, size, when

_WORDS = {
    "VERIFIED": ("good", "✓", "What was backed up came back, and the proof of it was put to the test."),
    "FAILED": ("bad", "✕", "Something did not come back as it was backed up, or the proof has a hole."),
    "COULD_NOT_TEST": ("unknown", "?", "Not all could be tested, which is no success."),
}
_CONTROL = {
    "red": ("good", "red, as it has to be"),
    "green": ("bad", "stayed green"),
    "untested": ("unknown", "untested"),
}
_WEIGHT = {"failed": "bad", "untested": "unknown", "note": "plain"}


def render(report: Mapping[str, Any]) -> str:
    """Return the page of a report (`schemas/drill.schema.json`)."""
    title = f"Drill of {report['node']}: {report['outcome']}"
    style = resources.files(__package__).joinpath("page.css").read_text("utf-8")
    parts = [
        _head(report),
        _tiles(report),
        _section("Time by phase", phase_bars(report)),
        _section("Sources", _sources(report["sources"])),
        _section("Copies that were damaged on purpose", _controls(report["controls"])),
        _section("Findings", _findings(report["findings"])),
        _section("Drills so far", trend(report["trend"])),
        _section("This drill", _about(report)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Nothing is loaded and nothing is run, whatever a name that is shown here holds.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f"{''.join(parts)}</main></body></html>\n"
    )


def _head(report: Mapping[str, Any]) -> str:
    kind, sign, sentence = _WORDS[report["outcome"]]
    return (
        f'<header class="card head {kind}"><div class="sign" aria-hidden="true">{sign}</div>'
        f"<div><h1>{escape(report['outcome'].replace('_', ' '))}</h1><p>{sentence}</p>"
        f"<p><b>{escape(report['node'])}</b>, repository {escape(report['repository']['name'])}, "
        f"drilled on <b>{escape(report['host']['name'])}</b> at {when(report['time'])}</p></div></header>"
    )


def _tiles(report: Mapping[str, Any]) -> str:
    counted, rate, projected = report["files"], report["bytes_per_s"], report["projected"]
    wrong = counted["missing"] + counted["extra"] + counted["different"]
    red = sum(1 for one in report["controls"] if one["outcome"] == "red")
    rows = [
        (_seconds(report["rpo_s"]), "would be lost (RPO): age of the last verified record"),
        (duration(report["rto"]["total_ms"]), "until all was back and proven (RTO)"),
        (
            f"{counted['restored']} of {counted['expected']}",
            f"paths came back; {wrong} wrong",
        ),
        (f"{red} of {len(report['controls'])}", "damaged copies were noticed"),
        (size(report["bytes"]), "came back" if rate is None else f"came back, at {size(rate)}/s"),
        (
            "unknown" if projected is None else duration(projected["ms"]),
            "for all sources" if projected is None else f"for all {size(projected['bytes'])}, at this pace",
        ),
    ]
    return '<div class="tiles">' + "".join(
        f'<div class="card tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
        for value, what in rows
    ) + "</div>"  # fmt: skip


def _sources(sources: Sequence[Mapping[str, Any]]) -> str:
    if not sources:
        return '<p class="soft">No source came so far.</p>'
    rows = []
    for one in sources:
        for number, point in enumerate(one["points"]):
            first = number == 0
            record = one["record"]
            said = f"{record['text']}, {when(record['time'])}" if first and record else ""
            head = "" if not point["head"].get("length") else f"{point['head']['length']} blocks"
            counted = point["files"]
            files = (
                f"{counted['restored']} of {counted['expected']}"
                if counted["expected"]
                else "of the same copy"
            )
            rows.append(
                f"<tr><td><b>{escape(one['name']) if first else ''}</b></td>"
                f"<td>{escape(one['class'] + ', ' + one['method']) if first else ''}</td>"
                f'<td class="o">{when(point["time"])}</td>'
                f'<td class="{_WORDS[point["outcome"]][0]}">{escape(point["outcome"].replace("_", " "))}</td>'
                f'<td class="n">{escape(files)}</td><td>{escape(said or head)}</td>'
                f"<td>{escape(point['witness'])}</td></tr>"
            )
    return _table(
        ("source", "class, method", "state of", "outcome", "paths", "last verified record", "witness"), rows
    )


def _controls(controls: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in controls:
        kind, said = _CONTROL[one["outcome"]]
        rows.append(
            f'<tr><td class="o"><b>{escape(one["name"])}</b></td><td>{escape(one["text"])}</td>'
            f'<td class="{kind}">{said}</td><td class="w">{escape(one["found"] or "")}</td></tr>'
        )
    if not rows:
        return '<p class="soft">None could be made.</p>'
    return _table(("control", "what was damaged", "verification", "what it said"), rows)


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    if not findings:
        return '<p class="soft">None.</p>'
    rows = [
        f'<tr><td class="{_WEIGHT[one["weight"]]}">{escape(one["weight"])}</td>'
        f'<td>{escape(one["source"] or "")}</td><td class="w">{escape(one["text"])}</td></tr>'
        for one in findings
    ]
    return _table(("weight", "source", "finding"), rows)


def _about(report: Mapping[str, Any]) -> str:
    repository, choice, cleanup, previous = (
        report[key] for key in ("repository", "choice", "cleanup", "previous")
    )
    hosts = report.get("hosts")
    drilled, left = (", ".join(choice[key]) or "none" for key in ("drilled", "left"))
    rows = {
        "Id": report["id"],
        "Seed": report["seed"],
        "Chosen": f"{drilled}; not drilled: {left}",
        "Hosts": "" if hosts is None else f"{', '.join(hosts['picked'])} of {', '.join(hosts['of'])}",
        "Read from": f"{repository['url']}, "
        + (
            f"through a proxy that passes reads alone ({repository['writes_refused']} writes refused)"
            if repository["access"] == "proxy"
            else "with the credentials of the request, without locks"
        ),
        "Repository": repository["id"] or "not opened",
        "Verified in": "a network namespace with loopback alone" if report["network"]["isolated"]
        else str(report["network"]["reason"]),
        "Cleaned up": "all" if cleanup["ok"] else f"left: {', '.join(cleanup['left'])}",
        "Killed before": ", ".join(cleanup["earlier"]) or "none",
        "Programs": f"kosctl {report['host']['kosctl']}, restic {report['host']['restic'] or 'none'}",
        "Next drill": f"within {_seconds(report['interval_s'])}",
        "Report before": "none" if previous is None else f"{previous['id']}, SHA3-256 {previous['sha3']}",
        "Signed with": report["signer"],
    }  # fmt: skip
    return "<dl>" + "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items() if value
    ) + "</dl>"  # fmt: skip


def _seconds(count: int | None) -> str:
    return duration(None if count is None else count * 1000)


def _section(title: str, body: str) -> str:
    return f'<section><h2>{title}</h2><div class="card">{body}</div></section>'


def _table(names: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
