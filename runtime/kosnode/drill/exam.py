"""Examines one source at one point, by what a restore uses: chosen, fetched, compared, rebuilt, checked."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import boot, disk
from ..backup import methods
from ..backup.account import Account
from ..backup.config import SourceSpec
from ..backup.manifest import Entry
from ..backup.memory import Trail
from ..backup.places import Places
from ..backup.restic import Restic
from ..backup.source import Finding, Restored, Root, Source
from ..errors import InputError, KosError, NotFoundError, RefusedError, UntestedError
from ..paths import NodePaths
from ..restore.choose import Chosen, Wish, choose
from ..restore.fetch import fetch, places_in, settle
from ..restore.restoring import check
from . import isolation, remarks
from .places import DrilledPaths
from .remarks import FAILED, Remark

PHASES = ("choose", "fetch", "compare", "rebuild", "check")
NEWEST, TIME = "newest", "time"


@dataclass
class Exam:
    """What became of one source at one point.

    Args:
        kind: NEWEST or TIME.
        chosen: the snapshot; None where there was none to be had.
        until: the time that a database was taken back to; None is all that the snapshot has.
        ms: milliseconds by phase.
    """

    source: str
    kind: str
    chosen: Chosen | None = None
    until: datetime | None = None
    remarks: list[Remark] = field(default_factory=list)
    ms: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    files: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("expected", "restored", "missing", "extra", "different"), 0)
    )
    bytes: int = 0

    @property
    def outcome(self) -> str:
        return remarks.outcome(self.remarks)

    @property
    def chosen_id(self) -> str | None:
        """The id of the snapshot."""
        return None if self.chosen is None else self.chosen.snapshot.id

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of a block, and turn an error in it into a remark."""
        began = time.monotonic()
        try:
            yield
        except (KosError, OSError) as error:
            self.remarks.append(remarks.of_error(error, self.source))
        finally:
            self.ms[name] += round((time.monotonic() - began) * 1000)

    def forget_entries(self) -> None:
        """Let go of the entries of the manifest, which may be a million."""
        if self.chosen is not None:
            self.chosen = replace(self.chosen, manifest=replace(self.chosen.manifest, entries=()))

    def as_json(self) -> dict[str, Any]:
        chosen = self.chosen
        return {
            "kind": self.kind,
            "time": None if chosen is None else _point(chosen, self.until),
            "run": None if chosen is None else chosen.manifest.run,
            "snapshot": None if chosen is None else chosen.snapshot.id,
            "outcome": self.outcome,
            "files": dict(self.files),
            "bytes": self.bytes,
            "ms": dict(self.ms),
            "head": {} if chosen is None else dict(chosen.manifest.heads),
            "witness": "agrees" if chosen is not None and chosen.witnessed else "none",
            "findings": [one.as_json() for one in self.remarks],
        }


@dataclass(frozen=True)
class Copy:
    """What came back of a snapshot, in scratch.

    Args:
        folder: of its own.
        places: `live` as the manifest has the stored root, `stored` where that is now.
        roots: `live` as the node has it.
    """

    chosen: Chosen
    folder: Path
    places: Sequence[Root]

    @property
    def roots(self) -> list[Root]:
        return [
            Root(root.live, place.stored)
            for root, place in zip(self.chosen.manifest.roots, self.places, strict=True)
        ]

    @property
    def entries(self) -> Sequence[Entry]:
        return self.chosen.manifest.entries


@dataclass(frozen=True)
class Known:
    """What is known of a node's snapshots without its repository.

    Args:
        node: its name.
        publics: keys of which one must have signed.
        trail: lines of its witness; None where there is no witness.
    """

    node: str
    publics: Sequence[str]
    trail: Trail | None

    def newest(self, source: str) -> str | None:
        """Return the run whose snapshot is the newest that the witness has of a source."""
        last = None if self.trail is None else self.trail.newest(source)
        return None if last is None else str(last.value["run"])

    def find(self, wish: Wish, restic: Restic) -> Chosen:
        """Find a snapshot and read its manifest; raises as `choose`."""
        lines = [] if self.trail is None else [line.value for line in self.trail.lines]
        mine = [line for line in lines if line["source"] == wish.source]
        chosen = choose(
            wish,
            restic,
            heads={str(line["run"]): line["heads"] for line in mine},
            order=[str(line["snapshot"]) for line in mine],
            trail=self.trail,
            publics=self.publics,
        )
        if chosen.manifest.node != self.node:
            other = chosen.manifest.node
            raise RefusedError(f"run {chosen.manifest.run} is of node {other}, not of {self.node}")
        if self.trail is not None and not chosen.witnessed:
            raise RefusedError(f"the witness knows no snapshot of source {wish.source}", key="witness")
        return chosen


