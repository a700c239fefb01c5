"""Mends a damaged slot, and with it the slots that share its files."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from . import disk, files
from .errors import DamagedError, DiskError, KosError
from .examine import DIRECTORY_MODE, TREE, Damage, is_good
from .manifest import Entry, FileEntry, LinkEntry, Manifest

Repair = Callable[[FileEntry], Iterable[bytes]]
Key = tuple[str, str]
MENDING = ".mend-"


class Mending:
    """One repair.

    A damaged file is never written to: its inode may be that of other slots, and a program may run from it.
    A good one takes its place by a rename.

    Args:
        slot: the damaged one.
        partners: where all slots have which content, by hash and mode.
        owner: user id that all of it shall belong to.
        repair: gives the bytes of a file.
    """

    def __init__(
        self, slot: Path, partners: Mapping[Key, Sequence[Path]], owner: int, repair: Repair
    ) -> None:
        self.mended: list[str] = []
        self.reasons: list[str] = []
        self._slot = slot
        self._partners = partners
        self._owner = owner
        self._repair = repair

    def manifest(self, name: str, manifest: Manifest) -> None:
        """Write release.json again."""
        with disk.opened(self._slot):
            files.write_durable(self._slot / name, manifest.canonical(), mode=0o444)
        self._note(self._slot / name)

    def tree(self, manifest: Manifest, found: Sequence[Damage]) -> None:
        """Mend the tree: what is in the way goes first, then come directories, then what is in them.

        Args:
            manifest: of the release.
            found: what is wrong with it.

        Raises:
            DiskError: the disk is full.
        """
        for damage in found:
            if damage.kind in ("extra", "type") and _in_tree(damage):
                self._attempt(self._slot / damage.path, self._take_away)
        for path in (TREE, *(f"{TREE}/{path}" for path in manifest.directories)):
            self._attempt(self._slot / path, self._mend_directory)
        damaged = {damage.path for damage in found}
        for entry in manifest.files:
            path = f"{TREE}/{entry.path}"
            # What stood in a directory's place took all below it along.
            if path in damaged or not os.path.lexists(self._slot / path):
                self._attempt(self._slot / path, partial(self._mend, entry=entry))

    def _attempt(self, path: Path, step: Callable[[Path], None]) -> None:
        try:
            step(path)
        except DiskError:
            raise
        except KosError as error:
            self.reasons.append(f"{path.relative_to(self._slot)}: {error.message}")
        except OSError as error:
            if error.errno in disk.FULL:
                raise DiskError(f"the disk became full while {path} was mended") from error
            self.reasons.append(f"{path.relative_to(self._slot)}: {error.strerror}")

    def _take_away(self, path: Path) -> None:
        if not os.path.lexists(path):
            return
        with disk.opened(path.parent):
            disk.remove(path)
            disk.sync(path.parent)
        self._note(path)

    def _mend_directory(self, path: Path) -> None:
        if path.is_dir():
            self._set(path, DIRECTORY_MODE)
            return
        with disk.opened(path.parent):
            disk.make_directory(path, DIRECTORY_MODE)
            disk.sync(path.parent)
        self._note(path)

    def _mend(self, path: Path, *, entry: Entry) -> None:
        if isinstance(entry, LinkEntry):
            target = entry.target
            self._place(path, lambda new: new.symlink_to(target))
            return
        self._set_if_content_is_right(path, entry)
        others = [other for other in self._partners.get((entry.sha3, entry.mode), ()) if other != path]
        good = next((one for one in (path, *others) if is_good(one, entry, self._owner)), None)
        if good is None:
            self._place(path, partial(self._write_good, entry=entry))
            good = path
        for one in (path, *others):
            if not is_good(one, entry, self._owner):
                self._place(one, partial(os.link, good))

    def _set_if_content_is_right(self, path: Path, entry: FileEntry) -> None:
        """Spare a file whose mode or owner alone is wrong."""
        if path.is_file() and not path.is_symlink() and disk.digest(path) == entry.sha3:
            self._set(path, entry.permissions)

    def _write_good(self, new: Path, *, entry: FileEntry) -> None:
        disk.write(new, self._repaired(entry), entry.permissions)
        if new.stat().st_uid != self._owner:
            os.chown(new, self._owner, -1)
        disk.sync(new)

    def _repaired(self, entry: FileEntry) -> Iterator[bytes]:
        digest, size = hashlib.sha3_256(), 0
        for chunk in self._repair(entry):
            size += len(chunk)
            if size > entry.size:
                break
            digest.update(chunk)
            yield chunk
        if size != entry.size or digest.hexdigest() != entry.sha3:
            raise DamagedError(f"the bytes to mend {entry.path} with are wrong", key=entry.path)

    def _place(self, path: Path, make: Callable[[Path], object]) -> None:
        """Put something new in the place of a file or link by one rename."""
        folder = Path(tempfile.mkdtemp(prefix=MENDING, dir=self._slot.parent))
        try:
            make(folder / "new")
            with disk.opened(path.parent):
                (folder / "new").replace(path)
                disk.sync(path.parent)
        finally:
            disk.remove(folder)
        self._note(path)

    def _set(self, path: Path, mode: int) -> None:
        found = path.lstat()
        if found.st_uid != self._owner:
            os.chown(path, self._owner, -1)
        elif stat.S_IMODE(found.st_mode) == mode:
            return
        path.chmod(mode)
        disk.sync(path)
        self._note(path)

    def _note(self, path: Path) -> None:
        name = str(path.relative_to(self._slot.parent))
        if name not in self.mended:
            self.mended.append(name)


def _in_tree(damage: Damage) -> bool:
    return damage.path == TREE or damage.path.startswith(f"{TREE}/")
