"""PostgreSQL clusters: a local repository of pgBackRest with WAL, which restic ships; back to any time.

Each run marks a point in the WAL by name and waits until it is archived. A restore has to reach that point,
or a commit later than the time that was asked for: where WAL is missing, PostgreSQL would otherwise take
what it has for all there is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from .. import boot, disk, evidence, files
from ..errors import DamagedError, DiskError, InputError, KosError, NotFoundError, RefusedError
from . import pg_check, pg_server, pgbackrest
from .account import Account
from .config import SourceSpec
from .pg_server import Cluster, Connection
from .pgbackrest import Contents, Repository
from .places import Places
from .runs import Runs
from .source import Configured, Finding, Move, Prepared, Restored, Root, Source, SwapPlan

FULL_AFTER = timedelta(days=7)
DIFF_AFTER = timedelta(days=1)
SETTINGS = "kos-backup.conf"
_DEFAULT_OWNER = "postgres"
# How long a run waits for the archiver while it gets nothing done.
_ARCHIVE_S = 60.0
_POLL_S = 0.1
_SERVER_KEYS = ("archive_mode", "archive_command", "wal_segment_size")
_GENERATED = """
SELECT DISTINCT name FROM pg_file_settings
WHERE sourcefile LIKE '%/postgresql.auto.conf' AND (name LIKE 'recovery_target%' OR name = 'restore_command')
"""


class Postgres(Source):
    """One cluster.

    Args:
        spec: its row; `cluster` is `VERSION/NAME` as Debian has it.
        places: of the node.
        clock: tells when a backup is due.
    """

    def __init__(self, spec: SourceSpec, places: Places, clock: boot.Clock | None = None) -> None:
        # The verifier needs a server that answers: `rebuild` runs it while there is one.
        super().__init__(replace(spec, verifier=()), places)
        self._verifier = spec.verifier
        assert spec.cluster is not None, "the table of sources asks for a cluster"
        self.cluster = spec.cluster
        self.version, _, name = spec.cluster.partition("/")
        self._service = spec.service or f"postgresql@{self.version}-{name}.service"
        self._clock = clock or boot.SystemClock()
        self._key = f"sources.{spec.name}.cluster"
        self.folder = places.var / "postgres" / spec.name

    def check(self) -> None:
        cluster = self._running()
        for program in ("pgbackrest", "psql", "setpriv"):
            if shutil.which(program) is None:
                raise NotFoundError(f"{program} is not installed", key=self._key)
        server = _connection(cluster)
        ((standby, tablespaces),) = server.ask(
            "SELECT pg_is_in_recovery(), (SELECT count(*) FROM pg_tablespace WHERE oid >= 16384)"
        )
        if standby == "t":
            raise InputError(f"{self.cluster} is a standby; back up its primary", key=self._key)
        if tablespaces != "0":
            raise InputError(
                f"{self.cluster} has tablespaces outside its data directory, which are not backed up",
                key=self._key,
            )
        self._check_archiving(cluster, _settings(server))

    def configure(self) -> Configured:
        """Let the cluster archive its WAL into the repository; a second call changes nothing."""
        cluster = pg_server.find(self.cluster, self._key)
        repository = self._repository(cluster.account)
        if cluster.running:
            self._refuse_other_archive(repository, _settings(_connection(cluster)))
        changed = [path for path, text in self._files(cluster, repository).items() if _write(path, text)]
        if not cluster.running:
            return Configured(tuple(changed))
        if repository.contents() is None:
            repository.create()
        server = _connection(cluster)
        server.ask("SELECT pg_reload_conf()")
        restart = _settings(server)["archive_mode"] == "off"
        return Configured(tuple(changed), restart=self._service if restart else None)

    def unconfigure(self, *, check: bool) -> list[Path]:
        """Let the cluster no longer archive; where it is gone, nothing is to do."""
        try:
            cluster = pg_server.find(self.cluster, self._key)
        except NotFoundError:
            return []
        path = cluster.settings / "conf.d" / SETTINGS
        if not path.exists():
            return []
        if not check:
            path.unlink()
            if cluster.running:
                _connection(cluster).ask("SELECT pg_reload_conf()")
        return [path]

    @contextlib.contextmanager
    def prepare(self, stage: Path) -> Iterator[Prepared]:
        cluster = self._running()
        server = _connection(cluster)
        settings = _settings(server)
        self._check_archiving(cluster, settings)
        segment_bytes = int(settings["wal_segment_size"])
        repository = self._repository(cluster.account)
        contents = self._contents(repository, server)
        kind = self._due(repository, contents, segment_bytes)
        if kind is not None:
            contents = self._back_up(repository, server, kind)
        point = _mark(server)
        segments = _wait_until_archived(repository, server, point["wal"])
        heads = {"system": contents.system, "segment_bytes": segment_bytes, **point}
        usable = pgbackrest.usable(contents, segments, segment_bytes)
        if not usable:
            raise DamagedError(
                f"WAL of {self.cluster} is missing between its newest backup and {point['wal']}"
            )
        if usable[0].earliest <= boot.moment(point["time"]):
            heads["from"] = boot.text(usable[0].earliest)
        exclude, unstable = repository.still(segments[-1], segment_bytes)
        yield Prepared([Root(cluster.data, repository.path)], heads, unstable, exclude)

    def rebuild(self, restored: Restored) -> Restored:
        (root,) = restored.roots
        heads = restored.heads
        account = Account.named(self.spec.owner or _DEFAULT_OWNER, f"sources.{self.spec.name}.owner")
        if restored.until is not None:
            _check_time(restored.until, heads)
        data = root.stored.with_name(f"{root.stored.name}.data")
        self._clear(data, account)
        ours = restored.scratch.parent
        inside = [above for above in root.stored.parents if above == ours or ours in above.parents]
        _let_through([*reversed(inside), restored.scratch], account)
        folder = restored.scratch / "pgbackrest"
        _make(folder, account)
        repository = Repository(folder, root.stored, self.spec.name, account)
        _write(repository.config, repository.rendered(data, pg_server.PORT, str(folder)))
        self._check_repository(repository, heads, restored.until)
        repository.restore(data, _target(restored.until, heads))
        try:
            with pg_server.private(self.version, data, account, self.places.node.run) as server:
                # What led here is of no use to the cluster that lives on.
                server.ask(*(f"ALTER SYSTEM RESET {name}" for (name,) in server.ask(_GENERATED)))
                findings = pg_check.ask(server, data, self._verifier, restored.scratch)
        except pg_server.ServerError as error:
            raise DamagedError(f"the restored cluster gives no answer: {error.message}") from None
        if findings:
            raise DamagedError(
                f"the restored cluster is damaged: {findings[0].text}",
                detail={"findings": [finding.as_json() for finding in findings]},
            )
        return replace(restored, roots=[Root(root.live, data)])

    def verify(self, restored: Restored) -> list[Finding]:
        (root,) = restored.roots
        try:
            return pg_check.checksums(self.version, root.stored, Account.of(root.stored.stat().st_uid))
        except DamagedError as error:
            return [Finding("integrity", error.message, str(root.live))]

    def swap_plan(self, restored: Restored) -> SwapPlan:
        return SwapPlan([Move(root.live, root.stored) for root in restored.roots], [self._service])

    def went_back(self, before: Mapping[str, Any], prepared: Prepared) -> str | None:
        now = prepared.heads
        if "system" not in before:
            return None
        if before["system"] != now["system"]:
            return f"it is another cluster: {now['system']}, and was {before['system']}"
        if (now["timeline"], _lsn(now)) < (before["timeline"], _lsn(before)):
            return (
                f"its WAL stands at {now['lsn']} of timeline {now['timeline']}, and stood at {before['lsn']} "
                f"of timeline {before['timeline']}"
            )
        return None

    def _running(self) -> Cluster:
        cluster = pg_server.find(self.cluster, self._key)
        if not cluster.running:
            raise NotFoundError(f"{self.cluster} does not run, so it cannot be backed up", key=self._key)
        return cluster

    def _repository(self, account: Account) -> Repository:
        _make(self.folder, account)
        _make(self.folder / "repository", account)
        _let_through([self.places.var, self.folder.parent], account)
        return Repository(self.folder, self.folder / "repository", self.spec.name, account)

    def _files(self, cluster: Cluster, repository: Repository) -> dict[Path, str]:
        config = repository.rendered(cluster.data, cluster.port, cluster.socket)
        command = _quoted(self._archive_command(repository))
        return {
            repository.config: config,
            cluster.settings / "conf.d" / SETTINGS: "# Written by kosctl: WAL goes into the backups.\n"
            f"archive_mode = on\narchive_command = {command}\narchive_timeout = {self.spec.interval_s}\n",
        }

    def _archive_command(self, repository: Repository) -> str:
        words = repository.command("archive-push")
        return f"{shlex.join(words).replace('%', '%%')} %p"

    def _refuse_other_archive(self, repository: Repository, settings: Mapping[str, str]) -> None:
        """Refuse to take its WAL away from where somebody sends it."""
        command = settings["archive_command"]
        if command not in ("", "(disabled)") and str(repository.config) not in command:
            raise RefusedError(
                f"{self.cluster} archives its WAL elsewhere already, by {evidence.redact(command)!r}: "
                "take archive_command out of its configuration first",
                key=self._key,
            )

    def _check_archiving(self, cluster: Cluster, settings: Mapping[str, str]) -> None:
        """Refuse a cluster whose WAL goes elsewhere, or nowhere."""
        if settings["archive_mode"] == "off" and (cluster.settings / "conf.d" / SETTINGS).exists():
            raise InputError(
                f"{self.cluster} archives only after a restart of {self._service}", key=self._key
            )
        repository = Repository(self.folder, self.folder / "repository", self.spec.name, cluster.account)
        if settings["archive_command"] != self._archive_command(repository):
            raise InputError(
                f"archive_command of {self.cluster} is {evidence.redact(settings['archive_command'])!r}: "
                "its WAL does not go into the backups; `kosctl backup init` sets it",
                key=self._key,
            )

    def _contents(self, repository: Repository, server: Connection) -> Contents:
        contents = repository.contents()
        if contents is None:
            repository.create()
            contents = repository.contents()
            assert contents is not None, "a stanza that was made is known"
        ((system,),) = server.ask("SELECT system_identifier FROM pg_control_system()")
        if contents.system != system and self._is_restored(system):
            # What it knew is the empty cluster that this machine had before.
            repository.renew()
            contents = repository.contents()
            assert contents is not None, "a stanza that was renewed is known"
        if contents.system != system:
            raise RefusedError(
                f"{repository.path} holds the cluster {contents.system}, and {self.cluster} is {system} now; "
                "it is a source of another name",
                key=self._key,
            )
        return contents

    def _is_restored(self, system: str) -> bool:
        """Say whether a restore of this source brought the cluster of this identifier."""
        last = Runs(self.places).last_restore(self.spec.name)
        return last is not None and last["heads"].get("system") == system

    def _due(self, repository: Repository, contents: Contents, segment_bytes: int) -> str | None:
        """Say which backup is due; none where the WAL since the last one is enough."""
        now = self._clock.now()
        usable = pgbackrest.usable(contents, repository.segments(), segment_bytes)
        full = [one for one in usable if one.full]
        if not full or now - full[-1].stop >= FULL_AFTER:
            return "full"
        return "diff" if now - usable[-1].stop >= DIFF_AFTER else None

    def _back_up(self, repository: Repository, server: Connection, kind: str) -> Contents:
        if kind == "full":
            ((size,),) = server.ask("SELECT sum(pg_database_size(oid))::bigint FROM pg_database")
            free = shutil.disk_usage(repository.path).free
            if free < int(size):
                raise DiskError(
                    f"a full backup of {self.cluster} needs up to {size} bytes at {repository.path}, "
                    f"and {free} are free"
                )
        repository.back_up(kind)
        contents = repository.contents()
        assert contents is not None, "it was just written"
        if contents.backups[-1].page_errors:
            raise DamagedError(
                f"pages of {self.cluster} have wrong checksums; pgbackrest and the log name them"
            )
        # Reads all of it, which is too much for every day.
        if kind == "full" and (problems := repository.verify(contents)):
            raise DamagedError(f"the repository of {self.cluster} is damaged: {problems[0]}")
        return contents

    def _clear(self, data: Path, account: Account) -> None:
        """Remove what an earlier attempt left, after its server."""
        pid = data / "postmaster.pid"
        if pid.exists():
            pg_ctl = str(pg_server.program(self.version, "pg_ctl"))
            account.run([pg_ctl, "stop", "--mode=immediate", "--pgdata", str(data)], timeout_s=120)
        disk.remove(data)
        _make(data, account)

    def _check_repository(
        self, repository: Repository, heads: Mapping[str, Any], until: datetime | None
    ) -> None:
        """Refuse a repository that lacks something of the way to the target."""
        contents = repository.contents()
        if contents is None or contents.system != heads["system"]:
            found = "nothing" if contents is None else f"the cluster {contents.system}"
            raise DamagedError(f"the repository holds {found}, and the manifest names {heads['system']}")
        begins = [one for one in contents.backups if until is None or one.earliest <= until]
        if not begins:
            raise DamagedError(
                f"the repository of {self.cluster} is damaged: it lacks the backup to begin with"
            )
        segments = repository.segments()
        missing = {begins[-1].wal_start, heads["wal"]} - set(segments)
        missing |= set(pgbackrest.gaps(segments, heads["segment_bytes"]))
        problems = [
            f"WAL segment {name} is missing" for name in sorted(missing) if name >= begins[-1].wal_start
        ]
        problems += repository.verify(contents)
        if problems:
            raise DamagedError(f"the repository of {self.cluster} is damaged: {'; '.join(problems[:5])}")


def _connection(cluster: Cluster) -> Connection:
    return Connection(cluster.account, cluster.socket, cluster.port)


def _settings(server: Connection) -> dict[str, str]:
    names = ", ".join(f"'{name}'" for name in _SERVER_KEYS)
    rows = server.ask(f"SELECT name, setting FROM pg_settings WHERE name IN ({names})")
    return {row[0]: row[1] for row in rows}


def _mark(server: Connection) -> dict[str, Any]:
    """Name a point in the WAL, and have its segment archived; return it as heads."""
    # The transaction after the time is the commit that a restore to that time stops at.
    name = f"kos-{secrets.token_hex(8)}"
    ((epoch,), _, (lsn,), (wal,)) = server.ask(
        "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint",
        "SELECT txid_current()",
        f"SELECT pg_create_restore_point('{name}')",
        "SELECT pg_walfile_name(pg_switch_wal())",
    )
    now = boot.text(datetime.fromtimestamp(int(epoch), timezone.utc))
    return {"point": name, "lsn": lsn, "wal": wal, "timeline": int(wal[:8], 16), "time": now}


def _wait_until_archived(repository: Repository, server: Connection, wal: str) -> list[str]:
    """Return the segments in the repository, of which `wal` is one; waits while there are more and more."""
    count = 0
    end = time.monotonic() + _ARCHIVE_S
    while wal not in (segments := repository.segments()):
        if len(segments) > count:
            count, end = len(segments), time.monotonic() + _ARCHIVE_S
        if time.monotonic() > end:
            ((failed, last),) = server.ask(
                "SELECT failed_count, coalesce(last_failed_wal, '') FROM pg_stat_archiver"
            )
            raise KosError(
                f"WAL segment {wal} was not archived within {_ARCHIVE_S:g} s; "
                f"{failed} attempts failed, the last of {last or 'none'}; PostgreSQL's log says why"
            )
        time.sleep(_POLL_S)
    return segments


def _check_time(until: datetime, heads: Mapping[str, Any]) -> None:
    first = heads.get("from")
    if first is None or not boot.moment(first) <= until <= boot.moment(heads["time"]):
        between = f"between {first} and {heads['time']}" if first else f"{heads['time']}, the only point"
        raise NotFoundError(f"{boot.text(until)} cannot be had; this snapshot has {between}", key="time")


def _target(until: datetime | None, heads: Mapping[str, Any]) -> Sequence[str]:
    if until is None:
        return ["--type=name", f"--target={heads['point']}"]
    return ["--type=time", f"--target={until.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S+00}"]


def _lsn(heads: Mapping[str, Any]) -> int:
    high, _, low = str(heads["lsn"]).partition("/")
    return int(high, 16) << 32 | int(low, 16)


def _quoted(value: str) -> str:
    """Return a value as a PostgreSQL configuration file wants it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _write(path: Path, text: str) -> bool:
    """Write a file that the cluster's account reads, unless it says that already."""
    if path.exists() and path.read_text("utf-8") == text:
        return False
    files.write_durable(path, text.encode())
    return True


def _make(folder: Path, account: Account) -> None:
    """Make a folder of the account alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(folder, account.uid, account.gid)


def _let_through(folders: Sequence[Path], account: Account) -> None:
    """Let the account reach what lies in folders of ours; it cannot list them."""
    for folder in folders:
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o011)
        if account.run(["test", "-x", str(folder)], timeout_s=60).returncode != 0:
            raise InputError(f"account {account.name} cannot reach {folder}: a folder above it shuts it out")
