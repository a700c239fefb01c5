"""Tells systemd how the daemon is: ready, reloading, stopping, alive (sd_notify(3), without libsystemd)."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping

SEND_TIMEOUT_S = 1.0


class Notifier:
    """Sends state lines to the socket that systemd named; says nothing when there is none."""

    def __init__(self, address: str | None, watchdog_usec: int | None = None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.watchdog_usec = watchdog_usec

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], pid: int) -> Notifier:
        """Reads NOTIFY_SOCKET and WATCHDOG_USEC; a WATCHDOG_PID of another process ends the watchdog."""
        meant_for = environ.get("WATCHDOG_PID")
        usec = environ.get("WATCHDOG_USEC", "")
        mine = meant_for is None or meant_for == str(pid)
        return cls(
            environ.get("NOTIFY_SOCKET"), int(usec) if mine and usec.isdigit() and int(usec) > 0 else None
        )

    def send(self, *lines: str) -> bool:
        """Sends lines such as `READY=1` in one datagram; returns whether systemd's socket took it."""
        if not self._address:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            # A manager that reads nothing must not hold the event loop.
            channel.settimeout(SEND_TIMEOUT_S)
            try:
                channel.connect(self._address)
                channel.sendall("\n".join(lines).encode())
            except OSError:
                # A manager that went away must not take the daemon with it.
                return False
        return True

    def ready(self, status: str) -> None:
        self.send("READY=1", f"STATUS={_one_line(status)}")

    def reloading(self) -> None:
        # systemd pairs this stamp with its own clock to tell this reload from an earlier one.
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self.send("STOPPING=1")

    def status(self, text: str) -> None:
        self.send(f"STATUS={_one_line(text)}")

    async def keep_watchdog(self) -> None:
        """Pings at half of the watchdog's time from within the event loop, so a stuck loop falls silent."""
        if self.watchdog_usec is None:
            return
        while True:
            self.send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_usec / 2_000_000)


def take_environment() -> Notifier:
    """Makes the notifier and removes its variables, so that no child process speaks for the daemon."""
    notifier = Notifier.from_environment(os.environ, os.getpid())
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)
    return notifier


def _one_line(text: str) -> str:
    return " ".join(text.split())
