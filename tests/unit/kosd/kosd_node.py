"""A node made of files and a systemd made of a dictionary, for the daemon to look at."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from kosd import api, systemctl
from kosd.config import load
from kosd.daemon import Daemon
from kosd.notify import Notifier
from kosd.systemctl import Shown

REPOSITORY = Path(__file__).resolve().parents[3]
ROOT = "4f1d9c0a77be52e8a35fd1be9d10aa6ebc6ad0c4d4a2c1fd47dbe85a3a0f6b11"
UNITS = {
    "heartbeat": {"service": "kos-heartbeat.service", "version": "1.0.0", "tier": 2, "from": "release"},
    "kosd": {"service": "kos-kosd.service", "version": "1.1.0", "tier": 0, "from": "release"},
    "sysinfo": {
        "service": "kos-sysinfo.service",
        "timer": "kos-sysinfo.timer",
        "version": "1.0.0",
        "tier": 2,
        "from": "release",
    },
}


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Systemd:
    """Answers as `systemctl show` would; every unit it was not told of runs well."""

    def __init__(self) -> None:
        self.units: dict[str, Shown] = {}
        self.error: str | None = None

    def set(self, name: str, **changes: Any) -> None:
        self.units[name] = replace(self.get(name), **changes)

    def get(self, name: str) -> Shown:
        if name in self.units:
            return self.units[name]
        if name.endswith(".timer"):
            return Shown(name, load="loaded", active="active", sub="waiting")
        if name == "kos-sysinfo.service":
            return Shown(name, load="loaded", started_usec=90_000_000)
        return Shown(
            name, load="loaded", active="active", sub="running", main_pid=42, memory_bytes=21_000_000
        )

    async def ask(self, names: Sequence[str], timeout_s: float) -> dict[str, Shown]:
        if self.error:
            raise systemctl.SystemctlError(self.error)
        return {name: self.get(name) for name in names}


@dataclass
class Node:
    """The files of a node below one folder, and the daemon over them."""

    base: Path
    systemd: Systemd = field(default_factory=Systemd)
    wall: Clock = field(default_factory=lambda: Clock(1_800_000_000.0))
    monotonic: Clock = field(default_factory=lambda: Clock(1000.0))

    def __post_init__(self) -> None:
        for folder in (self.slot(ROOT), self.state, self.tree / "share/kosd"):
            folder.mkdir(parents=True)
        self.switch(ROOT, "1.1.0")
        self.write_config({})

    @property
    def current(self) -> Path:
        return self.base / "current"

    @property
    def state(self) -> Path:
        return self.base / "state"

    @property
    def tree(self) -> Path:
        return self.base / "tree"

    @property
    def config_path(self) -> Path:
        return self.base / "kosd.json"

    @property
    def node_units(self) -> Path:
        return self.base / "node-units.json"

    def slot(self, root: str) -> Path:
        return self.base / "releases" / root

    def switch(self, root: str, version: str, units: dict[str, Any] = UNITS) -> None:
        slot = self.slot(root)
        slot.mkdir(parents=True, exist_ok=True)
        (slot / "release.json").write_text(
            json.dumps({"name": "kos-runtime", "version": version, "files": []})
        )
        (slot / "units.json").write_text(json.dumps({"units": units}))
        self.current.unlink(missing_ok=True)
        self.current.symlink_to(slot)

    def write_config(self, document: dict[str, Any]) -> None:
        paths = {"paths": {"current": str(self.current), "node_units": str(self.node_units)}}
        self.config_path.write_text(json.dumps({"node": {"name": "node-a1", "zone": "a"}} | paths | document))

    def daemon(self) -> Daemon:
        return Daemon(
            self.tree,
            self.config_path,
            self.state,
            load(self.config_path, self.state / "config.good.json"),
            Notifier(None),
            ask=self.systemd.ask,
            wall=self.wall,
            monotonic=self.monotonic,
        )

    def pass_time(self, seconds: float) -> None:
        self.wall.now += seconds
        self.monotonic.now += seconds


class Manager:
    """The socket that stands for systemd: takes every message, so that no sender waits, and keeps them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def heard(self, wanted: str, since: int = 0, within_s: float = 10) -> str:
        """Returns the first message after the `since`th that holds `wanted`; fails when none comes."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for message in self.messages[since:]:
                if wanted in message:
                    return message
            time.sleep(0.01)
        raise AssertionError(f"{wanted!r} was not said within {within_s} s but {self.messages[since:]}")

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.messages.append(message.decode())


class Client:
    """Asks the application without a socket between."""

    def __init__(self, daemon: Daemon) -> None:
        self._transport = httpx.ASGITransport(api.build(daemon), raise_app_exceptions=False)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://node") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(ask())

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.request("GET", path, headers)
