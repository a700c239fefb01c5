"""PostgreSQL's servers: those that Debian knows, questions to one, and a private one on restored data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import disk
from ..errors import DamagedError, KosError, NotFoundError
from .account import Account

PROGRAMS = Path("/usr/lib/postgresql")
# What a question to a server may take.
_ASK_S = 300.0
# Replay of days of WAL takes hours.
_START_S = 12 * 3600.0
_STOP_S = 600.0
_POLL_S = 0.1
_COLUMN = "\x1f"
# LOCK_FILE_LINE_PM_STATUS of PostgreSQL, counted from 0.
_STATE_LINE = 7
PORT = 5432
_FATAL = re.compile(r"(?:FATAL|PANIC):  (.+)")

# Given on the command line: only there they count more than what the data itself brings along
# (postgresql.auto.conf). The copy must not archive, replicate, listen, or load what wants a network.
_PRIVATE = {
    "archive_mode": "off",
    "listen_addresses": "",
    "ssl": "off",
    "hot_standby": "off",
    "primary_conninfo": "",
    "synchronous_standby_names": "",
    "max_logical_replication_workers": "0",
    "shared_preload_libraries": "",
    "session_preload_libraries": "",
    "external_pid_file": "",
    "logging_collector": "off",
    "log_destination": "stderr",
    "autovacuum": "off",
    "unix_socket_permissions": "0777",
}


@dataclass(frozen=True)
class Cluster:
    """A cluster that Debian's tools know.

    Attributes:
        settings: folder of its configuration.
        data: its data directory.
        socket: folder of its socket.
    """

    name: str
    account: Account
    settings: Path
    data: Path
    port: int
    socket: str
    running: bool


class ServerError(KosError):
    """A server did not answer as it should; the message holds its last words."""

    kind = "postgres"


def find(name: str, key: str) -> Cluster:
    """Look a cluster up.

    Args:
        name: `VERSION/NAME`.
        key: what asks for it, for messages.

    Raises:
        NotFoundError: there is none of that name.
    """
    try:
        done = subprocess.run(
            ["pg_lsclusters", "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        raise NotFoundError("PostgreSQL is not installed: pg_lsclusters cannot be asked", key=key) from None
    known = {f"{one['version']}/{one['cluster']}": one for one in json.loads(done.stdout or b"[]")}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise NotFoundError(f"there is no PostgreSQL cluster {name}; there are: {there}", key=key)
    found = known[name]
    return Cluster(
        name,
        Account.of(int(found["owneruid"])),
        Path(found["configdir"]),
        Path(found["pgdata"]),
        int(found["port"]),
        str(found["socketdir"]),
        bool(int(found["running"])),
    )


@dataclass(frozen=True)
class Connection:
    """Where a server is asked, and as whom."""

    account: Account
    socket: str
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What PostgreSQL's programs connect by."""
        return {"PGHOST": self.socket, "PGPORT": str(self.port)}

    def ask(self, *statements: str, database: str = "postgres") -> list[list[str]]:
        """Run statements, each in a transaction of its own, and return the rows of all as text.

        Raises:
            ServerError: the server did not take one of them.
        """
        words = [word for statement in statements for word in ("--command", statement)]
        done = self.account.run(
            [
                *("psql", "--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only"),
                *("--field-separator", _COLUMN, "--set=ON_ERROR_STOP=1", "--dbname", database, *words),
            ],
            timeout_s=_ASK_S,
            environment=self.environment,
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise ServerError(f"PostgreSQL at {self.socket}: {said[0]}")
        return [line.split(_COLUMN) for line in done.stdout.splitlines()]


def control(version: str, data: Path, account: Account) -> dict[str, str]:
    """Return what `pg_controldata` says of a data directory.

    Raises:
        DamagedError: it cannot be read.
    """
    done = account.run([str(program(version, "pg_controldata")), str(data)], timeout_s=60)
    pairs = [line.partition(":") for line in done.stdout.splitlines()]
    if done.returncode != 0 or not pairs:
        raise DamagedError(
            f"{data} is no data directory of PostgreSQL {version}: {done.stderr.strip()[:200]}"
        )
    return {name: value.strip() for name, _, value in pairs}


def program(version: str, name: str) -> Path:
    """Return a program of a version of PostgreSQL; raises NotFoundError where it is not installed."""
    path = PROGRAMS / version / "bin" / name
    if not path.exists():
        raise NotFoundError(f"PostgreSQL {version} is not installed: {path} is missing", key="cluster")
    return path


@contextlib.contextmanager
def private(
    version: str, data: Path, account: Account, run: Path, settings: Sequence[tuple[str, str]] = ()
) -> Iterator[Connection]:
    """Run a server on restored data that nobody else reaches, until the block ends.

    It recovers first, to the target that the data names; the block begins when that is done. It ends with
    this process, however that ends.

    Args:
        version: of PostgreSQL, `17`.
        data: the data directory.
        account: that owns it.
        run: where its socket may lie; not beside the data, since the path of a socket has at most 107 bytes.
        settings: beside those that keep it to itself.

    Raises:
        DamagedError: it does not start or reaches no target; the message holds its last words.
    """
    # Known by the data, so that the next attempt clears what a killed one left.
    folder = run / f"pg-{hashlib.sha3_256(os.fsencode(data)).hexdigest()[:12]}"
    disk.remove(folder)
    (folder / "socket").mkdir(parents=True)
    try:
        for name, text in (("conf", ""), ("hba", "local all all peer\n"), ("ident", "")):
            disk.write(folder / name, [text.encode()], 0o644)
        for path in (folder, folder / "socket"):
            path.chmod(0o711)
        os.chown(folder / "socket", account.uid, account.gid)
        places = {
            "config_file": folder / "conf",
            "hba_file": folder / "hba",
            "ident_file": folder / "ident",
            "unix_socket_directories": folder / "socket",
        }
        given = {**_PRIVATE, **places, **dict(settings)}
        # A copy that outlives its restore would hold its files for ever.
        command = ["setpriv", "--pdeathsig=QUIT", "--", str(program(version, "postgres")), "-D", str(data)]
        command += [f"-c{key}={value}" for key, value in given.items()]
        with (folder / "log").open("w+") as log:
            server = account.popen(command, cwd=data, stdout=log, stderr=log)
            try:
                _wait_until_ready(server, data, folder / "log")
                yield Connection(account, str(folder / "socket"), PORT)
            finally:
                _stop(server)
    finally:
        disk.remove(folder)


def _wait_until_ready(server: subprocess.Popen[str], data: Path, log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if server.poll() is not None:
            said = log.read_text("utf-8", "replace")
            fatal = _FATAL.findall(said) or said.strip().splitlines()[-1:] or ["it said nothing"]
            raise DamagedError(f"PostgreSQL does not start on the restored data: {fatal[0]}")
        if _state(data, server.pid) == "ready":
            return
        time.sleep(_POLL_S)
    raise DamagedError(f"PostgreSQL did not recover the restored data within {_START_S:g} s")


def _state(data: Path, pid: int) -> str:
    """Return what a server says of itself in the last line of `postmaster.pid`, as `pg_ctl` reads it."""
    try:
        lines = (data / "postmaster.pid").read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return lines[_STATE_LINE].strip() if len(lines) > _STATE_LINE and lines[0] == str(pid) else ""


def _stop(server: subprocess.Popen[str]) -> None:
    """Shut a server down, and wait for its end."""
    for word in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if server.poll() is not None:
            return
        server.send_signal(word)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_STOP_S)
