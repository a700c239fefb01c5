"""A node in a directory for the state machine: slots as staging leaves them, own systemd and clocks."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import kosnode
from kosnode import admission, boot, deadman, files
from kosnode.config import Policy
from kosnode.errors import DamagedError
from kosnode.node import Node
from kosnode.paths import NodePaths
from kosnode.systemd import StartError, SystemdError

FALLBACK = Path(kosnode.__file__).parent / "shell/fallback"
POLICY = Policy(
    deadline_s=60, bake_s=4, health_interval_s=1, health_failures=3, settle_s=3, reserve_bytes=0, keep=1
)
_SYSTEMCTL = '#!/bin/sh\nprintf "%s\\n" "${0##*/} $*" >>"$KOS_ROOT/calls"\n'


@dataclass
class FakeClock:
    """Time that only moves when it is told to, or when somebody sleeps."""

    seconds: float = 1000.0
    wall: datetime = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)
    identity: str = ""
    since_boot: float = 500.0
    ticks: list[Any] = field(default_factory=list)

    def now(self) -> datetime:
        return self.wall

    def boottime(self) -> float:
        return self.seconds

    def boot(self) -> str:
        return self.identity or boot.boot_identity()

    def uptime(self) -> float:
        return self.since_boot

    def sleep(self, seconds: float) -> None:
        self.forward(seconds)
        if self.ticks:
            self.ticks.pop(0)()

    def forward(self, seconds: float) -> None:
        self.seconds += seconds
        self.since_boot += seconds
        self.wall += timedelta(seconds=seconds)


class FakeHealthClock:
    def wall(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 100_000.0


@dataclass
class FakeSystemd:
    """Units that are up unless a test says otherwise; what is asked of it is written down.

    What `fallback` asks of its own systemctl (the file `asked`) counts as well.
    """

    asked: Path
    down: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    refuses: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    timers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    services: dict[str, tuple[str, ...]] = field(default_factory=dict)
    heard: int = 0

    def daemon_reload(self) -> None:
        self._note("daemon-reload")

    def restart(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self._note("restart", *names)
        self.down -= set(names)
        if self.broken & set(names):
            self.down |= self.broken & set(names)
            raise StartError(f"{min(self.broken)} did not start")

    def start(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self.restart(names)

    def stop(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self._note("stop", *names)
        self.down |= set(names)
        for name in names:
            self.services.pop(name, None)

    def reload(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self._note("reload", *names)

    def show(self, units: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, str]]:
        self._note("show")
        self._hear()
        return {name: {key: self._property(name, key) for key in properties} for name in units}

    def is_active(self, name: str) -> bool:
        self._hear()
        if name.endswith(".timer") and name in self.timers:
            return True
        return name not in self.down and name != f"{deadman.TIMER}.timer"

    def run_transient_timer(self, name: str, seconds: int, argv: Sequence[str]) -> None:
        self._note("timer", name)
        self.timers[f"{name}.timer"] = tuple(argv)

    def run_transient_service(self, name: str, argv: Sequence[str]) -> None:
        self._note("service", name)
        self.services[f"{name}.service"] = tuple(argv)

    def stop_timer(self, name: str) -> None:
        self.timers.pop(f"{name}.timer", None)

    def _note(self, verb: str, *names: str) -> None:
        self.calls.append(" ".join((verb, *names)))
        if verb in self.refuses:
            raise SystemdError(f"systemd does not {verb}")

    def _hear(self) -> None:
        lines = self.asked.read_text().splitlines() if self.asked.exists() else []
        for line in lines[self.heard :]:
            words = line.split()
            if words[:2] == ["systemctl", "stop"]:
                self.down |= set(words[2:])
            elif words[:2] == ["systemctl", "restart"]:
                self.down -= set(words[2:]) - self.broken
        self.heard = len(lines)

    def _property(self, name: str, key: str) -> str:
        up = name not in self.down
        known = {
            "LoadState": "loaded",
            "ActiveState": "active" if up else "failed",
            "SubState": "running" if up else "failed",
            "Result": "success" if up else "exit-code",
            "ExecMainStatus": "0" if up else "1",
            "NRestarts": "0",
            "ActiveExitTimestampMonotonic": "1000000",
            "InactiveEnterTimestampMonotonic": "1100000",
            "ActiveEnterTimestampMonotonic": "1250000",
        }
        return known[key]


@dataclass
class FakeSlots:
    damaged: set[str] = field(default_factory=set)

    def verify(self, root: str) -> None:
        if root in self.damaged:
            raise DamagedError(f"slot {root[:12]}: bin/a differs from the manifest")


@dataclass
class FakeMigrator:
    """Writes into the state as a migration does."""

    paths: NodePaths
    fails: bool = False
    ran: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)

    def __call__(self, unit: str, user: str, argv: Sequence[str], directory: Path) -> None:
        self.ran.append((unit, user, tuple(argv)))
        folder = self.paths.state / unit
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data").write_text("migrated")
        if self.fails:
            raise DamagedError("exit status 3")


@dataclass
class TrialNode:
    """The node of a test, with its fakes at hand."""

    node: Node
    clock: FakeClock
    systemd: FakeSystemd
    slots: FakeSlots
    migrate: FakeMigrator
    session_started: float = 10_000_000.0

    @property
    def paths(self) -> NodePaths:
        return self.node.paths

    @property
    def current(self) -> str | None:
        return self.node.linked(self.paths.current)

    def stage(
        self,
        version: str,
        *,
        units: Mapping[str, str] | None = None,
        migrates: Mapping[str, Mapping[str, Any]] | None = None,
        name: str = "kos",
        **manifest: Any,
    ) -> str:
        """Put a slot there.

        Args:
            units: digest by unit name; one unit `a` with a digest of its own by default.
            migrates: migration by unit name.
            manifest: more of release.json.
        """
        units = {"a": version} if units is None else units
        root = hashlib.sha3_256(f"{name} {version} {sorted(units.items())} {manifest}".encode()).hexdigest()
        slot = self.paths.slot(root)
        (slot / "tree").mkdir(parents=True, exist_ok=True)
        migrations = [{"unit": unit, **steps} for unit, steps in (migrates or {}).items()]
        release = {"format": 1, "name": name, "version": version, "root": root, "migrations": migrations}
        (slot / "release.json").write_bytes(files.canonical({**release, **manifest}))
        entries = {unit: unit_entry(unit, digest, str(slot / "tree")) for unit, digest in units.items()}
        (slot / "units.json").write_bytes(files.canonical({"release": root, "units": entries, "files": {}}))
        return root

    def with_boot(self, identity: str) -> TrialNode:
        """The same node in another boot: nothing of what systemd ran is left but what starts by itself."""
        systemd = FakeSystemd(self.systemd.asked, broken=self.systemd.broken)
        clock = FakeClock(seconds=20.0, wall=self.clock.wall, identity=identity, since_boot=20.0)
        return replace(
            self, node=replace(self.node, clock=clock, systemd=systemd), clock=clock, systemd=systemd
        )


def unit_entry(name: str, digest: str, directory: str) -> dict[str, Any]:
    """An entry of units.json as rendering makes it."""
    return {
        "service": f"kos-{name}.service",
        "timer": None,
        "version": "1.0.0",
        "tier": 1,
        "trust": "core",
        "format": "native",
        "from": "release",
        "digest": digest,
        "type": "notify",
        "user": "kos",
        "directory": directory,
        "health": [],
        "reload": False,
        "migrated": False,
    }


def make_node(root: Path, monkeypatch: pytest.MonkeyPatch | None = None) -> TrialNode:
    """Make a node without a release."""
    paths = NodePaths(root)
    for folder in (paths.releases, paths.state, paths.state_before, paths.evidence, paths.run):
        folder.mkdir(parents=True)
    paths.opt.mkdir(parents=True)
    shutil.copy(FALLBACK, paths.fallback)
    programs = root / "bin"
    programs.mkdir()
    for name in ("systemctl", "systemd-run", "journalctl"):
        (programs / name).write_text(_SYSTEMCTL)
        (programs / name).chmod(0o755)
    if monkeypatch is not None:
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        monkeypatch.setenv("KOS_ROOT", str(root))
    clock, systemd, slots, migrate = (
        FakeClock(),
        FakeSystemd(root / "calls"),
        FakeSlots(),
        FakeMigrator(paths),
    )
    host = admission.Host(("debian", "debian-13"), {"python": "3.11.2", "systemd": "257"})
    made: list[TrialNode] = []
    node = Node(
        paths=paths,
        line="kos",
        policy=POLICY,
        systemd=systemd,
        slots=slots,
        migrate=migrate,
        clock=clock,
        health_clock=FakeHealthClock(),
        session=lambda: boot.Session("ssh", 4242, made[0].session_started),
        host=lambda: host,
    )
    made.append(TrialNode(node, clock, systemd, slots, migrate))
    return made[0]
