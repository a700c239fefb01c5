"""From a release that is signed to a verified slot: what the node lacks, from mirrors that nobody trusts.

The manifest comes as a patch against a manifest the node has, else whole; the archive part by part, as a
patch against a slot the node has, else whole, and not at all where the node has all files of a part. Whatever
comes is checked against what is signed: a wrong patch, mirror or slot costs bytes and is left for the next.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, TypeVar

from . import archive, patch
from .errors import DamagedError, DiskError, InputError, MirrorError, NotFoundError, TrustError
from .examine import TREE
from .fetch import AbsentError, FetchError, Mirror, WrongError, download_checked
from .manifest import FileEntry, LinkEntry, Manifest
from .paths import NodePaths
from .slot import Building, Slots
from .trust import Available, Refreshed

PART_SUFFIX = ".part"

T = TypeVar("T")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Received:
    """Bytes of all bodies that mirrors sent, those of failed attempts included.

    Args:
        metadata: for the refresh of trust.
        manifest: for the manifest or its patches.
        archive: for the archive or its patches.
    """

    metadata: int
    manifest: int
    archive: int

    def as_json(self) -> dict[str, int]:
        kinds = {"metadata": self.metadata, "manifest": self.manifest, "archive": self.archive}
        return {**kinds, "total": sum(kinds.values())}


@dataclass(frozen=True)
class Staged:
    """What staging came to; `as_json` is `stage.result` of docs/architecture.md.

    Args:
        manifest: of the release.
        how: `present`, `patch`, `whole` or `mixed`: how the parts of the archive came.
        bytes: what was received.
        mirror: address of the mirror that gave the last of it.
        mirrors: `{"url", "error"}` for each time something was not got from a mirror.
        seconds: how long it took, from the refresh of trust on.
        slot: directory of the release.
    """

    manifest: Manifest
    how: str
    bytes: Received
    mirror: str
    mirrors: tuple[dict[str, str], ...]
    seconds: float
    slot: Path

    def as_json(self) -> dict[str, Any]:
        return {
            "root": self.manifest.root,
            "name": self.manifest.name,
            "version": self.manifest.version,
            "bytes": self.bytes.as_json(),
            "how": self.how,
            "mirror": self.mirror,
            "mirrors": list(self.mirrors),
            "seconds": round(self.seconds, 3),
            "slot": str(self.slot),
        }


@dataclass(frozen=True)
class Estimate:
    """What staging would come to.

    Args:
        how: as in `Staged`.
        bytes: what was received until now, and what the archive would take.
        needed: bytes of disk, those for the archive while it is unpacked included.
        free: bytes of disk.
    """

    how: str
    bytes: Received
    needed: int
    free: int


def archive_name(root: str, index: int, count: int) -> str:
    """Return the path of a part of an archive on a mirror (docs/architecture.md, Mirror)."""
    return f"releases/{root}.tar.zst" if count == 1 else f"releases/{root}.{index}.tar.zst"


def patch_name(old: str, root: str, index: int, count: int) -> str:
    """Return the path of the patch of a part of an archive on a mirror."""
    return f"patches/{old}-{root}.zst" if count == 1 else f"patches/{old}-{root}.{index}.zst"


class Transfer:
    """One release on its way to this node. The caller holds the node's lock.

    What was fetched is kept in the fetch directory until the slot is there, so that a later attempt goes on.

    Args:
        release: what is wanted.
        slots: of this node.
        mirrors: in the order they are asked.
        refreshed: how trust was refreshed before; mirrors that failed there are asked last.
        patches: whether patches are tried.
        progress: takes one line for people.

    Raises:
        InputError: the mirror list is empty.
    """

    def __init__(
        self,
        release: Available,
        slots: Slots,
        mirrors: Sequence[Mirror],
        *,
        refreshed: Refreshed | None = None,
        patches: bool = True,
        progress: Progress = lambda line: None,
    ) -> None:
        self.release = release
        self._slots = slots
        self._begun = monotonic()
        self._patches = patches
        self._progress = progress
        self._queue = _Queue(mirrors, refreshed or Refreshed("", (), 0), progress)
        self._downloads = _Downloads(slots.paths)
        self._without_patch: set[tuple[str, str]] = set()

    def manifest(self) -> Manifest:
        """Return the manifest of the release: the slot's, an earlier attempt's, or from a mirror.

        Raises:
            MirrorError: no mirror gave it.
            TrustError: what is signed contradicts itself.
            DamagedError: the release has a slot whose manifest is damaged.
        """
        return self._manifest

    @cached_property
    def _manifest(self) -> Manifest:
        if self._present:
            return self._slots.manifest(self.release.root)
        return self.signed_manifest()

    def signed_manifest(self) -> Manifest:
        """Return the manifest as it is signed, whatever a slot of the release holds; raises as `manifest`."""
        kept = self._downloads.path(self.release.target_path)
        try:
            return self._parsed(kept.read_bytes())
        except (FileNotFoundError, DamagedError):
            pass  # no earlier attempt, or a torn one
        self._downloads.only(self.release.root)
        with self._queue.counting("manifest"), _disk_errors():
            data = self._queue.ask("the manifest", self._fetch_manifest)
            kept.write_bytes(data)
        return self._parsed(data)

    def estimate(self) -> Estimate:
        """Say what `stage` would fetch and need, by asking mirrors for sizes; raises as `manifest`."""
        manifest = self.manifest()
        received = self._queue.received
        free = self._slots.disk_free()
        if self._present:
            return Estimate("present", received, 0, free)
        there = self._slots.contents()
        ways, size = [], 0
        for part in self._parts(manifest):
            entries = (entry for entry in part.entries if isinstance(entry, FileEntry))
            if all((entry.sha3, entry.mode) in there for entry in entries):
                continue
            smallest = self._patch_size(manifest, part)
            ways.append("whole" if smallest is None else "patch")
            size += self.release.archive[part.index] if smallest is None else smallest
        expected = Received(received.metadata, received.manifest, size)
        return Estimate(_how(ways), expected, self._slots.disk_needed(manifest) + size, free)

    def stage(self, *, reserve: int = 0, extra: Callable[[Path], None] | None = None) -> Staged:
        """Bring the release into a slot, or find it there.

        Args:
            reserve: bytes of disk that must stay free.
            extra: writes what belongs beside the tree, see `slot.Building.commit`.

        Raises:
            DiskError: not enough disk; names the bytes that are missing.
            MirrorError: no mirror gave what was needed; names each with its error.
            TrustError, DamagedError: as `manifest`.
        """
        manifest = self.manifest()
        how = "present"
        if not self._present:
            ways: list[str] = []
            parts = self._parts(manifest)
            self._slots.check_disk(manifest, reserve)
            with self._queue.counting("archive"), _disk_errors(), self._slots.begin(manifest) as building:
                for part in parts:
                    if building.needs(part):
                        ways.append(self._bring(manifest, part, building, reserve))
                building.commit(extra)
            self._downloads.only(None)
            how = _how(ways)
        return Staged(
            manifest,
            how,
            self._queue.received,
            self._queue.giver,
            tuple(self._queue.errors),
            monotonic() - self._begun,
            self._slots.paths.slot(manifest.root),
        )

    @property
    def _present(self) -> bool:
        return self._slots.paths.slot(self.release.root).is_dir()

    @cached_property
    def _old(self) -> list[Manifest]:
        """Manifests of the releases that the node has: current first, then previous, then the rest."""
        paths = self._slots.paths
        first = [_linked(paths.current), _linked(paths.previous)]
        roots = sorted(self._slots.list(), key=lambda root: (root != first[0], root != first[1], root))
        found = []
        for root in roots:
            try:
                found.append(self._slots.manifest(root))
            except DamagedError as error:
                self._progress(f"{error.message}: no patch is made against it")
        return found

    def _parsed(self, data: bytes) -> Manifest:
        """Return the manifest that `data` is, which must be what is signed, and say what was signed of it."""
        self.release.verify(data)
        found = Manifest.parse(data)
        signed = (self.release.root, self.release.name, self.release.version, self.release.arch)
        if (found.root, found.name, found.version, found.arch) != signed:
            raise TrustError(
                f"{self.release.target_path} is the manifest of {found.title} for {found.arch}, root "
                f"{found.root[:12]}; signed it is as {signed[1]} {signed[2]} for {signed[3]}"
            )
        return found

    def _parts(self, manifest: Manifest) -> list[archive.Part]:
        parts = archive.parts(manifest)
        if len(parts) != len(self.release.archive):
            raise TrustError(
                f"{manifest.title} has {len(parts)} parts, sizes of {len(self.release.archive)} are signed"
            )
        return parts

    def _fetch_manifest(self, mirror: Mirror) -> bytes:
        for old in self._old if self._patches else ():
            path = f"patches/{old.root}-{self.release.root}.json.zst"
            found = self._try_patch(mirror, old, path, self.release.manifest, self._unpacked(old.canonical()))
            if found is not None:
                return found
        compressed, plain = f"{self.release.target_path}.zst", self.release.target_path
        try:
            return self._download(mirror, compressed, self._unpacked(b""), size=self.release.manifest)
        except AbsentError:
            pass
        except WrongError as error:
            self._queue.left(error)
        return self._download(mirror, plain, self._checked, size=self.release.target.length)

    def _unpacked(self, old: bytes) -> Callable[[Path], bytes]:
        def use(path: Path) -> bytes:
            out = io.BytesIO()
            with path.open("rb") as stream:
                patch.apply(old, stream, out, self.release.target.length)
            self.release.verify(out.getvalue())
            return out.getvalue()

        return use

    def _checked(self, path: Path) -> bytes:
        data = path.read_bytes()
        self.release.verify(data)
        return data

    def _bring(self, manifest: Manifest, part: archive.Part, building: Building, reserve: int) -> str:
        count = len(self.release.archive)
        self._progress(f"{manifest.title}: part {part.index + 1} of {count}")
        what = f"part {part.index + 1} of {count} of {manifest.title}"

        def check_room(size: int) -> None:
            self._slots.check_disk(manifest, reserve, fetch=size, missing=building.missing())

        return self._queue.ask(
            what, lambda mirror: self._fetch_part(mirror, manifest, part, building, check_room)
        )

    def _fetch_part(
        self,
        mirror: Mirror,
        manifest: Manifest,
        part: archive.Part,
        building: Building,
        check_room: Callable[[int], None],
    ) -> str:
        count, whole = len(self.release.archive), self.release.archive[part.index]

        def read(path: Path, unpack: Callable[[BinaryIO], BinaryIO]) -> None:
            with path.open("rb") as stream:
                archive.read_part(manifest, part, unpack(stream), building)

        def use_whole(path: Path) -> str:
            read(path, lambda stream: patch.unpack(stream, part.size))
            return "whole"

        for old, name in self._patch_names(part):
            prefix = self._prefix(old, part)
            if not prefix:
                continue
            # `unpack` copies the old bytes: they are handed over, or a small node would hold them twice.
            held = [prefix]
            del prefix

            def use_patch(path: Path, old: Manifest = old, held: list[bytes] = held) -> str:
                read(
                    path,
                    lambda stream: patch.unpack(
                        stream, part.size, held.pop() if held else self._prefix(old, part)
                    ),
                )
                return "patch"

            found = self._try_patch(mirror, old, name, whole, use_patch, check_room)
            if found is not None:
                return found
        name = archive_name(self.release.root, part.index, count)
        return self._download(mirror, name, use_whole, size=whole, check_room=check_room)

    def _patch_names(self, part: archive.Part) -> Iterator[tuple[Manifest, str]]:
        count = len(self.release.archive)
        for old in self._old if self._patches else ():
            yield old, patch_name(old.root, self.release.root, part.index, count)

    def _prefix(self, old: Manifest, part: archive.Part) -> bytes:
        """Return what a patch against `old` starts from; nothing where its slot is damaged."""
        try:
            return archive.old_bytes(old, part, self._slots.paths.slot(old.root) / TREE)
        except DamagedError as error:
            self._progress(f"{error.message}: no patch is made against it")
            return b""

    def _try_patch(
        self,
        mirror: Mirror,
        old: Manifest,
        path: str,
        limit: int,
        use: Callable[[Path], T],
        check_room: Callable[[int], None] = lambda size: None,
    ) -> T | None:
        """Return what a patch gives; None where the mirror has none, or a wrong one, which is named."""
        if (mirror.url, old.root) in self._without_patch:
            return None
        try:
            return self._download(mirror, path, use, limit=limit, check_room=check_room)
        except AbsentError:
            pass
        except WrongError as error:
            self._queue.left(error)
        self._without_patch.add((mirror.url, old.root))
        return None

    def _patch_size(self, manifest: Manifest, part: archive.Part) -> int | None:
        for mirror in self._queue.mirrors:
            for old, path in self._patch_names(part):
                if not archive.old_range(old, part):
                    continue
                try:
                    with mirror.open(path, limit=self.release.archive[part.index]) as body:
                        return body.total
                except AbsentError:
                    pass
                except FetchError as error:
                    self._progress(error.message)
                    break
        return None

    def _download(
        self,
        mirror: Mirror,
        path: str,
        use: Callable[[Path], T],
        *,
        size: int | None = None,
        limit: int = 0,
        check_room: Callable[[int], None] = lambda size: None,
    ) -> T:
        file = self._downloads.path(path + PART_SUFFIX)
        return download_checked(mirror, path, file, use, limit=limit, size=size, check_room=check_room)


class Repairs:
    """Gives the true bytes of a release's files from mirrors, for `slot.Slots.scrub`.

    Args:
        manifest: of the release; its release root is what makes it true.
        paths: where things are.
        mirrors: in the order they are asked.
        progress: takes one line for people.
    """

    def __init__(
        self,
        manifest: Manifest,
        paths: NodePaths,
        mirrors: Sequence[Mirror],
        *,
        progress: Progress = lambda line: None,
    ) -> None:
        self._manifest = manifest
        self._parts = archive.parts(manifest)
        self._downloads = _Downloads(paths)
        self._queue = _Queue(mirrors, Refreshed("", (), 0), progress)

    @property
    def mirrors(self) -> list[dict[str, str]]:
        """`{"url", "error"}` for each time something was not got from a mirror."""
        return list(self._queue.errors)

    @property
    def received(self) -> int:
        """Bytes received from all mirrors."""
        return self._queue.received.archive

    def __call__(self, entry: FileEntry) -> Iterable[bytes]:
        """Return the bytes of a file; its part of the archive is kept until `close`.

        Raises:
            NotFoundError: the release has no such file.
            MirrorError: no mirror gave it.
            DiskError: no room for the part.
        """
        part = next((part for part in self._parts if entry in part.entries), None)
        if part is None:
            raise NotFoundError(
                f"{self._manifest.title} has no file {entry.path} of this content", key="path"
            )
        name = archive_name(self._manifest.root, part.index, len(self._parts))
        # Compressing can make a little more of what it cannot compress (zstd, ZSTD_COMPRESSBOUND).
        limit = part.size + part.size // 128 + 1024
        self._downloads.only(self._manifest.root)

        def use(path: Path) -> list[bytes]:
            picked = _Picked(entry)
            with path.open("rb") as stream:
                archive.read_part(self._manifest, part, patch.unpack(stream, part.size), picked)
            return picked.chunks

        def fetch(mirror: Mirror) -> list[bytes]:
            file = self._downloads.path(name + PART_SUFFIX)
            return download_checked(mirror, name, file, use, limit=limit)

        with self._queue.counting("archive"), _disk_errors():
            return self._queue.ask(f"{entry.path} of {self._manifest.title}", fetch)

    def close(self) -> None:
        """Remove what was fetched."""
        self._downloads.only(None)


class _Picked:
    """A sink of an archive that keeps one file."""

    def __init__(self, entry: FileEntry) -> None:
        self.chunks: list[bytes] = []
        self._entry = entry

    def file(self, entry: FileEntry, chunks: Iterator[bytes]) -> None:
        if entry == self._entry:
            self.chunks = list(chunks)

    def link(self, entry: LinkEntry) -> None:
        pass


class _Downloads:
    """The fetch directory: what is under way to this node, for one release at a time."""

    def __init__(self, paths: NodePaths) -> None:
        self._directory = paths.fetch

    def path(self, name: str) -> Path:
        """Return where a file of a mirror is put."""
        return self._directory / name.rpartition("/")[2]

    def only(self, root: str | None) -> None:
        """Remove what is not of this release, and make the directory; None removes all."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            if root is None or root not in path.name:
                path.unlink()


