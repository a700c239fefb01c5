"""A repository with its holders, a small tree to release, and a client that is python-tuf's own."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater, UpdaterConfig

from kosnode.publish import build, documents, holders, keys, publication, signing
from kosnode.publish.build import Built
from kosnode.publish.repository import DEFAULT_EXPIRES_S, Config, Repository

PASSPHRASE = b"three blind mice, in a test"
HOLDERS = ("alice", "bob", "carol", "mallory", "online")

# Rounds of random tests; make test-all takes many. A failing seed is printed, KOS_SEED replays it.
ROUNDS = int(os.environ.get("KOS_ROUNDS", "4"))

UNIT = """\
id: {name}
version: 1.0.0
tier: 3
entry:
  command: [bin/run]
"""


def chance() -> random.Random:
    """Return a generator whose seed is printed, and taken from KOS_SEED where that is set."""
    seed = int(os.environ.get("KOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"KOS_SEED={seed}")
    return random.Random(seed)


@dataclass
class Clock:
    """A clock that a test moves."""

    now: datetime = field(default_factory=lambda: datetime.now(timezone.utc).replace(microsecond=0))

    def __call__(self) -> datetime:
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += timedelta(days=days)


class World:
    """Holders alice, bob and carol (2 of 3 everywhere), an outsider, an online key, their repository.

    Args:
        base: a directory for all of it.
        expires_s: how long documents hold, where it is not the default.
    """

    def __init__(self, base: Path, **expires_s: int) -> None:
        self.base = base
        self.clock = Clock()
        self.repository = Repository(base / "repository", self.clock)
        self.passphrase_file = base / "passphrase"
        self.passphrase_file.write_bytes(PASSPHRASE + b"\n")
        self.passphrase_file.chmod(0o600)
        for holder in HOLDERS:
            keys.make(self.key(holder), PASSPHRASE)
        self.config = Config({**DEFAULT_EXPIRES_S, **expires_s}, level=3)

    def key(self, holder: str) -> Path:
        return self.base / f"{holder}.key"

    def public(self, holder: str) -> Path:
        return self.base / f"{holder}.pub"

    def signers(self, *names: str, threshold: int = 2) -> documents.Signers:
        return holders.read_signers("root", [self.public(name) for name in names], threshold)

    def foundation(self) -> holders.Foundation:
        trio = self.signers("alice", "bob", "carol")
        return holders.Foundation(trio, None, trio, holders.OnlineKey(self.key("online"), PASSPHRASE))

    def initialise(self) -> World:
        holders.initialise(self.repository, self.config, self.foundation())
        return self

    def sign(self, role: str, *names: str) -> None:
        for name in names:
            signing.sign(self.repository.path, role, self.key(name), PASSPHRASE)

    def publish(self, mirror: Path | None = None) -> publication.Publication:
        return publication.publish(self.repository, PASSPHRASE, mirror=mirror)

    def open(self) -> World:
        """Publish the first, empty state."""
        self.initialise()
        for role in documents.OFFLINE_ROLES:
            self.sign(role, "alice", "bob")
        self.publish()
        return self

    def tree(self, version: str, *, name: str = "tree", extra: bytes = b"") -> Path:
        """Make a tree whose files are alike but for a line, and whose times and order of making are not."""
        tree = self.base / f"{name}-{version}"
        noise = random.Random(17).randbytes(40_000)
        contents = {
            "bin/run": (b"#!/bin/sh\nexec sleep 1000\n", 0o755),
            "lib/big": (noise + version.encode() + extra, 0o644),
            "lib/version": (version.encode(), 0o640),
            "units/agent/unit.yml": (UNIT.format(name="agent").encode(), 0o644),
        }
        order = list(contents)
        random.shuffle(order)
        for path in order:
            data, mode = contents[path]
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(mode)
            moment = random.randrange(2**31)
            os.utime(file, (moment, moment))
        (tree / "lib/newest").unlink(missing_ok=True)
        (tree / "lib/newest").symlink_to("version")
        return tree

    def build(
        self, version: str, *, channels: Sequence[str] = ("stable",), tree: Path | None = None, **release: Any
    ) -> Built:
        given = {"name": "kos", "version": version, **release}
        where = self.tree(version) if tree is None else tree
        return build.build(self.repository, where, build.read_release(None, given), channels=channels)

    def release(self, version: str, **more: Any) -> Built:
        """Build, sign by two, publish."""
        built = self.build(version, **more)
        self.sign("releases", "alice", "bob")
        self.publish()
        return built


class Client:
    """A node as python-tuf has it.

    Args:
        url: of the mirror.
        base: where it keeps what it trusts.
        root: the pinned root.
    """

    def __init__(self, url: str, base: Path, root: bytes) -> None:
        self.url, self.base, self.root = url, base, root
        for folder in ("metadata", "targets"):
            (base / folder).mkdir(parents=True, exist_ok=True)

    def find(self, release_root: str) -> TargetFile | None:
        """Refresh everything and look a release up; raises what python-tuf raises."""
        return self._updater().get_targetinfo(f"releases/{release_root}.json")

    def download(self, release_root: str) -> bytes:
        updater = self._updater()
        target = updater.get_targetinfo(f"releases/{release_root}.json")
        assert target is not None
        return Path(updater.download_target(target)).read_bytes()

    def _updater(self) -> Updater:
        return Updater(
            str(self.base / "metadata"),
            f"{self.url}/metadata/",
            str(self.base / "targets"),
            f"{self.url}/",
            config=UpdaterConfig(prefix_targets_with_hash=False),
            bootstrap=self.root,
        )
