"""One drill, from an opened repository to all that was found; what is made of it is a report (`reports.py`).

It fetches with the network of the host, and rebuilds and verifies without any.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import boot, disk, files
from ..backup import restic as restic_program
from ..backup.config import SourceSpec
from ..backup.context import progress
from ..backup.kairoschain import LEDGER
from ..backup.memory import Trail
from ..backup.opening import in_memory
from ..backup.source import Restored
from ..backup.trail import Line
from ..backup.witness import connect
from ..errors import DamagedError, InputError, KosError, NotFoundError, UntestedError
from ..ledger import anchor, verifier
from ..restore.choose import Wish
from ..restore.compare import Whereabouts
from ..restore.fetch import below, fetch, places_in
from . import choice, controls, exam, isolation, opening, remarks, scratch
from .choice import Chance
from .controls import Control, OnCopy, Subject
from .exam import NEWEST, TIME, Copy, Exam, Known
from .opening import Opened
from .places import DrillPlaces
from .remarks import NOTE, Remark
from .request import Request, rows
from .scratch import Scratch
from .upstream import Part

# How many times its snapshot the examination of a source takes: what is stored, and what is made of it.
_ROOM = {"sqlite": 3, "postgres": 6}
Read = Mapping[str, Sequence[Part]]


@dataclass
class Examined:
    """A source that was drilled.

    Args:
        record: time of its last verified record, and what that is.
    """

    spec: SourceSpec
    points: list[Exam]
    record: tuple[datetime, str] | None = None

    @property
    def outcome(self) -> str:
        return remarks.outcome(one for point in self.points for one in point.remarks)


@dataclass
class Found:
    """All that a drill found.

    Args:
        total_bytes: of the newest snapshots of all sources that are backed up.
    """

    restic: str = ""
    repository: str | None = None
    access: str = "proxy"
    writes_refused: int = 0
    isolated: bool = False
    reason: str | None = None
    table: str = "request"
    drilled: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    sources: list[Examined] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    total_bytes: int = 0

    @property
    def all_remarks(self) -> list[Remark]:
        """Of the drill, its points and its controls."""
        of_points = [one for source in self.sources for point in source.points for one in point.remarks]
        of_controls = [remark for one in self.controls if (remark := one.remark()) is not None]
        return [*self.remarks, *of_points, *of_controls]


class Drilling:
    """One drill, in a process of its own.

    Args:
        request: what is asked for.
        places: of the host.
        scratch: of this drill; it is there, and removed by who made it.
    """

    def __init__(self, request: Request, places: DrillPlaces, scratch: Scratch) -> None:
        self._request = request
        self._places = places
        self._scratch = scratch
        self._chance = Chance(request.seed, f"{request.node}\n{request.repository.name}")
        self._found = Found()
        self._newest: dict[str, Exam] = {}
        self._read: dict[str, Read] = {}

    def run(self) -> Found:
        """Do it.

        Raises:
            InputError: the request contradicts what the repository holds.
        """
        found = self._found
        with self._remarking():
            found.restic = _restic_version()
            with isolation.cut_off():
                found.isolated = True
        if not found.isolated:
            found.reason = "; ".join(one.text for one in found.remarks)
            return found
        with (
            opening.proxy_of(self._request) as proxy,
            in_memory(self._request.recovery_key) as key,
            self._remarking(),
        ):
            found.access = "direct" if proxy is None else "proxy"
            opened = opening.open_with(self._request, proxy, key, self._scratch.path)
            found.repository = opened.id
            self._drill(opened, Known(self._request.node, self._request.node_keys, self._trail()))
        if proxy is not None:
            found.writes_refused = proxy.refused
            if found.all_remarks and proxy.errors:
                found.remarks.append(Remark("backend", proxy.errors[-1], NOTE))
        return found

    def _drill(self, opened: Opened, known: Known) -> None:
        names = self._look(opened, known)
        table = self._table(opened, names)
        drilled, self._found.left = choice.sources(table, self._request.wanted, self._chance)
        self._found.drilled = [spec.name for spec in drilled]
        self._look_at_others(known, opened, table)
        self._check_production(table)
        self._check_room(drilled)
        smallest = self._smallest(drilled)
        for spec in drilled:
            examined = Examined(spec, [self._newest[spec.name]])
            self._found.sources.append(examined)
            self._source(examined, opened, known, with_copy=spec.name == smallest)
            for one in examined.points:
                one.forget_entries()
        if smallest is None:
            said = "no source came back whole, on which the verification itself could be put to the test"
            self._found.remarks.append(Remark("no-control", said, remarks.UNTESTED))

    def _look(self, opened: Opened, known: Known) -> list[str]:
        """Read the newest manifest of each source that the repository has."""
        snapshots = opened.restic.snapshots()
        names = sorted({name for one in snapshots if (name := one.tag("source"))})
        known_ids = set() if known.trail is None else {line.value["snapshot"] for line in known.trail.lines}
        strange = [one for one in snapshots if known_ids and one.id not in known_ids]
        if strange:
            # A run that is under way tells its witness last.
            said = f"the witness does not know {len(strange)} snapshots, such as {strange[0].id[:12]}"
            self._found.remarks.append(Remark("not-witnessed", said, NOTE))
        for name in names:
            self._choose_newest(name, opened, known)
        return names

    def _choose_newest(self, name: str, opened: Opened, known: Known) -> None:
        progress(f"{name}: newest snapshot")
        one = self._newest[name] = Exam(name, NEWEST)
        with self._recording(opened) as read, one.phase("choose"):
            one.chosen = known.find(Wish(name, known.newest(name), older=True), opened.restic)
        self._read[name] = read
        if one.chosen is not None:
            self._found.total_bytes += one.chosen.manifest.size

    def _look_at_others(self, known: Known, opened: Opened, table: Sequence[SourceSpec]) -> None:
        """Remark what is wrong with sources that are not drilled, and which of them lack a snapshot."""
        for spec in table:
            if spec.rank != choice.SKIP and spec.name not in self._newest:
                self._choose_newest(spec.name, opened, known)
            if spec.name in self._found.left:
                self._found.remarks += self._newest[spec.name].remarks
                self._newest[spec.name].forget_entries()
        unknown = sorted(set(self._newest) - {spec.name for spec in table})
        for name in unknown:
            said = f"the repository has snapshots of {name}, which the table does not name"
            self._found.remarks.append(Remark("not-in-table", said, NOTE, name))

    def _table(self, opened: Opened, names: Sequence[str]) -> Sequence[SourceSpec]:
        if self._request.table is not None:
            return self._request.table
        self._found.table = "snapshot"
        of_node = [
            one.chosen
            for one in self._newest.values()
            if one.chosen is not None and one.chosen.manifest.method == "node"
        ]
        for chosen in of_node:
            for entry in chosen.manifest.entries:
                if entry.path.endswith("etc/kos/backup.json"):
                    folder = self._scratch.path / "table"
                    places = places_in(chosen.manifest, lambda root: folder)  # noqa: B023  # used at once
                    entries = below(chosen.manifest, [entry.path])
                    fetch(opened.restic, chosen.snapshot.id, entries, places, only=[entry.path])
                    path = Path(Whereabouts(places).of(entry.path) or folder)
                    if disk.digest(path) != entry.sha3:
                        raise DamagedError("backup.json of the node's snapshot is not what its manifest says")
                    document = files.read_json(path)
                    disk.remove(folder)
                    return self._without_commands(_table_in(document))
        if not names or any(one.chosen is None for one in self._newest.values()):
            raise NotFoundError("no table of sources can be had of the repository", key="table")
        raise InputError("table: is missing, and no snapshot of method node holds one", key="table")

    def _without_commands(self, table: Sequence[SourceSpec]) -> list[SourceSpec]:
        """Leave out what a node would have this host run."""
        for spec in table:
            if spec.verifier:
                said = f"the verifier of {spec.name} was not run: its table is the node's own"
                self._found.remarks.append(Remark("no-verifier", said, NOTE, spec.name))
        return [replace(spec, verifier=()) for spec in table]

    def _check_production(self, table: Sequence[SourceSpec]) -> None:
        chosen = [one.chosen for one in self._newest.values() if one.chosen is not None]
        lives = [root.live for one in chosen for root in one.manifest.roots]
        self._scratch.check([*lives, *(spec.path for spec in table if spec.path is not None)])

    def _check_room(self, drilled: Sequence[SourceSpec]) -> None:
        sizes = [
            (one.chosen.manifest.size, _ROOM.get(spec.method, 1))
            for spec in drilled
            if (one := self._newest[spec.name]).chosen is not None
        ]
        if sizes:
            # One after another, and beside one of them a copy of what it needs with what comes back of that.
            needed = max(size * times for size, times in sizes) + 2 * min(size for size, _ in sizes)
            scratch.check_room(self._scratch.path, needed, self._request.reserve_bytes)

    def _smallest(self, drilled: Sequence[SourceSpec]) -> str | None:
        """Return the source on whose packs the controls cost least."""
        sizes = [
            (one.chosen.manifest.size, spec.name)
            for spec in drilled
            if (one := self._newest[spec.name]).chosen is not None and one.chosen.manifest.files
        ]
        return min(sizes)[1] if sizes else None

    def _source(self, examined: Examined, opened: Opened, known: Known, *, with_copy: bool) -> None:
        """Examine a source at its newest point and at another, and damage copies of it."""
        spec, (newest,) = examined.spec, examined.points
        folder = self._scratch.path / "source"
        copy, read = self._bring(newest, spec, opened, folder)
        if copy is None:
            return
        restored = exam.prove(newest, spec, copy, self._places.sockets) if not newest.remarks else None
        if restored is not None and not newest.remarks:
            examined.record = _record(spec, copy, restored)
            older = self._another(spec, copy, opened, known)
            if older is not None:
                examined.points.append(older)
                if older.chosen is not None and older.chosen.snapshot.id == newest.chosen_id:
                    progress(f"{spec.name}: {boot.text(older.until)}" if older.until else spec.name)
                    exam.prove(older, spec, copy, self._places.sockets)
            self._control(Subject(spec, copy, {*self._read[spec.name], *read}), opened, known, with_copy)
        disk.remove(folder)
        older = examined.points[-1]
        if older.kind == TIME and older.chosen is not None and older.chosen.snapshot.id != newest.chosen_id:
            copy, _ = self._bring(older, spec, opened, folder)
            if copy is not None and not older.remarks:
                exam.prove(older, spec, copy, self._places.sockets)
            disk.remove(folder)

    def _bring(self, one: Exam, spec: SourceSpec, opened: Opened, folder: Path) -> tuple[Copy | None, Read]:
        """Fetch what was chosen, and compare it."""
        copy: Copy | None = None
        read: Read = {}
        if one.chosen is None:
            return None, read
        progress(f"{spec.name}: run {one.chosen.manifest.run}, {one.chosen.manifest.size} bytes")
        method = one.chosen.manifest.method
        if method != spec.method:
            said = f"{spec.name} is {spec.method} in the table, and {method} in its snapshot"
            one.remarks.append(Remark("method", said, source=spec.name))
            return None, read
        with self._recording(opened) as read, one.phase("fetch"):
            copy = exam.bring(opened.restic, one.chosen, folder)
        if copy is not None:
            with one.phase("compare"):
                exam.count(one, copy, exam.compare(copy))
        return copy, read

    def _another(self, spec: SourceSpec, copy: Copy, opened: Opened, known: Known) -> Exam | None:
        """Choose the point before the newest one; None where there is none."""
        one = Exam(spec.name, TIME)
        heads = copy.chosen.manifest.heads
        with one.phase("choose"):
            if self._request.time is not None:
                wish = Wish(spec.name, time=self._request.time, older=True)
                one.chosen = known.find(wish, opened.restic)
                one.until = self._request.time
                return one
            one.until = choice.moment(heads, self._chance, spec.name)
            if one.until is not None:
                one.chosen = copy.chosen
                return one
            runs = [found.tag("run") for found in opened.restic.snapshots(f"source={spec.name}")]
            runs = [run for run in runs if run is not None and run != copy.chosen.manifest.run]
            if not runs:
                said = f"{spec.name} has one point alone, so that none before it could be restored"
                self._found.remarks.append(Remark("one-point", said, NOTE, spec.name))
                return None
            run = self._chance.one(f"run of {spec.name}", runs)
            one.chosen = known.find(Wish(spec.name, run, older=True), opened.restic)
            _check_growth(spec, copy, one)
        return one

    def _control(self, subject: Subject, opened: Opened, known: Known, with_copy: bool) -> None:
        made = self._found.controls
        if with_copy:
            progress(f"{subject.name}: damaged copies")
            made.append(controls.without_a_file(subject, self._chance))
            folder = self._scratch.path / "copy"
            made += OnCopy(self._request, opened, known, subject, folder, self._chance).run()
        if subject.spec.method in controls.OF_METHOD:
            made.append(controls.without_a_part(subject, self._places.sockets))

    def _trail(self) -> Trail | None:
        """Return the lines of the witness, checked."""
        request = self._request
        if request.lines is None and request.witness is None:
            said = "no witness was asked: what a node and its repository agree on is all that was compared"
            self._found.remarks.append(Remark("no-witness", said, NOTE))
            return None
        nowhere = self._scratch.path / "none"
        witness = (
            _Given(request.lines)
            if request.lines is not None
            else connect(
                str(request.witness),
                identity=nowhere,
                known_hosts=nowhere,
                timeout_s=request.backend_timeout_s,
            )
        )
        trail = Trail(self._scratch.path / "witness.jsonl", request.node, request.node_keys)
        try:
            trail.read(witness)
        except InputError as error:
            self._found.remarks.append(Remark("witness", f"the witness cannot be read: {error.message}"))
            return None
        except KosError as error:
            # What the repository says for itself is still worth to be known.
            self._found.remarks.append(remarks.of_error(error))
            return None
        return trail

    @contextlib.contextmanager
    def _remarking(self) -> Iterator[None]:
        """Turn an error of the drill as a whole into a remark; bad input is told at once."""
        try:
            yield
        except InputError:
            raise
        except KosError as error:
            self._found.remarks.append(remarks.of_error(error))

    @contextlib.contextmanager
    def _recording(self, opened: Opened) -> Iterator[Read]:
        if opened.proxy is None:
            yield {}
            return
        with opened.proxy.recording() as read:
            yield read


@dataclass(frozen=True)
class _Given:
    """A witness whose lines were handed over."""

    lines: Sequence[Line]

    def read(self, node: str, since: int) -> list[Line]:
        return [line for line in self.lines if line.seq > since]

    def append(self, node: str, line: Line) -> None:
        raise AssertionError("a drill writes nothing")


def _restic_version() -> str:
    try:
        return restic_program.check_version()
    except InputError as error:
        raise UntestedError(error.message, key=error.key) from None


def _table_in(document: Any) -> Sequence[SourceSpec]:
    """Read the table of a snapshot, which a node of another version may have written."""
    try:
        return rows(document.get("sources"), "backup.json of the snapshot")
    except (InputError, AttributeError) as error:
        raise UntestedError(f"the table of the node cannot be read: {error}") from None


def _record(spec: SourceSpec, copy: Copy, restored: Restored) -> tuple[datetime, str]:
    """Return the time of the last record that was verified, and what it is."""
    listed = copy.chosen.manifest
    if spec.method == "kairoschain":
        head = verifier.head(restored.roots[0].stored / LEDGER)
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(head.timestamp.replace("Z", "+00:00"))
            return moment.astimezone(timezone.utc), f"block {head.index} of the ledger"
    time = listed.heads.get("time")
    if isinstance(time, str):
        return boot.moment(time), "the newest point of the database"
    return boot.moment(listed.time), "the state when the run began"


def _check_growth(spec: SourceSpec, copy: Copy, older: Exam) -> None:
    """Remark where a ledger does not go on from what an older snapshot of it has."""
    assert older.chosen is not None, "it was just chosen"
    heads = older.chosen.manifest.heads
    if spec.method != "kairoschain" or "index" not in heads:
        return
    known = anchor.Anchor(int(heads["index"]), str(heads["hash"]))
    if not anchor.compare(copy.roots[0].stored / LEDGER, known).continues:
        said = f"the ledger does not go on from block {known.index} of run {older.chosen.manifest.run}"
        older.remarks.append(Remark("ledger", said, source=spec.name))
