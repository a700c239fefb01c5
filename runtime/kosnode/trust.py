"""What this node believes: TUF metadata below a pinned root, with marks that survive a power cut.

python-tuf verifies signatures, thresholds, versions and expiry. This module adds what it leaves to its user:
a fresh try for each mirror on a copy of the good state, durable adoption, our own marks against rollback,
a signed time floor for hosts without a clock, and an allow list of hashes.

Source: The Update Framework specification 1.0.34, section 5 (client workflow).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Protocol

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, TargetFile, Targets, Timestamp
from tuf.ngclient import UpdaterConfig

from . import files, listing, version
from .errors import DamagedError, InputError, MirrorError, NotFoundError, RefusedError, TrustError
from .fetch import FetchError, Mirror
from .listing import SECURITY_FLOOR, Custom
from .marks import Marks, MarksFile
from .metadata import RELEASES, TIME, Chain, first_root, follow_roots, issue_time, read_chain
from .paths import NodePaths
from .updater import MirrorFetcher, TimedUpdater

METADATA = "metadata"
ROOT_MAX_BYTES = 512_000
CONFIG = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=4,
    root_max_length=ROOT_MAX_BYTES,
    timestamp_max_length=16_384,
    snapshot_max_length=1_000_000,
    targets_max_length=5_000_000,
    prefix_targets_with_hash=False,
)

_ROOT_PREFIX = re.compile(r"[0-9a-f]{12,64}")


class Clock(Protocol):
    """Where the time comes from; tests pass one that is wrong."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""


