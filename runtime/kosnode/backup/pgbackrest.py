"""pgBackRest and its repository: commands as the cluster's owner, and what its answers leave out.

`verify` ends with 0 whatever it found, says nothing of a repository that lost its backups, and does not miss
a WAL segment between two others: its text is read, and the segments are counted here.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ..errors import BusyError, DamagedError, DiskError, KosError, NotFoundError
from . import patterns
from .account import Account

CONFIG = "pgbackrest.conf"
KEPT_FULL = 2
# The largest clusters take hours; systemd has limits of its own for a run.
_LONG_S = 24 * 3600.0
_SHORT_S = 300.0
_LOCKED, _NO_BACKUP = 50, 75
_LOG_BYTES = 1 << 32
# A run that takes longer than so many logs of 4 GiB takes to fill has changed paths, and says so.
_COMING_LOGS = 16

_SEGMENT = re.compile(r"([0-9A-F]{24})-[0-9a-f]{40}(?:\.[a-z0-9]+)?")
_LOG = re.compile(r"[0-9A-F]{16}")
_ERROR = re.compile(r"ERROR: \[\d+\]: (.+)")


@dataclass(frozen=True)
class Backup:
    """A backup in a repository.

    Attributes:
        label: its name; ends in F where it is full.
        full: whether it needs no other.
        stop: when it was complete.
        wal_start: the first segment that it needs.
        page_errors: whether pages had wrong checksums when they were read.
    """

    label: str
    full: bool
    stop: datetime
    wal_start: str
    page_errors: bool

    @property
    def earliest(self) -> datetime:
        """The first whole second to which it can be restored."""
        return self.stop + timedelta(seconds=1)


@dataclass(frozen=True)
class Contents:
    """What a repository holds of a cluster.

    Attributes:
        system: identifier of the cluster.
        backups: oldest first.
    """

    system: str
    backups: list[Backup]


class Repository:
    """A repository of one cluster.

    Args:
        folder: for the configuration and locks.
        path: of the repository.
        stanza: the name of the cluster in it.
        account: whom it belongs to.
    """

    def __init__(self, folder: Path, path: Path, stanza: str, account: Account) -> None:
        self.folder = folder
        self.path = path
        self.stanza = stanza
        self.account = account

    @property
    def config(self) -> Path:
        return self.folder / CONFIG

    def rendered(self, data: Path, port: int, socket: str) -> str:
        """Return the configuration.

        Args:
            data: the cluster's data directory.
            port, socket: where it listens.
        """
        settings: dict[str, dict[str, object]] = {
            "global": {
                "repo1-path": self.path,
                "repo1-retention-full": KEPT_FULL,
                "lock-path": self.folder / "lock",
                "log-level-file": "off",
                "log-level-console": "off",
                "log-level-stderr": "warn",
                "log-timestamp": "n",
                "compress-type": "zst",
                "start-fast": "y",
            },
            self.stanza: {"pg1-path": data, "pg1-port": port, "pg1-socket-path": socket},
        }
        lines = ["# Written by kosctl for the backups of this cluster."]
        for section, values in settings.items():
            lines += [f"[{section}]", *(f"{key}={value}" for key, value in values.items())]
        return "\n".join(lines) + "\n"

    def command(self, *words: str) -> list[str]:
        """Return the call of a command."""
        return ["pgbackrest", f"--config={self.config}", f"--stanza={self.stanza}", *words]

    def contents(self) -> Contents | None:
        """Return what is in the repository; None where it does not know the cluster yet.

        Raises:
            DamagedError: it cannot be read.
        """
        (stanza,) = json.loads(self._run("info", "--output=json")) or [{"db": []}]
        if not stanza["db"]:
            return None
        if stanza["status"]["code"] not in (0, 2):
            raise DamagedError(f"the repository of {self.stanza} is damaged: {stanza['status']['message']}")
        current = stanza["db"][-1]
        backups = [_backup(one) for one in stanza["backup"] if one["database"]["id"] == current["id"]]
        return Contents(str(current["system-id"]), backups)

    def create(self) -> None:
        """Make the repository know its cluster."""
        self._run("stanza-create")

    def renew(self) -> None:
        """Make the repository know the cluster that has taken the place of the one it knew."""
        self._run("stanza-upgrade")

    def back_up(self, kind: str) -> None:
        """Make a backup of the running cluster.

        Args:
            kind: `full` or `diff`.
        """
        self._run("backup", f"--type={kind}", timeout_s=_LONG_S)

    def verify(self, contents: Contents) -> list[str]:
        """Read all of the repository, and return what is wrong with it."""
        said = self._run("verify", "--output=text", "--verbose", timeout_s=_LONG_S)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        problems = [line for line in lines if _is_problem(line)]
        valid = {line.partition(",")[0].removeprefix("backup: ") for line in lines if "status: valid" in line}
        problems += [
            f"backup {one.label} was not verified" for one in contents.backups if one.label not in valid
        ]
        if "status: ok" not in lines and not problems:
            problems.append(f"pgbackrest verify did not say that all is well: {said.strip()[:200]!r}")
        return problems

    def restore(self, data: Path, target: Sequence[str]) -> None:
        """Restore the files of a cluster, which recovers to the target when it is started.

        Args:
            data: an empty directory of the account.
            target: options that name it.

        Raises:
            NotFoundError: no backup is old enough.
        """
        options = [f"--pg1-path={data}", "--target-action=promote", *target]
        self._run("restore", *options, timeout_s=_LONG_S)

    def segments(self) -> list[str]:
        """Return the names of the WAL segments that are in the repository, in order."""
        archive = self._archive()
        return sorted(
            found[1]
            for folder in (archive.iterdir() if archive is not None else ())
            if _LOG.fullmatch(folder.name)
            for path in folder.iterdir()
            if (found := _SEGMENT.fullmatch(path.name)) is not None
        )

    def still(self, last: str, segment_bytes: int) -> tuple[list[str], list[Path]]:
        """Say how the repository is read while the cluster goes on to archive.

        Args:
            last: the last segment that shall be in a copy.
            segment_bytes: size of a segment.

        Returns:
            Patterns of what comes after it, and the folders that it comes into.
        """
        folder = self._archive()
        assert folder is not None, "the last segment is in it"
        log = int(last[8:16], 16)
        timeline, number = last[:8], last[16:]
        digits = len(f"{_LOG_BYTES // segment_bytes - 1:x}")
        names = [f"{timeline}{log:08X}/{timeline}{log:08X}{begin}*" for begin in _later(number, digits)]
        names += [f"{timeline}{coming:08X}" for coming in range(log + 1, log + 1 + _COMING_LOGS)]
        names.append("**/*.pgbackrest.tmp")
        place = patterns.literal(str(folder))
        return [f"{place}/{name}" for name in names], [folder, folder / last[:16]]

    def _archive(self) -> Path | None:
        """Return the folder with the WAL of the cluster as it is now; an upgrade began a new one."""
        folders = [path for path in (self.path / "archive" / self.stanza).glob("*-*") if path.is_dir()]
        return max(folders, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def _run(self, *words: str, timeout_s: float = _SHORT_S) -> str:
        done = self.account.run(self.command(*words), timeout_s=timeout_s)
        if done.returncode == 0:
            return done.stdout
        errors = _ERROR.findall(done.stderr)
        last = errors[-1] if errors else (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        message = f"pgbackrest {words[0]} failed: {last}"
        if done.returncode == _LOCKED:
            raise BusyError(message)
        if done.returncode == _NO_BACKUP:
            raise NotFoundError(message)
        if "No space left on device" in done.stderr:
            raise DiskError(message)
        raise KosError(message, detail={"exit": done.returncode})


def gaps(segments: Sequence[str], segment_bytes: int) -> list[str]:
    """Return the first missing WAL segment of each gap within a timeline.

    Args:
        segments: names, in order.
        segment_bytes: size of a segment.
    """
    each = _LOG_BYTES // segment_bytes
    found = []
    for before, after in itertools.pairwise(segments):
        timeline, log, number = (int(before[at : at + 8], 16) for at in (0, 8, 16))
        following = log * each + number + 1
        expected = f"{timeline:08X}{following // each:08X}{following % each:08X}"
        if after[:8] == before[:8] and after != expected:
            found.append(expected)
    return found


def usable(contents: Contents, segments: Sequence[str], segment_bytes: int) -> list[Backup]:
    """Return the backups from which the WAL leads to the newest segment without a gap, oldest first."""
    missing = gaps(segments, segment_bytes)
    return [
        one
        for one in contents.backups
        if one.wal_start in segments and all(one.wal_start > gap for gap in missing)
    ]


def _backup(value: dict[str, Any]) -> Backup:
    return Backup(
        label=value["label"],
        full=value["type"] == "full",
        stop=datetime.fromtimestamp(value["timestamp"]["stop"], timezone.utc),
        wal_start=value["archive"]["start"],
        page_errors=bool(value["error"]),
    )


def _is_problem(line: str) -> bool:
    """Tell whether a line of `verify` names something wrong; the counts of what is well stand there as 0."""
    if line.startswith(("stanza:", "status:")):
        return False
    if line.startswith(("archiveId:", "backup:")):
        return "status: invalid" in line
    return any(int(count) for count in re.findall(r": (\d+)", line)) or not re.search(r": \d+", line)


def _later(number: str, digits: int) -> Iterator[str]:
    """Yield what each later number of a segment in the same log begins with."""
    for at in range(len(number) - digits, len(number)):
        for digit in "0123456789ABCDEF":
            if digit > number[at]:
                yield number[:at] + digit
