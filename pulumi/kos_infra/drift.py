"""Asks the cloud whether a stack is still as it was made: `python -m kos_infra.drift --stack NAME`.

Nothing is changed, neither in the cloud nor in the state. There are three answers, and one of them is good:

    clean    exit 0   every resource was asked for and is as the state has it
    drifted  exit 3   something was changed or deleted from outside; each is named, its values are not
    unknown  exit 1   not every resource could be asked for; the reason is given

A usage error ends with 2. What is not known is never taken for clean: a stack without resources, an update
that broke off, a provider without credentials and a resource that was not looked at are all `unknown`. What a
program ignores (`ignore_changes`) may move, and is no drift.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from pulumi import automation
from pulumi.automation.events import EngineEvent

_UNCHANGED = ("same", "refresh", "read")


class Answer(Enum):
    """What a look at a stack came to, each with its exit code."""

    CLEAN = 0
    UNKNOWN = 1
    DRIFTED = 3

    @property
    def word(self) -> str:
        """The answer as people read it."""
        return self.name.lower()


@dataclass(frozen=True)
class Drift:
    """A resource that is not as it was made.

    Attributes:
        urn: Which one.
        change: `update` where it differs, `delete` where it is gone.
        properties: Paths that differ. Values are left out, since some are secret.
    """

    urn: str
    change: str
    properties: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """What was found of one stack; `reason` says why where the answer is unknown."""

    answer: Answer
    stack: str
    resources: int
    drifts: tuple[Drift, ...] = ()
    reason: str = ""

    def report(self) -> dict[str, object]:
        """Return the look as JSON has it."""
        drifts = [asdict(drift) for drift in self.drifts]
        return {**asdict(self), "answer": self.answer.word, "drifts": drifts}


class _Seen:
    """Collects what the engine says of each resource; `ignored` has the paths that may change, by URN."""

    def __init__(self, ignored: Mapping[str, Sequence[str]]) -> None:
        self._ignored = ignored
        self.looked_at: set[str] = set()
        self.drifts: list[Drift] = []
        self.errors: list[str] = []

    @property
    def reason(self) -> str:
        """What went wrong, each thing once: one missing permission fails every resource."""
        return "; ".join(dict.fromkeys(self.errors))

    def __call__(self, event: EngineEvent) -> None:
        diagnostic = event.diagnostic_event
        if diagnostic is not None and diagnostic.severity == "error":
            self.errors.append(diagnostic.message.strip())
        if event.res_outputs_event is None:
            return
        step = event.res_outputs_event.metadata
        self.looked_at.add(step.urn)
        if step.op in _UNCHANGED:
            return
        changed = sorted(step.detailed_diff or step.diffs or ())
        counted = [path for path in changed if not _within(path, self._ignored.get(step.urn, ()))]
        if counted or not changed:
            self.drifts.append(Drift(step.urn, str(step.op.value), tuple(counted)))


def look(stack: automation.Stack) -> Look:
    """Compare a stack with the cloud.

    Args:
        stack: A stack that exists; its program is not run.
    """
    try:
        state = stack.export_stack().deployment or {}
        # The engine asks providers about custom resources alone; the others are nothing in a cloud.
        kept = {each["urn"]: each for each in state.get("resources") or () if each["custom"]}
        if not kept:
            return Look(Answer.UNKNOWN, stack.name, 0, reason="the stack has no resources")
        if state.get("pending_operations"):
            reason = "an update broke off; `pulumi refresh` tells what became of it"
            return Look(Answer.UNKNOWN, stack.name, len(kept), reason=reason)
        seen = _Seen({urn: each.get("ignoreChanges") or () for urn, each in kept.items()})
        try:
            stack.preview_refresh(on_event=seen, color="never")
        except automation.CommandError as error:
            reason = seen.reason or _last_line(error)
            return Look(Answer.UNKNOWN, stack.name, len(kept), tuple(seen.drifts), reason)
    except automation.CommandError as error:
        return Look(Answer.UNKNOWN, stack.name, 0, reason=_last_line(error))
    missed = kept.keys() - seen.looked_at
    if seen.errors or missed:
        reason = seen.reason or f"{len(missed)} of {len(kept)} resources were not looked at"
        return Look(Answer.UNKNOWN, stack.name, len(kept), tuple(seen.drifts), reason)
    answer = Answer.DRIFTED if seen.drifts else Answer.CLEAN
    return Look(answer, stack.name, len(kept), tuple(seen.drifts))


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at the stack that the command line names, say what was found, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kos_infra.drift", description=__doc__.partition("\n")[0])
    parser.add_argument("--stack", required=True, help="name of the stack")
    parser.add_argument(
        "--program", type=Path, default=Path(), help="the program's folder (default: this one)"
    )
    parser.add_argument("--json", action="store_true", help="print one object instead of sentences")
    chosen = parser.parse_args(arguments)
    if not (chosen.program / "Pulumi.yaml").is_file():
        parser.error(f"--program: {chosen.program} has no Pulumi.yaml, so it is no program")
    try:
        found = look(automation.select_stack(chosen.stack, work_dir=str(chosen.program)))
    except automation.CommandError as error:
        found = Look(Answer.UNKNOWN, chosen.stack, 0, reason=_last_line(error))
    except FileNotFoundError:
        found = Look(Answer.UNKNOWN, chosen.stack, 0, reason="the command pulumi is not on PATH")
    if chosen.json:
        print(json.dumps(found.report(), indent=2))
    else:
        print("\n".join(_sentences(found)))
    return found.answer.value


def _sentences(found: Look) -> list[str]:
    of = f"{found.stack}: {found.answer.word}, {len(found.drifts)} of {found.resources} resources drifted"
    return [
        f"{of}; {found.reason}" if found.reason else of,
        *(f"  {drift.change} {drift.urn} {', '.join(drift.properties)}".rstrip() for drift in found.drifts),
    ]


def _within(path: str, prefixes: Sequence[str]) -> bool:
    return any(path == prefix or path.startswith((f"{prefix}.", f"{prefix}[")) for prefix in prefixes)


def _last_line(error: Exception) -> str:
    lines = [
        line.strip() for line in str(error).splitlines() if line.strip() not in ("", "stderr:", "stdout:")
    ]
    return lines[-1].removeprefix("stderr: ").removeprefix("error: ") if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
