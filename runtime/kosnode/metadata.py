"""One state of a TUF repository, read from disk, each role verified against the one that delegates to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp

RELEASES = "releases"
ROLES = ("root", "timestamp", "snapshot", "targets", RELEASES)
ISSUED = "x-kos-issued"
TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Chain:
    """The metadata of one repository state; each was verified against the one before."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    releases: Targets

    def roles(self) -> dict[str, Signed]:
        members = (self.root, self.timestamp, self.snapshot, self.targets, self.releases)
        return dict(zip(ROLES, members, strict=True))

    @property
    def issued(self) -> datetime:
        """See `issue_time`."""
        return issue_time(self.timestamp)

    def key_ids(self) -> dict[str, tuple[str, ...]]:
        """Key ids that may sign each role but root, which is followed link by link."""
        found = {
            role: tuple(sorted(self.root.roles[role].keyids)) for role in ("timestamp", "snapshot", "targets")
        }
        found[RELEASES] = tuple(sorted(self.targets.get_delegated_role(RELEASES).keyids))
        return found


def first_root(data: bytes) -> Root:
    """Read a root that vouches for itself; raises RepositoryError."""
    metadata = Metadata[Root].from_bytes(data)
    if not isinstance(metadata.signed, Root):
        raise RepositoryError(f"it is of type {metadata.signed.type}")
    metadata.signed.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    return metadata.signed


def follow_roots(pinned: bytes, directory: Path) -> Root:
    """Follow the roots that are kept in `directory` from the pinned one to the newest."""
    root = first_root(pinned)
    while True:
        path = directory / "root_history" / f"{root.version + 1}.root.json"
        try:
            data = path.read_bytes()
            successor = first_root(data)
            metadata = Metadata[Root].from_bytes(data)
            root.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
        except (OSError, RepositoryError):
            return root
        if successor.version != root.version + 1:
            return root
        root = successor


def read_chain(pinned: bytes, directory: Path) -> Chain:
    """Read metadata from disk and verify each against the one before, but for expiry.

    Raises:
        RepositoryError: missing, torn, unsigned, or of different states of the repository.
    """
    root = follow_roots(pinned, directory)
    timestamp = _read_role(directory, "timestamp", Timestamp, root)
    snapshot = _read_role(directory, "snapshot", Snapshot, root)
    targets = _read_role(directory, "targets", Targets, root)
    releases = _read_role(directory, RELEASES, Targets, targets)
    wanted = {
        "snapshot": (snapshot.version, timestamp.snapshot_meta.version),
        "targets": (targets.version, _snapshot_version(snapshot, "targets")),
        RELEASES: (releases.version, _snapshot_version(snapshot, RELEASES)),
    }
    for role, (has, needs) in wanted.items():
        if has != needs:
            raise RepositoryError(
                f"{role} has version {has}, {needs} belongs to this state of the repository"
            )
    return Chain(root, timestamp, snapshot, targets, releases)


def _read_role(directory: Path, role: str, kind: Any, delegator: Root | Targets) -> Any:
    path = directory / f"{role}.json"
    if not path.exists():
        raise RepositoryError(f"{role} is missing")
    metadata: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
    if not isinstance(metadata.signed, kind):
        raise RepositoryError(f"{role} is of type {metadata.signed.type}")
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except ValueError as error:
        raise RepositoryError(f"{role} is not delegated: {error}") from None
    return metadata.signed


def _snapshot_version(snapshot: Snapshot, role: str) -> int:
    try:
        return int(snapshot.meta[f"{role}.json"].version)
    except KeyError:
        raise RepositoryError(f"snapshot does not name {role}") from None


def issue_time(timestamp: Timestamp) -> datetime:
    """Return when a timestamp was signed, says its signer; raises RepositoryError."""
    try:
        return datetime.strptime(str(timestamp.unrecognized_fields[ISSUED]), TIME).replace(
            tzinfo=timezone.utc
        )
    except (KeyError, ValueError):
        raise RepositoryError(f"timestamp has no valid {ISSUED} (UTC, YYYY-MM-DDTHH:MM:SSZ)") from None
