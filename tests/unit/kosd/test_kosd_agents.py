"""The two agents that a release of the reference runtime carries; neither needs a library of the daemon's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kosd_node import REPOSITORY, Manager

AGENTS = REPOSITORY / "runtime/release/agents"
SHELLS = [["dash"], ["busybox", "sh"]]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_sysinfo_writes_the_facts_of_the_host_atomically(tmp_path: Path, shell: list[str]) -> None:
    (tmp_path / "sysinfo.json").write_text("old")
    (tmp_path / "sysinfo.json").chmod(0o444)
    command = [*shell, str(AGENTS / "sysinfo")]
    subprocess.run(command, env={"PATH": os.environ["PATH"], "STATE_DIRECTORY": str(tmp_path)}, check=True)

    facts = json.loads((tmp_path / "sysinfo.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["sysinfo.json"]
    assert facts["uptime_s"] > 0
    assert len(facts["load"]) == 3
    assert 0 < facts["memory_bytes"]["available"] <= facts["memory_bytes"]["total"]
    disk = shutil.disk_usage(tmp_path)
    assert facts["disk_bytes"]["total"] == disk.total
    assert (
        abs(time.time() - time.mktime(time.strptime(facts["ts"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 60
    )


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "sysinfo: STATE_DIRECTORY is not set; systemd sets it"),
        ("/nonexistent", "sysinfo: /nonexistent is no directory"),
    ],
)
def test_sysinfo_says_what_it_misses(shell: list[str], state: str | None, message: str) -> None:
    environment = {"PATH": os.environ["PATH"]} | ({"STATE_DIRECTORY": state} if state else {})
    ended = subprocess.run(
        [*shell, str(AGENTS / "sysinfo")], env=environment, capture_output=True, check=False
    )

    assert (ended.returncode, ended.stderr.decode().strip()) == (1, message)


def test_sysinfo_is_clean_to_shellcheck() -> None:
    subprocess.run(["shellcheck", "--severity=style", str(AGENTS / "sysinfo")], check=True)


class Answering(BaseHTTPRequestHandler):
    """A daemon that is always well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok", "release": "abc", "checks": {}}')

    def log_message(self, format: str, *args: Any) -> None:
        return


class Heartbeat:
    """Starts heartbeat processes over one state directory."""

    def __init__(self, state: Path, manager: Manager) -> None:
        self.state = state
        self.record = state / "heartbeat.jsonl"
        self._manager = manager
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, port: int, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-ISB", AGENTS / "heartbeat"],
            env={
                "STATE_DIRECTORY": str(self.state),
                "HEARTBEAT_PORT": str(port),
                "HEARTBEAT_EVERY_S": "0.05",
                "NOTIFY_SOCKET": str(self._manager.path),
                "WATCHDOG_USEC": "1000000",
                **environment,
            },
        )

    def entries(self) -> list[dict[str, Any]]:
        """Returns all whole entries, those of the rotated file first."""
        files = [self.record.with_name("heartbeat.jsonl.1"), self.record]
        lines = [line for path in files if path.exists() for line in path.read_bytes().splitlines()]
        return [json.loads(line) for line in lines if line.endswith(b"}")]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Waits until the entry of this number is there."""
        end = time.monotonic() + 10
        while not (entries := self.entries()) or entries[-1]["seq"] < count:
            assert time.monotonic() < end, "too few beats"
            time.sleep(0.05)
        return entries

    def stop(self) -> int:
        """Asks the process to end and returns its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=5)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def heartbeat(tmp_path: Path, manager: Manager) -> Iterator[Heartbeat]:
    state = tmp_path / "state"
    state.mkdir()
    made = Heartbeat(state, manager)
    yield made
    made.kill()


@pytest.fixture
def answering() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def assert_chained(record: Path) -> None:
    lines = record.read_bytes().splitlines()
    for before, after in pairwise(lines):
        assert json.loads(after)["prev"] == hashlib.sha256(before).hexdigest()
        assert json.loads(after)["seq"] == json.loads(before)["seq"] + 1


def test_heartbeat_keeps_a_chained_record_of_the_daemons_health(
    heartbeat: Heartbeat, manager: Manager, answering: int
) -> None:
    heartbeat.start(answering)
    entries = heartbeat.wait_for(3)

    assert heartbeat.stop() == 0
    assert manager.messages[:2] == ["READY=1", "WATCHDOG=1"]
    manager.heard("STATUS=beat 3: ok")
    manager.heard("STOPPING=1")
    assert (entries[0]["seq"], entries[0]["prev"]) == (1, "0" * 64)
    assert {(entry["status"], entry["code"], entry["release"]) for entry in entries} == {("ok", 200, "abc")}
    assert_chained(heartbeat.record)


def test_heartbeat_goes_on_and_writes_it_down_when_the_daemon_is_away(
    heartbeat: Heartbeat, manager: Manager
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        heartbeat.start(taken.getsockname()[1])
        entries = heartbeat.wait_for(2)

    assert {(entry["status"], entry["code"]) for entry in entries} == {("unreachable", None)}
    manager.heard("WATCHDOG=1", since=len(manager.messages))


def test_the_chain_goes_on_over_a_restart_a_torn_line_and_a_rotation(
    heartbeat: Heartbeat, answering: int
) -> None:
    heartbeat.start(answering)
    heartbeat.wait_for(2)
    heartbeat.stop()
    known = heartbeat.entries()[-1]["seq"]
    with heartbeat.record.open("ab") as record:
        record.write(b'{"seq": 99, "ts"')

    heartbeat.start(answering, HEARTBEAT_MAX_BYTES="1024")
    rotated = heartbeat.record.with_name("heartbeat.jsonl.1")
    heartbeat.wait_for(known + 8)
    heartbeat.stop()

    entries = heartbeat.entries()
    assert rotated.exists()
    assert [entry["seq"] for entry in entries] == list(range(entries[0]["seq"], entries[-1]["seq"] + 1))
    assert_chained(heartbeat.record)
    assert_chained(rotated)
    bridge = hashlib.sha256(rotated.read_bytes().splitlines()[-1]).hexdigest()
    assert json.loads(heartbeat.record.read_bytes().splitlines()[0])["prev"] == bridge


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HEARTBEAT_EVERY_S", "-1", "heartbeat: HEARTBEAT_EVERY_S must be a number from 0.05 to 3600"),
        ("HEARTBEAT_EVERY_S", "nan", "heartbeat: HEARTBEAT_EVERY_S must be a number from 0.05 to 3600"),
        ("HEARTBEAT_PORT", "http", "heartbeat: HEARTBEAT_PORT must be a number from 1 to 65535"),
        ("STATE_DIRECTORY", "", "heartbeat: STATE_DIRECTORY is not set; systemd sets it"),
    ],
)
def test_heartbeat_names_a_wrong_setting_and_its_rule(
    tmp_path: Path, name: str, value: str, message: str
) -> None:
    environment = {"STATE_DIRECTORY": str(tmp_path), name: value}
    ended = subprocess.run(
        [sys.executable, "-ISB", AGENTS / "heartbeat"],
        env=environment,
        capture_output=True,
        timeout=10,
        check=False,
    )

    assert (ended.returncode, ended.stderr.decode().strip()) == (78, message)
