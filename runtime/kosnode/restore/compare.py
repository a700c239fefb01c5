"""Compares what came back with the manifest: kind, mode, owner, size, time and content of each path.

Every file is read once and hashed here, so that restic need not do it as well.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..backup import manifest, scan
from ..backup.manifest import Entry, Manifest
from ..backup.source import Finding, Root

# A tree that is wrong throughout is described well enough by so many.
MAX_FINDINGS = 1000


@dataclass(frozen=True)
class Owners:
    """Which ids the accounts of a manifest have on this host.

    An account that this host does not know keeps its number.
    """

    users: Mapping[int, int]
    groups: Mapping[int, int]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Owners:
        """Return the ids of all owners that entries have."""
        users = {entry.uid: entry.user for entry in entries}
        groups = {entry.gid: entry.group for entry in entries}
        return cls(
            {number: _user(name, number) for number, name in users.items()},
            {number: _group(name, number) for number, name in groups.items()},
        )

    @property
    def moved(self) -> bool:
        """Whether any id is another one here."""
        return any(one != other for ids in (self.users, self.groups) for one, other in ids.items())

    def give(self, entries: Iterable[Entry], places: Sequence[Root]) -> None:
        """Make the accounts of this host own what restic restored by numbers."""
        where = Whereabouts(places)
        for entry in entries:
            path = where.of(entry.path)
            if path is not None and os.path.lexists(path):
                os.lchown(path, self.users[entry.uid], self.groups[entry.gid])
                if entry.kind != "link":
                    # A change of owner takes the set-id bits away.
                    Path(path).chmod(entry.mode)


class Whereabouts:
    """Tells where each entry of a manifest is now.

    Args:
        places: `live` as the manifest has its stored root, `stored` where that is now.
    """

    def __init__(self, places: Sequence[Root]) -> None:
        known = [(manifest.relative(place.live), os.fspath(place.stored)) for place in places]
        self._known = [(root, f"{root}/", target) for root, target in known]

    def of(self, encoded: str) -> str | None:
        """Return the absolute path of an entry; None where it is in none of the places."""
        for root, below, target in self._known:
            if encoded.startswith(below):
                rest = encoded[len(root) :]
                return target + (rest if "\\" not in rest else os.fsdecode(manifest.decode(rest)))
            if encoded == root:
                return target
        return None


def compare(
    listed: Manifest, places: Sequence[Root], entries: Sequence[Entry], owners: Owners
) -> list[Finding]:
    """Compare restored files with entries of their manifest.

    Args:
        listed: for what is unstable.
        places: as `Whereabouts` takes them.
        entries: those that were to come back.
        owners: as they have to be on this host.

    Returns:
        What is wrong, at most MAX_FINDINGS.
    """
    unstable = set(listed.unstable)
    found = scan.walk([place for place in places if os.path.lexists(place.stored)], lambda path: False)
    wanted: dict[str, Entry] = {}
    findings: list[Finding] = []
    where = Whereabouts(places)
    for entry in entries:
        path = where.of(entry.path)
        if path is not None:
            wanted[path] = entry
    for path, entry in wanted.items():
        one = found.seen.get(path)
        if one is None:
            if entry.path not in unstable:
                findings.append(Finding("missing", f"{entry.path} did not come back", entry.path))
        else:
            findings += _differences(one, entry, owners, entry.path in unstable)
    findings += _extra(found, wanted, unstable, places)
    files = [
        one
        for path, one in found.seen.items()
        if path in wanted and wanted[path].kind == "file" and stat.S_ISREG(one.status.st_mode)
    ]
    for one, digest in scan.digests(files):
        entry = wanted[one.path]
        if digest != entry.sha3 and entry.path not in unstable:
            findings.append(Finding("differs", f"{entry.path} has another content", entry.path))
    return findings[:MAX_FINDINGS]


def _differences(one: scan.Seen, entry: Entry, owners: Owners, unstable: bool) -> Iterable[Finding]:
    status = one.status
    kinds = {"file": stat.S_ISREG, "link": stat.S_ISLNK, "directory": stat.S_ISDIR}
    if not kinds[entry.kind](status.st_mode):
        yield Finding("kind", f"{entry.path} is no {entry.kind}", entry.path)
        return
    if entry.kind == "file" and status.st_size != entry.size and not unstable:
        yield Finding("size", f"{entry.path} has {status.st_size} bytes, not {entry.size}", entry.path)
    if entry.kind == "link":
        # A Path would tidy the text up.
        target = manifest.encode(os.readlink(os.fsencode(one.path)))  # noqa: PTH115
        if target != entry.target and not unstable:
            yield Finding("target", f"{entry.path} points to {target}, not {entry.target}", entry.path)
    elif stat.S_IMODE(status.st_mode) != entry.mode and not unstable:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        yield Finding("mode", f"{entry.path} has mode {mode}, not {entry.mode:04o}", entry.path)
    owner = (owners.users[entry.uid], owners.groups[entry.gid])
    if (status.st_uid, status.st_gid) != owner and not unstable:
        is_now = f"{status.st_uid}:{status.st_gid}"
        yield Finding("owner", f"{entry.path} belongs to {is_now}, not {owner[0]}:{owner[1]}", entry.path)
    if entry.kind == "file" and status.st_mtime_ns != entry.mtime_ns and not unstable:
        yield Finding("time", f"{entry.path} has another time of change", entry.path)


def _extra(
    found: scan.Walk, wanted: Mapping[str, Entry], unstable: set[str], places: Sequence[Root]
) -> Iterable[Finding]:
    for path in sorted({*found.seen, *found.special} - set(wanted)):
        shown = _entry_path(path, places)
        if shown not in unstable and shown.rpartition("/")[0] not in unstable:
            yield Finding("extra", f"{shown} is not in the manifest", shown)


def _entry_path(path: str, places: Sequence[Root]) -> str:
    for place in places:
        text = os.fspath(place.stored)
        if path == text or path.startswith(f"{text}/"):
            return manifest.relative(os.fspath(place.live) + path[len(text) :])
    return path


def _user(name: str, number: int) -> int:
    try:
        return pwd.getpwnam(name).pw_uid if name else number
    except KeyError:
        return number


def _group(name: str, number: int) -> int:
    try:
        return grp.getgrnam(name).gr_gid if name else number
    except KeyError:
        return number
