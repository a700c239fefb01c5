# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own notes of the leases that its rollouts hold, so that a later run can give them back."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import typing as t
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ansible_collections.kos.fleet.plugins.plugin_utils import _whole_file


class StillRunsError(Exception):
    """A rollout of these nodes has not ended; the message names its process."""


@dataclass(frozen=True)
class Record:
    """A rollout of this controller.

    Args:
        id: of its lease.
        pid: process of its run.
        started: when that process began, in the kernel's own words, so that a later one is not taken for it.
        nodes: those that may hold the lease, or one in `left`.
        left: leases of earlier rollouts that were broken off.
    """

    id: str
    pid: int
    started: str
    nodes: tuple[str, ...]
    left: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether its process lives."""
        return _started(self.pid) == self.started


@dataclass(frozen=True)
class Begun:
    """A rollout that may begin.

    Args:
        path: of its note.
        left: leases of broken off rollouts that its nodes may still hold, and that are ours to give back.
    """

    path: Path
    left: tuple[str, ...]


def begin(
    folder: Path, sources: Iterable[str], lease_id: str, nodes: Sequence[str], pid: int, *, write: bool
) -> Begun:
    """Note that a rollout begins, and what rollouts of the same nodes that were broken off have left.

    Rollouts from this host with the same sources of the inventory see each other's notes. One of other nodes
    may run at the same time.

    Args:
        folder: of the notes.
        sources: of the inventory.
        lease_id: of its lease.
        nodes: those that it leases.
        pid: process of the run.
        write: whether the note is written; a check only looks.

    Raises:
        StillRunsError: a run lives that has some of the nodes, or the same lease.
        OSError: the note cannot be written.
    """
    key = json.dumps([socket.gethostname(), sorted(sources)])
    prefix = f"rollout-{_digest(key)}"
    path = folder / f"{prefix}-{_digest(lease_id)}.json"
    if not write:
        return Begun(path, _next(folder, prefix, lease_id, nodes, pid)[0].left)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        record, taken_over = _next(folder, prefix, lease_id, nodes, pid)
        _write(path, record)
        for other, rest in taken_over.items():
            if other != path:
                _keep(other, rest)
    return Begun(path, record.left)


def end(path: Path, lease_id: str, returned: Iterable[str]) -> None:
    """Note which nodes gave the lease back; the note goes when all have."""
    if not path.exists():
        return
    with _locked(path.parent):
        record = _read(path)
        if record is not None and record.id == lease_id:
            _keep(path, replace(record, nodes=_without(record.nodes, returned)))


def _next(
    folder: Path, prefix: str, lease_id: str, nodes: Sequence[str], pid: int
) -> tuple[Record, dict[Path, Record]]:
    """Return the note of a rollout, and what is left of those from which it takes nodes over."""
    left: dict[str, None] = {}
    taken_over = {}
    before: tuple[str, ...] = ()
    for path in sorted(folder.glob(f"{prefix}-*.json")):
        record = _read(path)
        if record is None:
            continue
        shared = [node for node in record.nodes if node in nodes]
        if record.runs and record.pid != pid and (shared or record.id == lease_id):
            raise StillRunsError(
                f"a rollout of this controller still runs on {', '.join(shared or record.nodes)} "
                f"(process {record.pid}, lease {record.id}, noted in {path}); wait until it ends, or stop "
                "it, and run the same command again"
            )
        if record.id == lease_id:
            before = record.nodes
        if record.id == lease_id or shared:
            left.update(dict.fromkeys((record.id, *record.left)))
            taken_over[path] = replace(record, nodes=_without(record.nodes, nodes))
    left.pop(lease_id, None)
    whole = tuple(dict.fromkeys((*before, *nodes)))
    return Record(lease_id, pid, _started(pid), whole, tuple(left)), taken_over


def _without(nodes: Sequence[str], others: Iterable[str]) -> tuple[str, ...]:
    gone = set(others)
    return tuple(node for node in nodes if node not in gone)


def _keep(path: Path, record: Record) -> None:
    """Write a note down; one of no nodes goes."""
    if record.nodes:
        _write(path, record)
    else:
        path.unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


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
        nodes, left = (tuple(str(one) for one in value[key]) for key in ("nodes", "left"))
        return Record(str(value["id"]), int(value["pid"]), str(value["started"]), nodes, left)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, record: Record) -> None:
    _whole_file.write(path, (json.dumps(asdict(record), indent=1) + "\n").encode())
