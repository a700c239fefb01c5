"""From signed documents to what clients see: snapshot, timestamp, order of writing, copies on mirrors.

Order: files of releases, targets and releases metadata, snapshot, root, timestamp. Until the timestamp is
replaced a client finds all that the old one leads to, so a run that is interrupted anywhere is finished by
running it again.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from filecmp import cmp
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from .. import files, listing
from ..errors import DamagedError, InputError, RefusedError, TrustError
from ..metadata import ISSUED, RELEASES, ROLES, issue_time
from ..transfer import archive_name
from . import documents, keys
from .documents import Staged
from .repository import DAY_S, RELEASE_FOLDERS, Progress, Published, Repository, make_public_folder, silent

ALARM_DAYS = 14
CLOCK_SLACK_S = 300
COPY_BYTES = 1024 * 1024

_FILE_NAMES = {
    "releases": re.compile(r"(?P<root>[0-9a-f]{64})\.(json|json\.zst|([0-9]+\.)?tar\.zst)"),
    "patches": re.compile(r"[0-9a-f]{64}-(?P<root>[0-9a-f]{64})\.(json\.zst|([0-9]+\.)?zst)"),
}


@dataclass(frozen=True)
class Publication:
    """What was published.

    Args:
        versions: version of each role that clients see now.
        actions: what was done, one sentence each; empty where nothing was to do.
        files_copied: files written to the mirror folder.
        timestamp_expires: when clients refuse what they see now unless it is renewed.
    """

    versions: Mapping[str, int]
    timestamp_expires: datetime
    actions: list[str] = field(default_factory=list)
    files_copied: int = 0


@dataclass(frozen=True)
class _Chain:
    """The documents that holders sign, as clients will see them."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    releases: Metadata[Targets]


def publish(
    repository: Repository,
    passphrase: bytes | None,
    *,
    mirror: Path | None = None,
    progress: Progress = silent,
) -> Publication:
    """Make what is staged visible to clients.

    Args:
        repository: the folder.
        passphrase: of the online key; not needed where nothing is staged.
        mirror: a folder that gets the same files in the same order.
        progress: told what is done.

    Raises:
        TrustError: too few signatures, or a document has expired.
        DamagedError: a file of a release is missing or has another size.
        InputError: wrong passphrase, or the clock is behind.
        BusyError: another process changes the repository.
    """
    repository.require()
    with repository.locked():
        published = repository.published()
        pending = {
            role: staged
            for role in documents.OFFLINE_ROLES
            if (staged := repository.staged(role)) is not None
        }
        if mirror is not None:
            _check_mirror(repository, mirror)
        actions: list[str] = []
        if pending or _unfinished(published):
            published, actions = _publish(repository, published, pending, passphrase, progress)
        for role in documents.OFFLINE_ROLES:
            repository.unstage(role)
        if published.releases is None or published.timestamp is None:
            raise DamagedError(f"{repository.path} has nothing to publish")
        actions += _prune(repository.public, _roots(published.releases))
        copied = copy_to(repository, mirror, progress) if mirror is not None else 0
        if copied:
            actions.append(f"{copied} files copied to {mirror}")
        return Publication(_versions(published), published.timestamp.signed.expires, actions, copied)


def _unfinished(published: Published) -> bool:
    # A run that stopped between root and timestamp leaves an old timestamp that the new root may not accept.
    if published.root is None or published.timestamp is None or published.snapshot is None:
        return True
    root = published.root.signed
    return not all(
        documents.count(documents.signers_of(root, role), document).verified
        for role, document in (("timestamp", published.timestamp), ("snapshot", published.snapshot))
    )


def _publish(
    repository: Repository,
    published: Published,
    pending: Mapping[str, Staged],
    passphrase: bytes | None,
    progress: Progress,
) -> tuple[Published, list[str]]:
    chain = _chain(published, {role: staged.document for role, staged in pending.items()})
    _require_quorums(pending, chain)
    _require_valid(chain, repository.now())
    _require_files(repository, chain.releases)
    signer = _online_signer(repository, chain.root, passphrase)
    snapshot = _next_snapshot(repository, published, chain, set(pending), signer)
    timestamp = _next_timestamp(
        repository, published, _meta_file(snapshot.signed.version, snapshot.to_bytes()), signer
    )

    actions = [f"{role} {staged.document.signed.version} published" for role, staged in pending.items()]
    for name in _move_files(repository, _roots(chain.releases)):
        progress(f"published {name}")
    for role in ("targets", RELEASES):
        if role in pending:
            _write(repository, role, getattr(chain, role))
    _write(repository, "snapshot", snapshot)
    if "root" in pending:
        _write(repository, "root", chain.root)
    _write(repository, "timestamp", timestamp)
    for action in actions:
        progress(action)
    return Published(chain.root, timestamp, snapshot, chain.targets, chain.releases), actions


