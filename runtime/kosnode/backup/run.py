"""A run: each source made consistent, listed in a signed manifest, saved in each repository, witnessed."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import boot, state
from ..command import as_known
from ..errors import DiskError, InputError, KosError, NotFoundError, PartialError, RefusedError
from . import hooks, manifest, methods, patterns, scan, signing, trail
from .config import BackupConfig, Repository, SourceSpec
from .manifest import Manifest
from .memory import Trail
from .places import Places
from .restic import Restic, Saved, check_version
from .runs import Runs
from .source import Prepared, Source
from .witness import Witness

ATTEMPTS = 3
_SHOWN = 20
# What comes and goes in a folder is mostly younger than this.
_YOUNG_NS = 60_000_000_000
_GONE = "no such file or directory"
# What a restore that is not confirmed keeps beside live data.
_NEVER = (".kos-restore-", ".kos-before-")


@dataclass(frozen=True)
class Identity:
    """Whose backups these are.

    Args:
        release: Merkle root of the release that is current.
    """

    node: str
    fleet: str
    release: str | None


@dataclass(frozen=True)
class Stored:
    """One snapshot of a source."""

    repository: str
    repository_id: str
    id: str
    added_bytes: int


@dataclass
class Outcome:
    """What became of one source in one run.

    Args:
        unstable, lacks: absolute paths, as text.
        errors: why something of it failed, in order.
    """

    spec: SourceSpec
    snapshots: list[Stored] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    heads: Mapping[str, Any] = field(default_factory=dict)
    unstable: Sequence[str] = ()
    lacks: Sequence[str] = ()
    manifest: str | None = None
    tree: str | None = None
    errors: list[KosError] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as `backup run` answers."""
        return {
            "name": self.spec.name,
            "class": self.spec.rank,
            "method": self.spec.method,
            "snapshots": [{"repository": one.repository, "id": one.id} for one in self.snapshots],
            "files": self.files,
            "bytes": self.bytes,
            "added_bytes": sum(one.added_bytes for one in self.snapshots),
            "seconds": round(self.seconds, 3),
            "heads": dict(self.heads),
            "unstable": list(self.unstable),
            "lacks": list(self.lacks),
            "errors": [
                {"kind": one.kind, "message": one.message, "exit": one.exit_code} for one in self.errors
            ],
        }


