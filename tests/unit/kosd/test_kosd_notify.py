"""What systemd is told, over a real socket, and when it is told nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kosd.notify import Notifier, take_environment


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(0.05)
        yield listening


def heard(listening: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(listening.recv(4096).decode())
        except TimeoutError:
            return messages


def test_pings_stop_while_the_event_loop_is_stuck(listening: socket.socket) -> None:
    notifier = Notifier(listening.getsockname(), watchdog_usec=40_000)

    async def scenario() -> None:
        keeper = asyncio.create_task(notifier.keep_watchdog())
        await asyncio.sleep(0.1)
        assert len(heard(listening)) >= 2
        time.sleep(0.3)  # the loop is stuck: nothing else runs meanwhile
        assert heard(listening) == []
        await asyncio.sleep(0.1)
        assert len(heard(listening)) >= 2
        keeper.cancel()

    asyncio.run(scenario())


def test_a_reload_carries_the_monotonic_time_in_microseconds(listening: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    Notifier(listening.getsockname()).reloading()

    (message,) = heard(listening)
    first, second = message.splitlines()
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_status_stays_one_line(listening: socket.socket) -> None:
    Notifier(listening.getsockname()).ready("well\nWATCHDOG=trigger")

    assert heard(listening) == ["READY=1\nSTATUS=well WATCHDOG=trigger"]


def test_an_abstract_socket_is_reached() -> None:
    name = f"kosd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(0.05)
        assert Notifier(f"@{name}").send("READY=1")
        assert heard(listening) == ["READY=1"]


def test_without_systemd_nothing_is_sent_and_nothing_fails(tmp_path: Path) -> None:
    assert not Notifier(None).send("READY=1")
    assert not Notifier(str(tmp_path / "gone")).send("READY=1")


@pytest.mark.parametrize(
    ("environ", "usec"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 10_000_000),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7"}, 10_000_000),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_runs_only_when_systemd_asks_this_process_for_it(
    environ: dict[str, str], usec: int | None
) -> None:
    assert Notifier.from_environment(environ, pid=7).watchdog_usec == usec


def test_no_child_process_can_speak_for_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/nothing")
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    take_environment()

    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(os.environ)
