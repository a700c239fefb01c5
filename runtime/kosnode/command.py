"""What every command of kosctl answers: the envelope, the exit code, and the line in the audit log."""

from __future__ import annotations

import errno
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import DiskError, KosError

INTERRUPTED = 130
TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM came: what is under way is left to `recover`, the dead-man and the next boot."""


@dataclass(frozen=True)
class Result:
    """What a verb did.

    Args:
        result: for `--json`.
        changed: whether anything was changed.
        actions: one sentence for each thing done.
        text: the same for a person; the actions where it is empty.
    """

    result: Mapping[str, Any] = field(default_factory=dict)
    changed: bool = False
    actions: Sequence[str] = ()
    text: str = ""


@dataclass
class Answer:
    """The envelope of docs/architecture.md, and what a person reads."""

    envelope: dict[str, Any]
    text: str = ""

    @property
    def exit(self) -> int:
        return int(self.envelope["exit"])

    def json(self) -> str:
        # ASCII alone: whatever a person typed, and whatever the terminal can show, the answer is one object.
        return json.dumps(self.envelope, sort_keys=True, allow_nan=False)


def answer(
    verb: str,
    work: Callable[[], Result],
    *,
    status: Callable[[], Mapping[str, Any] | None],
    debug: bool = False,
) -> Answer:
    """Do the work of a verb and make the answer of it; this is the one place where errors become words.

    Args:
        verb: as it was asked.
        work: does it.
        status: tells what the node runs afterwards; None where that is not known.
        debug: print the traceback of what is unexpected.
    """
    envelope: dict[str, Any] = {
        "ok": True,
        "verb": verb,
        "exit": 0,
        "changed": False,
        "actions": [],
        "result": {},
        "error": None,
    }
    text = ""
    try:
        done = work()
        envelope.update(changed=done.changed, actions=list(done.actions), result=dict(done.result))
        text = done.text or "\n".join(done.actions) or "nothing to do"
    except KeyboardInterrupt:
        _fail(envelope, INTERRUPTED, "interrupted", "interrupted")
    except Terminated:
        _fail(envelope, TERMINATED, "terminated", "terminated; the next command finishes what was under way")
    except Exception as error:
        if debug:
            traceback.print_exc()
        known = as_known(error)
        _fail(envelope, known.exit_code, known.kind, known.message, known.key)
        envelope["result"] = known.detail
    envelope["status"] = _quietly(status)
    return Answer(envelope, text)


def as_known(error: Exception) -> KosError:
    """Return the error as one with an exit code: a full disk is one, anything else unexpected has exit 1."""
    if isinstance(error, KosError):
        return error
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskError(f"{where}the disk is full")
        return KosError(f"{where}{error.strerror or error}")
    return KosError(f"unexpected {type(error).__name__}: {error} (--debug shows where)")


def _fail(envelope: dict[str, Any], code: int, kind: str, message: str, key: str | None = None) -> None:
    envelope.update(ok=False, exit=code, error={"kind": kind, "message": message, "key": key})


def _quietly(status: Callable[[], Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    try:
        return status()
    except Exception as error:
        # Whatever it is, the answer to what was asked is known, and counts.
        print(f"the node's state cannot be told: {error}", file=sys.stderr)
        return None
