"""Reads what a snapshot will hold: walks the roots, hashes what changed, and says what did not hold still.

Files are hashed before restic reads them and looked at again afterwards: what has the same size, times and
inode at both ends is what restic read in between.
"""

from __future__ import annotations

import errno
import grp
import hashlib
import json
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .. import files
from ..errors import NotFoundError
from .manifest import Entry, encode, relative, sort_key
from .source import Root

READ_BYTES = 1 << 20
# A file that is younger than this may change again within one tick of the file system's clock.
_TICK_NS = 2_000_000_000
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_LARGE = 256 * 1024

Identity = tuple[int, int, int, int]
# SHA3-256 in hex, bytes that were read, and whether the file was the same before and after.
_Hashed = tuple[str, int, bool]


@dataclass(frozen=True)
class Seen:
    """A path as a walk met it; `path` is absolute."""

    path: str
    status: os.stat_result

    @property
    def identity(self) -> Identity:
        """What changes when the content does: size, mtime, ctime, inode."""
        one = self.status
        return (one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino)


@dataclass
class Walk:
    """What a walk found.

    Args:
        seen: files, links and directories by path.
        special: sockets, pipes and devices: they are left out of the snapshot.
        unread: directories that cannot be listed, and why.
    """

    seen: dict[str, Seen] = field(default_factory=dict)
    special: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Read:
    """Entries of a manifest, and what goes with them.

    Args:
        entries: sorted.
        unstable: absolute paths that changed while they were hashed.
        unread: absolute paths that cannot be read, and why.
    """

    entries: tuple[Entry, ...]
    unstable: frozenset[str]
    unread: Mapping[str, str]


class Hashes:
    """Remembers the hash of each file, so that one that did not change is not read again.

    Args:
        path: where it is kept. A file that is missing or damaged makes every file be hashed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved_ns = 0
        self._restless: list[str] = []
        self._known: dict[str, tuple[Identity, str]] = {}
        try:
            value = json.loads(path.read_bytes())
            self._saved_ns = int(value["time_ns"])
            self._restless = list(value["restless"])
            for name, (size, mtime, ctime, inode, digest) in value["files"].items():
                self._known[name] = ((size, mtime, ctime, inode), digest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._known = {}

    def find(self, one: Seen) -> str | None:
        """Return the SHA3-256 that a file with this identity had."""
        known = self._known.get(one.path)
        return known[1] if known is not None and known[0] == one.identity else None

    def keep(self, one: Seen, digest: str) -> None:
        """Remember the hash of a file that held still while it was hashed."""
        self._known[one.path] = (one.identity, digest)

    def restless(self, found: Walk) -> set[str]:
        """Return what changed during the run before, and has changed again since."""
        again = set()
        for path in self._restless:
            one = found.seen.get(path)
            if one is None:
                continue
            if stat.S_ISDIR(one.status.st_mode):
                if one.status.st_mtime_ns > self._saved_ns:
                    again.add(path)
            elif self.find(one) is None:
                again.add(path)
        return again

    def save(self, found: Walk, restless: Iterable[str], *, began_ns: int) -> None:
        """Write down the hashes of what a walk found and that was left alone for a while.

        Args:
            restless: paths that did not hold still.
            began_ns: wall clock before the walk.
        """
        limit = began_ns - _TICK_NS
        moving = set(restless)
        kept = {}
        for path, one in found.seen.items():
            digest = self.find(one)
            if digest is None or path in moving:
                continue
            if one.status.st_mtime_ns < limit and one.status.st_ctime_ns < limit:
                kept[path] = [*one.identity, digest]
        value = {
            "time_ns": now_ns(),
            "restless": sorted(moving),
            "files": kept,
        }
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Escaped as JSON can, so that names which are not UTF-8 need no form of their own.
        files.write_durable(self._path, json.dumps(value, separators=(",", ":")).encode(), mode=0o600)


def walk(roots: Sequence[Root], excluded: Callable[[str], bool]) -> Walk:
    """Look at everything below the stored paths of the roots.

    Args:
        excluded: says of an absolute path whether it is left out.

    Raises:
        NotFoundError: a root is not there.
    """
    found = Walk()
    for root in roots:
        path = os.fspath(root.stored)
        try:
            _keep(found, Seen(path, os.lstat(path)), excluded)
        except FileNotFoundError:
            raise NotFoundError(f"{path} is not there, so it cannot be backed up", key="source") from None
    return found


def read(found: Walk, hashes: Hashes) -> Read:
    """Hash the files of a walk and make entries of all that it found."""
    digests = {one.path: digest for one in found.seen.values() if (digest := hashes.find(one)) is not None}
    fresh = [
        one for one in found.seen.values() if stat.S_ISREG(one.status.st_mode) and one.path not in digests
    ]
    unstable: set[str] = set()
    unread: dict[str, str] = dict(found.unread)
    sizes: dict[str, int] = {}
    for one, result in _hash_all(fresh):
        if isinstance(result, OSError):
            # What went away in between is missing on purpose, and shows in the second walk.
            if result.errno in _GONE:
                unstable.add(one.path)
            else:
                unread[one.path] = result.strerror or str(result)
            continue
        digest, size, steady = result
        digests[one.path], sizes[one.path] = digest, size
        if steady:
            hashes.keep(one, digest)
        else:
            unstable.add(one.path)
    entries = []
    for one in found.seen.values():
        entry = _entry(one, digests.get(one.path), sizes.get(one.path))
        if entry is not None:
            entries.append(entry)
        elif one.path not in unread:
            unstable.add(one.path)
    entries.sort(key=sort_key)
    return Read(tuple(entries), frozenset(unstable), unread)


def changed(before: Walk, after: Walk) -> set[str]:
    """Return the paths that differ between two walks: changed, come or gone."""
    found = set(before.seen) ^ set(after.seen)
    for path, one in before.seen.items():
        later = after.seen.get(path)
        if later is not None and (
            later.identity != one.identity or later.status.st_mode != one.status.st_mode
        ):
            found.add(path)
    return found


def came(before: Walk, after: Walk) -> set[str]:
    """Return the files and links that the second of two walks found, and the first did not."""
    return {path for path in after.seen.keys() - before.seen.keys() if not is_folder(after, path)}


def is_untouched(found: Walk, began_ns: int) -> bool:
    """Say whether all that a walk found is as it was, and nothing has come or gone.

    A directory tells by its times what came into it or went. For one that had been written to when the walk
    began the clock of the file system may be too coarse, so the answer is no.

    Args:
        began_ns: wall clock before the walk.
    """
    for path, one in found.seen.items():
        try:
            now, was = os.lstat(path), one.status
        except OSError:
            return False
        if (
            now.st_ctime_ns != was.st_ctime_ns
            or now.st_mtime_ns != was.st_mtime_ns
            or now.st_size != was.st_size
            or now.st_ino != was.st_ino
        ):
            return False
        if stat.S_ISDIR(was.st_mode) and max(was.st_mtime_ns, was.st_ctime_ns) >= began_ns - _TICK_NS:
            return False
    return True


def young(found: Walk, folders: Iterable[str], since_ns: int) -> set[str]:
    """Return what lies directly in one of the folders and was written since then."""
    inside = set(folders)
    return {
        path
        for path, one in found.seen.items()
        if path.rpartition("/")[0] in inside
        and max(one.status.st_mtime_ns, one.status.st_ctime_ns) >= since_ns
    }


def is_folder(found: Walk, path: str) -> bool:
    """Say whether a path of a walk is a directory."""
    one = found.seen.get(path)
    return one is not None and stat.S_ISDIR(one.status.st_mode)


def hash_file(path: str, expected: int) -> tuple[str, int, os.stat_result]:
    """Return SHA3-256 in hex and size of a file as it was read, and its status afterwards.

    Args:
        expected: bytes that it is thought to have, so that a small file is one read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, min(expected + 1, READ_BYTES))
        hashed, size = hashlib.sha3_256(data), len(data)
        # With one byte less than was asked for, its end has been seen.
        if size != expected or expected >= READ_BYTES:
            buffer = memoryview(bytearray(READ_BYTES))
            with open(descriptor, "rb", buffering=0, closefd=False) as stream:
                while count := stream.readinto(buffer):
                    hashed.update(buffer[:count])
                    size += count
        return hashed.hexdigest(), size, os.fstat(descriptor)
    finally:
        os.close(descriptor)


