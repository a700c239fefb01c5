"""A TUF repository of one folder for tests, whose keys are at hand, so that any state of it can be signed.

    repository = TinyRepository(folder)
    repository.release("1.0.0")
    repository.publish()

It can sign what an honest publisher never would: that is its purpose.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

START = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
OFFLINE_LIFE = timedelta(days=365)
ONLINE_LIFE = timedelta(days=2)


class FixedClock:
    """A clock that stands where a test puts it."""

    def __init__(self, time: datetime = START) -> None:
        self.time = time

    def now(self) -> datetime:
        return self.time


def signers(count: int) -> list[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(count)]


@dataclass
class TinyRepository:
    """Root, targets and releases are signed by 2 of 3, snapshot and timestamp by one online key.

    Attributes:
        folder: what a mirror serves.
        now: when the next publication is issued.
        holders: signers of each role; a test changes them, or how many sign (`hands`).
    """

    folder: Path
    now: datetime = START
    hands: dict[str, int] = field(default_factory=lambda: {"targets": 2, "releases": 2})
    versions: dict[str, int] = field(default_factory=dict)
    floors: dict[str, str] = field(default_factory=dict)
    targets: dict[str, TargetFile] = field(default_factory=dict)
    timestamp_fields: dict[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ("releases/*",)
    holders: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    offline_life: timedelta = OFFLINE_LIFE
    online_life: timedelta = ONLINE_LIFE

    def __post_init__(self) -> None:
        self.metadata.mkdir(parents=True)
        online = signers(1)
        self.holders = {role: signers(3) for role in ("root", "targets", "releases")}
        self.holders |= {"snapshot": online, "timestamp": online}
        self.thresholds = {"root": 2, "targets": 2, "releases": 2, "snapshot": 1, "timestamp": 1}
        self.root_signers = list(self.holders["root"])
        self.publish_root()

    @property
    def metadata(self) -> Path:
        return self.folder / "metadata"

    @property
    def first_root(self) -> bytes:
        """What bootstrap pins."""
        return (self.metadata / "1.root.json").read_bytes()

    def publish_root(self, expires: datetime | None = None) -> None:
        """Sign the next root, with the holders of root before and now."""
        root = Root(
            version=self._next("root"),
            expires=expires or self.now + self.offline_life,
            consistent_snapshot=True,
        )
        for role in ("root", "targets", "snapshot", "timestamp"):
            for signer in self.holders[role]:
                root.add_key(signer.public_key, role)
            root.roles[role].threshold = self.thresholds[role]
        both = {signer.public_key.keyid: signer for signer in (*self.root_signers, *self.holders["root"])}
        self._write(f"{root.version}.root", root, list(both.values()))
        self.root_signers = list(self.holders["root"])

    def release(self, version: str, **changes: Any) -> str:
        """Put a release into the next publication.

        Args:
            version: SemVer.
            changes: other values of `custom`, or `hashes`, `path`, `document` (bytes of release.json).

        Returns:
            The release root; made up where no `root` is given.
        """
        document: bytes = changes.pop("document", version.encode())
        root: str = changes.pop("root", hashlib.sha3_256(repr((version, changes)).encode()).hexdigest())
        path: str = changes.pop("path", f"releases/{root}.json")
        hashes = changes.pop("hashes", {"sha3_256": hashlib.sha3_256(document).hexdigest()})
        custom = {
            "name": "kos",
            "version": version,
            "arch": "any",
            "channels": ["stable"],
            "archive": [100],
            "manifest": 50,
            "unpacked": 1000,
            **changes,
        }
        kept = {key: value for key, value in custom.items() if value is not None}
        self.targets[path] = TargetFile(len(document), hashes, path, {"custom": kept})
        return root

    def publish(self, **versions: int) -> None:
        """Sign all but root.

        Args:
            versions: versions to sign instead of the next ones.
        """
        self.versions |= {role: number - 1 for role, number in versions.items()}
        offline = self.now + self.offline_life
        extra = {"x-kos-security-floor": self.floors} if self.floors else {}
        releases = Targets(
            version=self._next("releases"), expires=offline, targets=self.targets, unrecognized_fields=extra
        )
        role = DelegatedRole(
            "releases",
            [signer.public_key.keyid for signer in self.holders["releases"]],
            self.thresholds["releases"],
            True,
            list(self.paths),
        )
        keys: dict[str, Key] = {key.public_key.keyid: key.public_key for key in self.holders["releases"]}
        delegations = Delegations(keys, {"releases": role})
        targets = Targets(version=self._next("targets"), expires=offline, delegations=delegations)
        self._write(f"{releases.version}.releases", releases)
        self._write(f"{targets.version}.targets", targets)
        self.publish_snapshot(targets=targets.version, releases=releases.version)

    def publish_snapshot(self, **versions: int) -> None:
        """Sign the next snapshot, of these versions of targets and releases, and the next timestamp."""
        meta = {f"{role}.json": MetaFile(number) for role, number in versions.items()}
        snapshot = Snapshot(version=self._next("snapshot"), expires=self.now + self.online_life, meta=meta)
        self._write(f"{snapshot.version}.snapshot", snapshot)
        self.publish_timestamp()

    def sign_again(self, role: str) -> None:
        """Put the signatures of those who hold `role` now on the document that was published last."""
        name = f"{self.versions[role]}.{role}"
        published: Metadata[Any] = Metadata.from_file(str(self.metadata / f"{name}.json"))
        self._write(name, published.signed)

    def publish_timestamp(self, **fields: Any) -> None:
        """Sign the next timestamp over the newest snapshot; `fields` replace its own fields."""
        issued = {"x-kos-issued": self.now.strftime("%Y-%m-%dT%H:%M:%SZ")}
        timestamp = Timestamp(
            version=self._next("timestamp"),
            expires=self.now + self.online_life,
            snapshot_meta=MetaFile(self.versions["snapshot"]),
            unrecognized_fields={**issued, **fields},
        )
        self._write("timestamp", timestamp)

    def rotate_online(self) -> None:
        """Replace the online key, by a new root."""
        online = signers(1)
        self.holders |= {"snapshot": online, "timestamp": online}
        self.publish_root()

    def _next(self, role: str) -> int:
        self.versions[role] = self.versions.get(role, 0) + 1
        return self.versions[role]

    def _write(self, name: str, signed: Any, holders: list[CryptoSigner] | None = None) -> None:
        role = name.rpartition(".")[2]
        metadata: Metadata[Any] = Metadata(signed)
        for signer in (holders or self.holders[role])[: self.hands.get(role)]:
            metadata.sign(signer, append=True)
        (self.metadata / f"{name}.json").write_bytes(metadata.to_bytes())
