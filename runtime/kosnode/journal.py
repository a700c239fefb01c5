"""Append-only files of one JSON object a line that survive a power cut, and the journal made of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import boot, files
from .errors import InputError

MAX_LINE = 64 * 1024


class JsonLines:
    """One file of JSON lines, each fsynced when it is appended.

    A last line that a power cut tore is not read, and is cut off by the next append. A damaged line in the
    middle is left out and counted.

    Args:
        path: the file; its directory is made when it is first written.
        mode: permission bits of a new file.
    """

    def __init__(self, path: Path, *, mode: int = 0o644) -> None:
        self.path = path
        self._mode = mode

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one entry, durably.

        Raises:
            InputError: the entry is larger than MAX_LINE or not canonical JSON.
            OSError: the disk is full or broken; what was written in part is cut off later.
        """
        line = files.canonical(dict(entry)) + b"\n"
        if len(line) > MAX_LINE:
            raise InputError(
                f"an entry of {self.path.name} has {len(line)} bytes, at most {MAX_LINE} are allowed"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, self._mode)
        try:
            end = _whole_length(descriptor)
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            while line:
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            files.fsync_directory(self.path.parent)

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines, without their ends, oldest first."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        whole, newline, _ = data.rpartition(b"\n")
        if newline:
            yield from whole.split(b"\n")

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries, oldest first; damaged lines are left out."""
        for line in self.lines():
            entry = _parse(line)
            if entry is not None:
                yield entry

    def last(self) -> dict[str, Any] | None:
        """Return the newest entry that can be read, from the end of the file alone."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - 4 * MAX_LINE))
                block = stream.read()
        except FileNotFoundError:
            return None
        for line in reversed(block.split(b"\n")[:-1]):
            entry = _parse(line)
            if entry is not None:
                return entry
        return None

    def damaged(self) -> int:
        """Return how many whole lines cannot be read."""
        return sum(1 for line in self.lines() if _parse(line) is None)


class Journal:
    """The state machine's memory: `journal.jsonl` and the files it was rotated into.

    The caller holds the node's lock while it appends.

    Args:
        path: of the newest file; older ones are `journal.1.jsonl` (newest) and so on.
        clock: times and boot of each entry.
        max_bytes: size from which a new file is begun.
        keep: how many rotated files stay.
    """

    def __init__(self, path: Path, clock: boot.Clock, *, max_bytes: int = 1 << 20, keep: int = 4) -> None:
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._keep = keep

    def append(self, state: str, **fields: Any) -> dict[str, Any]:
        """Write one entry with the next number, the time and the boot; returns it.

        Args:
            state: FETCHED, VERIFIED, TRIAL, CONFIRMED or REVERTED.
            fields: release, name, version and what else belongs to it; None leaves a field out.
        """
        last = self.last()
        entry: dict[str, Any] = {
            "seq": 1 if last is None else int(last["seq"]) + 1,
            "time": boot.text(self._clock.now()),
            "boot": self._clock.boot(),
            "boottime": int(self._clock.boottime()),
            "state": state,
            **{key: value for key, value in fields.items() if value is not None},
        }
        self._rotate()
        JsonLines(self._path).append(entry)
        return entry

    def entries(self) -> list[dict[str, Any]]:
        """Return all entries that are kept, oldest first."""
        return [entry for path in self._files() for entry in JsonLines(path).entries() if _is_entry(entry)]

    def last(self, *states: str) -> dict[str, Any] | None:
        """Return the newest entry (of one of the states, where any are given)."""
        for path in reversed(self._files()):
            found = [
                e for e in JsonLines(path).entries() if _is_entry(e) and (not states or e["state"] in states)
            ]
            if found:
                return found[-1]
        return None

    def of_trial(self, trial: str, state: str) -> dict[str, Any] | None:
        """Return the entry of a trial in a state, if it was written."""
        found = [one for one in self.entries() if one.get("trial") == trial and one["state"] == state]
        return found[-1] if found else None

    def damaged(self) -> int:
        """Return how many lines cannot be read."""
        return sum(JsonLines(path).damaged() for path in self._files())

    def _files(self) -> list[Path]:
        rotated = [self._rotated(number) for number in range(self._keep, 0, -1)]
        return [path for path in (*rotated, self._path) if path.exists()]

    def _rotated(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{number}{self._path.suffix}")

    def _rotate(self) -> None:
        if not self._path.exists() or self._path.stat().st_size < self._max_bytes:
            return
        # From the oldest on: killed between two renames, there is a gap in the numbers and nothing lost.
        for number in range(self._keep - 1, 0, -1):
            if self._rotated(number).exists():
                self._rotated(number).replace(self._rotated(number + 1))
        self._path.replace(self._rotated(1))
        files.fsync_directory(self._path.parent)


def _whole_length(descriptor: int) -> int:
    """Return where the last whole line ends."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - MAX_LINE)
        block = os.pread(descriptor, end - start, start)
        found = block.rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = files.parse(line, limit=MAX_LINE)
    except InputError:
        return None
    return entry if isinstance(entry, dict) else None


def _is_entry(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("seq"), int) and isinstance(entry.get("state"), str)
