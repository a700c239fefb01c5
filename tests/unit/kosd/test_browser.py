"""The status page in a real browser: it shows the units, and refreshes itself under its own strict policy."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from kosd_node import Node

from kosd import api

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Watched:
    """A daemon behind a real port, for a browser to look at."""

    def __init__(self, node: Node) -> None:
        self.daemon = node.daemon()
        asyncio.run(self.daemon.first_sample())
        self.server = uvicorn.Server(
            uvicorn.Config(api.build(self.daemon), port=0, lifespan="off", ws="none", log_config=None)
        )
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/"

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(timeout=10)


@pytest.fixture
def watched(node: Node) -> Iterator[Watched]:
    made = Watched(node)
    yield made
    made.stop()


@pytest.fixture
def browser() -> str | None:
    """Returns the browser; without one the test fails, unless KOS_NO_BROWSER=1 says to do without, loudly."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and os.environ.get("KOS_NO_BROWSER") == "1":
        warnings.warn("KOS_NO_BROWSER=1: THE STATUS PAGE WAS NOT LOOKED AT IN A BROWSER", stacklevel=1)
        return None
    assert found, f"none of {', '.join(BROWSERS)} is installed; KOS_NO_BROWSER=1 does without"
    return found


def dump(browser: str, url: str, profile: Path, *flags: str) -> tuple[str, str]:
    """Returns the page's document after its scripts ran, and the browser's console."""
    command = [
        browser,
        *FLAGS,
        *flags,
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--dump-dom",
        url,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return ended.stdout, "\n".join(line for line in ended.stderr.splitlines() if "CONSOLE" in line)


def test_the_units_are_shown_with_their_states_and_nothing_is_blocked(
    node: Node, watched: Watched, browser: str | None, tmp_path: Path
) -> None:
    if browser is None:
        return
    node.systemd.set("kos-heartbeat.service", active="failed", sub="failed", result="watchdog")
    asyncio.run(watched.daemon.observer.observe())

    page, console = dump(browser, watched.url, tmp_path / "profile")

    assert {name: state for state, name in re.findall(r'<tr class="(\w+)" id="unit-(\w+)"', page)} == {
        "heartbeat": "failing",
        "kosd": "ok",
        "sysinfo": "ok",
    }
    assert "<title>node-a1: failing</title>" in page
    assert console == "", "the console must be silent: a refusal by the page's own policy would show there"


def test_the_page_refreshes_itself(node: Node, watched: Watched, browser: str | None, tmp_path: Path) -> None:
    if browser is None:
        return

    def fail_a_unit_later() -> None:
        until_asked(watched.server.server_state)
        node.systemd.set("kos-heartbeat.service", active="failed", sub="failed", result="watchdog")
        asyncio.run(watched.daemon.observer.observe())

    waiting = threading.Thread(target=fail_a_unit_later)
    waiting.start()
    page, console = dump(browser, watched.url, tmp_path / "profile", "--virtual-time-budget=8000")
    waiting.join()

    assert "<title>node-a1: failing</title>" in page
    assert console == ""


def until_asked(served: uvicorn.server.ServerState) -> None:
    """Waits until the page, its style and its script were served: what comes later is a refresh."""
    end = time.monotonic() + 60
    while served.total_requests < 3 and time.monotonic() < end:
        time.sleep(0.01)
