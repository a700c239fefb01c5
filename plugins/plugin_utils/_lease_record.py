# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own note of the lease that its rollout holds, so that the next run can take it up."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import typing as t
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


class StillRunsError(Exception):
    """The rollout that is noted has not ended; the message names its process."""


@dataclass(frozen=True)
class Record:
    """A rollout of this controller.

    Args:
        id: of its lease.
        pid: process of its run.
        started: when that process began, in the kernel's own words, so that a later one is not taken for it.
        nodes: those that may hold the lease.
    """

    id: str
    pid: int
    started: str
    nodes: tuple[str, ...]


def place(folder: Path, sources: Iterable[str]) -> Path:
    """Return the file for rollouts from this host with these sources of the inventory."""
    key = json.dumps([socket.gethostname(), sorted(sources)])
    return folder / f"rollout-{hashlib.sha256(key.encode('utf-8')).hexdigest()[:12]}.json"


def begin(path: Path, wish: str | None, new: str, nodes: Sequence[str], pid: int, *, write: bool) -> str:
    """Note that a rollout begins, and return the id of its lease: that of one that was broken off, if any.

    Args:
        path: of the note.
        wish: an id that a person named, which goes before.
        new: the id where there is neither.
        nodes: those that the rollout leases.
        pid: process of the run.
        write: whether the note is written; a check only looks.

    Raises:
        StillRunsError: the run that is noted lives.
        OSError: the note cannot be written.
    """
    if not write:
        return _next(path, wish, new, nodes, pid).id
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        record = _next(path, wish, new, nodes, pid)
        _write(path, record)
    return record.id


def end(path: Path, lease_id: str, returned: Iterable[str]) -> None:
    """Note which nodes gave the lease back; the note goes when all have."""
    if not path.exists():
        return
    with _locked(path.parent):
        record = _read(path)
        if record is None or record.id != lease_id:
            return
        left = tuple(node for node in record.nodes if node not in set(returned))
        if left:
            _write(path, Record(record.id, record.pid, record.started, left))
        else:
            path.unlink(missing_ok=True)


def _next(path: Path, wish: str | None, new: str, nodes: Sequence[str], pid: int) -> Record:
    there = _read(path)
    if there is not None and there.pid != pid and _started(there.pid) == there.started:
        raise StillRunsError(
            f"a rollout of this controller still runs (process {there.pid}, lease {there.id}, "
            f"noted in {path}); wait until it ends, or stop it, and run the same command again"
        )
    lease_id = wish or (there.id if there is not None else new)
    before = there.nodes if there is not None and there.id == lease_id else ()
    return Record(lease_id, pid, _started(pid), tuple(dict.fromkeys((*before, *nodes))))


def _started(pid: int) -> str:
    """When a process began; `unknown` where the system does not tell, empty where there is none."""
    try:
        # Field 22 of proc(5) stat; the name before it is in parentheses and may hold anything.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "unknown"
    return "unknown"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> Record | None:
    """The note; one that cannot be read is none."""
    try:
        value: t.Any = json.loads(path.read_text(encoding="utf-8"))
        nodes = tuple(str(node) for node in value["nodes"])
        return Record(str(value["id"]), int(value["pid"]), str(value["started"]), nodes)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, record: Record) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)
