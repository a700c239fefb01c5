"""Makes docs/faults.md from build/faults.json, which the lanes fault and backup write.

make test-fault test-backup && python tools/faults_page.py
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "build/faults.json"
PAGE = ROOT / "docs/faults.md"
_PLACE = re.compile(r"tests/\S+\.py")
_VALUE = re.compile(r"KOS_(ROUNDS|SEED)=(\d+)")

_INTRODUCTION = """\
# Fault tests

What a node does when it is killed, lied to, cut off, filled up or told a wrong time. Each row is a fault \
that was brought about on purpose: for releases on containers that boot a real systemd or, for `fallback` \
alone, in a folder; for backups (`tests/backup`) with real restic, rest-server and PostgreSQL on loopback. \
After a fault of a release the node has to run a good one, whole and healthy, with the state that goes with \
it; after one of a backup nothing that was saved or is live may be lost, and what is damaged has to be named \
and replace nothing. Where that is not so, it is counted as lost. Seconds count from the fault until a good \
release runs well. Where only the dead-man ends a trial, its deadline is brought about and not waited for; \
where the link is cut it is 20 seconds away.

This page is made from `build/faults.json` by `tools/faults_page.py`. `make test-fault test-backup` takes \
few rounds of what is random, `make test-all` many: it kills at every call; `KOS_SEED` replays a run.
"""


def page(rows: Sequence[Mapping[str, Any]], source: Path = ROOT) -> str:
    """Return the page.

    Args:
        rows: what build/faults.json holds.
        source: folder of the project, where the tests say what they are about.

    Raises:
        ValueError: a row names no file of tests.
    """
    runs, lost = (sum(row[key] for row in rows) for key in ("runs", "lost"))
    parts = [_INTRODUCTION, f"The last run: **{runs} cases, {lost} lost.**\n"]
    for place in sorted({_place(row) for row in rows}):
        here = [row for row in rows if _place(row) == place]
        parts.append(f"## {_about(source / place)}\n")
        parts.append(f"`{_command(here, place)}`\n")
        parts.append("| fault | runs | lost | longest until healthy |\n|---|--:|--:|--:|")
        parts.append("\n".join(_line(row) for row in here) + "\n")
    return "\n".join(parts)


def _place(row: Mapping[str, Any]) -> str:
    found = _PLACE.search(str(row["command"]))
    if found is None:
        raise ValueError(f"the row {row['name']!r} names no file of tests: {row['command']}")
    return found[0]


def _about(file: Path) -> str:
    """Return what a file of tests says that it is about, without the numbers of requirements."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or file.name
    sentence = docstring.splitlines()[0].rstrip(".")
    return re.sub(r" \([A-Z]\d\d.*\)$", "", sentence)


def _command(rows: Sequence[Mapping[str, Any]], place: str) -> str:
    values = {f"KOS_{name}={value}" for row in rows for name, value in _VALUE.findall(str(row["command"]))}
    return f"{' '.join(sorted(values))} .venv/bin/python -m pytest {place}"


def _line(row: Mapping[str, Any]) -> str:
    seconds = row["healthy_s_max"]
    shown = "" if seconds is None else f"{seconds:.1f} s"
    return f"| {row['name']} | {row['runs']} | {row['lost']} | {shown} |"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Make docs/faults.md from what the lanes fault and backup found."
    )
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    try:
        text = page(json.loads(options.rows.read_text("utf-8")))
    except (OSError, ValueError) as error:
        print(f"faults_page: {error}", file=sys.stderr)
        return 1
    options.page.write_text(text, "utf-8")
    print(f"{options.page}: made from {options.rows}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