class Run:
    """One run over some sources.

    Args:
        config: the table.
        who: whose data it is.
        restic: opens a repository.
        witness: None where the table names none.
        clock: for times that are written down.
        progress: takes one line for people.
    """

    def __init__(
        self,
        config: BackupConfig,
        places: Places,
        who: Identity,
        *,
        restic: Callable[[Repository], Restic],
        witness: Witness | None,
        clock: boot.Clock,
        progress: Callable[[str], None],
    ) -> None:
        self._config = config
        self._places = places
        self._who = who
        self._restic = restic
        self._witness = witness
        self._clock = clock
        self._progress = progress
        self._runs = Runs(places)
        self._trail = Trail(places.trail, who.node, signing.trusted(places.key, places.former_keys))
        self.id = f"{clock.now().strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}"

    def check(self) -> dict[str, str]:
        """Look whether the run may begin, before anything is touched.

        Returns:
            The id of each repository by name.

        Raises:
            KosError: a repository that is not known, a secret that is missing, too little space, a witness
                that cannot be reached or contradicts.
        """
        check_version()
        known = self._runs.repositories()
        found = {}
        for repository in self._config.repositories:
            entry = known.get(repository.name)
            if entry is None or entry["url"] != repository.url:
                raise InputError(
                    f"repository {repository.name} is not known at this address: `kosctl backup init`",
                    key=f"repositories.{repository.name}",
                )
            found[repository.name] = entry["id"]
            self._restic(repository)
        free = shutil.disk_usage(self._places.var).free
        if free < self._config.reserve_bytes:
            missing = self._config.reserve_bytes - free
            raise DiskError(f"{self._places.var}: {missing} bytes of the reserve are missing")
        if self._witness is not None:
            self._trail.read(self._witness)
        last = self._trail.last
        if last is not None and boot.moment(last.value["time"]) > self._clock.now():
            self._progress(f"the clock of this node went back: the run before was at {last.value['time']}")
        return found

    def back_up(self, sources: Sequence[SourceSpec]) -> list[Outcome]:
        """Back up sources, one after the other; one that fails does not keep the others from it.

        Raises:
            KosError: the run may not begin; nothing was touched, and it counts as a failed one.
        """
        try:
            ids = self.check()
        except KosError as error:
            for spec in sources:
                self._remember(Outcome(spec, errors=[error]))
            raise
        return [self._one(spec, ids) for spec in sources]

    def rehearse(self, sources: Sequence[SourceSpec]) -> None:
        """Look whether each source could be backed up, and write nothing; raises what a run would."""
        self.check()
        for spec in sources:
            if not spec.before:
                methods.make(spec, self._places).check()

    def _one(self, spec: SourceSpec, ids: Mapping[str, str]) -> Outcome:
        outcome = Outcome(spec)
        began = time.monotonic()
        self._progress(f"source {spec.name}: {spec.method}")
        try:
            source = methods.make(spec, self._places)
            environment = {"KOS_RUN": self.id, "KOS_SOURCE": spec.name}
            with hooks.around(spec.before, spec.after, environment):
                # After the commands: what is backed up may be what they make.
                source.check()
                self._save(source, ids, outcome)
        except (KosError, OSError) as error:
            outcome.errors.append(as_known(error))
        outcome.seconds = time.monotonic() - began
        self._remember(outcome)
        return outcome

    def _save(self, source: Source, ids: Mapping[str, str], outcome: Outcome) -> None:
        stage = self._places.stage(source.spec.name)
        state.remove_tree(stage)
        stage.mkdir(mode=0o700, parents=True)
        for folder in (Places.staged_data(stage), Places.staged_manifest(stage)):
            folder.mkdir(mode=0o700)
        try:
            with source.prepare(Places.staged_data(stage)) as prepared:
                outcome.heads = prepared.heads
                self._compare_heads(source, prepared)
                self._ship(source, prepared, stage, ids, outcome)
        finally:
            state.remove_tree(stage)
        self._witness_all(outcome)

    def _compare_heads(self, source: Source, prepared: Prepared) -> None:
        """Refuse to write over the proof of a state that the source no longer has."""
        name = source.spec.name
        before = self._last(name)
        restored = self._runs.last_restore(name)
        if restored is not None and (before is None or restored["time"] >= before["time"]):
            before = restored
        if before is None:
            return
        lost = source.went_back(before["heads"], prepared)
        if lost is not None:
            raise RefusedError(
                f"source {name} went back since {before['time']}: {lost}",
                key=f"sources.{name}",
            )

    def _last(self, source: str) -> Mapping[str, Any] | None:
        """Return what is known of the newest snapshot of a source: by the witness, else by this node."""
        line = self._trail.newest(source)
        return line.value if line is not None else self._runs.newest(source)

    def _ship(
        self, source: Source, prepared: Prepared, stage: Path, ids: Mapping[str, str], outcome: Outcome
    ) -> None:
        """List and save until what was listed is what was saved."""
        spec = source.spec
        shipment = _Shipment(source, prepared, stage, scan.Hashes(self._places.hashes(spec.name)))
        previous = self._last(spec.name)
        for _ in range(ATTEMPTS):
            shipment.list()
            listed = self._manifest(spec, prepared, shipment, previous)
            data = listed.encoded()
            folder = Places.staged_manifest(stage)
            (folder / manifest.NAME).write_bytes(data)
            (folder / manifest.SIGNATURE).write_text(signing.sign(self._places.key, data))
            outcome.files, outcome.bytes = listed.files, listed.size
            outcome.manifest, outcome.tree = manifest.digest(data), listed.tree
            outcome.snapshots, outcome.errors = [], []
            for repository in self._config.repositories:
                try:
                    saved = self._backup(repository, spec, shipment, ids[repository.name], listed)
                except KosError as error:
                    # Another repository may still take it; that one is missing makes the run fail.
                    outcome.errors.append(error)
                    continue
                outcome.snapshots.append(
                    Stored(repository.name, ids[repository.name], saved.snapshot, saved.added_bytes)
                )
                shipment.unread(saved.unread)
            if not outcome.snapshots or shipment.held_still():
                break
            self._progress(f"source {spec.name}: it changed meanwhile, once more")
        else:
            outcome.errors.append(
                PartialError(
                    f"source {spec.name}: {len(shipment.restless)} paths changed in each of {ATTEMPTS} "
                    f"attempts ({min(shipment.restless)}); leave them out, or use a method that holds them",
                    key=f"sources.{spec.name}",
                )
            )
        outcome.unstable, outcome.lacks = sorted(shipment.unstable), sorted(shipment.lacks)
        if outcome.lacks and outcome.snapshots:
            path = outcome.lacks[0]
            outcome.errors.append(
                PartialError(
                    f"source {spec.name}: the snapshot lacks {len(outcome.lacks)} paths that cannot be read "
                    f"({path}: {shipment.lacks[path]})",
                    key=f"sources.{spec.name}",
                )
            )

    def _manifest(
        self, spec: SourceSpec, prepared: Prepared, shipment: _Shipment, previous: Mapping[str, Any] | None
    ) -> Manifest:
        return Manifest(
            node=self._who.node,
            fleet=self._who.fleet,
            run=self.id,
            time=boot.text(self._clock.now()),
            source=spec.name,
            rank=spec.rank,
            method=spec.method,
            roots=tuple(prepared.roots),
            entries=shipment.entries,
            heads=prepared.heads,
            release=self._who.release,
            unstable=tuple(sorted(map(manifest.relative, shipment.unstable))),
            lacks=tuple(sorted(map(manifest.relative, shipment.lacks))),
            previous=None if previous is None else str(previous["manifest"]),
        )

    def _backup(
        self,
        repository: Repository,
        spec: SourceSpec,
        shipment: _Shipment,
        repository_id: str,
        listed: Manifest,
    ) -> Saved:
        restic = self._restic(repository)
        parent = self._parent(spec.name, repository_id)
        if parent is None:
            found = restic.identity()
            if found != repository_id:
                raise RefusedError(
                    f"repository {repository.name} is another one: {found[:12]}, not {repository_id[:12]}",
                    key=f"repositories.{repository.name}",
                )
        try:
            return restic.backup(
                shipment.targets,
                host=self._who.node,
                tags=[f"run={self.id}", f"source={spec.name}", f"class={spec.rank}"],
                exclude=shipment.exclude,
                parent=parent,
                total=(listed.files, listed.size),
            )
        except NotFoundError as error:
            if parent is not None and error.key == "repository":
                raise RefusedError(
                    f"{error.message}: it was rolled back, emptied or replaced", key=error.key
                ) from None
            raise

    def _parent(self, source: str, repository_id: str) -> str | None:
        """Return the newest snapshot of a source in a repository, which has to be there."""
        line = self._trail.newest(source, repository_id)
        if line is not None:
            return str(line.value["snapshot"])
        entry = self._runs.newest(source, repository_id)
        if entry is None:
            return None
        return next(str(one["id"]) for one in entry["snapshots"] if one["repository_id"] == repository_id)

    def _witness_all(self, outcome: Outcome) -> None:
        if self._witness is None:
            return
        for one in outcome.snapshots:
            what = {
                "time": boot.text(self._clock.now()),
                "node": self._who.node,
                "run": self.id,
                "source": outcome.spec.name,
                "repository": one.repository_id,
                "snapshot": one.id,
                "manifest": outcome.manifest,
                "tree": outcome.tree,
                "heads": dict(outcome.heads),
            }
            self._trail.append(self._witness, trail.make(what, self._trail.last, key=self._places.key))

    def _remember(self, outcome: Outcome) -> None:
        shown = outcome.as_json()
        self._runs.append(
            {
                "kind": "run",
                "time": boot.text(self._clock.now()),
                "run": self.id,
                "source": outcome.spec.name,
                "class": outcome.spec.rank,
                "method": outcome.spec.method,
                "ok": not outcome.errors,
                "errors": shown["errors"][:_SHOWN],
                "snapshots": [
                    {"repository": one.repository, "repository_id": one.repository_id, "id": one.id}
                    for one in outcome.snapshots
                ],
                "manifest": outcome.manifest,
                "tree": outcome.tree,
                "heads": dict(outcome.heads),
                "files": outcome.files,
                "bytes": outcome.bytes,
                "added_bytes": shown["added_bytes"],
                "ms": int(outcome.seconds * 1000),
                "unstable": len(outcome.unstable),
                "lacks": len(outcome.lacks),
            }
        )