def _chain(published: Published, pending: Mapping[str, Metadata[Any]]) -> _Chain:
    found: dict[str, Metadata[Any]] = {}
    for role in documents.OFFLINE_ROLES:
        document = pending.get(role) or published.of(role)
        if document is None:
            raise DamagedError(f"there is no {role} metadata, neither staged nor published")
        found[role] = deepcopy(document)
    chain = _Chain(**found)
    for role in ("targets", RELEASES):
        if role in pending:
            # A signature of somebody who may not sign any more would do no harm, and tell nobody anything.
            own: Metadata[Any] = getattr(chain, role)
            known = _signers(chain, role).keys
            own.signatures = {keyid: made for keyid, made in own.signatures.items() if keyid in known}
    return chain


def _signers(chain: _Chain, role: str) -> documents.Signers:
    return documents.signers_of(chain.targets.signed if role == RELEASES else chain.root.signed, role)


def _require_quorums(pending: Mapping[str, Staged], chain: _Chain) -> None:
    results = list(pending["root"].quorums()) if "root" in pending else []
    if "root" not in pending:
        results.append(("root", documents.count(documents.signers_of(chain.root.signed, "root"), chain.root)))
    results.append(("targets", documents.count(_signers(chain, "targets"), chain.targets)))
    results.append((RELEASES, documents.count(_signers(chain, RELEASES), chain.releases)))
    missing = [documents.shortfall(name, result) for name, result in results if not result.verified]
    if missing:
        raise TrustError("; ".join(missing), key=missing[0].split()[0])


def _require_valid(chain: _Chain, now: datetime) -> None:
    for role in documents.OFFLINE_ROLES:
        documents.require_unexpired(getattr(chain, role), role, now, TrustError)


def _require_files(repository: Repository, releases: Metadata[Targets]) -> None:
    for path, target in releases.signed.targets.items():
        root, custom = listing.root_of(path), listing.custom_of(target)
        for name, size in release_files(root, target.length, custom.manifest, custom.archive).items():
            found = repository.find(name)
            if found is None:
                raise DamagedError(f"{name} of {custom.name} {custom.version} is missing")
            if found.stat().st_size != size:
                raise DamagedError(f"{found} has {found.stat().st_size} bytes, signed are {size}")


def release_files(root: str, length: int, manifest: int, archive: Sequence[int]) -> dict[str, int]:
    """Return the files of a release on a mirror and the bytes of each (docs/architecture.md, Mirror).

    Args:
        root: release root.
        length: bytes of the manifest.
        manifest: its compressed bytes.
        archive: compressed bytes of each part.
    """
    parts = {archive_name(root, index, len(archive)): size for index, size in enumerate(archive)}
    return {f"releases/{root}.json": length, f"releases/{root}.json.zst": manifest, **parts}


def _online_signer(repository: Repository, root: Metadata[Root], passphrase: bytes | None) -> CryptoSigner:
    (keyid,) = root.signed.roles["timestamp"].keyids
    if passphrase is None:
        raise InputError(
            "the online key is needed to publish: name the file of its passphrase", key="--passphrase-file"
        )
    signer = keys.load_signer(repository.online_key(keyid), passphrase)
    if signer.public_key.keyid != keyid:
        raise DamagedError(
            f"{repository.online_key(keyid)} is another key than root {root.signed.version} names"
        )
    return signer


def _next_snapshot(
    repository: Repository, published: Published, chain: _Chain, pending: set[str], signer: CryptoSigner
) -> Metadata[Snapshot]:
    meta = {}
    for role in ("targets", RELEASES):
        document: Metadata[Any] = getattr(chain, role)
        version = document.signed.version
        public = repository.metadata_dir / f"{version}.{role}.json"
        # What is public already is hashed as it is there, whatever wrote it.
        meta[f"{role}.json"] = _meta_file(
            version, document.to_bytes() if role in pending else public.read_bytes()
        )
    version = 1 if published.snapshot is None else published.snapshot.signed.version + 1
    snapshot = Metadata(Snapshot(version, expires=repository.expiry("snapshot"), meta=meta))
    snapshot.sign(signer)
    return snapshot


