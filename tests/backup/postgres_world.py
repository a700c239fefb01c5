"""A PostgreSQL cluster of a test's own, as Debian makes one; nothing of the host's is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from kosnode.backup import pg_server
from kosnode.backup.account import Account
from kosnode.backup.config import SourceSpec
from kosnode.backup.pg_server import PROGRAMS, Connection
from kosnode.backup.places import Places
from kosnode.backup.postgres import Postgres
from kosnode.backup.source import Prepared, Restored, Root
from kosnode.boot import SystemClock
from kosnode.paths import NodePaths

VERSION = max((path.name for path in PROGRAMS.glob("*")), key=int, default="")
OWNER = "postgres"
PORT = 5432

# A cluster that is thrown away need not outlive the power.
_QUICK = """
listen_addresses = ''
fsync = off
shared_buffers = 16MB
max_wal_senders = 0
autovacuum = off
"""


class Clock(SystemClock):
    """The clock of this host, and as much later as a test says."""

    def __init__(self) -> None:
        self.later = timedelta()

    def now(self) -> datetime:
        return super().now() + self.later


class PostgresWorld:
    """A cluster, its source, and restores of it.

    Args:
        base: a directory that every account may pass through.
        checksums: whether its pages have them.
    """

    def __init__(self, base: Path, *, checksums: bool = True) -> None:
        self.base = base
        # Of its own: Debian has a file with its process below /run.
        self.name = base.name.replace("-", "_")
        self.cluster = f"{VERSION}/{self.name}"
        self.account = Account.named(OWNER, "owner")
        self.data = base / "data"
        self.clock = Clock()
        self.source = self.source_of()
        self._restores = 0
        folder = base / "etc"
        folder.mkdir()
        os.environ["PG_CLUSTER_CONF_ROOT"] = str(folder)
        self._run("pg_createcluster", "-u", OWNER, "-d", str(self.data), "-s", str(base / "socket"),
                  "-l", str(base / "log"), "-p", str(PORT), "--start-conf", "manual", VERSION, self.name,
                  "--", "--no-sync", *(["--data-checksums"] if checksums else []))  # fmt: skip
        (self.settings / "conf.d/test.conf").write_text(_QUICK)
        self.control("start")

    @property
    def settings(self) -> Path:
        return self.base / "etc" / VERSION / self.name

    @property
    def server(self) -> Connection:
        return Connection(self.account, str(self.base / "socket"), PORT)

    @property
    def repository(self) -> Path:
        return self.source.folder / "repository"

    def source_of(self, **row: Any) -> Postgres:
        spec = SourceSpec("db", "critical", "postgres", cluster=self.cluster, interval_s=60)
        return Postgres(replace(spec, **row), Places(NodePaths(self.base / "node")), self.clock)

    def control(self, action: str, *options: str) -> None:
        self._run("pg_ctlcluster", "--skip-systemctl-redirect", VERSION, self.name, action, *options)

    def archive(self) -> None:
        """Configure the cluster as the role does."""
        if self.source.configure().restart:
            self.control("restart")

    def back_up(self) -> Prepared:
        with self.source.prepare(self.base / "stage") as prepared:
            return prepared

    def time(self) -> datetime:
        """Return a time between what was committed before this call and what is committed after it."""
        before = self._now()
        while (now := self._now()) == before:
            time.sleep(0.05)
        # The next commit must not share its second.
        while self._now() == now:
            time.sleep(0.05)
        return now

    def shipped(self, name: str) -> Path:
        """Return a copy of the repository, as restic would give it back beside the live data."""
        folder = self.base / f"restore-{name}"
        (folder / "scratch").mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)
        subprocess.run(["cp", "-a", self.repository, folder / "repository"], check=True)
        return folder / "repository"

    def restored(self, prepared: Prepared, repository: Path, until: datetime | None = None) -> Restored:
        """Rebuild a cluster from a copy of the repository."""
        roots = [Root(self.data, repository)]
        return self.source.rebuild(Restored(roots, prepared.heads, repository.parent / "scratch", until))

    @contextmanager
    def looking_at(self, restored: Restored) -> Iterator[Connection]:
        """Run a server on a restored cluster."""
        with pg_server.private(VERSION, restored.roots[0].stored, self.account, self.base / "look") as server:
            yield server

    def end(self) -> None:
        """Stop the cluster; whoever made the folder removes it."""
        if (self.data / "postmaster.pid").exists():
            self.control("stop", "-m", "immediate")

    def _now(self) -> datetime:
        ((epoch,),) = self.server.ask("SELECT floor(extract(epoch FROM clock_timestamp()))::bigint")
        return datetime.fromtimestamp(int(epoch), timezone.utc)

    def _run(self, *words: str) -> None:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words[0]}: {done.stdout}{done.stderr}"


@contextmanager
def postgres_world(*, checksums: bool = True) -> Iterator[PostgresWorld]:
    """Make a cluster, and take it away again."""
    base = Path(tempfile.mkdtemp(prefix="kos-pg-"))
    base.chmod(0o711)
    world = None
    try:
        world = PostgresWorld(base, checksums=checksums)
        yield world
    finally:
        if world is not None:
            world.end()
        os.environ.pop("PG_CLUSTER_CONF_ROOT", None)
        shutil.rmtree(base)