class _Shipment:
    """What one source ships: listed before restic reads it, and looked at again afterwards."""

    def __init__(self, source: Source, prepared: Prepared, stage: Path, hashes: scan.Hashes) -> None:
        self._rank_of = source.rank_of
        self._prepared = prepared
        self._hashes = hashes
        self._stage = stage
        roots = [root.stored for root in prepared.roots]
        self._patterns = patterns.anchored([*source.spec.exclude, *prepared.exclude], roots)
        matched = patterns.matcher(self._patterns)
        self._excluded = lambda path: path.rpartition("/")[2].startswith(_NEVER) or matched(path)
        self._began_ns = scan.now_ns()
        self._walk = scan.Walk()
        self._noticed: set[str] = set()
        self.entries: tuple[manifest.Entry, ...] = ()
        self.unstable: set[str] = {os.fspath(path) for path in prepared.unstable}
        self.lacks: dict[str, str] = {}
        self.restless: set[str] = set()

    @property
    def targets(self) -> list[Path]:
        """What restic is given: what is in the stage is one target."""
        outside = [root.stored for root in self._prepared.roots if self._stage not in root.stored.parents]
        return [*outside, self._stage]

    @property
    def exclude(self) -> list[str]:
        """Patterns for restic: those of the source, and what neither side can store."""
        # By the name alone, since restic takes long over a pattern of several parts.
        never = [f"{beginning}*" for beginning in _NEVER]
        return [*patterns.for_restic(self._patterns), *never, *map(patterns.literal, self._walk.special)]

    def list(self) -> None:
        """Walk and hash what is there now."""
        self._noticed = set()
        self._walk = scan.walk(self._prepared.roots, self._excluded)
        self.unstable |= self._hashes.restless(self._walk)
        folders = {path for path in self.unstable if scan.is_folder(self._walk, path)}
        self.unstable |= scan.young(self._walk, folders, self._began_ns - _YOUNG_NS)
        read = scan.read(self._walk, self._hashes)
        self.unstable |= read.unstable
        self.lacks.update(read.unread)
        lacking = set(map(manifest.relative, self.lacks))
        self.entries = tuple(self._ranked(entry) for entry in read.entries if entry.path not in lacking)

    def _ranked(self, entry: manifest.Entry) -> manifest.Entry:
        rank = self._rank_of(entry.path)
        return entry if rank is None else replace(entry, rank=rank)

    def unread(self, found: Sequence[tuple[str, str]]) -> None:
        """Take note of what restic could not read: it went away, or the snapshot lacks it."""
        for path, said in found:
            if path not in self.lacks and path not in self.unstable:
                self._noticed.add(path)
                # What went away may be there again by now.
                if os.path.lexists(path) and _GONE not in said:
                    self.lacks[path] = said

    def held_still(self) -> bool:
        """Say whether the manifest tells all that changed until now."""
        changed: set[str] = set()
        if not scan.is_untouched(self._walk, self._began_ns):
            after = scan.walk(self._prepared.roots, self._excluded)
            changed = scan.changed(self._walk, after)
            # In a directory that is unstable files may have come: there is no end to that.
            changed -= {
                one for one in scan.came(self._walk, after) if one.rpartition("/")[0] in self.unstable
            }
        self.restless = (changed - self.unstable - set(self.lacks)) | self._noticed
        self.unstable |= self.restless - set(self.lacks)
        self._hashes.save(self._walk, self.unstable, began_ns=self._began_ns)
        return not self.restless