def _next_timestamp(
    repository: Repository,
    published: Published,
    snapshot_meta: MetaFile,
    signer: CryptoSigner,
    expires_s: int | None = None,
) -> Metadata[Timestamp]:
    now, version = repository.now(), 1
    issued = now
    if published.timestamp is not None:
        before = issue_time(published.timestamp.signed)
        if now + timedelta(seconds=CLOCK_SLACK_S) < before:
            raise InputError(
                f"the clock says {documents.time_text(now)}, the last timestamp was issued at "
                f"{documents.time_text(before)}: set the clock",
                key="clock",
            )
        issued, version = max(now, before), published.timestamp.signed.version + 1
    expires = repository.expiry("timestamp") if expires_s is None else now + timedelta(seconds=expires_s)
    timestamp = Metadata(
        Timestamp(
            version,
            expires=expires,
            snapshot_meta=snapshot_meta,
            unrecognized_fields={ISSUED: documents.time_text(issued)},
        )
    )
    timestamp.sign(signer)
    return timestamp


def _meta_file(version: int, data: bytes) -> MetaFile:
    return MetaFile.from_data(version, data, [listing.HASH])


def _write(repository: Repository, role: str, document: Metadata[Any]) -> None:
    name = "timestamp.json" if role == "timestamp" else f"{document.signed.version}.{role}.json"
    files.write_durable(repository.metadata_dir / name, document.to_bytes())


def _move_files(repository: Repository, roots: set[str]) -> list[str]:
    moved = []
    for folder in RELEASE_FOLDERS:
        source, target = repository.staged_dir / folder, repository.public / folder
        names = [path.name for path in sorted(source.iterdir()) if _root_in(folder, path.name) in roots]
        for name in names:
            (source / name).replace(target / name)
        if names:
            files.fsync_directory(target)
            files.fsync_directory(source)
        moved += [f"{folder}/{name}" for name in names]
    return moved


def _root_in(folder: str, name: str) -> str | None:
    match = _FILE_NAMES[folder].fullmatch(name)
    return match.group("root") if match else None


def _roots(releases: Metadata[Targets]) -> set[str]:
    return {listing.root_of(path) for path in releases.signed.targets}


def _versions(published: Published) -> dict[str, int]:
    return {role: document.signed.version for role in ROLES if (document := published.of(role)) is not None}


def prune_staged(repository: Repository, keep: set[str]) -> None:
    """Remove the files of releases that are neither published nor staged any more from `staged/`."""
    _prune(repository.staged_dir, keep)


def _prune(base: Path, keep: set[str]) -> list[str]:
    removed = []
    for folder in RELEASE_FOLDERS:
        for path in sorted((base / folder).iterdir()):
            root = _root_in(folder, path.name)
            left_over = (
                path.name.startswith(".") and _root_in(folder, path.name[1:].rpartition(".")[0]) is not None
            )
            if left_over or (root is not None and root not in keep):
                path.unlink()
                removed.append(f"removed {folder}/{path.name}")
    return removed


# Timestamps


@dataclass(frozen=True)
class Renewal:
    """A timestamp that was renewed.

    Args:
        publication: what clients see now.
        alarms: one sentence for each document that its holders have to renew soon.
    """

    publication: Publication
    alarms: list[str]


