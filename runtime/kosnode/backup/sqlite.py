"""SQLite databases: a consistent copy while others write, kept as page deltas; back to any of its points.

The copy is made by SQLite's online backup under a read transaction: without one, a writer makes it begin anew
each time, and it may never end. What is in the write-ahead log is in the copy.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from .. import boot, disk
from ..errors import BusyError, DamagedError, DiskError, InputError, KosError
from . import page_chain, tree
from .config import SourceSpec
from .context import progress
from .page_chain import PageChain
from .places import Places
from .source import Finding, Move, Prepared, Restored, Root, Source, SwapPlan

_MAGIC = b"SQLite format 3\x00"
# Files that belong to a database and make another database of the one beside them.
_BESIDE = ("-wal", "-shm", "-journal")
_BUSY_S = 30.0
_STEP_PAGES = 4096
_SHOWN = 20
_OF_THE_APPLICATION = ("no such collation", "no such function", "unknown function", "no such module")


class UncheckableError(KosError):
    """A database that only its application can check."""

    kind = "uncheckable"


class Sqlite(Source):
    """One database file.

    Args:
        spec: its row; `path` is the file.
        places: of the node.
        clock: when points are made.
    """

    def __init__(self, spec: SourceSpec, places: Places, clock: boot.Clock | None = None) -> None:
        super().__init__(spec, places)
        assert spec.path is not None, "the table of sources asks for a path"
        self.path = spec.path
        self._clock = clock or boot.SystemClock()
        self._chain = PageChain(places.sqlite / spec.name, progress)

    def check(self) -> None:
        key = f"sources.{self.spec.name}.path"
        tree.check_path(self.path, self.places, self.spec.name)
        if not self.path.is_file():
            raise InputError(f"{self.path} must be the file of a database", key=key)
        with self.path.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
        if magic != _MAGIC:
            what = "is not an SQLite database" if magic else "is empty, which is no database"
            raise InputError(f"{self.path} {what}", key=key)
        self._check_disk()

    @contextlib.contextmanager
    def prepare(self, stage: Path) -> Iterator[Prepared]:
        with self._chain.workspace() as folder, _said_plainly(self.path):
            copy = folder / "copy"
            # Before the transaction begins: what was written until then is in the copy.
            time = self._clock.now()
            self._roll_back_what_died()
            about = _attributes(self.path)
            _copy(self.path, copy)
            with contextlib.suppress(UncheckableError):
                _refuse_damage(self.path, check_integrity(copy, "quick_check"))
            point = self._chain.append(copy, time, about)
        first = page_chain.in_order(page_chain.read(self._chain.chain).points)[0]
        heads = {"digest": point.digest.root, "time": boot.text(point.time), "from": boot.text(first.time)}
        yield Prepared([Root(self.path, self._chain.chain)], heads)
        self._chain.forget(point)

    def rebuild(self, restored: Restored) -> Restored:
        (root,) = restored.roots
        out = root.stored.with_name(f"{root.stored.name}.database")
        out.unlink(missing_ok=True)
        point = page_chain.restore(root.stored, out, restored.scratch, restored.until)
        if restored.until is None and point.digest.root != restored.heads.get("digest"):
            out.unlink()
            raise DamagedError("the newest point of the page deltas is not the one that the manifest names")
        _give(out, point.about)
        return replace(restored, roots=[Root(root.live, out)])

    def verify(self, restored: Restored) -> list[Finding]:
        (root,) = restored.roots
        try:
            problems = check_integrity(root.stored, "integrity_check")
        except UncheckableError as error:
            problems = (
                [] if self.spec.verifier else [f"{error.message}; the source needs a verifier of its own"]
            )
        return [
            Finding("integrity", f"integrity_check of {root.live.name}: {problem}", str(root.live))
            for problem in problems
        ]

    def swap_plan(self, restored: Restored) -> SwapPlan:
        (root,) = restored.roots
        return SwapPlan(
            [Move(root.live, root.stored)],
            [self.spec.service] if self.spec.service else [],
            [root.live.with_name(root.live.name + end) for end in _BESIDE],
        )

    def _check_disk(self) -> None:
        """Refuse where a copy of the database and of what its log holds has no room."""
        log = self.path.with_name(self.path.name + "-wal")
        needed = self.path.stat().st_size + (log.stat().st_size if log.exists() else 0)
        place = next(path for path in (self._chain.folder, *self._chain.folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        if free < needed:
            raise DiskError(f"a copy of {self.path} needs {needed} bytes at {place}, and {free} are free")

    def _roll_back_what_died(self) -> None:
        """Let SQLite take back what a writer that was killed left half done, as each reader but ours does."""
        with contextlib.closing(_connect(self.path, "mode=ro")) as source:
            try:
                _look(source)
                return
            except sqlite3.OperationalError as error:
                if "readonly" not in str(error):
                    raise
        with contextlib.closing(_connect(self.path, "mode=rw")) as source:
            _look(source)


def check_integrity(database: Path, pragma: str) -> list[str]:
    """Return what SQLite finds wrong in a database that nobody writes to; nothing where it is whole.

    Nothing is written beside it: it is opened as one that cannot change, so a log beside it is not read.

    Args:
        database: the file.
        pragma: `quick_check` or `integrity_check`.

    Raises:
        UncheckableError: its indexes need functions or an order that only its application has.
    """
    try:
        with contextlib.closing(_connect(database, "mode=ro&immutable=1")) as connection:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}({_SHOWN})")]
    except sqlite3.DatabaseError as error:
        if str(error).startswith(_OF_THE_APPLICATION):
            raise UncheckableError(f"SQLite alone cannot check it: {error}") from None
        return [str(error)]
    return [] if found == ["ok"] else found


def _refuse_damage(database: Path, problems: list[str]) -> None:
    if problems:
        raise DamagedError(f"{database} is damaged, so it is not backed up: {problems[0]}")


def _copy(database: Path, copy: Path) -> None:
    with (
        contextlib.closing(_connect(database, "mode=ro")) as source,
        contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target,
    ):
        source.execute("BEGIN")
        _look(source)
        # It is read back and hashed, and made durable, or it is thrown away.
        target.execute("PRAGMA synchronous = OFF")
        target.execute("PRAGMA journal_mode = OFF")
        source.backup(target, pages=_STEP_PAGES)


def _connect(database: Path, query: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?{query}", uri=True, isolation_level=None, timeout=_BUSY_S)


def _look(source: sqlite3.Connection) -> None:
    """Read something: only then does SQLite take its lock and choose the state that is seen from here on."""
    source.execute("SELECT count(*) FROM sqlite_master").fetchone()


@contextlib.contextmanager
def _said_plainly(database: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into errors of ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise BusyError(f"{database} was locked by a writer for {_BUSY_S:g} s") from None
        if "full" in str(error):
            raise DiskError(f"there is no room for a copy of {database}") from None
        if isinstance(error, sqlite3.OperationalError):
            raise KosError(f"{database} cannot be read by SQLite: {error}") from None
        _refuse_damage(database, [str(error)])
    except OSError as error:
        if error.errno in disk.FULL:
            raise DiskError(f"there is no room for the page deltas of {database}") from None
        raise


def _attributes(path: Path) -> dict[str, str]:
    status = path.stat()
    about = {
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": str(status.st_uid),
        "gid": str(status.st_gid),
    }
    with contextlib.suppress(KeyError):
        about["user"] = pwd.getpwuid(status.st_uid).pw_name
    with contextlib.suppress(KeyError):
        about["group"] = grp.getgrgid(status.st_gid).gr_name
    return about


def _give(path: Path, about: Mapping[str, str]) -> None:
    """Give a file its owner, by name where this host knows the name, and its mode."""
    try:
        uid, gid, mode = int(about["uid"]), int(about["gid"]), int(about["mode"], 8)
    except (KeyError, ValueError, TypeError):
        raise DamagedError("the page deltas do not say whose the database is") from None
    with contextlib.suppress(KeyError):
        uid = pwd.getpwnam(about["user"]).pw_uid
    with contextlib.suppress(KeyError):
        gid = grp.getgrnam(about["group"]).gr_gid
    os.chown(path, uid, gid)
    path.chmod(mode)
