"""The audit log: who changed what, when and from where, each line bound to the one before it by its hash."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import boot, files
from .errors import DamagedError, InputError
from .journal import JsonLines

FIRST = "0" * 64


class Audit:
    """A hash-chained file of JSON lines.

    Each line holds `prev`, the hash of the line before it, and `hash`, the SHA3-256 of its own canonical form
    without `hash`. What is changed, removed or put in later in the middle breaks the chain. Cutting off the
    end shows only against a copy elsewhere.

    Args:
        path: the log.
        clock: for the time of each line.
    """

    def __init__(self, path: Path, clock: boot.Clock) -> None:
        self._path = path
        self._clock = clock
        self._log = JsonLines(path, mode=0o640)

    def append(self, what: Mapping[str, Any], who: Mapping[str, Any]) -> None:
        """Write one line, durably.

        Args:
            what: verb, options and outcome; never a secret.
            who: as `caller` gives it.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with (self._path.parent / f".{self._path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            last = self._log.last()
            prev = FIRST if last is None else str(last.get("hash", FIRST))
            entry = {"time": boot.text(self._clock.now()), "who": dict(who), "what": dict(what), "prev": prev}
            self._log.append({**entry, "hash": _hash(entry)})

    def verify(self) -> int:
        """Follow the chain; returns how many lines it has.

        Raises:
            DamagedError: names the first line that does not fit.
        """
        prev = FIRST
        count = 0
        for count, raw in enumerate(self._log.lines(), 1):
            try:
                entry = files.parse(raw)
                claimed = entry.pop("hash")
                fits = entry["prev"] == prev and claimed == _hash(entry)
            except (InputError, KeyError, AttributeError, TypeError):
                fits = False
                claimed = ""
            if not fits:
                raise DamagedError(f"{self._path}: line {count} does not follow from the one before it")
            prev = claimed
        return count


def caller(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return who calls: account, uid, the account behind sudo, and the address the connection came from."""
    env = os.environ if environ is None else environ
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    who: dict[str, Any] = {"user": name, "uid": uid}
    if env.get("SUDO_USER"):
        who["sudo_user"] = _plain(env["SUDO_USER"])
    # Where the connection is from; sudo drops the variable, and then only the account is known.
    if env.get("SSH_CONNECTION"):
        who["from"] = _plain(env["SSH_CONNECTION"].split(" ")[0])
    return who


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() and letter.isascii())[:128]


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha3_256(files.canonical(dict(entry))).hexdigest()
