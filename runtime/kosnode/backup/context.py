"""A node as the verbs of backup and restore see it: its table, its secrets, its lock."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from .. import boot
from .. import config as node_config
from ..errors import InputError
from ..lock import Lock
from ..paths import NodePaths
from ..systemd import RealSystemd, Systemd
from . import config, signing, witness
from .config import BackupConfig, Repository
from .memory import Trail
from .places import Places
from .restic import Access, Restic
from .run import Identity
from .runs import Runs
from .witness import Witness


def progress(line: str) -> None:
    """Show what is under way; standard output holds the answer alone."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Context:
    """A node as the verbs of backup and restore see it.

    Args:
        paths: of the node.
        clock: of the host; tests pass their own.
        systemd: of the host; tests pass their own.
    """

    paths: NodePaths
    clock: boot.Clock = field(default_factory=boot.SystemClock)
    systemd: Systemd = field(default_factory=RealSystemd)

    @cached_property
    def places(self) -> Places:
        return Places(self.paths)

    @cached_property
    def config(self) -> BackupConfig:
        return config.load(self.places)

    @cached_property
    def who(self) -> Identity:
        known = node_config.load(self.paths)
        try:
            release: str | None = self.paths.current.readlink().name
        except OSError:
            release = None
        return Identity(known.node, known.fleet, release)

    @property
    def runs(self) -> Runs:
        return Runs(self.places)

    def restic(self, repository: Repository, password: Path | None = None) -> Restic:
        """Return a repository of the table.

        Args:
            repository: which.
            password: file with another password than the node's own.
        """
        access = Access.of_node(self.places, repository.name, self.runs.key(repository))
        return Restic(
            repository,
            access if password is None else replace(access, password=password, key=None),
            timeout_s=self.config.backend_timeout_s,
            progress=progress,
        )

    def witness(self) -> Witness | None:
        """Return the witness of the table."""
        if self.config.witness is None:
            return None
        return witness.connect(
            self.config.witness,
            identity=self.places.key,
            known_hosts=self.places.known_hosts,
            timeout_s=self.config.backend_timeout_s,
        )

    def public_keys(self) -> list[str]:
        """Return the keys that what this node signed is checked against; raises InputError."""
        return signing.trusted(self.places.key, self.places.former_keys)

    def trail(self) -> Trail:
        """Return what this node remembers of its witness."""
        return Trail(self.places.trail, self.who.node, self.public_keys())

    @contextlib.contextmanager
    def alone(self, verb: str) -> Iterator[None]:
        """Hold the one lock of backups and restores; raises BusyError."""
        require_root()
        self.places.var.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Lock(self.places.lock).hold(verb):
            yield


def require_root() -> None:
    """Raise InputError where this is not root: files of all owners are read and written."""
    if os.geteuid() != 0:
        raise InputError("backup and restore need root; an operator asks through `kosctl operate`")
