"""Runs restic, and believes it only where its exit code, its words and a second look agree.

What restic promises and what it does not is in docs/architecture.md, Backup. Its output goes into files,
never into a pipe: a reader that goes away would kill it and leave a lock.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from ..errors import (
    BusyError,
    DamagedError,
    DiskError,
    InputError,
    KosError,
    NotFoundError,
    TrustError,
)
from . import config
from .config import Repository
from .patterns import literal
from .places import Places

OLDEST = (0, 17, 1)
TAG = "kos"
_POLL_MS = 200
_GRACE_S = 5.0
_RETRYING = re.compile(r"returned error, retrying after [^:]*: ")
_DAMAGED = re.compile(
    r"ciphertext verification failed|repository contains errors|repository is damaged|invalid data returned|"
    r"does not match id|hash mismatch|unexpected pack id|not found in index|cannot be decoded|"
    r"Load\(<(data|index|snapshot)/|ReadFull\(<data/|invalid character"
)
_UNREACHABLE = re.compile(
    r"connection refused|connection reset|no such host|no route to host|i/o timeout|timed out|"
    r"network is unreachable|unexpected HTTP response|server responded with|context deadline|Bad Gateway|"
    r"Service Unavailable|TLS|x509|broken pipe|EOF",
    re.I,
)
# What a store says no to it says no to a second later as well; restic asks S3 for a quarter of an hour.
_NO_ACCESS = re.compile(
    r"unexpected HTTP response \(40[13]\)|Access Denied|signature we calculated does not match|"
    r"Access Key Id you provided does not exist|provided token (has expired|is malformed)|"
    r"difference between the request time and",
    re.I,
)
_NO_BUCKET = re.compile(r"specified bucket does not exist", re.I)
# A folder may be called tls.
_PATH = re.compile(r"""(?<!\w)/[^\s"',:]+""")
_CLOCK = re.compile(r"^\[[0-9:]+\] ")
# Ends with the process that is named first, also where that was killed: restic would go on to write where the
# next run or restore works. The shell sees a death that came before there was a signal for it.
_LEASH = ("setpriv", "--pdeathsig=INT", "--", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')


class BackendError(KosError):
    """A repository's backend, or a witness, gave no answer in time."""

    exit_code = 6
    kind = "backend"


class AccessError(BackendError):
    """A repository's backend does not let these credentials in, or not do what was asked."""

    exit_code = 13
    kind = "access"


class ResticError(KosError):
    """restic failed in a way that has no exit code of its own; the message holds its last words."""

    kind = "restic"


@dataclass(frozen=True)
class Access:
    """With what a repository is opened.

    Args:
        password: file with the password; never the password itself.
        environment: what its backend wants.
        cache: restic's cache; None keeps none.
        key: id of the key that the password opens. Each key that is tried without it costs half a second.
        lock: False for a store that can only be read.
    """

    password: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None
    key: str | None = None
    lock: bool = True

    @classmethod
    def of_node(cls, places: Places, repository: str, key: str | None = None) -> Access:
        """Return a node's own access; raises InputError where a secret is missing or open to others."""
        return cls(
            config.read_password_file(places, repository),
            config.read_environment(places, repository),
            places.cache,
            key,
        )


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as its repository lists it.

    Args:
        id: 64 hex digits.
        time: as restic recorded it, the clock of the host that made it.
        tags: as given, `kos`, `run=…`, `source=…`, `class=…`.
        paths: what it holds.
    """

    id: str
    time: datetime
    host: str
    tags: tuple[str, ...]
    paths: tuple[str, ...]

    def tag(self, name: str) -> str | None:
        """Return the value of the tag `NAME=…`."""
        return next((one[len(name) + 1 :] for one in self.tags if one.startswith(f"{name}=")), None)


@dataclass(frozen=True)
class Saved:
    """What `backup` did.

    Args:
        snapshot: id of the new snapshot.
        files: how many it has.
        bytes: their size.
        added_bytes: what was stored anew, compressed.
        unread: paths that restic could not read, with its words; the snapshot lacks them.
    """

    snapshot: str
    files: int
    bytes: int
    added_bytes: int
    unread: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Done:
    code: int
    out: bytes
    words: str


class Restic:
    """One repository.

    Args:
        repository: where it is.
        access: with what it is opened.
        timeout_s: seconds without progress after which its backend counts as dead.
        progress: takes one line for people.
    """

    def __init__(
        self,
        repository: Repository,
        access: Access,
        *,
        timeout_s: float,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.repository = repository
        self._access = access
        self._timeout_s = timeout_s
        self._progress = progress

    def identity(self) -> str:
        """Return the id of the repository.

        Raises:
            NotFoundError: there is none at this address.
            TrustError: the password is wrong.
            AccessError: its backend refuses the credentials.
            BackendError: its backend gives no answer.
        """
        return str(_object(self._checked(["cat", "config"]).out, "config")["id"])

    def init(self) -> str:
        """Make the repository and return its id; raises as `identity`."""
        self._checked(["init", "--repository-version", "2", "--json"])
        return self.identity()

    def keys(self) -> tuple[str, list[str]]:
        """Return the id of the key that is used, and the users of all keys."""
        found = _objects(self._checked(["key", "list", "--json"]).out)
        used = next(str(one["id"]) for one in found if one["current"])
        return used, [str(one["userName"]) for one in found]

    def password(self) -> str:
        """Return the password that it is opened with."""
        return self._access.password.read_text("utf-8").strip()

    def add_key(self, password: str, user: str) -> None:
        """Add a key; the password goes through memory alone, never through an argument or the disk."""
        descriptor = os.memfd_create("key", 0)
        try:
            os.write(descriptor, password.encode("utf-8"))
            words = ["key", "add", "--new-password-file", f"/proc/self/fd/{descriptor}", "--user", user]
            self._checked([*words, "--host", TAG], pass_fds=(descriptor,))
        finally:
            os.close(descriptor)

    def snapshots(self, *tags: str) -> list[Snapshot]:
        """Return the snapshots that kosctl made and that have all the tags, oldest first."""
        wanted = ",".join((TAG, *tags))
        found = [
            _snapshot(one) for one in _objects(self._checked(["snapshots", "--json", "--tag", wanted]).out)
        ]
        return sorted(found, key=lambda one: (one.time, one.id))

    def backup(
        self,
        targets: Sequence[Path],
        *,
        host: str,
        tags: Sequence[str],
        exclude: Sequence[str] = (),
        parent: str | None = None,
        total: tuple[int, int] = (0, 0),
    ) -> Saved:
        """Make a snapshot.

        Args:
            targets: absolute paths, each of which is there.
            host: recorded in the snapshot.
            tags: besides `kos`.
            exclude: patterns.
            parent: id of the snapshot to compare with. Where the repository does not have it, nothing is
                written: one call both saves and shows that the repository is the one it was.
            total: files and bytes that are expected, for progress.

        Returns:
            What was saved; `unread` says what the snapshot lacks.

        Raises:
            NotFoundError: a target, the repository or `parent` is not there.
            KosError: no snapshot was made.
        """
        for target in targets:
            # restic leaves out a path that is not there and ends with 0.
            if not os.path.lexists(target):
                raise NotFoundError(f"{target} is not there, so it cannot be backed up", key="source")
        words = ["backup", "--json", "--no-scan", "--files-from-raw", "-", "--host", host]
        for tag in (TAG, *tags):
            words += ["--tag", tag]
        words += [f"--exclude={pattern}" for pattern in exclude]
        # Of a whole id restic would take the snapshot out of its cache, also where the repository lacks it.
        words += ["--parent", parent[:-1]] if parent else []
        shown = _Shown(self._progress, self.repository.name, total)
        data = b"".join(os.fsencode(target) + b"\0" for target in targets)
        done = self._run(words, stdin=data, on_line=shown.line)
        unread = tuple(_unread(done.words))
        if parent and done.code == 1 and "no matching ID found" in done.words:
            raise NotFoundError(
                f"repository {self.repository.name} lacks snapshot {parent[:12]}, which was made before",
                key="repository",
            )
        if done.code not in (0, 3):
            self._fail(done)
        summary = shown.summary
        if summary is None or not summary.get("snapshot_id") or summary.get("dry_run"):
            raise ResticError(
                f"restic ended with {done.code} and made no snapshot in {self.repository.name}: {_last(done)}"
            )
        return Saved(
            str(summary["snapshot_id"]),
            int(summary["total_files_processed"]),
            int(summary["total_bytes_processed"]),
            int(summary["data_added_packed"]),
            unread or ((("", _last(done)),) if done.code == 3 else ()),
        )

    def read(self, snapshot: str, folder: Path, names: Sequence[str], *, limit: int) -> list[bytes]:
        """Return some files of one folder of a snapshot.

        Args:
            folder: absolute, small: all that is in it is fetched.
            limit: the most bytes that it may have.

        Raises:
            NotFoundError: the snapshot has no such folder or file.
            DamagedError: it cannot be read, or has more than `limit` bytes.
        """
        done = self._run(["dump", "--archive", "tar", snapshot, str(folder)], limit=limit)
        if done.code == 1 and "not found in snapshot" in done.words:
            raise NotFoundError(f"snapshot {snapshot[:12]} has no {folder}", key="snapshot")
        self._check(done)
        with tarfile.open(fileobj=io.BytesIO(done.out)) as archive:
            held = {PurePosixPath(one.name).name: one for one in archive.getmembers() if one.isreg()}
            found = [archive.extractfile(held[name]) for name in names if name in held]
            read = [stream.read() for stream in found if stream is not None]
        if len(read) != len(names):
            raise NotFoundError(f"snapshot {snapshot[:12]} lacks a file of {folder}", key="snapshot")
        return read

    def restore(
        self,
        snapshot: str,
        folder: Path,
        target: Path,
        *,
        include: Sequence[Path] = (),
        total: tuple[int, int] = (0, 0),
    ) -> None:
        """Bring back what a snapshot has below a folder.

        Args:
            folder: absolute, as in the snapshot.
            target: where its content goes; files that are there with the same content stay, so that a call
                that was interrupted goes on.
            include: paths relative to `folder`; empty takes all of it.
            total: files and bytes that are expected, for progress.

        Raises:
            KosError: not all of it came back.
        """
        words = [
            "restore",
            "--json",
            f"{snapshot}:{folder}",
            "--target",
            str(target),
            "--overwrite",
            "if-changed",
        ]
        words += [f"--include={literal(f'/{path}')}" for path in include]
        shown = _Shown(self._progress, self.repository.name, total)
        self._check(self._run(words, on_line=shown.line))

    def copy(self, snapshot: str) -> None:
        """Copy a snapshot of another repository into this one, where it gets another id.

        Which repository that is stands in what its backend is given (`RESTIC_FROM_…`).
        """
        self._checked(["copy", snapshot], on_line=self._pass_on)

    def check(self, subset: tuple[int, int]) -> list[str]:
        """Check the repository's structure, which does not find flipped bytes, and read a part of its data.

        Args:
            subset: (n, t) reads the nth of t parts of all data.

        Returns:
            What is damaged, a sentence each; empty where all is well.

        Raises:
            KosError: it could not be checked.
        """
        words = ["check", f"--read-data-subset={subset[0]}/{subset[1]}"]
        done = self._run(words, on_line=self._pass_on)
        if done.code == 0:
            return []
        if done.code == 1 and _DAMAGED.search(done.words):
            found = [line.strip() for line in done.words.splitlines() if _is_finding(line)]
            return found or [_last(done)]
        return self._fail(done)

    def forget(self, snapshots: Sequence[str]) -> list[str]:
        """Remove snapshots; their data goes with the next `prune`.

        Returns:
            The ids that are still there: an append-only server refuses, and restic ends with 0.
        """
        if not snapshots:
            return []
        done = self._run(["forget", "--json", *snapshots])
        there = {one.id for one in self.snapshots()}
        left = [one for one in snapshots if one in there]
        if not left:
            self._check(done)
        return left

    def prune(self) -> None:
        """Remove data that no snapshot needs."""
        self._checked(["prune"], on_line=self._pass_on)

    def locks(self) -> list[dict[str, Any]]:
        """Return the locks that are there: `id`, `time`, `hostname`, `username`, `pid`, `exclusive`."""
        listed = self._checked(["list", "locks", "--no-lock"]).out.decode("ascii", "replace").split()
        found = []
        for one in listed:
            done = self._run(["cat", "lock", one, "--no-lock"])
            if done.code == 0:
                found.append({"id": one, **_object(done.out, "lock")})
        return found

    def unlock(self) -> None:
        """Remove locks that are stale: of a dead process of this host, or not renewed for 30 minutes."""
        self._checked(["unlock"])

    def _pass_on(self, line: str) -> None:
        self._progress(f"{self.repository.name}: {line}")

    def _checked(
        self,
        words: Sequence[str],
        *,
        on_line: Callable[[str], None] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> _Done:
        done = self._run(words, on_line=on_line, pass_fds=pass_fds)
        self._check(done)
        return done

    def _check(self, done: _Done) -> None:
        if done.code != 0:
            self._fail(done)

    def _fail(self, done: _Done) -> NoReturn:
        name, words, last = self.repository.name, done.words, _last(done)
        self._refuse(words)
        if done.code == 10:
            raise self._absent()
        if done.code == 11:
            raise BusyError(
                f"repository {name} is locked: {last}; `kosctl backup unlock` removes stale locks"
            )
        if done.code == 12:
            raise TrustError(f"the password of repository {name} is wrong", key=name)
        if re.search(r"no space left on device|disk quota exceeded|insufficient storage", words, re.I):
            raise DiskError(f"repository {name}: no space is left: {last}")
        if "no matching ID found" in words:
            raise NotFoundError(f"repository {name} has no such snapshot", key="snapshot")
        # A store that answers and cannot serve a file of its own is damaged, one that does not is away.
        if _UNREACHABLE.search(_PATH.sub("", words)) and not _DAMAGED.search(last):
            raise BackendError(f"repository {name} does not answer: {last}", key=name)
        if _DAMAGED.search(words):
            raise DamagedError(f"repository {name} is damaged: {last}", key=name)
        raise ResticError(f"restic ended with {done.code} on repository {name}: {last}")

    def _absent(self) -> NotFoundError:
        return NotFoundError(
            f"there is no repository {self.repository.name} at its address; `kosctl backup init` makes it"
        )

    def _refuse(self, words: str) -> None:
        """Raise what a store means that says no, also while restic asks it again and again."""
        said = [_RETRYING.split(_text(line))[-1] for line in words.splitlines()]
        for line in said:
            if _NO_ACCESS.search(_PATH.sub("", line)):
                name = self.repository.name
                raise AccessError(f"repository {name} does not accept its credentials: {line}", key=name)
            if _NO_BUCKET.search(_PATH.sub("", line)):
                raise self._absent()

    def _run(
        self,
        words: Sequence[str],
        *,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
        pass_fds: Sequence[int] = (),
        limit: int | None = None,
    ) -> _Done:
        argv = [*_LEASH, str(os.getpid()), program(), *words]
        if not self._access.lock and "--no-lock" not in words:
            argv.append("--no-lock")
        if self._access.cache is None:
            argv.append("--no-cache")
        else:
            self._access.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                argv,
                stdin=given,
                stdout=out,
                stderr=err,
                env=self._environment(),
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
            try:
                self._follow(process, out, err, on_line, words[0])
            finally:
                _end(process)
            size = os.fstat(out.fileno()).st_size
            if limit is not None and size > limit:
                raise DamagedError(
                    f"repository {self.repository.name} gave {size} bytes, at most {limit} are right"
                )
            return _Done(process.returncode, _whole(out), _whole(err).decode("utf-8", "replace"))

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        out: IO[bytes],
        err: IO[bytes],
        on_line: Callable[[str], None] | None,
        verb: str,
    ) -> None:
        """Wait for the end, hand on lines, and raise BackendError where nothing moves or it says no."""
        lines, complaints = _Lines(out), _Lines(err)
        shown: object = None
        moved = time.monotonic()
        # This wakes at the end of the process, where `wait` would look for it a hundred times a second.
        descriptor = os.pidfd_open(process.pid)
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        try:
            ended = False
            while not ended:
                ended = bool(waiting.poll(_POLL_MS))
                self._refuse("\n".join(line for line in complaints.new() if _RETRYING.search(line)))
                if on_line is None:
                    # What it writes need not be lines: a dump is one of many megabytes.
                    size = os.fstat(out.fileno()).st_size
                    if size != shown:
                        shown, moved = size, time.monotonic()
                else:
                    for line in lines.new():
                        seen = _CLOCK.sub("", _without_time(line))
                        if seen != shown:
                            shown, moved = seen, time.monotonic()
                        on_line(line)
                if not ended and time.monotonic() - moved > self._timeout_s:
                    raise self._dead(verb, _whole(err).decode("utf-8", "replace"))
        finally:
            os.close(descriptor)

    def _dead(self, verb: str, words: str) -> BackendError:
        said = words.strip().splitlines()
        name = self.repository.name
        why = f": {said[-1]}" if said else ""
        return BackendError(
            f"repository {name} made no progress in {self._timeout_s:g} s ({verb}){why}", key=name
        )

    def _environment(self) -> dict[str, str]:
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": str(Path("~root").expanduser()),
            "LC_ALL": "C",
            **self._access.environment,
            "RESTIC_REPOSITORY": self.repository.url,
            "RESTIC_PASSWORD_FILE": str(self._access.password),
            "RESTIC_PROGRESS_FPS": "2",
        }
        if self._access.cache is not None:
            environment["RESTIC_CACHE_DIR"] = str(self._access.cache)
        if self._access.key is not None:
            environment["RESTIC_KEY_HINT"] = self._access.key
        if self.repository.ca is not None:
            environment["RESTIC_CACERT"] = str(self.repository.ca)
        return environment


def program() -> str:
    """Return the path of restic; raises InputError where it is not installed."""
    found = shutil.which("restic")
    if found is None:
        raise InputError("restic is not installed on this host", key="restic")
    return found


def check_version() -> str:
    """Return restic's version; raises InputError where it is older than OLDEST."""
    done = subprocess.run([program(), "version"], capture_output=True, timeout=20, check=False)
    found = re.match(r"restic (\d+)\.(\d+)\.(\d+)", done.stdout.decode("utf-8", "replace"))
    oldest = ".".join(map(str, OLDEST))
    if found is None:
        raise InputError(
            f"{program()} does not say its version; restic {oldest} or later is needed", key="restic"
        )
    version = ".".join(found.groups())
    if tuple(map(int, found.groups())) < OLDEST:
        raise InputError(f"restic {version} is too old; {oldest} or later is needed", key="restic")
    return version


class _Lines:
    """The lines that a growing file has got since the last look."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._descriptor = stream.fileno()
        self._offset = 0
        self._rest = b""

    def new(self) -> Iterator[str]:
        # The child shares the position of the file, so that is not touched.
        while block := os.pread(self._descriptor, 1 << 16, self._offset):
            self._offset += len(block)
            *whole, self._rest = (self._rest + block).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in whole)


class _Shown:
    """Turns restic's status lines into a line a second for people, and keeps its summary."""

    def __init__(self, progress: Callable[[str], None], name: str, total: tuple[int, int]) -> None:
        self.summary: dict[str, Any] | None = None
        self._progress = progress
        self._name = name
        self._total = total
        self._said = time.monotonic()

    def line(self, line: str) -> None:
        message = _message(line)
        if message.get("message_type") == "summary":
            self.summary = message
        elif message.get("message_type") == "status" and time.monotonic() - self._said >= 1:
            self._said = time.monotonic()
            done = int(message.get("bytes_done", message.get("bytes_restored", 0)))
            of = f" of {self._total[1]}" if self._total[1] else ""
            self._progress(f"{self._name}: {done}{of} bytes")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have restic end and take its lock away; kill it where it does not."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _whole(stream: IO[bytes]) -> bytes:
    return os.pread(stream.fileno(), os.fstat(stream.fileno()).st_size, 0)


def _message(line: str) -> dict[str, Any]:
    """Return a line as an object; {} where it is plain text, which restic mixes in."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _without_time(line: str) -> str:
    message = _message(line)
    for key in ("seconds_elapsed", "seconds_remaining", "current_files"):
        message.pop(key, None)
    return json.dumps(message, sort_keys=True) if message else line


def _unread(words: str) -> Iterable[tuple[str, str]]:
    for line in words.splitlines():
        message = _message(line)
        if message.get("message_type") == "error":
            error = message.get("error")
            said = error.get("message") if isinstance(error, dict) else message.get("message")
            yield str(message.get("item", "")), str(said)


def _is_finding(line: str) -> bool:
    return bool(line.strip()) and not re.match(
        r"Fatal:|restic repair|The repository|Damaged pack|\s*$|signal |subprocess ", line.strip()
    )


def _last(done: _Done) -> str:
    """Return what restic said last, without what it says while it tries again."""
    said = []
    # Its question whether there is a repository at all follows whatever went wrong.
    for line in re.sub(r"\nIs there a repository at .*\n.*", "", done.words).splitlines():
        text = _text(line)
        if text and not _RETRYING.search(text):
            said.append(text)
    return said[-1] if said else "it said nothing"


def _text(line: str) -> str:
    """Return what a line of restic says to people, in one line."""
    message = _message(line)
    said = str(message.get("message", "")) if message else line
    return (said.strip().removeprefix("Fatal: ").splitlines() or [""])[0]


def _objects(data: bytes) -> list[dict[str, Any]]:
    """Return a list of objects from output to which restic may have added text."""
    for line in data.decode("utf-8", "replace").splitlines():
        if line.startswith("["):
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                return [one for one in value if isinstance(one, dict)]
    raise ResticError("restic gave no list where one was asked for")


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        raise ResticError(f"restic gave no {what}") from None
    if not isinstance(value, dict):
        raise ResticError(f"restic gave no {what}")
    return value


def _snapshot(one: Mapping[str, Any]) -> Snapshot:
    text = re.sub(r"\.(\d{6})\d*", r".\1", str(one["time"]).replace("Z", "+00:00"))
    return Snapshot(
        str(one["id"]),
        datetime.fromisoformat(text),
        str(one.get("hostname", "")),
        tuple(map(str, one.get("tags") or ())),
        tuple(map(str, one.get("paths") or ())),
    )