def bring(restic: Restic, chosen: Chosen, folder: Path) -> Copy:
    """Fetch a snapshot into a new folder; raises KosError."""
    disk.remove(folder)
    # The account of a verifier passes through.
    folder.mkdir(mode=0o711)
    places = places_in(chosen.manifest, lambda root: folder)
    fetch(restic, chosen.snapshot.id, chosen.manifest.entries, places)
    return Copy(chosen, folder, places)


def compare(copy: Copy) -> list[Finding]:
    """Compare what came back with its manifest."""
    return settle(copy.chosen.manifest, copy.entries, copy.places)


def source_of(spec: SourceSpec, copy: Copy, sockets: Path) -> Source:
    """Return a source of the drilled node, none of whose own paths is touched."""
    return methods.make(spec, Places(DrilledPaths(_root_of(copy), sockets)))


def check_host(spec: SourceSpec) -> None:
    """Look whether this host has what the source's verification needs.

    Raises:
        UntestedError: an account or the verifier is missing here.
    """
    try:
        if spec.owner is not None:
            Account.named(spec.owner, f"sources.{spec.name}.owner")
    except InputError as error:
        raise UntestedError(error.message, key=error.key) from None
    if spec.verifier and shutil.which(spec.verifier[0]) is None:
        raise UntestedError(
            f"the verifier of {spec.name}, {spec.verifier[0]}, is not on this host",
            key=f"sources.{spec.name}",
        )


def rebuild(source: Source, copy: Copy, until: datetime | None) -> Restored:
    """Make the live form of what came back; raises KosError."""
    scratch = copy.folder / "scratch"
    disk.remove(scratch)
    scratch.mkdir(mode=0o711)
    try:
        return source.rebuild(Restored(copy.roots, copy.chosen.manifest.heads, scratch, until))
    except NotFoundError as error:
        # A program that this host lacks, or a time that the snapshot cannot give.
        raise UntestedError(error.message, key=error.key) from None


def prove(exam: Exam, spec: SourceSpec, copy: Copy, sockets: Path) -> Restored | None:
    """Rebuild and check what came back, cut off from every network; returns what was rebuilt."""
    restored: Restored | None = None
    source = source_of(spec, copy, sockets)
    with exam.phase("rebuild"):
        check_host(spec)
        with isolation.cut_off():
            restored = rebuild(source, copy, exam.until)
    if restored is None:
        return None
    with exam.phase("check"), isolation.cut_off():
        exam.remarks += [remarks.of_finding(one, spec.name) for one in check(source, restored)]
    return restored


def count(exam: Exam, copy: Copy, findings: Sequence[Finding]) -> None:
    """Count what was compared, and remark what is wrong."""
    listed = copy.chosen.manifest
    paths: dict[str, set[str]] = {"missing": set(), "extra": set(), "different": set()}
    for one in findings:
        paths[one.code if one.code in paths else "different"].add(one.path or "")
    exam.files = {
        "expected": len(listed.entries),
        "restored": len(listed.entries) - len(paths["missing"]),
        **{name: len(found) for name, found in paths.items()},
    }
    exam.bytes = listed.size
    exam.remarks += [remarks.of_finding(one, exam.source) for one in findings]
    if listed.lacks:
        exam.remarks.append(
            Remark("lacks", f"the snapshot lacks {len(listed.lacks)} paths that could not be read", FAILED,
                   exam.source, listed.lacks[0])
        )  # fmt: skip


def _point(chosen: Chosen, until: datetime | None) -> str:
    if until is not None:
        return boot.text(until)
    return str(_time_of(chosen.manifest.heads) or chosen.manifest.time)


def _time_of(heads: Mapping[str, Any]) -> str | None:
    found = heads.get("time")
    return found if isinstance(found, str) else None


def _root_of(copy: Copy) -> Path:
    """Return what stood for `/` of the node's own configuration; `/` but in tests and images."""
    if copy.chosen.manifest.method == "node":
        end = os.fspath(NodePaths().node_json)
        for root in copy.chosen.manifest.roots:
            live = os.fspath(root.live)
            if live.endswith(end):
                return Path(live[: -len(end)] or "/")
    return Path("/")
