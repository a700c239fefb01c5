"""A real daemon from a real release tree: systemd's protocol, signals, streams, logs and memory."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kosd_node import REPOSITORY, ROOT, Manager, Node

MAX_PSS_BYTES = 40_000_000
SYSTEMCTL = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
for unit; do
    state=active
    [ ! -e "@UNITS@/$unit" ] || state=$(cat "@UNITS@/$unit")
    printf 'Id=%s\\nActiveState=%s\\n' "$unit" "$state"
    printf 'LoadState=loaded\\nSubState=running\\nResult=success\\nNRestarts=0\\n\\n'
done
"""


@dataclass
class Running:
    """One daemon process, the node it looks at and the systemd it tells."""

    process: subprocess.Popen[bytes]
    port: int
    manager: Manager
    node: Node
    units: Path

    def ask(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        return answer.status, document

    def eventually(self, holds: Callable[[], bool], within_s: float = 10) -> None:
        end = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < end, "did not become true in time"
            time.sleep(0.05)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.node.base / "log").read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def tree(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "tree"
    script = REPOSITORY / "runtime/release/tree.py"
    command = [sys.executable, str(script), "--version", "1.1.0", "--wheels", str(wheels), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.fixture
def running(tree: Path, node: Node, manager: Manager) -> Iterator[Running]:
    units = node.base / "units"
    programs = node.base / "programs"
    units.mkdir()
    programs.mkdir()
    (programs / "systemctl").write_text(SYSTEMCTL.replace("@UNITS@", str(units)))
    (programs / "systemctl").chmod(0o755)
    port = free_port()
    node.write_config({"listen": {"port": port}, "observe": {"every_s": 0.1, "start_grace_s": 0}})
    with (node.base / "log").open("wb") as log:
        # -S beside the unit's own -IB: the release's libraries alone must do, nothing installed may help.
        process = subprocess.Popen(
            [sys.executable, "-ISB", tree / "bin/kosd"],
            stdout=log,
            env={
                "PATH": f"{programs}:{os.environ['PATH']}",
                "KOSD_CONFIG": str(node.config_path),
                "STATE_DIRECTORY": str(node.state),
                "NOTIFY_SOCKET": str(manager.path),
                "WATCHDOG_USEC": "400000",
            },
        )
        made = Running(process, port, manager, node, units)
        try:
            manager.heard("READY=1")
            yield made
        finally:
            process.kill()
            process.wait()


def test_ready_is_said_when_the_node_was_seen_and_the_port_answers(running: Running) -> None:
    status, document = running.ask("/health")

    assert (status, document["status"], document["version"]) == (200, "ok", "1.1.0")
    assert running.ask("/v1/status")[1]["sample"]["taken"] >= 1


def test_the_daemon_stays_below_40_megabytes_of_pss(running: Running) -> None:
    for _ in range(20):
        running.ask("/health")
        running.ask("/v1/events")
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    for path in ("/", "/metrics"):
        connection.request("GET", path)
        connection.getresponse().read()
    rollup = Path(f"/proc/{running.process.pid}/smaps_rollup").read_text()
    (pss,) = (int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))

    assert pss < MAX_PSS_BYTES, f"{pss / 1e6:.1f} MB"


def test_a_unit_that_fails_turns_health_to_503_within_a_sample(running: Running) -> None:
    (running.units / "kos-heartbeat.service").write_text("failed")
    running.eventually(lambda: running.ask("/health")[0] == 503)
    assert "unit:heartbeat" in running.ask("/health")[1]["reason"]
    running.manager.heard("STATUS=node is failing")

    (running.units / "kos-heartbeat.service").unlink()
    running.eventually(lambda: running.ask("/health")[0] == 200)


def test_sighup_reloads_and_keeps_the_old_configuration_when_the_new_one_is_wrong(running: Running) -> None:
    known = len(running.manager.messages)
    running.node.config_path.write_text('{"observe": {"evry_s": 1}}')
    running.process.send_signal(signal.SIGHUP)

    assert "MONOTONIC_USEC=" in running.manager.heard("RELOADING=1", known)
    running.manager.heard("READY=1", known)
    status, document = running.ask("/health")
    assert (status, document["status"]) == (200, "degraded")
    assert "observe.evry_s: unknown key" in document["checks"]["config"]["detail"]
    assert [line["level"] for line in running.log() if line["event"] == "config.refused"] == ["error"]


def test_the_watchdog_is_fed_while_the_loop_runs_and_starves_when_the_process_hangs(running: Running) -> None:
    manager = running.manager
    manager.heard("WATCHDOG=1", since=len(manager.messages), within_s=2)

    running.process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    known = len(manager.messages)
    time.sleep(0.5)
    assert len(manager.messages) == known

    running.process.send_signal(signal.SIGCONT)
    manager.heard("WATCHDOG=1", known)


def test_an_event_stream_gives_what_was_and_what_comes_and_goes_on_where_it_was_lost(
    running: Running,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", "/v1/events?since=0", headers={"Accept": "text/event-stream"})
    answer = connection.getresponse()
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    seen: list[dict[str, Any]] = []

    def read_until(kind: str, unit: str | None) -> dict[str, Any]:
        while True:
            line = answer.readline().decode()
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))
                if (seen[-1]["kind"], seen[-1]["unit"]) == (kind, unit):
                    return seen[-1]

    read_until("health.changed", None)
    (running.units / "kos-heartbeat.service").write_text("failed")
    failed = read_until("unit.state", "heartbeat")
    connection.close()
    assert failed["level"] == "error"
    assert [event["id"] for event in seen] == sorted({event["id"] for event in seen})

    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    asked = {"Accept": "text/event-stream", "Last-Event-ID": str(failed["id"])}
    connection.request("GET", "/v1/events?since=0", headers=asked)
    answer = connection.getresponse()
    assert read_until("health.changed", None)["id"] > failed["id"]
    connection.close()


