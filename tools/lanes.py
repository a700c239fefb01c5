"""Runs test lanes one after the other, each with its own make target, and sums up what they found.

A lane that fails does not keep the next one from running. What a lane prints is shown as it comes and kept in
build/lanes/LANE.log, from which its tests (pytest's closing line) or checks (nox's sessions) are counted.
What was skipped is named last, with the reason.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LOGS = Path("build/lanes")
COUNTS = ("passed", "failed", "skipped")

_PYTEST_CLOSING = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s")
_PYTEST_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped)")
_NOX_SESSION = re.compile(r"^nox > \* \S+: (success|failed|skipped|aborted)")
_NOX_ONLY_SESSION = re.compile(r"^nox > Session \S+ (?:was )?(successful|failed|skipped|aborted)")
_SKIPPED = (
    re.compile(r"^nox > Session (\S+) skipped: (.*?)\.?$"),
    re.compile(r"^SKIPPED (\[\d+\] \S+): (.*)$"),
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MEANING = {
    **{
        "success": "passed",
        "successful": "passed",
        "aborted": "failed",
        "error": "failed",
        "errors": "failed",
    },
    **{count: count for count in COUNTS},
}


@dataclass(frozen=True)
class Outcome:
    """What a lane came to."""

    lane: str
    exit_code: int
    seconds: float
    counts: dict[str, int]
    skipped: tuple[str, ...]


def main() -> int:
    """Run the lanes that were named and return 0 when every one of them passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lanes", nargs="+", metavar="LANE", help="each is run as `make test-LANE`")
    outcomes = [run_lane(lane) for lane in parser.parse_args().lanes]
    print()
    for outcome in outcomes:
        verdict = "passed" if outcome.exit_code == 0 else "FAILED"
        print(f"{outcome.lane:<10} {verdict}  {outcome.seconds:7.1f} s  {in_words(outcome.counts)}")
    total = {count: sum(outcome.counts[count] for outcome in outcomes) for count in COUNTS}
    print(f"{in_words(total)} in {sum(outcome.seconds for outcome in outcomes):.1f} s")
    for outcome in outcomes:
        for what in outcome.skipped:
            print(f"NOT TESTED  {outcome.lane}: {what}")
    return 0 if all(outcome.exit_code == 0 for outcome in outcomes) else 1


def run_lane(lane: str) -> Outcome:
    """Run one lane, show what it prints and keep it."""
    print(f"\n=== lane {lane} ===", flush=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    command = ["make", f"test-{lane}"]
    with (
        (LOGS / f"{lane}.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as make,
    ):
        assert make.stdout is not None
        for line in make.stdout:
            print(line, end="", flush=True)
            log.write(line)
    seconds = time.monotonic() - started
    output = (LOGS / f"{lane}.log").read_text(encoding="utf-8")
    counts = count_results(output)
    if make.returncode != 0 and not counts["failed"]:
        counts["failed"] = 1
    return Outcome(lane, make.returncode, seconds, counts, tuple(name_skipped(output)))


def count_results(output: str) -> dict[str, int]:
    """Count the tests that pytest, or the sessions that nox, reported in a lane's output.

    A session that ran pytest is counted by its tests and not once more as a session; one that was skipped is.
    """
    tests, sessions = dict.fromkeys(COUNTS, 0), dict.fromkeys(COUNTS, 0)
    single = dict.fromkeys(COUNTS, 0)
    for coloured in output.splitlines():
        line = _COLOUR.sub("", coloured)
        if closing := _PYTEST_CLOSING.match(line):
            for number, what in _PYTEST_COUNT.findall(closing[1]):
                tests[_MEANING[what]] += int(number)
        elif session := _NOX_SESSION.match(line):
            sessions[_MEANING[session[1]]] += 1
        elif session := _NOX_ONLY_SESSION.match(line):
            single[_MEANING[session[1]]] += 1
    found = sessions if any(sessions.values()) else single
    if any(tests.values()):
        return {**tests, "skipped": tests["skipped"] + found["skipped"]}
    return found


def name_skipped(output: str) -> list[str]:
    """Return what pytest and nox say that they skipped, each with the reason, as often as it was said."""
    lines = (_COLOUR.sub("", line) for line in output.splitlines())
    matches = (match for line in lines for pattern in _SKIPPED if (match := pattern.match(line)))
    return [f"{match[1]}: {match[2]}" for match in matches]


def in_words(counts: dict[str, int]) -> str:
    """Return counts as pytest words them, without skipped ones where there are none."""
    words = [f"{counts['passed']} passed", f"{counts['failed']} failed"]
    return ", ".join(words + ([f"{counts['skipped']} skipped"] if counts["skipped"] else []))


if __name__ == "__main__":
    sys.exit(main())
