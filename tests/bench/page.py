"""Pages from build/bench.json: build/bench.html for whoever measured; docs/benchmarks.md, README for all."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import plot
from .figures import ROOT

Row = dict[str, Any]

PAGE = ROOT / "build/bench.html"
DOCUMENT = ROOT / "docs/benchmarks.md"
IMAGES = ROOT / "docs/images"
README = ROOT / "README.md"
NOTES = Path(__file__).with_name("notes.md")
COLUMNS = ("name", "figure", "peer", "ratio", "goal", "met")
GIBIBYTE = 1024**3

_INTRODUCTION = """\
Every figure that is quoted is a row here, measured beside a named peer in the same run. `make bench` \
measures all of them again, into `build/bench.json` and `build/bench.html`; the command below a heading \
measures those of that heading alone."""


def write_page(rows: Sequence[Row]) -> Path:
    """Write build/bench.html, a page in one file, and return its path."""
    parts = [f"<h1>Benchmarks</h1><p>{_inline(_INTRODUCTION)} Measured on {html.escape(machine())}.</p>"]
    for name, found in _by_benchmark(rows):
        parts.append(
            f"<h2>{html.escape(_title(name))}</h2><p><code>{html.escape(found[0]['command'])}</code></p>"
        )
        parts.append(plot.chart(found))
        parts += [f"<p>{_inline(paragraph)}</p>" for paragraph in _note(name)]
        parts.append(_html_table(found))
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(_HTML.format(body="\n".join(parts)), "utf-8")
    return PAGE


def write_document(rows: Sequence[Row]) -> list[Path]:
    """Write docs/benchmarks.md with its images and the figures of README.md; return the paths."""
    written = []
    parts = [
        "# Benchmarks",
        f"{_INTRODUCTION} These are from a machine with {machine()}.",
        _table(_ordered(rows)),
    ]
    for name, found in _by_benchmark(rows):
        image = IMAGES / f"bench-{name}.svg"
        image.write_text(plot.chart(found) + "\n", "utf-8")
        written.append(image)
        parts += [f"## {_title(name)}", f"`{found[0]['command']}`"]
        parts += [f"![{_title(name)}](images/{image.name})", *_note(name)]
    DOCUMENT.write_text("\n\n".join(parts) + "\n", "utf-8")
    _write_readme(rows)
    return [DOCUMENT, README, *written]


def machine() -> str:
    """Return what this machine is, in a few words."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text("utf-8").splitlines() if "=" in line
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIBIBYTE
    system = (
        f"{release['NAME']} {release.get('VERSION_ID', '')}".replace('"', "")
        .replace("GNU/Linux ", "")
        .strip()
    )
    return f"{os.cpu_count()} cores, {round(memory)} GiB, {system}"


def sentence(row: Row) -> str:
    """Return a row as one line of text."""
    name, figure, peer, ratio, goal, met = _cells(row)
    words = [f"{name}: {figure}"]
    words += [f"peer {peer}"] if peer else []
    words += [f"ratio {ratio}"] if ratio else []
    words += [f"goal {goal}: {'met' if met == 'yes' else 'MISSED'}"] if goal else []
    return "; ".join(words)


def _cells(row: Row) -> tuple[str, ...]:
    peer = row["peer"]
    if row["peer_value"] is not None:
        peer += f": {plot.quantity(row['peer_value'], row['unit'])}"
    return (
        row["name"],
        plot.quantity(row["value"], row["unit"]),
        peer,
        _ratio(row["ratio"]),
        row["goal"],
        "" if row["met"] is None else "yes" if row["met"] else "no",
    )


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 100:.3g} %" if value < 0.5 else f"{value:.2f} x" if value < 10 else f"{value:.0f} x"


def _by_benchmark(rows: Sequence[Row]) -> Iterable[tuple[str, list[Row]]]:
    """Yield the rows of each benchmark with its name, in the order of notes.md."""
    for name in _sections():
        found = [row for row in rows if row["command"].rpartition(" ")[2] == name]
        if found:
            yield name, found


def _ordered(rows: Sequence[Row]) -> list[Row]:
    return [row for _, found in _by_benchmark(rows) for row in found]


def _sections() -> dict[str, tuple[str, list[str]]]:
    """Return title and paragraphs of each benchmark from notes.md, by its name."""
    found = {}
    for section in re.split(r"^## ", NOTES.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        head, *paragraphs = re.split(r"\n\s*\n", section.strip())
        name, _, title = head.partition(": ")
        found[name] = (title, [" ".join(paragraph.split("\n")) for paragraph in paragraphs])
    return found


def _title(name: str) -> str:
    return _sections()[name][0]


def _note(name: str) -> list[str]:
    return _sections()[name][1]


def _table(rows: Iterable[Row]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines)


def _html_table(rows: Iterable[Row]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(COLUMNS, 'th')}{''.join(line(_cells(row), 'td') for row in rows)}</table>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _write_readme(rows: Sequence[Row]) -> None:
    figures = (
        "## Figures\n\n"
        f"What has a goal, measured by `make bench` on {machine()}, each beside its peer in the same run. "
        f"The other figures, how they were measured, and why a goal is missed: "
        f"[benchmarks](docs/benchmarks.md).\n\n{_table(row for row in _ordered(rows) if row['goal'])}\n"
    )
    text = README.read_text("utf-8")
    section = re.compile(r"^## Figures\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if section.search(text):
        text = section.sub(lambda _: f"{figures}\n", text).rstrip("\n") + "\n"
    else:
        text = f"{text.rstrip()}\n\n{figures}"
    README.write_text(text, "utf-8")


_HTML = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Benchmarks of kOS Fleet</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1c2733; max-width: 60rem; }}
body {{ margin: 2rem auto; padding: 0 1rem; }}
h2 {{ margin-top: 3rem; }}
svg {{ max-width: 100%; height: auto; }}
code {{ background: #eef1f4; padding: .1em .3em; border-radius: .2em; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto; }}
td:nth-child(2), td:nth-child(4) {{ white-space: nowrap; }}
th, td {{ text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #d5dbe1; }}
</style>
{body}
</html>
"""
