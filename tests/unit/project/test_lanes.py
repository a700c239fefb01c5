"""What a lane printed is counted, and what it did not test is named at the very end (D05)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import lanes

LINT = """\
nox > Running session ruff
nox > Session ruff was successful.
nox > Running session sanity_221
\x1b[33mnox > Session sanity_221 skipped: no Python 3.12 or 3.13 is on this machine.\x1b[0m
nox > Ran 2 sessions in 2 minutes:
nox > * ruff: success, took 2 minutes
nox > * sanity_221: skipped (no Python 3.12 or 3.13 is on this machine)
"""
UNIT = """\
SKIPPED [3] tests/unit/a/test_b.py:12: needs a browser
======= 40 passed, 3 skipped in 12.34s ========
"""
WHY = "sanity_221: no Python 3.12 or 3.13 is on this machine"


@pytest.mark.parametrize(
    ("output", "counts", "skipped"),
    [
        (LINT, {"passed": 1, "failed": 0, "skipped": 1}, [WHY]),
        (UNIT, {"passed": 40, "failed": 0, "skipped": 3}, ["[3] tests/unit/a/test_b.py:12: needs a browser"]),
        ("= 1 failed, 2 errors in 1.00s =\n", {"passed": 0, "failed": 3, "skipped": 0}, []),
        (f"{UNIT}nox > Session molecule was successful.\n", {"passed": 40, "failed": 0, "skipped": 3}, None),
        (f"= 2 passed in 1.00s =\n{LINT}", {"passed": 2, "failed": 0, "skipped": 1}, [WHY]),
        ("", {"passed": 0, "failed": 0, "skipped": 0}, []),
    ],
)
def test_tests_and_sessions_are_counted_and_what_was_skipped_is_named(
    output: str, counts: dict[str, int], skipped: list[str] | None
) -> None:
    assert lanes.count_results(output) == counts
    assert skipped is None or lanes.name_skipped(output) == skipped


def test_the_last_line_names_what_was_not_tested(tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    printed.write_text(LINT)
    (tmp_path / "Makefile").write_text(f"test-lint:\n\t@cat {printed}\ntest-unit:\n\t@false\n")
    command = [sys.executable, lanes.__file__, "lint", "unit"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    lint, unit, total, last = ended.stdout.splitlines()[-4:]
    assert lint.split()[:2] == ["lint", "passed"]
    assert unit.split()[:2] == ["unit", "FAILED"]
    assert total.startswith("1 passed, 1 failed, 1 skipped in ")
    assert last == f"NOT TESTED  lint: {WHY}"
