"""Checks a repository or a mirror's folder as a node would, and then every file of every release in it."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import archive, patch
from ..errors import DamagedError, InputError, KosError, MirrorError
from ..fetch import Limits, mirrors
from ..manifest import FileEntry, LinkEntry, Manifest
from ..metadata import RELEASES
from ..paths import NodePaths
from ..transfer import archive_name
from ..trust import Available, Trust
from . import documents, publication
from .build import Folder
from .repository import RELEASE_FOLDERS, Progress, silent

_PATCH = re.compile(
    r"(?P<old>[0-9a-f]{64})-(?P<new>[0-9a-f]{64})\.(?:(?P<json>json\.)|(?P<part>[0-9]+)\.)?zst"
)


@dataclass(frozen=True)
class Report:
    """What was found right.

    Args:
        releases: the titles of the releases, each checked whole.
        patches: number of patches that give exactly what they should.
        notes: what cannot be checked, or belongs to nothing.
    """

    releases: list[str] = field(default_factory=list)
    patches: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {"releases": self.releases, "patches": self.patches, "notes": self.notes}


@dataclass(frozen=True)
class _Clock:
    moment: Callable[[], datetime]

    def now(self) -> datetime:
        return self.moment()


def verify(
    path: Path,
    pinned_root: Path | None = None,
    *,
    now: Callable[[], datetime] = documents.utc_now,
    progress: Progress = silent,
) -> Report:
    """Check all that a mirror's folder offers.

    Metadata are checked by the code that a node runs. Of each release the manifest is checked against what
    is signed, the archive is read as strictly as a node reads it, and each patch must give the exact bytes.
    Needs as much room for temporary files as the unpacked releases that patches start from.

    Args:
        path: a repository, or a mirror's folder.
        pinned_root: the root of trust; where None the folder's own first root, which proves only that its
            files agree with each other.
        now: the clock.
        progress: told what is checked.

    Raises:
        TrustError: the metadata do not hold under the root.
        DamagedError: files are wrong; `detail["findings"]` lists them.
        InputError: `path` is neither, or the root cannot be read.
    """
    base = path / "public" if (path / "config.json").exists() else path
    if not (base / "metadata" / "timestamp.json").is_file():
        raise InputError(f"{path} is neither a repository nor a mirror with anything published", key="PATH")
    notes = []
    if pinned_root is None:
        notes.append("checked against its own first root: pin one with --root")
    root = _read_root(base / "metadata/1.root.json" if pinned_root is None else pinned_root)
    with tempfile.TemporaryDirectory(prefix="kos-verify-") as scratch:
        node = Path(scratch) / "node"
        available = _trusted(base, root, node, now)
        check = _Check(base, Path(scratch) / "trees", {one.root: one for one in available}, progress)
        check.documents(NodePaths(node).trust / "metadata")
        check.releases()
        check.patches()
        check.strangers()
    if check.findings:
        first = check.findings[0]
        raise DamagedError(
            f"files that are wrong: {len(check.findings)}; {first['file']}: {first['problem']}",
            key=first["file"],
            detail={"findings": check.findings},
        )
    titles = [_title(one) for one in available]
    return Report(titles, check.good_patches, [*notes, *check.notes])


def _read_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", key="--root") from None


def _trusted(base: Path, root: bytes, node: Path, now: Callable[[], datetime]) -> list[Available]:
    """Let a node with nothing but the root ask this one mirror, and return what it believes."""
    paths = NodePaths(node)
    paths.pinned_root.parent.mkdir(parents=True)
    paths.pinned_root.write_bytes(root)
    paths.trust.parent.mkdir(parents=True)
    trust = Trust(paths, mirrors([base.resolve().as_uri()], Limits()), _Clock(now))
    try:
        trust.refresh()
    except MirrorError as error:
        raise DamagedError(
            f"metadata are missing or have another size: {error.message}", key="metadata"
        ) from None
    return trust.releases()


def _title(one: Available) -> str:
    return f"{one.name} {one.version} ({one.arch})"


class _Nothing:
    """Takes the files of an archive nowhere, as `archive.Sink`: reading them is the check."""

    def file(self, entry: FileEntry, chunks: Iterator[bytes]) -> None:
        for _ in chunks:
            pass

    def link(self, entry: LinkEntry) -> None:
        """Leave it."""


class _Check:
    """Goes through the files of a mirror and collects what is wrong.

    Args:
        base: the mirror's folder.
        trees: where releases are unpacked from which patches start.
        available: the signed releases, by root.
        progress: told what is checked.
    """

    def __init__(
        self, base: Path, trees: Path, available: Mapping[str, Available], progress: Progress
    ) -> None:
        self.findings: list[dict[str, str]] = []
        self.notes: list[str] = []
        self.good_patches = 0
        self._base, self._trees, self._available, self._progress = base, trees, available, progress
        self._manifests: dict[str, Manifest] = {}
        self._unpacked: set[str] = set()
        self._expected: set[str] = set()
        self._patches = self._find_patches()

    def documents(self, metadata: Path) -> None:
        """Check the rules that the publisher adds to those of a node."""
        roots = sorted((metadata / "root_history").glob("*.root.json"))
        found = [("root", path) for path in roots]
        found += [(role, metadata / f"{role}.json") for role in ("targets", RELEASES)]
        for role, path in found:
            with self._finding(f"metadata/{path.name}"):
                documents.parse(path.read_bytes(), role, path.name)

    def releases(self) -> None:
        """Check manifest and archive of each release."""
        for root, one in self._available.items():
            self._progress(f"checking {_title(one)}")
            document = self._manifest(root, one)
            if document is None:
                continue
            manifest = self._manifests[root]
            with self._finding(f"releases/{root}.json.zst"):
                packed = self._open(f"releases/{root}.json.zst", one.manifest)
                out = io.BytesIO()
                patch.decompress_stream(io.BytesIO(packed), out, len(document))
                _require(out.getvalue() == document, "holds another manifest")
            self._archive(one, manifest)

    def patches(self) -> None:
        """Check that each patch gives the bytes of the release it leads to."""
        for name, match in self._patches.items():
            old, new = self._manifests.get(match["old"]), self._manifests.get(match["new"])
            if match["old"] not in self._available and match["new"] in self._available:
                self.notes.append(f"patches/{name} is not checked: its old release is not here")
            if old is None or new is None or (match["json"] is None and old.root not in self._unpacked):
                continue  # found wrong before, or noted
            self._progress(f"checking patches/{name}")
            with self._finding(f"patches/{name}"):
                self._patch(name, match, old, new)
                self.good_patches += 1

    def strangers(self) -> None:
        """Note the files that belong to no release."""
        known = self._expected | {
            f"patches/{name}" for name, match in self._patches.items() if match["new"] in self._available
        }
        for folder in RELEASE_FOLDERS:
            for path in sorted((self._base / folder).iterdir()):
                name = f"{folder}/{path.name}"
                if name not in known:
                    self.notes.append(f"{name} belongs to no release")

    def _find_patches(self) -> dict[str, re.Match[str]]:
        folder = self._base / "patches"
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return {name: match for name in names if (match := _PATCH.fullmatch(name))}

    def _manifest(self, root: str, one: Available) -> bytes | None:
        names = publication.release_files(root, one.target.length, one.manifest, one.archive)
        self._expected |= set(names)
        with self._finding(f"releases/{root}.json"):
            document = self._open(f"releases/{root}.json", one.target.length)
            one.verify(document)
            manifest = Manifest.parse(document)
            said = (one.root, one.name, one.version, one.arch, one.unpacked, len(one.archive))
            parts = len(archive.parts(manifest))
            holds = (manifest.root, manifest.name, manifest.version, manifest.arch, manifest.size, parts)
            _require(said == holds, f"says {holds}, signed is {said}")
            self._manifests[root] = manifest
            return document
        return None

    def _archive(self, one: Available, manifest: Manifest) -> None:
        tree = self._trees / one.root
        wanted = any(match["old"] == one.root for match in self._patches.values())
        sink: archive.Sink = Folder.make(tree, manifest) if wanted else _Nothing()
        before = len(self.findings)
        parts = archive.parts(manifest)
        for part in parts:
            name = archive_name(one.root, part.index, len(parts))
            with self._finding(name):
                path = self._sized(name, one.archive[part.index])
                with path.open("rb") as stream:
                    archive.read_part(manifest, part, patch.unpack(stream, part.size), sink)
        if wanted and len(self.findings) == before:
            self._unpacked.add(one.root)

    def _patch(self, name: str, match: re.Match[str], old: Manifest, new: Manifest) -> None:
        with (self._base / "patches" / name).open("rb") as stream:
            if match["json"] is not None:
                document, out = new.canonical(), io.BytesIO()
                patch.apply(old.canonical(), stream, out, len(document))
                _require(out.getvalue() == document, "gives another manifest")
                return
            parts = archive.parts(new)
            index = int(match["part"] or 0)
            _require((match["part"] is None) == (len(parts) == 1) and index < len(parts), "is of no part")
            part = parts[index]
            before = archive.old_bytes(old, part, self._trees / old.root)
            archive.read_part(new, part, patch.unpack(stream, part.size, before), _Nothing())

    def _open(self, name: str, size: int) -> bytes:
        return self._sized(name, size).read_bytes()

    def _sized(self, name: str, size: int) -> Path:
        path = self._base / name
        if not path.is_file():
            raise DamagedError("is missing")
        _require(path.stat().st_size == size, f"has {path.stat().st_size} bytes, signed are {size}")
        return path

    @contextmanager
    def _finding(self, name: str) -> Iterator[None]:
        try:
            yield
        except KosError as error:
            self.findings.append({"file": name, "problem": error.message})


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise DamagedError(problem)
