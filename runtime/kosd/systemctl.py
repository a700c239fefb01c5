"""Asks systemd about units: one `systemctl show` for all of them, which needs no rights."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "MainPID",
    "ExecMainStatus",
    "ExecMainStartTimestampMonotonic",
    "StateChangeTimestampMonotonic",
    "MemoryCurrent",
    "TasksCurrent",
)
MAX_OUTPUT_BYTES = 1 << 20
# systemd's way to say that a counter is not there.
NOT_SET = 2**64 - 1


class SystemctlError(Exception):
    """systemd could not be asked; the text says why."""


@dataclass(frozen=True)
class Shown:
    """What systemd says of one unit; times in microseconds of the monotonic clock, None for never."""

    id: str
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    restarts: int = 0
    main_pid: int | None = None
    exit_status: int = 0
    started_usec: int | None = None
    changed_usec: int | None = None
    memory_bytes: int | None = None
    tasks: int | None = None


async def show(names: Sequence[str], timeout_s: float) -> dict[str, Shown]:
    """Returns what systemd says of each named unit; raises SystemctlError when it does not answer in time."""
    if not names:
        return {}
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "SYSTEMD_COLORS": "0"}
    command = ("systemctl", "show", "--no-pager", f"--property={','.join(PROPERTIES)}", "--", *names)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            limit=MAX_OUTPUT_BYTES,
        )
    except OSError as error:
        raise SystemctlError(f"systemctl cannot be started: {error.strerror}") from None
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout_s)
    except asyncio.TimeoutError:
        raise SystemctlError(f"systemctl gave no answer within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        reason = err.decode("utf-8", "replace").strip().splitlines()
        raise SystemctlError(
            f"systemctl ended with {process.returncode}: {reason[-1] if reason else 'no message'}"
        )
    answers = parse(out.decode("utf-8", "replace"))
    silent = [name for name in names if name not in answers]
    if silent:
        raise SystemctlError(f"systemctl said nothing of {', '.join(silent)}")
    return answers


def parse(text: str) -> dict[str, Shown]:
    """Reads the blocks of `KEY=VALUE` lines, one for each unit, that `systemctl show` writes."""
    answers = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" not in values:
            continue
        answers[values["Id"]] = Shown(
            id=values["Id"],
            load=values.get("LoadState", "not-found"),
            active=values.get("ActiveState", "inactive"),
            sub=values.get("SubState", "dead"),
            result=values.get("Result", "success"),
            restarts=_number(values, "NRestarts") or 0,
            main_pid=_number(values, "MainPID") or None,
            exit_status=_number(values, "ExecMainStatus") or 0,
            started_usec=_number(values, "ExecMainStartTimestampMonotonic") or None,
            changed_usec=_number(values, "StateChangeTimestampMonotonic") or None,
            memory_bytes=_number(values, "MemoryCurrent"),
            tasks=_number(values, "TasksCurrent"),
        )
    return answers


def _number(values: dict[str, str], key: str) -> int | None:
    text = values.get(key, "")
    return int(text) if text.isdigit() and int(text) != NOT_SET else None
