"""Asks systemd: the few commands of systemctl and systemd-run that the engine needs, with time limits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Protocol

from .errors import KosError

# systemd's way to say that a time or a counter is not there.
NOT_SET = 2**64 - 1
# Properties of the service; `systemd-run` gives those of a timer with an option of their own.
_UNTIL_IT_SUCCEEDS = ("Restart=on-failure", "RestartSec=5", "StartLimitIntervalSec=0")
DOWNTIME_PROPERTIES = (
    "ActiveExitTimestampMonotonic",
    "InactiveEnterTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
)


class SystemdError(KosError):
    """systemd could not be asked, or said no; the message holds its last words."""

    kind = "systemd"


class SystemdTimeoutError(SystemdError):
    """systemd gave no answer in time; what was asked for may still happen."""

    kind = "systemd-timeout"


class StartError(SystemdError):
    """Units did not start or stop; the others that were asked for did."""

    kind = "systemd-start"


class Systemd(Protocol):
    """What the engine wants of the service manager; tests have one of their own."""

    def daemon_reload(self) -> None:
        """Read all unit files again and run the generators."""

    def restart(self, names: Sequence[str], *, timeout_s: float = ...) -> None:
        """Restart units in one transaction, start those that do not run; raise StartError where one fails."""

    def start(self, names: Sequence[str], *, timeout_s: float = ...) -> None:
        """Start units in one transaction; raise StartError where one fails."""

    def stop(self, names: Sequence[str], *, timeout_s: float = ...) -> None:
        """Stop units; one that is not loaded is stopped already."""

    def reload(self, names: Sequence[str], *, timeout_s: float = ...) -> None:
        """Have units read their configuration again, by a restart where they cannot; start what has failed.

        Those that were stopped are left alone.
        """

    def show(self, units: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return properties by unit, as text."""

    def is_active(self, name: str) -> bool:
        """Say whether a unit is active, reloading or activating."""

    def run_transient_timer(self, name: str, seconds: int, argv: Sequence[str]) -> None:
        """Run a command after so many seconds, again until it succeeds; NAME.timer and NAME.service."""

    def run_transient_service(self, name: str, argv: Sequence[str]) -> None:
        """Run a command as NAME.service without waiting for its end."""

    def stop_timer(self, name: str) -> None:
        """Disarm NAME.timer; a command of it that runs already runs on."""


class RealSystemd:
    """The systemd of this machine.

    Args:
        timeout_s: seconds that a question may take; starting and stopping have limits of their own.
    """

    def __init__(self, timeout_s: float = 20.0) -> None:
        self._timeout_s = timeout_s

    def daemon_reload(self) -> None:
        self._run(["systemctl", "daemon-reload"], timeout_s=60.0)

    def restart(self, names: Sequence[str], *, timeout_s: float = 120.0) -> None:
        self._change("restart", names, timeout_s)

    def start(self, names: Sequence[str], *, timeout_s: float = 120.0) -> None:
        self._change("start", names, timeout_s)

    def stop(self, names: Sequence[str], *, timeout_s: float = 60.0) -> None:
        states = self.show(names, ["LoadState"])
        loaded = [name for name, shown in states.items() if shown["LoadState"] != "not-found"]
        try:
            self._change("stop", loaded, timeout_s)
        except StartError:
            # A transient unit may go by itself in between, and is not loaded then.
            states = self.show(loaded, ["ActiveState"])
            if any(shown["ActiveState"] not in ("inactive", "failed") for shown in states.values()):
                raise

    def reload(self, names: Sequence[str], *, timeout_s: float = 60.0) -> None:
        wanted = [
            name
            for name, shown in self.show(names, ["ActiveState"]).items()
            if shown["ActiveState"] not in ("inactive", "deactivating")
        ]
        self._change("reload-or-restart", wanted, timeout_s)

    def show(self, units: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, str]]:
        if not units:
            return {}
        asked = ",".join(dict.fromkeys(("Id", *properties)))
        out = self._run(["systemctl", "show", f"--property={asked}", "--", *units])
        blocks = [block for block in out.split("\n\n") if block.strip()]
        if len(blocks) != len(units):
            raise SystemdError(f"systemctl show answered for {len(blocks)} of {len(units)} units")
        answers: dict[str, dict[str, str]] = {}
        for name, block in zip(units, blocks, strict=True):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            answers[name] = {key: values.get(key, "") for key in properties}
        return answers

    def is_active(self, name: str) -> bool:
        state = self.show([name], ["ActiveState"])[name]["ActiveState"]
        return state in ("active", "reloading", "activating")

    def run_transient_timer(self, name: str, seconds: int, argv: Sequence[str]) -> None:
        self._forget(f"{name}.timer", f"{name}.service")
        run = ["systemd-run", "--quiet", "--collect", f"--unit={name}", f"--on-active={seconds}s"]
        again = [f"--property={setting}" for setting in _UNTIL_IT_SUCCEEDS]
        self._run([*run, *again, "--timer-property=AccuracySec=100ms", "--", *argv])

    def run_transient_service(self, name: str, argv: Sequence[str]) -> None:
        self._forget(f"{name}.service")
        self._run(
            ["systemd-run", "--quiet", "--collect", f"--unit={name}", "--service-type=exec", "--", *argv]
        )

    def stop_timer(self, name: str) -> None:
        self.stop([f"{name}.timer"])

    def _forget(self, *names: str) -> None:
        """Make room for a transient unit: an earlier one of that name that ended badly is still known."""
        self.stop(names)
        known = [
            name
            for name, shown in self.show(names, ["ActiveState"]).items()
            if shown["ActiveState"] == "failed"
        ]
        if known:
            self._run(["systemctl", "reset-failed", "--", *known])

    def _change(self, verb: str, names: Sequence[str], timeout_s: float) -> None:
        if not names:
            return
        try:
            self._run(["systemctl", verb, "--", *names], timeout_s=timeout_s)
        except SystemdTimeoutError:
            raise
        except SystemdError as error:
            raise StartError(error.message, detail={"verb": verb, "units": list(names)}) from None

    def _run(self, argv: Sequence[str], *, timeout_s: float | None = None) -> str:
        limit = self._timeout_s if timeout_s is None else timeout_s
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "LC_ALL": "C",
            "SYSTEMD_COLORS": "0",
            "SYSTEMD_PAGER": "",
        }
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SystemdTimeoutError(f"{' '.join(argv[:2])} gave no answer within {limit:g} s") from None
        except OSError as error:
            raise SystemdError(f"{argv[0]} cannot be started: {error.strerror}") from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            last = said[-1] if said else "it said nothing"
            raise SystemdError(f"{' '.join(argv[:2])} ended with {done.returncode}: {last}")
        return done.stdout.decode("utf-8", "replace")


def number(shown: Mapping[str, str], key: str) -> int | None:
    """Return a property that is a number; None where systemd has none (empty, 0 for a time, not set)."""
    text = shown.get(key, "")
    return int(text) if text.isdigit() and int(text) != NOT_SET else None


def downtime_s(shown: Mapping[str, str]) -> float | None:
    """Return how long a unit was not active when it was last restarted, in seconds.

    Args:
        shown: DOWNTIME_PROPERTIES of the unit, microseconds of the monotonic clock.

    Returns:
        None where it was never active before, or is not active again yet.
    """
    left = number(shown, "ActiveExitTimestampMonotonic")
    entered = number(shown, "ActiveEnterTimestampMonotonic")
    if not left or not entered or entered < left:
        return None
    return (entered - left) / 1_000_000
