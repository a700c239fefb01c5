"""Where backups keep their configuration, secrets and memory on a node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..paths import NodePaths


@dataclass(frozen=True)
class Places:
    """Paths of the backups of one node.

    Args:
        node: paths of the node.
    """

    node: NodePaths

    @property
    def config(self) -> Path:
        return self.node.etc / "backup.json"

    @property
    def secrets(self) -> Path:
        return self.node.etc / "backup.secrets"

    def password(self, repository: str) -> Path:
        return self.secrets / f"{repository}.password"

    def environment(self, repository: str) -> Path:
        return self.secrets / f"{repository}.env"

    @property
    def key(self) -> Path:
        return self.node.etc / "keys/node"

    @property
    def former_keys(self) -> Path:
        return self.node.etc / "keys/node.former"

    @property
    def var(self) -> Path:
        return self.node.var / "backup"

    def stage(self, source: str) -> Path:
        return self.var / "stage" / source

    @staticmethod
    def staged_data(stage: Path) -> Path:
        return stage / "data"

    @staticmethod
    def staged_manifest(stage: Path) -> Path:
        """Return the folder of the manifest, apart, so that it is had without the data."""
        return stage / "manifest"

    @property
    def cache(self) -> Path:
        return self.var / "cache"

    def hashes(self, source: str) -> Path:
        return self.var / "hashes" / f"{source}.json"

    @property
    def sqlite(self) -> Path:
        return self.var / "sqlite"

    @property
    def runs(self) -> Path:
        return self.var / "runs.jsonl"

    @property
    def known(self) -> Path:
        return self.var / "repositories.json"

    @property
    def trail(self) -> Path:
        return self.var / "witness.jsonl"

    @property
    def known_hosts(self) -> Path:
        return self.node.etc / "keys/known_hosts"

    @property
    def metrics(self) -> Path:
        return self.node.var / "metrics/backup.prom"

    @property
    def lock(self) -> Path:
        return self.var / "lock"

    @property
    def restores(self) -> Path:
        return self.var / "restores"
