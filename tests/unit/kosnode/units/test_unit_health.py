"""What counts as healthy, and that a check can neither hang, nor flood, nor get rights."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_systemd import FakeSystemd

from kosnode import health, unit
from kosnode.health import HealthReport

# An account that every machine has and that has no rights.
NOBODY = "nobody"


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def wall(self) -> float:
        return 1_800_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(name="systemd")
def fixture_systemd() -> FakeSystemd:
    fake = FakeSystemd()
    fake.set("kos-a.service")
    return fake


def listed(
    *checks: dict[str, Any], timer: bool = False, origin: str = "release", name: str = "a"
) -> dict[str, Any]:
    """Return a units.json with one unit."""
    entry = {
        "service": f"kos-{name}.service",
        "timer": f"kos-{name}.timer" if timer else None,
        "from": origin,
        "user": NOBODY,
        "directory": "/",
        "health": [check.as_json() for check in unit.validate_checks(list(checks), "test")],
    }
    return {"release": "x", "units": {name: entry}, "files": {}}


def measure(systemd: FakeSystemd, *units: dict[str, Any], **options: Any) -> HealthReport:
    return health.check_all(
        units, options.pop("release_checks", []), systemd=systemd, clock=FakeClock(), **options
    )


def only(report: HealthReport) -> health.CheckResult:
    """Return the one check beside those of the service itself."""
    [found] = [check for check in report.checks if check.check not in ("active", "not flapping")]
    return found


def probe(check: dict[str, Any], **options: Any) -> health.CheckResult:
    fake = FakeSystemd()
    fake.set("kos-a.service")
    return only(measure(fake, listed(check), **options))


# The service itself


def test_a_running_service_is_healthy_without_any_check(systemd: FakeSystemd) -> None:
    report = measure(systemd, listed())

    assert report.healthy
    assert report.reason == ""


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"LoadState": "not-found"}, "a: active: systemd says not-found"),
        ({"ActiveState": "activating", "SubState": "start"}, "a: active: activating (start)"),
        (
            {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": "3"},
            "a: active: failed (failed): exit-code, status 3",
        ),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "Result": "watchdog"},
            "a: active: activating (auto-restart): watchdog",
        ),
    ],
)
def test_a_service_that_does_not_run_is_not_healthy(
    systemd: FakeSystemd, properties: dict[str, str], reason: str
) -> None:
    systemd.set("kos-a.service", **properties)

    assert measure(systemd, listed()).reason == reason


def test_a_restart_between_two_measurements_is_flapping_though_the_service_runs(systemd: FakeSystemd) -> None:
    systemd.set("kos-a.service", NRestarts="2")
    first = measure(systemd, listed())
    assert first.healthy

    assert measure(systemd, listed(), before=first).restarted == ()
    systemd.set("kos-a.service", NRestarts="3")
    second = measure(systemd, listed(), before=first)

    assert second.reason == "a: not flapping: restarted once since the last measurement"
    assert second.restarted == ("a",)


def test_a_service_that_restarted_just_now_is_flapping_even_at_the_first_look(systemd: FakeSystemd) -> None:
    systemd.set("kos-a.service", NRestarts="4", ActiveEnterTimestampMonotonic="995000000")

    assert measure(systemd, listed()).reason == "a: not flapping: restarted 4 times, last 5 s ago"


def test_a_periodic_unit_is_healthy_while_its_timer_runs_and_its_last_run_was_good(
    systemd: FakeSystemd,
) -> None:
    systemd.set("kos-a.service", ActiveState="inactive", SubState="dead")
    systemd.set("kos-a.timer", SubState="waiting")
    assert measure(systemd, listed(timer=True)).healthy

    systemd.set("kos-a.timer", ActiveState="inactive", SubState="dead")
    assert measure(systemd, listed(timer=True)).reason == "a: active: its timer is inactive (dead)"

    systemd.set("kos-a.timer", SubState="waiting")
    systemd.set("kos-a.service", ActiveState="failed", Result="exit-code", ExecMainStatus="1")
    assert (
        measure(systemd, listed(timer=True)).reason == "a: active: its last run failed: exit-code, status 1"
    )


def test_no_answer_of_systemd_is_not_health(systemd: FakeSystemd) -> None:
    systemd.broken = "systemctl show gave no answer within 20 s"

    report = measure(systemd, listed())
    assert not report.healthy
    assert "gave no answer" in report.reason
    assert not measure(systemd).healthy


def test_a_unit_that_the_node_added_is_reported_and_cannot_fail_a_release(systemd: FakeSystemd) -> None:
    systemd.set("kos-own.service", ActiveState="failed", SubState="failed", NRestarts="9")
    report = measure(systemd, listed(), listed(origin="node", name="own"))

    assert report.healthy
    assert [(check.unit, check.ok) for check in report.checks if check.check == "active"] == [
        ("a", True),
        ("own", False),
    ]
    systemd.set("kos-own.service", NRestarts="10")
    assert measure(systemd, listed(), listed(origin="node", name="own"), before=report).restarted == ()


def test_a_check_of_the_release_counts_like_one_of_a_unit(systemd: FakeSystemd) -> None:
    checks = [{"file_age": {"path": "/nowhere/at/all", "max": "5s"}, "timeout": "1s"}]

    report = measure(systemd, listed(), release_checks=checks)

    assert report.reason.startswith("release: file_age /nowhere/at/all: ")


def test_a_report_is_plain_json_with_milliseconds(systemd: FakeSystemd) -> None:
    said = json.loads(json.dumps(measure(systemd, listed()).as_json()))

    assert set(said) == {"healthy", "reason", "checks", "restarted"}
    assert {"unit", "check", "ok", "detail", "ms", "required"} == set(said["checks"][0])


# HTTP

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """An HTTP server on loopback whose answer a test sets."""

    def __init__(self) -> None:
        self.answer: Answer = lambda request: reply(request, b'{"status": "ok"}')
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/health"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


def reply(request: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture(name="server")
def fixture_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def http(server: Server, **body: Any) -> health.CheckResult:
    return probe({"http": {"url": server.url, **body}, "timeout": "1s"})


def test_an_answer_with_the_right_status_and_value_is_healthy(server: Server) -> None:
    assert http(server, status=200, json={"/status": ["ok", "degraded"]}).ok


@pytest.mark.parametrize(
    ("body", "asserted", "detail"),
    [
        (b'{"status": "failing"}', {"/status": ["ok"]}, '/status is "failing", not "ok"'),
        (b'{"a": {"b/c": [1, 2]}}', {"/a/b~1c/1": 3}, "/a/b~1c/1 is 2, not 3"),
        (b"{}", {"/status": "ok"}, "/status is missing"),
        (b'{"n": 1}', {"/n": True}, "/n is 1, not true"),
        (b'{"n": 1.0}', {"/n": 1}, "/n is 1.0, not 1"),
        (b"[" * 100_000, {"/n": 1}, "is not JSON"),
        (b"<html>", {"/n": 1}, "is not JSON: <html>"),
        (b'{"n": "' + b"x" * health.MAX_BODY_BYTES + b'"}', {"/n": "x"}, "is larger than"),
    ],
)
def test_an_answer_that_says_something_else_is_not_healthy(
    server: Server, body: bytes, asserted: dict[str, Any], detail: str
) -> None:
    server.answer = lambda request: reply(request, body)

    result = http(server, json=asserted)

    assert not result.ok
    assert detail in result.detail
    assert len(result.detail) <= health.DETAIL_CHARACTERS + 1


def test_another_status_is_named_with_what_the_service_said(server: Server) -> None:
    server.answer = lambda request: reply(request, b"no\ndatabase", 503)

    assert http(server).detail == "status 503, not 200: no database"
    assert http(server, status=[200, 503]).ok


def test_a_redirect_is_not_followed(server: Server) -> None:
    asked = []

    def away(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        request.send_response(302)
        request.send_header("Location", "/elsewhere")
        request.end_headers()

    server.answer = away

    assert not http(server).ok
    assert asked == ["/health"]


@pytest.mark.parametrize("part", [b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n", b""])
def test_an_answer_that_comes_byte_by_byte_is_cut_off(server: Server, part: bytes) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(part)
        while not server.over.wait(0.05):
            request.wfile.write(b"x")

    server.answer = drip

    assert http(server).detail == "no whole answer within 1 s"


def test_nobody_there_is_not_healthy() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    assert probe({"http": {"url": f"http://127.0.0.1:{port}/"}}).detail == "Connection refused"
    assert probe({"tcp": {"port": port}}).detail == "Connection refused"


def test_what_answers_but_is_not_http_is_named_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=lambda: listening.accept()[0].sendall(b"220 smtp\r\n"), daemon=True).start()

        result = probe({"http": {"url": f"http://127.0.0.1:{listening.getsockname()[1]}/"}, "timeout": "2s"})

    assert not result.ok
    assert "is not HTTP" in result.detail or "reset" in result.detail


def test_a_port_that_accepts_is_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert probe({"tcp": {"port": listening.getsockname()[1]}}).ok


def test_a_host_that_cannot_be_a_name_is_told_at_once() -> None:
    result = probe({"tcp": {"host": "a..b", "port": 1}}, timeout_s=5)
    assert not result.ok
    assert "cannot be asked: " in result.detail


# Commands and files


def command(script: str, **options: Any) -> health.CheckResult:
    return probe({"command": ["/bin/sh", "-c", script], "timeout": "1s"}, **options)


def test_a_command_that_ends_with_0_is_healthy() -> None:
    assert command("exit 0").ok
    assert command("echo lost; exit 7").detail == "ended with 7: lost"
    assert command("kill -9 $$").detail == "was ended by SIGKILL"


def test_a_command_that_is_not_there_is_named() -> None:
    result = probe({"command": ["/nowhere/probe"]})

    assert not result.ok
    assert "/nowhere/probe" in result.detail


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("end", ["sleep 60", "exit 0"])
def test_a_command_is_ended_with_its_children(end: str) -> None:
    result = command(f"sleep 60 & echo $!; {end}")

    said, _, child = result.detail.rpartition(": ")
    assert said == ("ended with 0" if end == "exit 0" else "did not end within 1 s")
    for _ in range(100):
        if not is_running(int(child)):
            break
        time.sleep(0.02)
    assert not is_running(int(child))


def test_a_command_cannot_flood_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_OUTPUT_BYTES", 8)

    assert command("yes").detail == "did not end within 1 s: y y y y"


def test_all_of_a_long_output_is_read_so_that_the_command_can_end() -> None:
    assert command("head -c 300000 /dev/zero | tr '\\0' x").ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights away")
def test_a_command_runs_as_the_unit_s_account_without_a_way_to_more_rights() -> None:
    said = command("id -un; id -G | wc -w; grep -E '^(NoNewPrivs|CapBnd|CapEff):' /proc/self/status").detail

    assert said.startswith(f"ended with 0: {NOBODY} 1 ")
    for line in ("NoNewPrivs: 1", "CapEff: 0000000000000000", "CapBnd: 0000000000000000"):
        assert line in said


def test_a_command_gets_nothing_of_the_caller_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOS_TEST_TOKEN", "hush")

    assert "hush" not in command("env; exit 1").detail


def test_a_file_is_healthy_while_it_is_young(tmp_path: Path) -> None:
    path = tmp_path / "last.json"
    path.write_text("{}")
    now = FakeClock().wall()
    check = {"file_age": {"path": str(path), "max": "60s"}}

    os.utime(path, (now - 30, now - 30))
    assert probe(check).detail == "30 s old, at most 60 s are allowed"
    assert probe(check).ok
    os.utime(path, (now - 90, now - 90))
    assert not probe(check).ok


def test_a_file_from_the_future_is_not_young(tmp_path: Path) -> None:
    path = tmp_path / "last.json"
    path.write_text("{}")
    later = FakeClock().wall() + 3600
    os.utime(path, (later, later))

    result = probe({"file_age": {"path": str(path), "max": "60s"}})
    assert (result.ok, result.detail) == (False, "its time lies 3600 s ahead of the clock")


def test_a_link_or_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self/status")
    assert stat.S_ISREG((tmp_path / "link").stat().st_mode)

    for path in (tmp_path / "link", tmp_path):
        result = probe({"file_age": {"path": str(path), "max": "1d"}})
        assert (result.ok, result.detail) == (False, "is not a regular file")


# All together


def test_many_slow_checks_run_at_the_same_time_and_end_together(systemd: FakeSystemd) -> None:
    slow = {"command": ["/bin/sh", "-c", "sleep 60"], "timeout": "30s"}
    report = measure(systemd, listed(*[slow] * 20), timeout_s=1.0)

    details = {check.detail for check in report.checks if check.check.startswith("command")}
    assert not report.healthy
    assert len(report.checks) == 22
    assert details <= {"did not end within 30 s", "the time for all checks was over"}


def test_the_order_of_a_report_does_not_depend_on_which_check_is_fastest(systemd: FakeSystemd) -> None:
    checks = [{"command": ["/bin/sh", "-c", f"sleep 0.{n}; echo {n}"]} for n in (3, 0, 2, 1)]
    report = measure(systemd, listed(*checks))

    assert [check.detail[-1] for check in report.checks[2:]] == ["3", "0", "2", "1"]
