"""A host that is a folder, with the stand-in for KairosChain on it; its server is a word in a set."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unit.kosnode.host.host_world import FakeSystem, FakeSystemd
from unit.stand_in.kairos_gem import FOLDER, NEW, KairosChain

from kosnode.errors import KosError
from kosnode.kairoschain import apply as applying
from kosnode.kairoschain import guard, units
from kosnode.kairoschain.application import Application
from kosnode.kairoschain.places import Places
from kosnode.kairoschain.record import Wanted
from kosnode.kairoschain.resources import Machine
from kosnode.paths import NodePaths
from kosnode.systemd import StartError

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


class Systemd(FakeSystemd):
    """Starts the server as its unit says: past the guard, or not at all."""

    def __init__(self, machine: FakeMachine) -> None:
        super().__init__()
        self._machine = machine

    def restart(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        super().restart(names)
        for name in names:
            if name == units.SERVICE:
                self.active.discard(name)
                self._machine.start_server()
            self.active.add(name)


class FakeMachine(FakeSystem, Machine):
    """The host of a test."""

    def __init__(self, paths: NodePaths) -> None:
        super().__init__(paths)
        self.fault = "none"
        self.own = Systemd(self)
        self.systemd = self.own  # type: ignore[assignment]  # as much of it as is asked for
        self.runs: list[str] = []
        for folder in ("etc/logrotate.d", "etc/systemd/system/multi-user.target.wants", "run/kairos-chain"):
            (paths.root / folder).mkdir(parents=True)
        (paths.root / "metrics").mkdir()

    def run(self, argv: Sequence[str]) -> str:
        if argv[0] == "cp":
            subprocess.run(argv, check=True)
            return ""
        return super().run(argv)

    def owner(self, path: Path) -> tuple[int, int]:
        """What the application makes is its own."""
        account = self.account("kairos")
        if account is not None and self.paths.root / "var/lib/kairos/data" in (path, *path.parents):
            return self.owners.get(path, (account.uid, account.gid))
        return super().owner(path)

    def application(self, folder: Path) -> Application:
        return Application(folder, account=None)

    def install(self, gem: Path, folder: Path, version: str) -> None:
        """Put the stand-in there as a script, since an older Ruby than the gem's may be all there is here."""
        program = folder / "bin/kairos-chain"
        program.parent.mkdir()
        said = f"export KAIROS_CHAIN_VERSION={version} KAIROS_CHAIN_FAULT={self.fault}"
        program.write_text(f'#!/bin/sh\n{said}\nexec ruby {FOLDER}/exe/kairos-chain "$@"\n')
        program.chmod(0o755)

    def start_server(self) -> None:
        code, data = self.paths.root / "opt/kairos", self.paths.root / "var/lib/kairos/data"
        places = Places(self.paths.root)
        try:
            guard.guard(data, code, places.started, places.unit(units.SERVICE))
        except KosError as error:
            raise StartError(error.message) from None
        if "FAULT=does-not-start" in (code / "current/bin/kairos-chain").read_text():
            raise StartError(f"{units.SERVICE} failed")

    def ask_health(self, wanted: Wanted) -> dict[str, Any] | None:
        if units.SERVICE not in self.own.active:
            return None
        return {"status": "ok", "version": self.installed.partition("-")[0]}

    @property
    def installed(self) -> str:
        return (self.paths.root / "opt/kairos/current").readlink().name


class World:
    """A host and a spec; `apply` makes the one as the other says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = NodePaths(root)
        self.machine = FakeMachine(self.paths)
        self.data = root / "var/lib/kairos/data"
        self.token = root / "etc/kairos/admin.token"

    @property
    def ledger(self) -> Path:
        return self.data / "storage/blockchain.json"

    @property
    def node(self) -> KairosChain:
        """The application as somebody else runs it on the data directory."""
        return KairosChain(self.data)

    def gem(self, version: str) -> tuple[Path, str]:
        """Return a file that stands for a gem, and its digest."""
        path = self.root / f"kairos-chain-{version}.gem"
        path.write_text(f"{version} {self.machine.fault}")
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    def spec(self, version: str = NEW, **more: Any) -> dict[str, Any]:
        path, digest = self.gem(version)
        return {
            **{"format": 1, "version": version, "sha256": digest, "gem": str(path)},
            **{"code": "/opt/kairos", "data": "/var/lib/kairos/data", "metrics": "/metrics/kairos.prom"},
            **more,
        }

    def apply(self, version: str = NEW, *, check: bool = False, **more: Any) -> applying.Outcome:
        spec = self.spec(version, **more)
        return applying.apply(spec, self.paths, check=check, machine=self.machine)

    def tree(self) -> dict[str, str]:
        """Return the digest of every file below the root, to tell whether anything was touched."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = str(path.readlink())
            elif path.is_file() and not name.endswith((".lock", ".gem", "started.json")):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found
