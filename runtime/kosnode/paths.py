"""Where things are on a node. A test or an image build puts all of it below another root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NodePaths:
    """Paths of one node.

    Args:
        root: directory that stands for `/`.
    """

    root: Path = Path("/")

    @property
    def opt(self) -> Path:
        return self.root / "opt/kos"

    @property
    def fallback(self) -> Path:
        return self.opt / "fallback"

    @property
    def etc(self) -> Path:
        return self.root / "etc/kos"

    @property
    def node_json(self) -> Path:
        return self.etc / "node.json"

    @property
    def drill_json(self) -> Path:
        return self.etc / "drill.json"

    @property
    def conf_d(self) -> Path:
        return self.etc / "conf.d"

    @property
    def units_d(self) -> Path:
        return self.etc / "units.d"

    @property
    def unit_config(self) -> Path:
        return self.etc / "unit.d"

    @property
    def pinned_root(self) -> Path:
        return self.etc / "trust/root.json"

    @property
    def mirror_ca(self) -> Path:
        return self.etc / "trust/mirror-ca.pem"

    @property
    def var(self) -> Path:
        return self.root / "var/lib/kos"

    @property
    def releases(self) -> Path:
        return self.var / "releases"

    def slot(self, release_root: str) -> Path:
        return self.releases / release_root

    @property
    def node_units(self) -> Path:
        return self.var / "node-units"

    @property
    def current(self) -> Path:
        return self.var / "current"

    @property
    def previous(self) -> Path:
        return self.var / "previous"

    @property
    def trial(self) -> Path:
        return self.var / "trial"

    @property
    def trial_json(self) -> Path:
        return self.var / "trial.json"

    @property
    def trial_health(self) -> Path:
        return self.var / "trial.health"

    @property
    def trial_confirmed(self) -> Path:
        return self.var / "trial.confirmed"

    @property
    def outcome(self) -> Path:
        return self.var / "outcome"

    @property
    def journal(self) -> Path:
        return self.var / "journal/journal.jsonl"

    @property
    def refusals(self) -> Path:
        return self.var / "refusals.json"

    @property
    def lease(self) -> Path:
        return self.var / "lease.json"

    @property
    def running(self) -> Path:
        return self.var / "running.json"

    @property
    def state(self) -> Path:
        return self.var / "state"

    @property
    def state_before(self) -> Path:
        return self.var / "state-before"

    @property
    def evidence(self) -> Path:
        return self.var / "evidence"

    @property
    def fetch(self) -> Path:
        return self.var / "fetch"

    @property
    def trust(self) -> Path:
        return self.var / "trust"

    @property
    def run(self) -> Path:
        return self.root / "run/kos"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def audit(self) -> Path:
        return self.root / "var/log/kos/audit.jsonl"
