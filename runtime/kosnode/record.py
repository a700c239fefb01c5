"""What is written down of a trial: `trial` for the shell, `trial.json` for kosctl, `outcome` of a revert."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from . import files
from .errors import DamagedError, InputError

NONE = "none"
REASONS = ("health", "deadline", "reboot", "operator", "interrupted")
MAX_BYTES = 256 * 1024

_VALUE = re.compile(r"[A-Za-z0-9._:/ -]*")
_ROOT = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


@dataclass(frozen=True)
class Trial:
    """The file `trial`: all that `fallback` needs to end it, as text that a shell reads line by line.

    Args:
        id: names the evidence as well.
        release: root of the release on trial.
        previous: root of the release to go back to, or `none`.
        boot: identity of the boot in which it began.
        started: seconds of CLOCK_BOOTTIME.
        deadline: seconds of CLOCK_BOOTTIME.
        restart: systemd's names of units of `previous` to restart on a revert.
        stop: those to stop, which only `release` has.
        migrates: kOS names of the units whose state was copied.
    """

    id: str
    release: str
    previous: str
    boot: str
    started: int
    deadline: int
    restart: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    migrates: tuple[str, ...] = ()

    def text(self) -> bytes:
        """Return the file's bytes; raises InputError for a value that a shell could misread."""
        lines = ["format=1"]
        for one in fields(self):
            value = getattr(self, one.name)
            shown = " ".join(value) if isinstance(value, tuple) else str(value)
            if not _VALUE.fullmatch(shown):
                raise InputError(
                    f"trial: {one.name} holds a character that fallback does not take: {shown!r}"
                )
            lines.append(f"{one.name}={shown}")
        return ("\n".join(lines) + "\n").encode()


def read_trial(path: Path) -> Trial | None:
    """Read `trial`; None where no trial runs.

    Raises:
        DamagedError: it is there and is not a trial.
    """
    values = _read_lines(path)
    if values is None:
        return None
    try:
        trial = Trial(
            id=values["id"],
            release=values["release"],
            previous=values["previous"],
            boot=values["boot"],
            started=int(values["started"]),
            deadline=int(values["deadline"]),
            restart=tuple(values["restart"].split()),
            stop=tuple(values["stop"].split()),
            migrates=tuple(values["migrates"].split()),
        )
    except (KeyError, ValueError):
        raise _damaged(path) from None
    roots = [trial.release] if trial.previous == NONE else [trial.release, trial.previous]
    names = (*trial.restart, *trial.stop, *trial.migrates)
    good = all(map(_ROOT.fullmatch, roots)) and all(map(_UNIT.fullmatch, names))
    if values.get("format") != "1" or not _ID.fullmatch(trial.id) or not good:
        raise _damaged(path)
    return trial


@dataclass(frozen=True)
class Outcome:
    """The file `outcome`: what `fallback` did.

    Args:
        complete: whether it came to its end.
        at: seconds of CLOCK_BOOTTIME.
        down_s: seconds from the first stop to the last start, as fallback saw it; None over a boot.
        failed: what systemd did not do.
    """

    id: str
    release: str
    previous: str
    reason: str
    detail: str
    complete: bool
    boot: str
    at: float
    down_s: float | None
    failed: tuple[str, ...]


def read_outcome(path: Path) -> Outcome | None:
    """Read `outcome`; None where there is none, or where a full disk left only a part of it."""
    values = _read_lines(path)
    if values is None:
        return None
    try:
        span = [float(values[key]) if values.get(key) else None for key in ("down_from", "down_to")]
        outcome = Outcome(
            id=values["id"],
            release=values["release"],
            previous=values["previous"],
            reason=values["reason"],
            detail=values.get("detail", ""),
            complete=values["complete"] == "yes",
            boot=values.get("boot", ""),
            at=float(values.get("at") or 0),
            down_s=None if span[0] is None or span[1] is None else round(span[1] - span[0], 2),
            failed=tuple(values.get("failed", "").split()),
        )
    except (KeyError, ValueError):
        return None
    return outcome if outcome.reason in REASONS and _ID.fullmatch(outcome.id) else None


@dataclass(frozen=True)
class Details:
    """The file `trial.json`: what only kosctl needs. The token itself is written nowhere.

    Args:
        token_sha256: of the token that confirms.
        bake_s: seconds of health that a confirmation needs.
        bytes: fetched for this release.
        began_ms: CLOCK_BOOTTIME when the switch began.
        switched_ms: and when it was done; None until then. A session that confirms is younger.
        downtime_ms: the longest that a unit was away.
        restarted: systemd's names of what the switch restarted.
        restart: as in the trial, kept beyond its end for `running.json`.
        stop: likewise.
    """

    id: str
    release: str
    name: str
    version: str
    previous: str
    token_sha256: str
    bake_s: int
    deadline_s: int
    lease: str | None
    bytes: int
    began_ms: int
    who: Mapping[str, Any]
    switched_ms: int | None = None
    downtime_ms: int | None = None
    restarted: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write the file, durably, readable to root alone."""
        value: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        value["who"] = dict(self.who)
        files.write_durable(path, files.canonical({"format": 1, **value}), mode=0o600)


def read_details(path: Path) -> Details | None:
    """Read `trial.json`; None where it is missing or unreadable: the trial then ends as interrupted."""
    try:
        value = files.read_json(path, limit=MAX_BYTES)
        if value.pop("format") != 1:
            return None
        for key in ("restarted", "restart", "stop"):
            value[key] = tuple(value[key])
        return Details(**value)
    except (OSError, InputError, KeyError, TypeError, AttributeError):
        return None


def _read_lines(path: Path) -> dict[str, str] | None:
    try:
        text = path.read_bytes()[:MAX_BYTES].decode("ascii", "replace")
    except FileNotFoundError:
        return None
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value for key, _, value in pairs}


def _damaged(path: Path) -> DamagedError:
    return DamagedError(f"{path} is damaged: nothing is changed before it is looked at (docs/guide, 3 a.m.)")
