"""A service manager for tests: remembers what it was asked, and says what a test wants it to say."""

from __future__ import annotations

from collections.abc import Sequence

from kosnode.systemd import SystemdError

RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "ExecMainStatus": "0",
    "NRestarts": "0",
    "ActiveEnterTimestampMonotonic": "1000000",
}


class FakeSystemd:
    """Implements `kosnode.systemd.Systemd`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.units: dict[str, dict[str, str]] = {}
        self.broken: str | None = None

    def set(self, name: str, **properties: str) -> None:
        self.units[name] = {**RUNNING, **properties}

    def show(self, units: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, str]]:
        if self.broken is not None:
            raise SystemdError(self.broken)
        absent = {
            "LoadState": "not-found",
            "ActiveState": "inactive",
            "SubState": "dead",
            "Result": "success",
        }
        return {
            name: {key: self.units.get(name, absent).get(key, "") for key in properties} for name in units
        }

    def is_active(self, name: str) -> bool:
        return self.units.get(name, {}).get("ActiveState") == "active"

    def daemon_reload(self) -> None:
        self.calls.append(("daemon-reload",))

    def restart(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self.calls.append(("restart", *names))

    def start(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self.calls.append(("start", *names))

    def stop(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self.calls.append(("stop", *names))

    def reload(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self.calls.append(("reload", *names))

    def run_transient_timer(self, name: str, seconds: int, argv: Sequence[str]) -> None:
        self.calls.append(("timer", name, str(seconds), *argv))

    def run_transient_service(self, name: str, argv: Sequence[str]) -> None:
        self.calls.append(("service", name, *argv))

    def stop_timer(self, name: str) -> None:
        self.calls.append(("stop-timer", name))
