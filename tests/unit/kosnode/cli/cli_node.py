"""A configured node, a mirror with signed releases, and kosctl asked as from a command line."""

from __future__ import annotations

import json
import pwd
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from unit.kosnode.transport.content import Publisher
from unit.kosnode.trial.trial_node import FakeClock, FakeSystemd, make_node
from unit.kosnode.trust.tiny import START

from kosnode import boot, cli, files, node, operate, verbs, watch
from kosnode.manifest import Manifest
from kosnode.paths import NodePaths

# A unit runs as an account that is there and is not root; which one does not matter here.
ACCOUNT = next(one.pw_name for one in pwd.getpwall() if one.pw_uid != 0)
KEYS = {"ok", "verb", "exit", "changed", "actions", "result", "error", "status"}


class StoppedHealthClock:
    def wall(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 100_000.0


@dataclass
class CliNode:
    """The node of a test; `kosctl` is the command, `operate` the operator's gate."""

    root: Path
    capsys: pytest.CaptureFixture[str]
    publisher: Publisher
    clock: FakeClock = field(default_factory=lambda: FakeClock(wall=START))
    session_started: float = 10_000_000.0
    systemd: FakeSystemd = field(init=False)

    def __post_init__(self) -> None:
        self.systemd = FakeSystemd(self.root / "calls")

    @property
    def paths(self) -> NodePaths:
        return NodePaths(self.root)

    def context(self, paths: NodePaths | None = None) -> verbs.Context:
        context = _Context(paths or self.paths, self.systemd, self.clock)
        context.bed = self
        return context

    def kosctl(self, *words: str) -> dict[str, Any]:
        """Run one command with --json and return the envelope, which has every key and one exit code."""
        code = cli.main(["--root", str(self.root), "--json", *words], make_context=self.context)
        out = self.capsys.readouterr().out
        envelope: dict[str, Any] = json.loads(out)
        assert set(envelope) == KEYS
        assert envelope["exit"] == code
        assert envelope["ok"] == (code == 0)
        return envelope

    def say(self, *words: str) -> tuple[int, str, str]:
        """Run one command as a person does: exit code, standard output, standard error."""
        code = cli.main(["--root", str(self.root), *words], make_context=self.context)
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def operate(self, verb: str, **options: Any) -> dict[str, Any]:
        request = files.canonical({"format": 1, "verb": verb, "options": options})
        return operate.handle(self.context(), request).envelope

    def publish(self, version: str, *, program: bytes = b"#!/bin/sh\nexec sleep 1000\n") -> Manifest:
        unit = {
            "id": "a",
            "version": version,
            "tier": 2,
            "entry": {"command": ["bin/a"], "user": ACCOUNT},
        }
        tree = {"bin/a": program + version.encode(), "units/a/unit.json": files.canonical(unit)}
        return self.publisher.publish(version, tree)

    def bake(self, trial: str, seconds: int = 6) -> None:
        """Watch the trial for some seconds, as kos-watch.service would."""

        class Enough(Exception):
            pass

        def stop() -> None:
            raise Enough

        self.clock.ticks[:] = [*([lambda: None] * seconds), stop]
        with pytest.raises(Enough):
            watch.watch(self.context().node, trial)
        self.clock.ticks.clear()

    def install(self, version: str) -> None:
        """Stage, activate, bake and confirm, all over the operator's gate."""
        staged = self.operate("stage", release=version)
        assert staged["ok"], staged
        activated = self.operate("activate", release=staged["result"]["root"])
        assert activated["ok"], activated
        self.bake(activated["result"]["trial"])
        confirmed = self.operate("confirm", token=activated["result"]["token"])
        assert confirmed["ok"], confirmed


class _Context(verbs.Context):
    """The node's context with the clocks and the session of the test."""

    bed: CliNode

    def _node(self, line: str, policy: Any) -> node.Node:
        made = super()._node(line, policy)
        return replace(made, health_clock=StoppedHealthClock(), session=self._session)

    def _session(self) -> boot.Session:
        return boot.Session("ssh", 4242, self.bed.session_started)


def make_cli_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CliNode:
    """Make a node that is bootstrapped, and a mirror without a release."""
    made = make_node(tmp_path / "node", monkeypatch)
    publisher = Publisher(tmp_path / "mirror")
    paths = made.paths
    paths.pinned_root.parent.mkdir(parents=True)
    paths.pinned_root.write_bytes(publisher.repository.first_root)
    policy = {"deadline_s": 60, "bake_s": 4, "health_interval_s": 1, "settle_s": 3, "reserve_bytes": 0}
    config = {
        "format": 1,
        "node": "n1",
        "fleet": "demo",
        "zone": "a",
        "release": "kos",
        "channel": "stable",
        "mirrors": [f"file://{publisher.folder}"],
        "policy": policy,
    }
    paths.node_json.write_bytes(json.dumps(config).encode())
    monkeypatch.setattr(operate, "scrub_environment", lambda: None)
    return CliNode(paths.root, capsys, publisher)