def test_sigterm_ends_it_in_order_even_with_an_open_stream(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", "/v1/events", headers={"Accept": "text/event-stream"})
    connection.getresponse()
    running.process.terminate()

    running.manager.heard("STOPPING=1")
    assert running.process.wait(timeout=8) == 0
    connection.close()


def test_each_log_line_is_one_object_with_the_ids_that_join_it(running: Running) -> None:
    running.ask("/v1/units", {"X-Request-ID": "drill-7"})
    running.eventually(lambda: any(line.get("request_id") == "drill-7" for line in running.log()))
    lines = running.log()

    for line in lines:
        assert {"ts", "level", "event", "msg", "node", "release"} <= set(line)
        assert line["ts"].endswith("Z")
        assert (line["node"], line["release"]) == ("node-a1", ROOT)
    (request,) = (line for line in lines if line.get("request_id") == "drill-7")
    assert (request["event"], request["path"], request["status"]) == ("request", "/v1/units", 200)
    assert {line["unit"] for line in lines if line["event"] == "unit.state"} == {
        "kosd",
        "heartbeat",
        "sysinfo",
    }
    assert not [line for line in lines if line.get("path") == "/health"]


def test_a_wrong_configuration_at_the_first_start_is_one_message_and_exit_code_78(
    tree: Path, node: Node
) -> None:
    node.config_path.write_text('{"listen": {"prt": 1}}')
    environment = {"KOSD_CONFIG": str(node.config_path), "STATE_DIRECTORY": str(node.state)}
    ended = subprocess.run(
        [sys.executable, "-ISB", tree / "bin/kosd"],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 78
    (line,) = ended.stdout.decode().splitlines()
    assert json.loads(line)["msg"] == f"{node.config_path}: listen.prt: unknown key; did you mean port?"


def test_the_engines_configuration_for_the_unit_is_read_where_none_is_named(tree: Path, node: Node) -> None:
    node.config_path.write_text('{"log": {"level": "loud"}}')
    environment = {"KOS_UNIT_CONFIG": str(node.config_path), "STATE_DIRECTORY": str(node.state)}
    ended = subprocess.run(
        [sys.executable, "-ISB", tree / "bin/kosd"],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 78
    assert "log.level: must be one of" in ended.stdout.decode()


def test_a_port_that_is_taken_is_an_error_and_no_ready(running: Running, tree: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "KOSD_CONFIG": str(running.node.config_path),
        "STATE_DIRECTORY": str(running.node.state),
    }
    ended = subprocess.run(
        [sys.executable, "-ISB", tree / "bin/kosd"],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode != 0
    assert "address already in use" in ended.stdout.decode()


def test_the_daemon_leaves_nothing_in_its_tree(running: Running, tree: Path) -> None:
    running.ask("/health")

    assert not list(tree.rglob("__pycache__"))
