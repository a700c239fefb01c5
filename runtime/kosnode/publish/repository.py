"""One repository folder: its settings, its lock, what is published in it and what waits for signatures.

    config.json     how long documents hold, how many patches are made, how hard is compressed
    public/         exactly what a mirror serves: metadata/, releases/, patches/
    staged/         documents that wait for signatures, and the files of releases that are not published yet
    online/         the encrypted key of snapshot and timestamp, named by its key id (0700)

Who may sign, and how many must, is in the documents themselves and nowhere else.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from .. import files
from ..errors import BusyError, DamagedError, InputError
from ..metadata import RELEASES, ROLES
from . import documents
from .documents import Signers, Staged

Progress = Callable[[str], None]

DAY_S = 86_400
DEFAULT_EXPIRES_S = {
    "root": 365 * DAY_S,
    "targets": 365 * DAY_S,
    RELEASES: 180 * DAY_S,
    "snapshot": 14 * DAY_S,
    "timestamp": 2 * DAY_S,
}
DEFAULT_PATCHES = 3
DEFAULT_LEVEL = 19
LEVELS = range(1, 20)
RELEASE_FOLDERS = ("releases", "patches")
WORK_PREFIX = "work-"


@dataclass(frozen=True)
class Config:
    """Settings of a repository.

    Args:
        expires_s: how long a new document of each role holds, in seconds.
        patches: against how many earlier releases of the same name and architecture patches are made.
        level: zstd level of everything compressed.
    """

    expires_s: dict[str, int]
    patches: int = DEFAULT_PATCHES
    level: int = DEFAULT_LEVEL

    def check(self) -> Config:
        """Return it, or raise InputError naming the value that breaks a rule."""
        if set(self.expires_s) != set(ROLES) or not all(_is_integer(s) for s in self.expires_s.values()):
            raise InputError(f"expires_s needs whole seconds for {', '.join(ROLES)}", key="expires_s")
        if not _is_integer(self.patches) or not 0 <= self.patches <= 100:
            raise InputError(f"patches is {self.patches}, it must be 0 to 100", key="patches")
        if not _is_integer(self.level) or self.level not in LEVELS:
            raise InputError(f"level is {self.level}, it must be {LEVELS[0]} to {LEVELS[-1]}", key="level")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the form in config.json."""
        return {"format": 1, "expires_s": self.expires_s, "patches": self.patches, "level": self.level}


def make_public_folder(path: Path) -> None:
    """Make a folder that a web server can read, whatever the umask is; one that is there stays as it is."""
    if not path.is_dir():
        path.mkdir()
        path.chmod(0o755)


def silent(_message: str) -> None:
    """Be the progress of a call that tells nobody."""


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Published:
    """The documents that a client gets from `public/` now; None where nothing is published yet.

    `root` is the highest version there, the others are what the timestamp leads to.
    """

    root: Metadata[Root] | None = None
    timestamp: Metadata[Timestamp] | None = None
    snapshot: Metadata[Snapshot] | None = None
    targets: Metadata[Targets] | None = None
    releases: Metadata[Targets] | None = None

    def of(self, role: str) -> Metadata[Any] | None:
        """Return the document of a role."""
        document: Metadata[Any] | None = getattr(self, role)
        return document


@dataclass(frozen=True)
class Change:
    """What staging a document did.

    Args:
        changed: whether a file was written or removed.
        dropped: how many signatures of an earlier draft no longer hold.
        staged: the document that waits now, None where it would equal what is published.
    """

    changed: bool
    dropped: int
    staged: Staged | None


