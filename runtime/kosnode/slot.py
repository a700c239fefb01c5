"""Slots: releases side by side on a node's disk, built beside, verified, mended and removed.

A slot appears and disappears by one rename. What is half made or half removed has a name that begins with a
dot, and `Slots.cleanup` takes it away. A file that another slot has alike is a hard link, made only after the
other's content was verified.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import archive, disk, files
from .errors import DamagedError, DiskError, InputError, NotFoundError
from .examine import DIRECTORY_MODE, TREE, Damage, examine_tree, examine_units, is_good
from .manifest import MAX_BYTES, Entry, FileEntry, LinkEntry, Manifest
from .mend import MENDING, Key, Mending, Repair
from .paths import NodePaths

MANIFEST = "release.json"
# Room for the journal of the file system, and for what is rendered into a slot.
SLACK_BYTES = 4 * 1024 * 1024
_NEW, _GONE = ".new-", ".gone-"
_ROOT = re.compile(r"[0-9a-f]{64}")
_NO_LINK = (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP)

# `list` is a method of `Slots`, and no type within it.
Damages = list[Damage]
Roots = list[str]


@dataclass(frozen=True)
class Scrubbed:
    """What a scrub found and did.

    Args:
        found: all that was wrong.
        mended: what was put right, relative to the folder of slots: files of other slots may be among them.
        remaining: what still is wrong.
        reasons: why something could not be mended.
    """

    found: tuple[Damage, ...] = ()
    mended: tuple[str, ...] = ()
    remaining: tuple[Damage, ...] = ()
    reasons: tuple[str, ...] = ()


class Slots:
    """The slots of a node. The caller holds the lock where it changes something.

    Args:
        paths: of the node.
    """

    def __init__(self, paths: NodePaths) -> None:
        self.paths = paths

    def manifest(self, root: str) -> Manifest:
        """Read the manifest of a slot.

        Raises:
            NotFoundError: there is no such slot.
            DamagedError: its release.json is not that of `root`.
        """
        path = self.paths.slot(root) / MANIFEST
        try:
            with path.open("rb") as stream:
                manifest = Manifest.parse(stream.read(MAX_BYTES + 1))
        except FileNotFoundError:
            if not self.paths.slot(root).is_dir():
                raise NotFoundError(
                    f"release {root[:12]} is not staged on this node", key="release"
                ) from None
            raise DamagedError(f"{path} is missing", key=MANIFEST) from None
        except (OSError, InputError) as error:
            raise DamagedError(f"{path} is damaged: {error}", key=MANIFEST) from None
        if manifest.root != root:
            raise DamagedError(f"{path} is the manifest of {manifest.root[:12]}", key=MANIFEST)
        return manifest

    def begin(self, manifest: Manifest) -> Building:
        """Begin a slot beside the others, with all in it that the others have already.

        What an earlier attempt left is removed.

        Raises:
            InputError: the slot exists.
            DiskError: the disk is full; nothing is left behind.
        """
        if self.paths.slot(manifest.root).exists():
            raise InputError(f"release {manifest.root[:12]} has a slot already", key="release")
        building = Building(self, manifest)
        building.prepare()
        return building

    def damages(self, root: str, manifest: Manifest | None = None) -> Damages:
        """Compare a slot with its manifest.

        Each file is read and hashed, on all cores. Of the rendered units, the files are compared with the
        digests in units.json.

        Args:
            root: of the release.
            manifest: of the release, where that of the slot is not to be relied on.

        Returns:
            What differs, sorted by path; nothing else is known where release.json is damaged.

        Raises:
            NotFoundError: there is no such slot.
        """
        slot = self.paths.slot(root)
        found: Damages = []
        try:
            own = self.manifest(root)
        except DamagedError as error:
            kind = "changed" if (slot / MANIFEST).exists() else "missing"
            found.append(Damage(MANIFEST, kind, error.message))
            if manifest is None:
                return found
        else:
            manifest = own
        found += examine_tree(slot, manifest, self.owner())
        found += examine_units(slot)
        return sorted(found, key=lambda damage: (damage.path, damage.kind))

    def verify(self, root: str) -> None:
        """Compare a slot with its manifest as `damages` does.

        Raises:
            NotFoundError: there is no such slot.
            DamagedError: names the first file that differs; all are in `detail`.
        """
        found = self.damages(root)
        if found:
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            raise DamagedError(
                f"slot {root[:12]}: {found[0]}{more}",
                key=found[0].path,
                detail={"damages": [damage.as_json() for damage in found]},
            )

    def scrub(self, root: str, repair: Repair, manifest: Manifest | None = None) -> Scrubbed:
        """Find what is damaged in a slot and mend it, and with it the slots that have the same file.

        A good file is taken from another slot where there is one, else from `repair`. It is written to a new
        inode: a hard link would hand the damage on. Rendered units are reported and left to who renders them.

        Args:
            root: of the release.
            repair: gives the bytes of a file in pieces, which are checked; it may raise KosError.
            manifest: of the release, from somewhere trusted; mends release.json itself.

        Raises:
            NotFoundError: there is no such slot.
            DiskError: the disk is full; what was mended until then stays mended.
        """
        if manifest is not None and manifest.root != root:
            raise InputError(
                f"the manifest is that of {manifest.root[:12]}, not of {root[:12]}", key="manifest"
            )
        found = self.damages(root, manifest)
        if not found:
            return Scrubbed()
        mending = Mending(self.paths.slot(root), self.contents(), self.owner(), repair)
        if manifest is not None and any(damage.path == MANIFEST for damage in found):
            mending.manifest(MANIFEST, manifest)
        with contextlib.suppress(DamagedError):
            # Without a manifest nobody knows what is good.
            mending.tree(manifest or self.manifest(root), found)
        remaining = self.damages(root, manifest)
        return Scrubbed(tuple(found), tuple(mending.mended), tuple(remaining), tuple(mending.reasons))

    def gc(self, keep: Collection[str]) -> Roots:
        """Remove all slots but those to keep; `current` and `previous` are kept always.

        Args:
            keep: release roots.

        Returns:
            The roots that were removed.
        """
        kept = {*keep, *self._linked()}
        removed = [root for root in self.list() if root not in kept]
        for root in removed:
            gone = self.paths.releases / f"{_GONE}{root}"
            disk.remove(gone)
            self.paths.slot(root).rename(gone)
            files.fsync_directory(self.paths.releases)
            disk.remove(gone)
        return removed

    def cleanup(self) -> Roots:
        """Remove what an interrupted building, scrub or removal left, and return the names."""
        if not self.paths.releases.is_dir():
            return []
        names = [path.name for path in self.paths.releases.iterdir()]
        left = sorted(name for name in names if name.startswith((_NEW, _GONE, MENDING)))
        for name in left:
            disk.remove(self.paths.releases / name)
        return left

    def disk_needed(self, manifest: Manifest) -> int:
        """Return the bytes that a slot of this release takes, without what can be linked, and some slack."""
        if self.paths.slot(manifest.root).is_dir():
            return 0
        there = self.contents()
        wanted = [one for one in manifest.files if isinstance(one, FileEntry) and _key(one) not in there]
        block = self._block()
        folders = block * (len(manifest.directories) + 2)
        return folders + self._blocks([len(manifest.canonical())]) + self._room_for(wanted)

    def _room_for(self, entries: Sequence[FileEntry]) -> int:
        return self._blocks([entry.size for entry in entries]) + SLACK_BYTES

    def _blocks(self, sizes: Sequence[int]) -> int:
        block = self._block()
        return sum(-(-size // block) * block for size in sizes)

    def _block(self) -> int:
        return os.statvfs(_existing(self.paths.releases)).f_frsize or 4096

    def check_disk(
        self,
        manifest: Manifest,
        reserve: int = 0,
        *,
        fetch: int = 0,
        missing: Sequence[FileEntry] | None = None,
    ) -> None:
        """Check that a slot of this release fits.

        Args:
            manifest: of the release.
            reserve: bytes that must stay free beside it.
            fetch: bytes that are fetched for it, which take room until it is whole.
            missing: the files that a slot which is being built still lacks; None where none is begun.

        Raises:
            DiskError: names the bytes that are missing.
        """
        needed = fetch + (self.disk_needed(manifest) if missing is None else self._room_for(missing))
        free = self.disk_free()
        lacking = needed + reserve - free if needed else 0
        if lacking > 0:
            kept = f", {reserve} stay in reserve" if reserve else ""
            raise DiskError(
                f"{lacking} bytes of disk are missing for {manifest.title}: "
                f"it needs {needed}, {free} are free at {self.paths.releases}{kept}",
                detail={"needed": needed, "free": free, "reserve": reserve, "missing": lacking},
            )

    def disk_free(self) -> int:
        """Return the free bytes where the slots are."""
        found = os.statvfs(_existing(self.paths.releases))
        return found.f_bavail * found.f_frsize

    def list(self) -> Roots:
        """Return the roots of the slots, sorted."""
        if not self.paths.releases.is_dir():
            return []
        return sorted(path.name for path in self.paths.releases.iterdir() if _ROOT.fullmatch(path.name))

    def _linked(self) -> Iterator[str]:
        for link in (self.paths.current, self.paths.previous):
            with contextlib.suppress(OSError):
                yield link.readlink().name

    def owner(self) -> int:
        """Return the user id that slots belong to: that of the folder they are in."""
        return self.paths.releases.stat().st_uid

    def contents(self) -> Mapping[Key, Sequence[Path]]:
        """Return where the slots have which content, by hash and mode, as their manifests say; unverified."""
        found: dict[Key, list[Path]] = {}
        for root in self.list():
            try:
                entries = self.manifest(root).files
            except DamagedError:
                continue
            for entry in entries:
                if isinstance(entry, FileEntry):
                    found.setdefault(_key(entry), []).append(self.paths.slot(root) / TREE / entry.path)
        return found


class Building:
    """A slot that is being built; takes the files of an archive (`archive.Sink`).

    As a context manager it removes itself unless it was committed.
    """

    def __init__(self, slots: Slots, manifest: Manifest) -> None:
        self.manifest = manifest
        self.directory = slots.paths.releases / f"{_NEW}{manifest.root}"
        self._slots = slots
        self._tree = self.directory / TREE
        self._linked: set[str] = set()
        self._written: set[str] = set()

    def __enter__(self) -> Building:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def prepare(self) -> None:
        """Make the directories and links, and link the files that other slots have; `Slots.begin` does it."""
        disk.remove(self.directory)
        with self._whole_or_gone():
            self.directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            disk.make_directory(self.directory)
            disk.write(self.directory / MANIFEST, [self.manifest.canonical()], 0o444)
            disk.make_directory(self._tree)
            for path in self.manifest.directories:
                disk.make_directory(self._tree / path)
            for entry in self.manifest.files:
                if isinstance(entry, LinkEntry):
                    (self._tree / entry.path).symlink_to(entry.target)
            self._link_files()

    def missing(self) -> tuple[FileEntry, ...]:
        """Return the files that are not there yet."""
        return tuple(
            entry for entry in self.manifest.files if isinstance(entry, FileEntry) and self._wants(entry)
        )

    def needs(self, part: archive.Part) -> bool:
        """Tell whether a part of the archive holds something that is not there yet."""
        return any(map(self._wants, part.entries))

    def file(self, entry: FileEntry, chunks: Iterator[bytes]) -> None:
        """Write a file, or only read its content where it is there already.

        Raises:
            DamagedError: from `chunks`; the file is not there then.
            DiskError: the disk is full; the whole slot is removed.
        """
        if not self._wants(entry):
            for _ in chunks:
                pass
            return
        try:
            disk.write(self._tree / entry.path, chunks, entry.permissions)
        except OSError as error:
            self._refuse_if_full(error)
            raise
        self._written.add(entry.path)

    def link(self, entry: LinkEntry) -> None:
        """Take a link, which is there since the beginning."""

    def commit(self, extra: Callable[[Path], None] | None = None) -> Path:
        """Make the slot durable and let it appear.

        Args:
            extra: writes what belongs beside the tree (units/, units.json) into the directory it is given.

        Returns:
            The slot.

        Raises:
            DamagedError: files are still missing.
            DiskError: the disk is full; the whole slot is removed.
        """
        missing = self.missing()
        if missing:
            first = missing[0].path
            raise DamagedError(
                f"{len(missing)} files of {self.manifest.title} are missing, the first is {first}", key=first
            )
        slot = self._slots.paths.slot(self.manifest.root)
        with self._whole_or_gone():
            if extra is not None:
                extra(self.directory)
            self._sync()
            self.directory.rename(slot)
        files.fsync_directory(slot.parent)
        return slot

    def abort(self) -> None:
        """Remove what was built; after a commit there is nothing to remove."""
        disk.remove(self.directory)

    @contextlib.contextmanager
    def _whole_or_gone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._refuse_if_full(error)
            self.abort()
            raise
        except BaseException:
            self.abort()
            raise

    def _refuse_if_full(self, error: OSError) -> None:
        if error.errno not in disk.FULL:
            return
        self.abort()
        needed, free = self._slots.disk_needed(self.manifest), self._slots.disk_free()
        missing = max(needed - free, 0)
        raise DiskError(
            f"the disk became full while {self.manifest.title} was written: it needs {needed} bytes, "
            f"{free} are free, {missing} are missing",
            detail={"needed": needed, "free": free, "missing": missing},
        ) from error

    def _wants(self, entry: Entry) -> bool:
        there = entry.path in self._written or entry.path in self._linked
        return isinstance(entry, FileEntry) and not there

    def _link_files(self) -> None:
        there, owner = self._slots.contents(), self._slots.owner()

        def find(entry: FileEntry) -> tuple[FileEntry, Path | None]:
            return entry, next((path for path in there[_key(entry)] if is_good(path, entry, owner)), None)

        wanted = [entry for entry in self.missing() if _key(entry) in there]
        wanted.sort(key=lambda entry: -entry.size)
        for entry, source in disk.on_all_cores(find, wanted):
            if source is not None:
                self._link_or_copy(entry, source)

    def _link_or_copy(self, entry: FileEntry, source: Path) -> None:
        try:
            os.link(source, self._tree / entry.path, follow_symlinks=False)
        except OSError as error:
            # Too many links, or a file system without them.
            if error.errno not in _NO_LINK:
                raise
            with source.open("rb") as stream:
                self.file(entry, archive.content(stream, entry, str(source)))
        else:
            self._linked.add(entry.path)

    def _sync(self) -> None:
        beside = [path for path in self.directory.iterdir() if path != self._tree]
        beside += [path for folder in beside if folder.is_dir() for path in folder.rglob("*")]
        kept = [path for path in beside if not path.is_symlink()]
        written = [self._tree / path for path in sorted(self._written)]
        disk.sync_all([*written, *(path for path in kept if path.is_file())])
        inside = [self._tree / path for path in reversed(self.manifest.directories)]
        closed = [*inside, self._tree, self.directory]
        for path in closed:
            path.chmod(DIRECTORY_MODE)
        disk.sync_all([*closed, *(path for path in kept if path.is_dir())])


def _key(entry: FileEntry) -> Key:
    return entry.sha3, entry.mode


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