def digests(seen: Sequence[Seen]) -> Iterator[tuple[Seen, str | None]]:
    """Yield the SHA3-256 of each file in hex; None where it cannot be read."""
    for one, result in _hash_all(seen):
        yield one, None if isinstance(result, OSError) else result[0]


def _keep(found: Walk, first: Seen, excluded: Callable[[str], bool]) -> None:
    waiting = [first]
    while waiting:
        one = waiting.pop()
        kind = stat.S_IFMT(one.status.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR):
            found.special.append(one.path)
            continue
        found.seen[one.path] = one
        if kind == stat.S_IFDIR:
            waiting += _children(found, one.path, excluded)


def _children(found: Walk, folder: str, excluded: Callable[[str], bool]) -> Iterator[Seen]:
    try:
        with os.scandir(folder) as listed:
            for child in listed:
                if excluded(child.path):
                    continue
                try:
                    yield Seen(child.path, child.stat(follow_symlinks=False))
                except OSError as error:
                    if error.errno not in _GONE:
                        found.unread[child.path] = error.strerror or str(error)
    except OSError as error:
        if error.errno not in _GONE:
            found.unread[folder] = error.strerror or str(error)


def _hash_all(fresh: Sequence[Seen]) -> Iterator[tuple[Seen, _Hashed | OSError]]:
    # A thread for each core is quicker for what is large, and costs more than it gives for what is small.
    large = [one for one in fresh if one.status.st_size >= _LARGE]
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        results = pool.map(_hash, large)
        for one in fresh:
            if one.status.st_size < _LARGE:
                yield one, _hash(one)
        yield from zip(large, results, strict=True)


def _hash(one: Seen) -> _Hashed | OSError:
    try:
        digest, size, after = hash_file(one.path, one.status.st_size)
    except OSError as error:
        return error
    return digest, size, one.identity == Seen(one.path, after).identity and size == one.status.st_size


def _entry(one: Seen, digest: str | None, size: int | None) -> Entry | None:
    """Return the entry of what was met; None where it went away or cannot be read."""
    status = one.status
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    target = ""
    if stat.S_ISLNK(status.st_mode):
        kind = "link"
        try:
            # A Path would tidy the text up.
            target = encode(os.readlink(os.fsencode(one.path)))  # noqa: PTH115
        except OSError:
            return None
    if kind == "file" and digest is None:
        return None
    return Entry(
        relative(one.path),
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        _user(status.st_uid),
        _group(status.st_gid),
        status.st_mtime_ns,
        status.st_size if size is None else size,
        digest or "",
        target,
    )


@cache
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@cache
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def now_ns() -> int:
    """Return the wall clock, which is also that of the file system's times."""
    return time.time_ns()