class Repository:
    """A repository folder.

    Args:
        path: the folder.
        now: the clock.

    Raises:
        InputError: on use, where the folder is not a repository.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = documents.utc_now) -> None:
        self.path = path
        self.now = now

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def public(self) -> Path:
        return self.path / "public"

    @property
    def metadata_dir(self) -> Path:
        return self.public / "metadata"

    @property
    def staged_dir(self) -> Path:
        return self.path / "staged"

    def online_key(self, keyid: str) -> Path:
        """Return where the encrypted private key is that signs snapshot and timestamp."""
        return self.path / "online" / f"{keyid}.key"

    def require(self) -> Config:
        """Return the settings of an initialised repository.

        Raises:
            InputError: not a repository, or its config.json breaks a rule.
        """
        try:
            value = files.read_json(self.config_path, limit=64 * 1024)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{self.path} is not a repository (no config.json): see `repo init`", key="REPO"
            ) from None
        if not isinstance(value, dict) or set(value) != {"format", "expires_s", "patches", "level"}:
            raise InputError(
                f"{self.config_path} needs format, expires_s, patches and level", key="config.json"
            )
        if value.pop("format") != 1 or not isinstance(value["expires_s"], dict):
            raise InputError(f"{self.config_path} has an unknown format", key="format")
        return Config(**value).check()

    @contextmanager
    def locked(self, *, founding: bool = False) -> Iterator[None]:
        """Hold the repository's lock; each verb that writes does.

        Args:
            founding: the folder is only just being made a repository.

        Raises:
            BusyError: somebody else holds it.
            InputError: not a repository.
        """
        if not founding:
            self.require()
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise BusyError(f"{self.path} is being changed by another process (pid {holder})") from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    # What is published

    def published(self) -> Published:
        """Read what is published; the folder is trusted as far as its files hang together.

        Raises:
            DamagedError: a document that another one leads to is missing.
        """
        root = self._highest_root()
        timestamp_path = self.metadata_dir / "timestamp.json"
        if not timestamp_path.exists():
            return Published(root=root)
        timestamp: Metadata[Timestamp] = self._document("timestamp", timestamp_path)
        snapshot: Metadata[Snapshot] = self._document(
            "snapshot", self.metadata_dir / f"{timestamp.signed.snapshot_meta.version}.snapshot.json"
        )
        versions = {name: meta.version for name, meta in snapshot.signed.meta.items()}
        if set(versions) != {"targets.json", f"{RELEASES}.json"}:
            raise DamagedError(
                f"{self.metadata_dir}: snapshot {snapshot.signed.version} lists {sorted(versions)}"
            )
        return Published(
            root,
            timestamp,
            snapshot,
            self._document("targets", self.metadata_dir / f"{versions['targets.json']}.targets.json"),
            self._document(RELEASES, self.metadata_dir / f"{versions[f'{RELEASES}.json']}.{RELEASES}.json"),
        )

    def _highest_root(self) -> Metadata[Root] | None:
        versions = [int(path.name.split(".")[0]) for path in self.metadata_dir.glob("[1-9]*.root.json")]
        return self._document("root", self.metadata_dir / f"{max(versions)}.root.json") if versions else None

    def _document(self, role: str, path: Path) -> Metadata[Any]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DamagedError(f"{path} is missing although another document leads to it") from None
        return documents.parse(data, role, str(path))

    # What waits for signatures

    def staged_path(self, role: str) -> Path | None:
        """Return the file in which a role waits for signatures, or None."""
        if role != "root":
            path = self.staged_dir / f"{role}.json"
            return path if path.exists() else None
        found = sorted(self.staged_dir.glob("[1-9]*.root.json"))
        if len(found) > 1:
            raise DamagedError(f"{self.staged_dir} holds {len(found)} versions of root, one is possible")
        return found[0] if found else None

    def staged(self, role: str) -> Staged | None:
        """Return the document of a role that waits for signatures, judged by the repository's delegations.

        What an interrupted publication has made public already does not wait any more.

        Raises:
            DamagedError: its version is public with other contents.
        """
        path = self.staged_path(role)
        if path is None:
            return None
        portable = documents.parse_staged(path.read_bytes(), str(path))
        if portable.role != role:
            raise DamagedError(f"{path} holds {portable.role}")
        published, version = self.published().of(role), portable.document.signed.version
        if published is not None and published.signed.version >= version:
            if published.signed_bytes != portable.document.signed_bytes:
                raise DamagedError(f"{role} {version} is public with other contents than {path}")
            return None
        return self._judged(role, portable.document)

    def effective(self, role: str) -> Metadata[Any]:
        """Return the staged document of an offline role, else the published one."""
        staged = self.staged(role)
        document = self.published().of(role) if staged is None else staged.document
        if document is None:
            raise DamagedError(f"{self.path} has no {role} metadata, neither staged nor published")
        return document

    def signers(self, role: str) -> Signers:
        """Return who may sign an offline role once everything that is staged is published."""
        delegator = "targets" if role == RELEASES else "root"
        return documents.signers_of(self.effective(delegator).signed, role)

    def draft(self, role: str) -> Any:
        """Return a copy to change: of the staged signed part, else of the published one as next version."""
        staged = self.staged(role)
        if staged is not None:
            signed = deepcopy(staged.document.signed)
        else:
            signed = deepcopy(self.effective(role).signed)
            signed.version += 1
        signed.expires = self.expiry(role)
        return signed

    def expiry(self, role: str) -> datetime:
        """Return when a document of a role that is made now expires."""
        return self.now() + timedelta(seconds=self.require().expires_s[role])

    def stage(self, role: str, signed: Any, *, renew: bool = False) -> Change:
        """Put the next version of a document where holders sign it.

        A draft with the same contents keeps its signatures; one that came back to what is public goes away.

        Args:
            role: an offline role.
            signed: its signed part, from `draft`.
            renew: stage it although nothing but version and expiry differ from what is staged or published.
        """
        documents.check(signed, role, f"the new {role}")
        old = self.staged(role)
        dropped = 0 if old is None else len(old.document.signatures)
        published = self.published().of(role)
        if not renew:
            if old is not None and documents.same_contents(old.document.signed, signed):
                return Change(False, 0, old)
            if published is not None and documents.same_contents(published.signed, signed):
                self.unstage(role)
                return Change(old is not None, dropped, None)
        staged = self._judged(role, Metadata(signed))
        self.write_staged(staged)
        return Change(True, dropped, staged)

    def write_staged(self, staged: Staged) -> None:
        """Write a document that waits for signatures, durably."""
        name = (
            f"{staged.document.signed.version}.root.json" if staged.role == "root" else f"{staged.role}.json"
        )
        old = self.staged_path(staged.role)
        files.write_durable(self.staged_dir / name, staged.to_bytes())
        if old is not None and old.name != name:
            old.unlink()

    def unstage(self, role: str) -> None:
        """Remove what waits for signatures of a role."""
        path = self.staged_path(role)
        if path is not None:
            path.unlink()
            files.fsync_directory(self.staged_dir)

    def refresh_contexts(self) -> None:
        """Write the staged files again where root or targets have changed who may sign them."""
        for role in documents.OFFLINE_ROLES:
            path, staged = self.staged_path(role), self.staged(role)
            if path is not None and staged is not None and path.read_bytes() != staged.to_bytes():
                self.write_staged(staged)

    def _judged(self, role: str, document: Metadata[Any]) -> Staged:
        previous = self.published().of(role)
        signers = documents.signers_of(document.signed, "root") if role == "root" else self.signers(role)
        return Staged(role, document, previous, signers)

    # Files of releases

    def find(self, name: str) -> Path | None:
        """Return where a file of a release is, staged or published, or None.

        Args:
            name: its path on a mirror, such as `releases/ROOT.json`.
        """
        for base in (self.staged_dir, self.public):
            path = base / name
            if path.is_file():
                return path
        return None

    # Scratch

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Give a scratch directory on the repository's own file system, and remove it and older ones."""
        for stale in self.staged_dir.glob(f"{WORK_PREFIX}*"):
            shutil.rmtree(stale)
        path = self.staged_dir / f"{WORK_PREFIX}{os.getpid()}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
