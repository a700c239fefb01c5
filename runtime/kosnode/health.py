"""Measures the health of what runs on a node, and judges a trial from the measurements of its bake."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import queue
import select
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from .systemd import Systemd, SystemdError, number
from .unit import Check, CommandCheck, FileAgeCheck, HttpCheck, TcpCheck, validate_checks

MAX_BODY_BYTES = 1 << 20
MAX_OUTPUT_BYTES = 8 << 10
DETAIL_CHARACTERS = 300
# An automatic restart counts as flapping for so long where there is no earlier measurement to compare with.
YOUNG_S = 30
# What the checks of the release as a whole belong to; no unit can have this name.
RELEASE = "release"

_WORKERS = 8
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "ActiveEnterTimestampMonotonic",
)


class Clock(Protocol):
    """The two clocks that health needs; a test passes its own."""

    def wall(self) -> float:
        """Seconds since 1970, as the times of files are in."""

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC, as systemd's times are in."""


class SystemClock:
    """The clocks of this machine."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class CheckResult:
    """One check of one unit.

    Args:
        unit: name of the unit, `release` for a check of the release as a whole.
        check: what was checked, such as `active` or `http http://127.0.0.1:8000/health`.
        required: whether the node is unhealthy for it; a unit that the node added cannot fail a release.
        ms: milliseconds that it took.
    """

    unit: str
    check: str
    ok: bool
    detail: str
    ms: int = 0
    required: bool = True


@dataclass(frozen=True)
class HealthReport:
    """One measurement.

    Args:
        checks: every check, in a fixed order.
        restarts: systemd's counter of automatic restarts, by unit.
        restarted: units of the release that systemd restarted by itself since the measurement before.
    """

    checks: tuple[CheckResult, ...]
    restarts: Mapping[str, int] = field(default_factory=dict)
    restarted: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        return all(check.ok for check in self.checks if check.required)

    @property
    def reason(self) -> str:
        """The first thing that is wrong, in one line; empty where nothing is."""
        wrong = [check for check in self.checks if check.required and not check.ok]
        if not wrong:
            return ""
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return f"{wrong[0].unit}: {wrong[0].check}: {wrong[0].detail}{more}"

    def as_json(self) -> dict[str, Any]:
        return {
            "healthy": self.healthy,
            "reason": self.reason,
            "checks": [asdict(check) for check in self.checks],
            "restarted": list(self.restarted),
        }


@dataclass(frozen=True)
class _Probe:
    unit: str
    check: Check
    user: str
    directory: str
    required: bool


def check_all(
    units: Sequence[Mapping[str, Any]],
    release_checks: Sequence[Mapping[str, Any]],
    *,
    systemd: Systemd,
    clock: Clock,
    before: HealthReport | None = None,
    release_user: str = "kos",
    release_directory: str = "/",
    timeout_s: float = 30.0,
) -> HealthReport:
    """Measure every unit and run every check, at the same time, within `timeout_s` seconds in all.

    Args:
        units: the values of units.json, of the release and of the node.
        release_checks: `health` of release.json, with absolute paths (`render.resolve_checks`).
        systemd: is asked once for all units.
        clock: for ages.
        before: the measurement before this one, to see restarts between the two.
        release_user: the account that commands of the release's checks run as.
        release_directory: and the folder they run in.
        timeout_s: a check that has no answer by then has failed.

    Returns:
        A report. That systemd cannot be asked is a failed check as well: no data is not health.
    """
    entries = {name: entry for document in units for name, entry in document["units"].items()}
    began = time.monotonic()
    results, restarts, restarted = _check_units(entries, systemd, clock, before)
    probes = [
        _Probe(name, check, entry["user"], entry["directory"], entry["from"] == "release")
        for name, entry in sorted(entries.items())
        for check in validate_checks(entry["health"], f"unit {name}")
    ]
    probes += [
        _Probe(RELEASE, check, release_user, release_directory, True)
        for check in validate_checks(release_checks, "release.json")
    ]
    left = timeout_s - (time.monotonic() - began)
    return HealthReport((*results, *_run_probes(probes, clock, left)), restarts, restarted)


def _check_units(
    entries: Mapping[str, Mapping[str, Any]], systemd: Systemd, clock: Clock, before: HealthReport | None
) -> tuple[list[CheckResult], dict[str, int], tuple[str, ...]]:
    names = [
        name for _, entry in sorted(entries.items()) for name in (entry["service"], entry["timer"]) if name
    ]
    began = time.monotonic()
    try:
        shown = systemd.show(names, _PROPERTIES)
    except SystemdError as error:
        ms = _ms_since(began)
        failed = [
            CheckResult(name, "active", False, error.message, ms, entry["from"] == "release")
            for name, entry in sorted(entries.items())
        ]
        return failed or [CheckResult(RELEASE, "active", False, error.message, ms)], {}, ()
    ms = _ms_since(began)
    results: list[CheckResult] = []
    restarts: dict[str, int] = {}
    restarted: list[str] = []
    for name, entry in sorted(entries.items()):
        required = entry["from"] == "release"
        service = shown[entry["service"]]
        timer = shown[entry["timer"]] if entry["timer"] else None
        wrong = _why_inactive(service) if timer is None else _why_not_periodic(service, timer)
        results.append(
            CheckResult(name, "active", wrong is None, wrong or _state(timer or service), ms, required)
        )
        restarts[name] = number(service, "NRestarts") or 0
        flaps = _why_flapping(restarts[name], name, service, clock, before)
        if required and before is not None and flaps is not None:
            restarted.append(name)
        results.append(CheckResult(name, "not flapping", flaps is None, flaps or "no restart", 0, required))
    return results, restarts, tuple(restarted)


def _state(shown: Mapping[str, str]) -> str:
    return f"{shown['ActiveState']} ({shown['SubState']})"


def _cause(service: Mapping[str, str]) -> str:
    status = f", status {service['ExecMainStatus']}" if service["Result"] == "exit-code" else ""
    return service["Result"] + status


def _why_inactive(service: Mapping[str, str]) -> str | None:
    if service["LoadState"] != "loaded":
        return f"systemd says {service['LoadState']}"
    if service["ActiveState"] in ("active", "reloading", "refreshing"):
        return None
    if service["Result"] != "success":
        return f"{_state(service)}: {_cause(service)}"
    return _state(service)


def _why_not_periodic(service: Mapping[str, str], timer: Mapping[str, str]) -> str | None:
    for what, shown in (("its service", service), ("its timer", timer)):
        if shown["LoadState"] != "loaded":
            return f"{what}: systemd says {shown['LoadState']}"
    if timer["ActiveState"] != "active":
        return f"its timer is {_state(timer)}"
    if service["ActiveState"] == "failed" or service["Result"] != "success":
        return f"its last run failed: {_cause(service)}"
    return None


def _why_flapping(
    count: int, name: str, service: Mapping[str, str], clock: Clock, before: HealthReport | None
) -> str | None:
    if before is not None and name in before.restarts:
        rise = count - before.restarts[name]
        return f"restarted {_times(rise)} since the last measurement" if rise > 0 else None
    if count == 0:
        return None
    entered = number(service, "ActiveEnterTimestampMonotonic") or 0
    age = clock.monotonic() - entered / 1_000_000
    return f"restarted {_times(count)}, last {age:.0f} s ago" if age < YOUNG_S else None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _run_probes(probes: Sequence[_Probe], clock: Clock, timeout_s: float) -> list[CheckResult]:
    """Run all probes in threads that nobody waits for longer than `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    todo: queue.SimpleQueue[tuple[int, _Probe]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, CheckResult]] = queue.SimpleQueue()
    for item in enumerate(probes):
        todo.put(item)

    def work() -> None:
        while True:
            try:
                index, probe = todo.get_nowait()
            except queue.Empty:
                return
            done.put((index, _run_probe(probe, clock, deadline)))

    for _ in range(min(_WORKERS, len(probes))):
        threading.Thread(target=work, daemon=True).start()
    results: dict[int, CheckResult] = {}
    while len(results) < len(probes):
        try:
            # A little longer than the probes' own limits, so that theirs is the message that is seen.
            index, result = done.get(timeout=max(0.0, deadline + 0.5 - time.monotonic()))
        except queue.Empty:
            break
        results[index] = result
    late = f"no answer within {timeout_s:.0f} s for all checks"
    return [
        results.get(index, CheckResult(probe.unit, probe.check.label, False, late, required=probe.required))
        for index, probe in enumerate(probes)
    ]


def _run_probe(probe: _Probe, clock: Clock, deadline: float) -> CheckResult:
    began = time.monotonic()
    limit = min(float(probe.check.timeout_s), deadline - began)
    check = probe.check
    try:
        if limit <= 0:
            ok, detail = False, "the time for all checks was over"
        elif isinstance(check, HttpCheck):
            ok, detail = _probe_http(check, limit)
        elif isinstance(check, TcpCheck):
            ok, detail = _probe_tcp(check, limit)
        elif isinstance(check, CommandCheck):
            ok, detail = _probe_command(check, limit, probe.user, probe.directory)
        else:
            ok, detail = _probe_file_age(check, clock)
    except OSError as error:
        ok, detail = False, _os_error(error, check.timeout_s)
    except ValueError as error:
        # A name that no resolver takes, such as a..b.
        ok, detail = False, f"cannot be asked: {error}"
    return CheckResult(probe.unit, check.label, ok, _one_line(detail), _ms_since(began), probe.required)


def _os_error(error: OSError, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    what = f"{error.filename}: " if error.filename else ""
    return what + (error.strerror or str(error) or type(error).__name__)


def _probe_tcp(check: TcpCheck, limit_s: float) -> tuple[bool, str]:
    socket.create_connection((check.host, check.port), limit_s).close()
    return True, "accepts connections"


def _probe_http(check: HttpCheck, limit_s: float) -> tuple[bool, str]:
    parts = urlsplit(check.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    deadline = time.monotonic() + limit_s
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=limit_s)
    else:
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=limit_s)
    expired = threading.Event()
    watchdog: threading.Timer | None = None
    try:
        connection.connect()
        # A limit on each read is none on an answer that comes byte by byte: the connection is cut at the end.
        watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), _cut, (connection.sock, expired))
        watchdog.daemon = True
        watchdog.start()
        connection.request("GET", path, headers={"Accept": "application/json, */*", "User-Agent": "kosctl"})
        answer = connection.getresponse()
        body = answer.read(MAX_BODY_BYTES + 1)
    except (http.client.HTTPException, ssl.SSLError, OSError, ValueError) as error:
        if expired.is_set() or isinstance(error, TimeoutError):
            return False, f"no whole answer within {check.timeout_s} s"
        if isinstance(error, OSError):
            return False, _os_error(error, check.timeout_s)
        return False, f"is not HTTP: {type(error).__name__}: {error}"
    finally:
        if watchdog is not None:
            watchdog.cancel()
        connection.close()
    if expired.is_set():
        return False, f"no whole answer within {check.timeout_s} s"
    if answer.status not in check.status:
        return False, f"status {answer.status}, not {_either(check.status)}{_excerpt(body)}"
    if check.json:
        wrong = _why_not_json(body, check.json)
        if wrong is not None:
            return False, wrong
    return True, f"status {answer.status}"


def _cut(sock: socket.socket | None, expired: threading.Event) -> None:
    expired.set()
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The other side was faster.
            return


def _why_not_json(body: bytes, asserted: Sequence[tuple[str, tuple[Any, ...]]]) -> str | None:
    if len(body) > MAX_BODY_BYTES:
        return f"the answer is larger than {MAX_BODY_BYTES} bytes"
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return f"the answer is not JSON{_excerpt(body)}"
    for pointer, allowed in asserted:
        try:
            found = resolve_pointer(value, pointer)
        except LookupError:
            return f"{pointer or 'the answer'} is missing in the answer"
        if not any(type(found) is type(one) and found == one for one in allowed):
            shown = json.dumps(found) if not isinstance(found, (dict, list)) else type(found).__name__
            return f"{pointer or 'the answer'} is {_one_line(shown)}, not {_either(allowed)}{_excerpt(body)}"
    return None


def resolve_pointer(value: Any, pointer: str) -> Any:
    """Return what a JSON pointer names (RFC 6901).

    Raises:
        LookupError: there is nothing of that name.
    """
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value[name]
        elif (
            isinstance(value, list) and name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")
        ):
            value = value[int(name)]
        else:
            raise LookupError(pointer)
    return value


def _either(values: Sequence[Any]) -> str:
    return " or ".join(json.dumps(value) for value in values)


def _excerpt(body: bytes) -> str:
    text = _one_line(body[:200].decode("utf-8", "replace"))
    return f": {text}" if text else ""


def _probe_command(check: CommandCheck, limit_s: float, user: str, directory: str) -> tuple[bool, str]:
    """Run a command as `user` without a way to more rights, with bounded output and time."""
    try:
        argv = [*_as_user(user), *check.argv]
    except KeyError:
        return False, f"this node has no account {user}"
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        argv,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        ended, output = _follow(process, time.monotonic() + limit_s)
    finally:
        # The process is not waited for before this, so its number still names its own group.
        _kill_group(process.pid)
        code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
    said = _one_line(output.decode("utf-8", "replace"))
    if not ended:
        return False, f"did not end within {check.timeout_s} s" + (f": {said}" if said else "")
    how = f"ended with {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    return code == 0, how + (f": {said}" if said else "")


def _as_user(user: str) -> list[str]:
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam(user)
    return [
        "setpriv",
        f"--reuid={account.pw_uid}",
        f"--regid={account.pw_gid}",
        "--clear-groups",
        "--no-new-privs",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--",
    ]


def _follow(process: subprocess.Popen[bytes], deadline: float) -> tuple[bool, bytes]:
    """Read the output until the process has ended (True) or the time is over (False)."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    output = b""
    open_ended = True
    while True:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        left = deadline - time.monotonic()
        if open_ended and waiting.poll(0 if ended else max(0, min(left, 0.05)) * 1000):
            block = os.read(descriptor, 65536)
            # What is said beyond the limit is read, so that nobody waits for us, and forgotten.
            output += block[: max(0, MAX_OUTPUT_BYTES - len(output))]
            open_ended = bool(block)
            if block and left > 0:
                continue
        elif not ended and left > 0:
            time.sleep(0 if open_ended else 0.01)
            continue
        if ended or left <= 0:
            return ended, output


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _probe_file_age(check: FileAgeCheck, clock: Clock) -> tuple[bool, str]:
    status = Path(check.path).lstat()
    if not stat.S_ISREG(status.st_mode):
        return False, "is not a regular file"
    age = clock.wall() - status.st_mtime
    if age < 0:
        # A clock that was set back says nothing about a file from before it, within reason.
        return -age <= check.max_s, f"its time lies {-age:.0f} s ahead of the clock"
    return age <= check.max_s, f"{age:.0f} s old, at most {check.max_s} s are allowed"


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= DETAIL_CHARACTERS else line[:DETAIL_CHARACTERS] + "…"


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


@dataclass(frozen=True)
class Verdict:
    """What a bake says after a measurement.

    Args:
        state: `pending`, `healthy` (baked) or `unhealthy`.
        reason: why it is not healthy (yet).
        bake_left_s: seconds of bake that are left; None before the first healthy measurement.
    """

    state: str
    reason: str = ""
    bake_left_s: float | None = None

    @property
    def baked(self) -> bool:
        return self.state == "healthy"


class Bake:
    """Judges a trial from measurements, with the clock passed in.

    The bake begins with the first healthy measurement and ends with a healthy one at least `bake_s` later. An
    automatic restart begins it anew, as does a gap in which nobody measured. The trial is unhealthy with
    `failures` bad measurements in a row, or with so many measurements that saw a restart, counted from the
    first healthy one or, where there was none, from the end of the time to settle. That verdict is final.

    Args:
        bake_s: seconds.
        settle_s: seconds after the start in which bad measurements are not counted before a healthy one.
        failures: how many bad measurements in a row are too many.
        started_s: when the trial began, on the clock that `feed` is given.
        longest_gap_s: seconds between two measurements beyond which the bake begins anew.
    """

    def __init__(
        self, *, bake_s: float, settle_s: float, failures: int, started_s: float, longest_gap_s: float = 60.0
    ) -> None:
        self._bake_s = bake_s
        self._settled_s = started_s + settle_s
        self._failures = failures
        self._longest_gap_s = longest_gap_s
        self._last_s: float | None = None
        self._since_s: float | None = None
        self._seen_healthy = False
        self._bad = 0
        self._flaps = 0
        self._verdict = Verdict("pending", "not measured yet")

    @property
    def verdict(self) -> Verdict:
        """The verdict of the last measurement."""
        return self._verdict

    def feed(self, now_s: float, healthy: bool, reason: str = "", restarted: Sequence[str] = ()) -> Verdict:
        """Take one measurement.

        Args:
            now_s: when it was taken, in seconds of one clock that does not go back.
            healthy: what it said.
            reason: why it was not healthy.
            restarted: units that were restarted by systemd since the one before.
        """
        if self._verdict.state == "unhealthy":
            return self._verdict
        last, self._last_s = self._last_s, now_s
        if last is not None and not 0 <= now_s - last <= self._longest_gap_s:
            self._since_s = None
        if restarted:
            self._since_s = None
        if healthy and not restarted:
            self._verdict = self._good(now_s)
        else:
            said = reason or f"{', '.join(restarted) or 'something'} restarted"
            self._verdict = self._judge_bad(now_s, said, bool(restarted))
        return self._verdict

    def _good(self, now_s: float) -> Verdict:
        self._bad = 0
        self._seen_healthy = True
        if self._since_s is None:
            self._since_s = now_s
        left = self._bake_s - (now_s - self._since_s)
        return Verdict("healthy", "", 0.0) if left <= 0 else Verdict("pending", "baking", left)

    def _judge_bad(self, now_s: float, reason: str, flapped: bool) -> Verdict:
        left = None if self._since_s is None else max(0.0, self._bake_s - (now_s - self._since_s))
        if not self._seen_healthy and now_s < self._settled_s:
            return Verdict("pending", f"settling: {reason}", left)
        self._bad += 1
        self._flaps += flapped
        if self._bad >= self._failures:
            return Verdict("unhealthy", f"{reason}; {_in_a_row(self._bad)}", left)
        if self._flaps >= self._failures:
            return Verdict("unhealthy", f"{reason}; restarts were seen {_times(self._flaps)}", left)
        return Verdict("pending", reason, left)


def _in_a_row(count: int) -> str:
    return "the first bad measurement" if count == 1 else f"{count} bad measurements in a row"