class _Queue:
    """The mirrors in the order they are asked, what they did wrong, and what they sent."""

    def __init__(self, mirrors: Sequence[Mirror], refreshed: Refreshed, progress: Progress) -> None:
        if not mirrors:
            raise InputError("the mirror list is empty: at least one address is needed", key="mirrors")
        bad = {error["url"] for error in refreshed.errors}
        self.mirrors = sorted(mirrors, key=lambda mirror: mirror.url in bad)
        self.errors = list(refreshed.errors)
        self.giver = refreshed.mirror
        self._progress = progress
        self._bytes = {"metadata": refreshed.bytes, "manifest": 0, "archive": 0}

    @property
    def received(self) -> Received:
        return Received(**self._bytes)

    @contextmanager
    def counting(self, kind: str) -> Iterator[None]:
        """Count what is received meanwhile as `manifest` or `archive`."""
        before = sum(mirror.received for mirror in self.mirrors)
        try:
            yield
        finally:
            self._bytes[kind] += sum(mirror.received for mirror in self.mirrors) - before

    def ask(self, what: str, fetch: Callable[[Mirror], T]) -> T:
        """Return what the first mirror gives; one that fails is named, and asked last from then on.

        Raises:
            MirrorError: none gave it; names each with its error.
        """
        failed = []
        for mirror in list(self.mirrors):
            try:
                result = fetch(mirror)
            except FetchError as error:
                self.left(error)
                failed.append(error.message)
                self.mirrors.remove(mirror)
                self.mirrors.append(mirror)
            else:
                self.giver = mirror.url
                return result
        raise MirrorError(f"no mirror gave {what}: {'; '.join(failed)}", detail={"mirrors": self.errors})

    def left(self, error: FetchError) -> None:
        """Name a mirror that did not give something."""
        self._progress(error.message)
        self.errors.append({"url": error.url, "error": error.reason})


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskError(f"the disk became full while {error.filename or 'a download'} was written") from error


def _how(ways: Sequence[str]) -> str:
    """Name the ways of the parts that were fetched; a slot made of nothing but what was there is patched."""
    return "mixed" if len(set(ways)) > 1 else next(iter(ways), "patch")


def _linked(link: Path) -> str:
    try:
        return link.readlink().name
    except OSError:
        return ""
