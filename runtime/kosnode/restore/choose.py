"""Finds the snapshot that is asked for, and says no to one that the witness contradicts."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import boot
from ..backup import manifest, signing
from ..backup.config import Repository
from ..backup.manifest import Manifest
from ..backup.memory import Trail
from ..backup.places import Places
from ..backup.restic import Restic, Snapshot
from ..errors import DamagedError, InputError, NotFoundError, RefusedError


@dataclass(frozen=True)
class Wish:
    """Which snapshot of a source.

    Args:
        run: id of the run that made it.
        time: the state to go to, aware. With neither it is the newest.
        older: an older snapshot than the newest that is known is meant.
    """

    source: str
    run: str | None = None
    time: datetime | None = None
    older: bool = False


@dataclass(frozen=True)
class Chosen:
    """A snapshot, and its manifest that was found to be signed.

    Args:
        newest: whether it is the newest that is known of its source.
        witnessed: whether the witness has a line for it that agrees.
    """

    repository: Repository
    snapshot: Snapshot
    manifest: Manifest
    digest: str
    newest: bool
    witnessed: bool


def choose(
    wish: Wish,
    restic: Restic,
    *,
    heads: Mapping[str, Mapping[str, Any]],
    order: Sequence[str],
    newest: Snapshot | None = None,
    trail: Trail | None,
    publics: Sequence[str],
) -> Chosen:
    """Find a snapshot in a repository and read its manifest.

    Args:
        heads: of the snapshots that are known, by run, oldest first; for a restore to a time between two.
        order: ids of the snapshots that are known, oldest first.
        newest: the newest of all that are known, where this repository should have it; a wish for no other
            needs no list then.
        trail: what the witness says of this source's node; None where there is no witness.
        publics: keys of which one must have signed the manifest.

    Raises:
        NotFoundError: there is no such snapshot.
        InputError: the time is before the first or after the last point.
        RefusedError: the witness contradicts, or a newer snapshot is known and `older` was not said.
        TrustError: the manifest is not signed with one of the keys.
    """
    name = restic.repository.name
    read = None
    if newest is not None and wish.run is None and wish.time is None:
        # One that is not there is looked for in the list, which tells why.
        with contextlib.suppress(NotFoundError):
            # Of a whole id restic would take the snapshot out of its cache, wherever that is from.
            read = read_manifest(restic, replace(newest, id=newest.id[:-1]), wish.source, publics)
    if newest is not None and read is not None:
        snapshot, found = newest, [newest]
    else:
        found = _listed(wish, restic, order)
        snapshot = _pick(wish, found, heads)
        read = read_manifest(restic, snapshot, wish.source, publics)
    listed, digest = read
    last = None if trail is None else trail.newest(wish.source)
    if trail is not None and last is not None:
        _ask_witness(trail, snapshot, digest, listed, name)
    newest_run = [str(found[-1].tag("run")), *heads][-1] if last is None else str(last.value["run"])
    if listed.run != newest_run and not wish.older:
        lacks = all(one.tag("run") != newest_run for one in found)
        raise RefusedError(
            f"run {listed.run} of source {wish.source} is older than run {newest_run}"
            + (f", which repository {name} lacks" if lacks else "")
            + "; `--older` says that it is meant",
            key="older",
        )
    return Chosen(restic.repository, snapshot, listed, digest, listed.run == newest_run, last is not None)


def read_manifest(
    restic: Restic, snapshot: Snapshot, source: str, publics: Sequence[str]
) -> tuple[Manifest, str]:
    """Return the manifest of a snapshot and its digest; raises as `choose`, and DamagedError."""
    stage = next((path for path in snapshot.paths if path.endswith(f"/stage/{source}")), None)
    if stage is None:
        raise DamagedError(f"snapshot {snapshot.id[:12]} has no manifest", key="snapshot")
    folder = Places.staged_manifest(Path(stage))
    names = (manifest.NAME, manifest.SIGNATURE)
    data, signature = restic.read(snapshot.id, folder, names, limit=manifest.MAX_BYTES)
    signing.verify(publics, data, signature.decode("utf-8", "replace"))
    listed = manifest.parse(data)
    if (listed.source, listed.run) != (source, snapshot.tag("run")):
        raise DamagedError(
            f"the manifest of snapshot {snapshot.id[:12]} is that of another one", key="snapshot"
        )
    return listed, manifest.digest(data)


def _listed(wish: Wish, restic: Restic, order: Sequence[str]) -> list[Snapshot]:
    """Return the snapshots of a source as they were made one after the other, whatever the clocks said."""
    found = restic.snapshots(f"source={wish.source}")
    if not found:
        name = restic.repository.name
        raise NotFoundError(f"repository {name} has no snapshot of source {wish.source}", key="source")
    rank = {snapshot: number for number, snapshot in enumerate(order, 1)}
    return sorted(found, key=lambda one: (rank.get(one.id, 0), one.time, one.id))


def _pick(wish: Wish, found: Sequence[Snapshot], heads: Mapping[str, Mapping[str, Any]]) -> Snapshot:
    if wish.run is not None:
        named = [one for one in found if one.tag("run") == wish.run]
        if not named:
            raise NotFoundError(f"run {wish.run} made no snapshot of source {wish.source}", key="run")
        return named[-1]
    if wish.time is None:
        return found[-1]
    spans = [(one, *_span(one, heads)) for one in found]
    first, last = min(begin for _, begin, _ in spans), max(end for _, _, end in spans)
    if not first <= wish.time <= last:
        raise InputError(
            f"time: {boot.text(wish.time)} is not between the first point, {boot.text(first)}, and the last, "
            f"{boot.text(last)}",
            key="time",
        )
    within = [one for one, begin, end in spans if begin <= wish.time <= end]
    # Between two snapshots that know one moment each, the one before has the state of that time.
    return within[0] if within else [one for one, _, end in spans if end <= wish.time][-1]


def _span(one: Snapshot, heads: Mapping[str, Mapping[str, Any]]) -> tuple[datetime, datetime]:
    """Return the first and the last moment that a snapshot can be restored to."""
    known = heads.get(one.tag("run") or "", {})
    try:
        return boot.moment(known["from"]), boot.moment(known["time"])
    except (KeyError, TypeError, ValueError):
        return one.time, one.time


def _ask_witness(trail: Trail, snapshot: Snapshot, digest: str, listed: Manifest, repository: str) -> None:
    """Refuse a snapshot that the witness does not know, or knows otherwise."""
    line = next((one for one in trail.lines if one.value["snapshot"] == snapshot.id), None)
    if line is None:
        raise RefusedError(
            f"the witness does not know snapshot {snapshot.id[:12]} in {repository} (run {listed.run})",
            key="witness",
        )
    if (line.value["manifest"], line.value["tree"]) != (digest, listed.tree):
        raise RefusedError(
            f"the witness contradicts the manifest of snapshot {snapshot.id[:12]}", key="witness"
        )