class SystemClock:
    """The clock of this host."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Refreshed:
    """What a refresh came to.

    Args:
        mirror: address of the mirror whose metadata count now.
        errors: `{"url", "error"}` for each mirror that lied, stalled, died or was behind.
        bytes: bytes of metadata received from all mirrors.
    """

    mirror: str
    errors: tuple[dict[str, str], ...]
    bytes: int


@dataclass(frozen=True)
class Available(Custom):
    """A release that the `releases` role signs.

    Args:
        root: release root, hex; names the slot and the mirror's files.
        target: the signed length and hash of the manifest.
    """

    root: str
    target: TargetFile = field(repr=False, compare=False)

    @property
    def target_path(self) -> str:
        return self.target.path

    def verify(self, manifest: bytes) -> None:
        """Check the bytes of the manifest against what is signed.

        Raises:
            DamagedError: length or hash differ.
        """
        try:
            self.target.verify_length_and_hashes(manifest)
        except LengthOrHashMismatchError as error:
            raise DamagedError(f"manifest {self.target_path} is not what is signed: {error}") from None


class Trust:
    """The trusted metadata of one node. The caller holds the node's lock while `refresh` runs.

    Args:
        paths: where things are.
        mirrors: in the order they are asked.
        clock: the time.
    """

    def __init__(self, paths: NodePaths, mirrors: Sequence[Mirror], clock: Clock | None = None) -> None:
        self.mirrors = list(mirrors)
        self.clock = clock or SystemClock()
        self._pinned_path = paths.pinned_root
        self._directory = paths.trust
        self._metadata = paths.trust / METADATA
        self._marks = MarksFile(paths.trust)
        self._chain: Chain | None = None

    def refresh(self) -> Refreshed:
        """Ask every mirror, and believe the newest metadata that verify.

        Raises:
            InputError: the mirror list is empty.
            TrustError: the root of trust is missing or wrong, or what mirrors gave is unsigned, expired,
                rolled back or frozen, or the marks are unreadable.
            MirrorError: no mirror answered; names each with its error.
        """
        if not self.mirrors:
            raise InputError("the mirror list is empty: at least one address is needed", key="mirrors")
        pinned = self._pinned()
        marks = self._load_marks()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        tries = self._directory / "try"
        shutil.rmtree(tries, ignore_errors=True)
        try:
            return self._refresh(pinned, marks, tries)
        finally:
            shutil.rmtree(tries, ignore_errors=True)

    def _refresh(self, pinned: bytes, marks: Marks, tries: Path) -> Refreshed:
        before = sum(mirror.received for mirror in self.mirrors)
        best, chain, chosen = self._metadata, None, ""
        failures: list[tuple[Mirror, FetchError | TrustError]] = []
        given: list[tuple[Mirror, int]] = []
        for number, mirror in enumerate(self.mirrors):
            candidate = tries / str(number)
            _copy_metadata(best, candidate)
            try:
                found = self._ask(mirror, candidate, pinned, marks)
            except (FetchError, TrustError) as error:
                failures.append((mirror, error))
                continue
            given.append((mirror, found.timestamp.version))
            if chain is None or found.timestamp.version > chain.timestamp.version:
                best, chain, chosen = candidate, found, mirror.url
        received = sum(mirror.received for mirror in self.mirrors) - before
        if chain is None:
            raise _nobody(failures)
        # The marks first: metadata without marks are refused, marks without metadata are only fetched again.
        self._marks.store(marks.raised_to(chain))
        _adopt(best, self._metadata)
        self._chain = chain
        newest = chain.timestamp.version
        behind = [
            {
                "url": mirror.url,
                "error": f"behind: timestamp has version {number}, another mirror has {newest}",
            }
            for mirror, number in given
            if number < newest
        ]
        return Refreshed(chosen, (*behind, *_named(failures)), received)

    def _ask(self, mirror: Mirror, candidate: Path, pinned: bytes, marks: Marks) -> Chain:
        """Let one mirror bring `candidate` up to date; raises FetchError or TrustError."""
        fetcher = MirrorFetcher(mirror)
        now = self.clock.now()
        reference = marks.reference(now)
        try:
            try:
                _update(candidate, fetcher, pinned, reference)
            except ExpiredMetadataError:
                without_rotated = marks.under(follow_roots(pinned, candidate)).reference(now)
                if without_rotated == reference:
                    raise
                _update(candidate, fetcher, pinned, without_rotated)
            chain = read_chain(pinned, candidate)
            marks.check(chain)
            _check_expiry(chain, marks.raised_to(chain).reference(now))
            list(_available(chain))
        except ExpiredMetadataError as error:
            raise _expired(fetcher, pinned, candidate, now, reference, str(error)) from None
        except DownloadError as error:
            if isinstance(error.__cause__, FetchError):
                raise error.__cause__ from None
            raise FetchError(mirror.url, str(error)) from None
        except RepositoryError as error:
            raise self._distrust(error) from None
        return chain

    def _distrust(self, error: RepositoryError) -> TrustError:
        if isinstance(error, UnsignedMetadataError):
            return TrustError(
                f"too few valid signatures: {error}; is {self._pinned_path} the root of trust of this fleet?"
            )
        if isinstance(error, BadVersionNumberError):
            return TrustError(f"rolled back: {error}")
        return TrustError(f"metadata are refused: {error}")

    def releases(self, name: str | None = None) -> list[Available]:
        """Return the releases that the newest believed metadata sign, in order of name and version.

        Args:
            name: one release line only.

        Raises:
            TrustError: nothing was refreshed yet, or the metadata on disk are damaged.
        """
        found = [release for release in _available(self._believed()) if name in (None, release.name)]
        return sorted(found, key=lambda release: (release.name, version.key(release.version), release.arch))

    def resolve(self, ref: str, name: str, channel: str, arch: str) -> Available:
        """Find the release that a person names.

        Args:
            ref: a version, a release root, or a unique prefix of one with at least 12 digits.
            name: release line of this node.
            channel: channel of this node.
            arch: architecture of this node.

        Raises:
            InputError: `ref` is neither, or names several.
            NotFoundError: no such release, or not in this channel, or for another architecture.
            RefusedError: lower than the signed security floor.
        """
        there = self.releases(name)
        named = _named_by(ref, there)
        if not named:
            raise NotFoundError(f"release {name} {ref} does not exist; {_listing(there, channel, arch)}")
        fitting = [release for release in named if release.arch in ("any", arch)]
        if not fitting:
            for_arch = ", ".join(sorted({release.arch for release in named}))
            raise NotFoundError(f"release {name} {ref} is for {for_arch}, this node is {arch}")
        open_ = [release for release in fitting if channel in release.channels]
        if not open_:
            channels = ", ".join(sorted({c for release in fitting for c in release.channels})) or "none"
            raise NotFoundError(
                f"release {name} {ref} is outside the channel {channel} (it is in: {channels}); "
                f"{_listing(there, channel, arch)}"
            )
        exact = [release for release in open_ if release.arch == arch] or open_
        _one(ref, exact)
        floor = self.security_floor(name)
        if floor is not None and version.key(exact[0].version) < version.key(floor):
            raise RefusedError(
                f"release {name} {exact[0].version} is below the signed security floor {floor}"
            )
        return exact[0]

    def security_floor(self, name: str) -> str | None:
        """Return the lowest version of `name` that may be installed; None where none is signed."""
        return _security_floors(self._believed().releases).get(name)

    def expiry(self) -> dict[str, datetime]:
        """Return when the believed metadata of each role expire; raises TrustError as `releases`."""
        return {role: signed.expires for role, signed in self._believed().roles().items()}

    def time_floor(self) -> datetime | None:
        """Return the latest signed time this node has seen; None before the first refresh."""
        return self._load_marks().floor

    def _believed(self) -> Chain:
        if self._chain is None:
            marks = self._load_marks()
            if not (self._metadata / "timestamp.json").exists():
                raise TrustError("no metadata were fetched and verified yet")
            try:
                chain = read_chain(self._pinned(), self._metadata)
            except RepositoryError as error:
                raise TrustError(
                    f"the metadata in {self._metadata} are damaged ({error}): refresh them"
                ) from None
            marks.check(chain)
            self._chain = chain
        return self._chain

    def _pinned(self) -> bytes:
        try:
            with self._pinned_path.open("rb") as stream:
                data = stream.read(ROOT_MAX_BYTES + 1)
        except FileNotFoundError:
            raise TrustError(
                f"the root of trust {self._pinned_path} is missing: bootstrap puts it there"
            ) from None
        try:
            if len(data) > ROOT_MAX_BYTES:
                raise RepositoryError(f"more than {ROOT_MAX_BYTES} bytes")
            first_root(data)
        except RepositoryError as error:
            raise TrustError(f"{self._pinned_path} is not a root of trust: {error}") from None
        return data

    def _load_marks(self) -> Marks:
        marks = self._marks.load()
        if marks:
            return marks
        if self._marks.exists() or (self._metadata / "timestamp.json").exists():
            copies = " and ".join(str(copy) for copy in self._marks.copies)
            raise TrustError(
                f"{copies} are unreadable: this node no longer knows which versions it has seen, and an old "
                f"release could be passed off as new. Check disk and clock, then remove {self._directory}: "
                "the next refresh starts from the pinned root"
            )
        return Marks()


def _update(candidate: Path, fetcher: MirrorFetcher, pinned: bytes, reference: datetime) -> None:
    updater = TimedUpdater(candidate, METADATA, fetcher, pinned, reference, CONFIG)
    updater.refresh()
    # Looking for any release brings the delegated role; there need not be one of this name.
    updater.get_targetinfo(f"{RELEASES}/{'0' * 64}.json")


def _check_expiry(chain: Chain, reference: datetime) -> None:
    for role, signed in chain.roles().items():
        if signed.is_expired(reference):
            raise ExpiredMetadataError(f"{role} is expired")


def _expired(
    fetcher: MirrorFetcher, pinned: bytes, candidate: Path, now: datetime, reference: datetime, what: str
) -> TrustError:
    """Say what expired, when it was issued, and whether the clock may be to blame."""
    root = follow_roots(pinned, candidate)
    expired = []
    clock = f"this node's clock says {now.strftime(TIME)}"
    if root.is_expired(reference):
        expired.append(f"root of trust version {root.version} expired at {root.expires.strftime(TIME)}")
    try:
        metadata = Metadata[Timestamp].from_bytes(fetcher.seen[f"{METADATA}/timestamp.json"])
        root.verify_delegate("timestamp", metadata.signed_bytes, metadata.signatures)
        timestamp, issued = metadata.signed, issue_time(metadata.signed)
    except (KeyError, RepositoryError):
        pass  # nothing signed to compare the clock with
    else:
        clock += f", {_span(now - issued)} the newest signed time {issued.strftime(TIME)}"
        if timestamp.is_expired(reference):
            expired.append(
                f"timestamp version {timestamp.version} expired at {timestamp.expires.strftime(TIME)}: "
                f"frozen or not renewed since {issued.strftime(TIME)}"
            )
    return TrustError(f"{'; '.join(expired) or what}; or the clock is wrong: {clock}")


def _span(difference: timedelta) -> str:
    seconds = difference.total_seconds()
    side = "after" if seconds >= 0 else "before"
    days, hours = divmod(int(abs(seconds)) // 3600, 24)
    return f"{days} days {side}" if days else f"{hours} hours {side}"


def _nobody(failures: Sequence[tuple[Mirror, FetchError | TrustError]]) -> TrustError | MirrorError:
    """Make the one error of a refresh in which no mirror was good."""
    named = _named(failures)
    detail: dict[str, object] = {"mirrors": named}
    distrusted = [error for _, error in failures if isinstance(error, TrustError)]
    listing = "; ".join(f"{entry['url']}: {entry['error']}" for entry in named)
    if not distrusted:
        return MirrorError(f"no mirror answered: {listing}", detail=detail)
    if len(failures) == 1 or all(error.message == distrusted[0].message for _, error in failures):
        asked = ", ".join(entry["url"] for entry in named)
        return TrustError(f"{distrusted[0].message} (asked: {asked})", detail=detail)
    return TrustError(f"no mirror gave metadata that can be trusted: {listing}", detail=detail)


def _named(failures: Sequence[tuple[Mirror, FetchError | TrustError]]) -> list[dict[str, str]]:
    return [
        {"url": mirror.url, "error": error.reason if isinstance(error, FetchError) else error.message}
        for mirror, error in failures
    ]


def _available(chain: Chain) -> Iterator[Available]:
    _security_floors(chain.releases)
    delegations = chain.targets.delegations
    for path, target in chain.releases.targets.items():
        try:
            if not delegations or (RELEASES not in dict(delegations.get_roles_for_target(path))):
                raise ValueError(f"the role {RELEASES} may not sign it")
            yield _release(path, target)
        except (ValueError, InputError) as error:
            raise TrustError(f"target {path} is refused: {error}") from None


def _release(path: str, target: TargetFile) -> Available:
    root, custom = listing.root_of(path), listing.custom_of(target)
    return Available(**vars(custom), root=root, target=target)


def _security_floors(releases: Targets) -> dict[str, str]:
    floors = releases.unrecognized_fields.get(SECURITY_FLOOR, {})
    if not isinstance(floors, dict):
        raise TrustError(f"{SECURITY_FLOOR} is not an object of names and versions")
    for name, lowest in floors.items():
        try:
            version.key(lowest)
        except (InputError, TypeError, ValueError):
            raise TrustError(f"{SECURITY_FLOOR}.{name} is not a version") from None
    return floors


def _named_by(ref: str, there: Sequence[Available]) -> list[Available]:
    if _ROOT_PREFIX.fullmatch(ref):
        return _one(ref, [release for release in there if release.root.startswith(ref)])
    try:
        version.key(ref)
    except InputError:
        rule = "a version such as 1.2.3, or a release root: 64 hexadecimal digits, or its first 12 or more"
        raise InputError(f"release {ref!r} is not {rule}", key="release") from None
    return [release for release in there if release.version == ref]


def _one(ref: str, named: list[Available]) -> list[Available]:
    """Return `named`; raises InputError where it holds several."""
    if len(named) > 1:
        roots = ", ".join(release.root for release in named)
        raise InputError(f"{ref} names several releases, name one by its root: {roots}", key="release")
    return named


def _listing(there: Sequence[Available], channel: str, arch: str) -> str:
    fitting = [r.version for r in there if channel in r.channels and r.arch in ("any", arch)]
    return f"in channel {channel} for {arch} there are: {', '.join(fitting) or 'none'}"


def _copy_metadata(source: Path, candidate: Path) -> None:
    """Copy the good state for one mirror to work on; python-tuf makes its link to the newest root itself."""
    (candidate / "root_history").mkdir(mode=0o700, parents=True)
    for path in _metadata_files(source):
        shutil.copyfile(path, candidate / path.relative_to(source))


def _adopt(candidate: Path, metadata: Path) -> None:
    """Make the state that verified the node's own, durably; the timestamp, which leads to all, comes last."""
    for directory in (metadata, metadata / "root_history"):
        directory.mkdir(mode=0o700, exist_ok=True)
        files.fsync_directory(directory.parent)
    for path in sorted(_metadata_files(candidate), key=lambda path: (path.name == "timestamp.json", path)):
        target = metadata / path.relative_to(candidate)
        data = path.read_bytes()
        if not target.exists() or target.read_bytes() != data:
            files.write_durable(target, data, mode=0o600)


def _metadata_files(directory: Path) -> list[Path]:
    found = [*directory.glob("*.json"), *(directory / "root_history").glob("*.root.json")]
    return [path for path in found if path.is_file() and not path.is_symlink()]
