"""The audit log: who changed what, when and from where, each line bound to the one before it by its hash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import boot, files
from .errors import DamagedError, InputError
from .journal import JsonLines

FIRST = "0" * 64


class Audit:
    """A hash-chained log of JSON lines, in one file and those that it was rotated into.

    Each line holds `prev`, the hash of the line before it, and `hash`, the SHA3-256 of its own canonical form
    without `hash`. What is changed, removed or put in later in the middle breaks the chain, which goes on
    from one file to the next. Cutting off the end shows only against a copy elsewhere.

    Args:
        path: of the newest file; older ones are `audit.jsonl.1` (newest) and so on.
        clock: for the time of each line.
        max_bytes: size from which a new file is begun.
        keep: how many rotated files stay.
    """

    def __init__(self, path: Path, clock: boot.Clock, *, max_bytes: int = 4 << 20, keep: int = 4) -> None:
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._rotated = [path.with_name(f"{path.name}.{number}") for number in range(1, keep + 1)]

    def append(self, what: Mapping[str, Any], who: Mapping[str, Any]) -> None:
        """Write one line, durably.

        Args:
            what: verb, options and outcome; never a secret.
            who: as `caller` gives it.
        """
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._rotate()
            last = next(filter(None, (JsonLines(path).last() for path in reversed(self.files()))), None)
            prev = FIRST if last is None else str(last.get("hash", FIRST))
            entry = {"time": boot.text(self._clock.now()), "who": dict(who), "what": dict(what), "prev": prev}
            JsonLines(self._path, mode=0o640).append({**entry, "hash": _hash(entry)})

    def files(self) -> list[Path]:
        """Return the files of the log that are there, oldest first."""
        return [path for path in (*reversed(self._rotated), self._path) if path.exists()]

    def newest(self, count: int) -> list[dict[str, Any]]:
        """Return up to `count` of the newest entries, oldest first; damaged lines are left out."""
        with self._held():
            entries = [entry for path in self.files() for entry in JsonLines(path).entries()]
        return entries[-count:]

    def verify(self) -> int:
        """Follow the chain through all files; returns how many lines it has.

        Raises:
            DamagedError: names the file and the first line that does not fit.
        """
        with self._held():
            kept = self.files()
            # The first file may go on from one that is gone only where so many are kept that one had to go.
            prev = FIRST if len(kept) < len(self._rotated) else None
            total = 0
            for path in kept:
                for count, raw in enumerate(JsonLines(path).lines(), 1):
                    prev = _follow(raw, prev)
                    if prev is None:
                        raise DamagedError(f"{path}: line {count} does not follow from the one before it")
                    total += 1
        return total

    def _rotate(self) -> None:
        if not self._path.exists() or self._path.stat().st_size < self._max_bytes:
            return
        # Up to a name that is free, as there is after a rotation that was killed; else the oldest file goes.
        free = next((path for path in self._rotated if not path.exists()), self._rotated[-1])
        places = [self._path, *self._rotated[: self._rotated.index(free) + 1]]
        for newer, older in reversed(list(pairwise(places))):
            newer.replace(older)
            # Else a power cut could keep the second of two names and lose the first.
            files.fsync_directory(self._path.parent)

    @property
    def _lock_file(self) -> Path:
        return self._path.parent / f".{self._path.name}.lock"

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold off who appends and rotates while the files are read."""
        with contextlib.ExitStack() as stack:
            # There is none where nothing was ever written here, as on a node that was restored.
            with contextlib.suppress(FileNotFoundError):
                fcntl.flock(stack.enter_context(self._lock_file.open("rb")), fcntl.LOCK_SH)
            yield


def _follow(raw: bytes, prev: str | None) -> str | None:
    """Return the hash of a line that follows from the one before it (None: from any), else None."""
    try:
        entry = files.parse(raw)
        claimed = str(entry.pop("hash"))
        fits = prev in (None, entry["prev"]) and claimed == _hash(entry)
    except (InputError, KeyError, AttributeError, TypeError):
        return None
    return claimed if fits else None


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