def renew_timestamp(
    repository: Repository,
    passphrase: bytes,
    *,
    expires_s: int | None = None,
    alarm_days: int = ALARM_DAYS,
    mirror: Path | None = None,
    progress: Progress = silent,
) -> Renewal:
    """Issue the next timestamp, and the next snapshot once half of its time is over.

    Args:
        repository: the folder.
        passphrase: of the online key.
        expires_s: how long the timestamp holds, in seconds; as in config.json where None.
        alarm_days: documents of holders that expire within so many days are named.
        mirror: a folder that gets the same files.
        progress: told what is done.

    Raises:
        TrustError: a document has expired or has too few signatures; nothing is written.
        InputError: nothing is published yet, wrong passphrase, or the clock is behind.
    """
    repository.require()
    with repository.locked():
        published, now = repository.published(), repository.now()
        if published.snapshot is None or published.timestamp is None:
            raise InputError(f"{repository.path} has published nothing yet: see `repo publish`", key="REPO")
        chain = _chain(published, {})
        _require_quorums({}, chain)
        _require_valid(chain, now)
        if mirror is not None:
            _check_mirror(repository, mirror)
        signer = _online_signer(repository, chain.root, passphrase)
        actions = []
        snapshot, meta = published.snapshot, published.timestamp.signed.snapshot_meta
        half = timedelta(seconds=repository.require().expires_s["snapshot"]) / 2
        if snapshot.signed.expires - now < half or _unfinished(published):
            snapshot = _next_snapshot(repository, published, chain, set(), signer)
            meta = _meta_file(snapshot.signed.version, snapshot.to_bytes())
            _write(repository, "snapshot", snapshot)
            actions.append(f"snapshot {snapshot.signed.version} issued")
        timestamp = _next_timestamp(repository, published, meta, signer, expires_s)
        _write(repository, "timestamp", timestamp)
        actions.append(f"timestamp {timestamp.signed.version} issued")
        for action in actions:
            progress(action)
        done = Published(chain.root, timestamp, snapshot, chain.targets, chain.releases)
        copied = copy_to(repository, mirror, progress) if mirror is not None else 0
        alarms = [
            f"{role} {getattr(chain, role).signed.version} expires at "
            f"{documents.time_text(getattr(chain, role).signed.expires)}: renew and sign it"
            for role in documents.OFFLINE_ROLES
            if getattr(chain, role).signed.expires - now < timedelta(seconds=alarm_days * DAY_S)
        ]
        return Renewal(Publication(_versions(done), timestamp.signed.expires, actions, copied), alarms)


# Mirrors


def _check_mirror(repository: Repository, mirror: Path) -> None:
    inside, base = mirror.resolve(), repository.path.resolve()
    if inside == base or base in inside.parents or inside in base.parents:
        raise InputError(f"{mirror} overlaps the repository {repository.path}", key="--to")
    if mirror.exists() and not mirror.is_dir():
        raise InputError(f"{mirror} is not a directory", key="--to")
    if not mirror.exists() and not mirror.parent.is_dir():
        raise InputError(f"{mirror.parent} does not exist", key="--to")
    timestamp = mirror / "metadata" / "timestamp.json"
    if not timestamp.exists():
        if mirror.exists() and {entry.name for entry in mirror.iterdir()} - {"metadata", *RELEASE_FOLDERS}:
            raise InputError(f"{mirror} is neither empty nor a mirror", key="--to")
        return
    theirs = documents.parse(timestamp.read_bytes(), "timestamp", str(timestamp)).signed.version
    ours = repository.published().timestamp
    first = mirror / "metadata" / "1.root.json"
    own_first = repository.metadata_dir / "1.root.json"
    if ours is None or not first.exists() or first.read_bytes() != own_first.read_bytes():
        raise RefusedError(f"{mirror} is the mirror of another repository", key="--to")
    if theirs > ours.signed.version:
        raise RefusedError(
            f"{mirror} has timestamp {theirs}, this repository has {ours.signed.version}: is it an old copy?",
            key="--to",
        )


def copy_to(repository: Repository, mirror: Path, progress: Progress) -> int:
    """Copy what is published to a mirror's folder in the order of publication, skipping files that are equal.

    Returns:
        The number of files written.
    """
    copied = 0
    make_public_folder(mirror)
    for folder in (*RELEASE_FOLDERS, "metadata"):
        target = mirror / folder
        make_public_folder(target)
        for source in sorted((repository.public / folder).iterdir(), key=_publication_order):
            if source.name.startswith("."):
                continue
            there = target / source.name
            if there.is_file() and cmp(source, there, shallow=False):
                continue
            _copy_durable(source, there)
            progress(f"copied {folder}/{source.name}")
            copied += 1
    releases = repository.published().releases
    if releases is not None:
        _prune(mirror, _roots(releases))
    return copied


def _publication_order(path: Path) -> tuple[int, str]:
    if path.name == "timestamp.json":
        return 2, path.name
    return (1 if path.name.endswith(".root.json") else 0), path.name


def _copy_durable(source: Path, target: Path) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as copy, source.open("rb") as original:
            shutil.copyfileobj(original, copy, COPY_BYTES)
            copy.flush()
            os.fchmod(copy.fileno(), 0o644)
            os.fsync(copy.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    files.fsync_directory(target.parent)
