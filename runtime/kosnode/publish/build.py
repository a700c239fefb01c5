"""From a tree of files to a staged release: manifest, archive, patches, and its line in the metadata."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.metadata import Targets

from .. import archive, authored, files, listing, patch, schema, unit, version
from ..errors import DamagedError, InputError, TrustError
from ..listing import Custom
from ..manifest import FileEntry, LinkEntry, Manifest
from ..metadata import RELEASES
from ..transfer import archive_name, patch_name
from . import catalogue, documents, publication
from .catalogue import Listed
from .repository import RELEASE_FOLDERS, Config, Progress, Repository, silent

ARCHITECTURES = ("any", "x86_64", "aarch64")
RELEASE_KEYS = (
    "name",
    "version",
    "arch",
    "compat",
    "from",
    "migrations",
    "sync_risk",
    "breaking",
    "behavioral",
    "health",
)


@dataclass(frozen=True)
class Built:
    """A release that was built.

    Args:
        root: its release root.
        changed: False where the repository has it already.
        archive: compressed bytes of each part.
        patches: bytes of the patches, by the root that they start from.
        actions: what was staged, one sentence each.
        notes: what the one who builds should know.
    """

    root: str
    changed: bool
    archive: tuple[int, ...] = ()
    patches: Mapping[str, int] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "root": self.root,
            "archive": list(self.archive),
            "patches": dict(self.patches),
            "notes": list(self.notes),
        }


def read_release(path: Path | None, given: Mapping[str, str]) -> dict[str, Any]:
    """Read what a person says about a release beside its files.

    Args:
        path: YAML, TOML or JSON with keys of `RELEASE_KEYS`; None where `given` says all.
        given: name, version or arch from the command line, which replace those of the file.

    Returns:
        The keys of the manifest that do not follow from the tree.

    Raises:
        InputError: an unknown key, a missing name or version, or a value that breaks a rule.
    """
    where = "the release" if path is None else str(path)
    document = {**({} if path is None else authored.load(path)), **given}
    for key in document:
        if key not in RELEASE_KEYS:
            schema.refuse(where, key, f"unknown key; {schema.suggestion(key, list(RELEASE_KEYS))}")
    for key in ("name", "version"):
        if key not in document:
            schema.refuse(where, key, f"is missing: say it there or with --{key}")
        if not isinstance(document[key], str):
            schema.refuse(where, key, "must be text")
    document.setdefault("arch", "any")
    if document["arch"] not in ARCHITECTURES:
        schema.refuse(where, "arch", f"must be one of {', '.join(ARCHITECTURES)}; it is {document['arch']!r}")
    version.key(document["version"])
    if "health" in document:
        if not isinstance(document["health"], list):
            schema.refuse(where, "health", "must be a list of checks")
        unit.validate_checks(document["health"], where)
    return document


def build(
    repository: Repository,
    tree: Path,
    release: Mapping[str, Any],
    *,
    channels: Sequence[str] = ("stable",),
    progress: Progress = silent,
) -> Built:
    """Make a release and stage it for signing.

    The same tree and release give the same root, and with the same zstandard the same bytes.

    Args:
        repository: where it goes.
        tree: directory of its files; each `units/NAME/unit.yml` becomes a canonical `unit.json`.
        release: from `read_release`.
        channels: the channels it is in.
        progress: told what is done.

    Raises:
        InputError: the tree, a unit or the release breaks a rule, or the version exists with other contents.
        TrustError: the repository's root has expired.
        BusyError: another process changes the repository.
    """
    config = repository.require()
    wanted = catalogue.check_channels(channels)
    names = _unit_names(tree)
    with repository.locked():
        documents.require_unexpired(repository.effective("root"), "root", repository.now(), TrustError)
        draft: Targets = repository.draft(RELEASES)
        floor = draft.unrecognized_fields[listing.SECURITY_FLOOR].get(release["name"])
        if floor is not None and version.key(release["version"]) < version.key(floor):
            raise InputError(f"{release['version']} is below the security floor {floor}", key="version")
        with repository.work() as work:
            prepared = work / "tree"
            _copy_tree(tree, prepared, names)
            progress(f"hashing {tree}")
            manifest = Manifest.build(prepared, **release)
            known = catalogue.listed(draft)
            publication.prune_staged(repository, {one.root for one in known})
            there = _existing(known, release, manifest.root)
            if there is not None:
                return Built(manifest.root, False, there.custom.archive, notes=_channel_notes(there, wanted))
            for folder in RELEASE_FOLDERS:
                (work / folder).mkdir()
            listed = _write_release(manifest, prepared, work, wanted, config, progress)
            patches = {}
            for old in _predecessors(known, release, config.patches):
                written = _write_patches(repository, old, listed, manifest, work, config, progress)
                if written:
                    patches[old.root] = written
            _move(work, repository.staged_dir)
        catalogue.put(draft, listed)
        change = repository.stage(RELEASES, draft)
        actions = [f"{RELEASES} {draft.version} waits for signatures"]
        if change.dropped:
            actions.append(f"{change.dropped} signatures of its earlier draft no longer hold")
        return Built(
            manifest.root,
            True,
            listed.custom.archive,
            patches,
            actions,
            _version_notes(known, release, wanted),
        )


def _unit_names(tree: Path) -> list[str]:
    if not tree.is_dir():
        raise InputError(f"{tree} is not a directory", key="--tree")
    names = []
    for folder in sorted((tree / "units").glob("*")):
        path = folder / "unit.yml"
        if not path.is_file():
            raise InputError(f"{folder} has no unit.yml", key=f"units/{folder.name}")
        read = unit.load(path)
        if read.id != folder.name:
            schema.refuse(str(path), "id", f"must be the name of its folder, {folder.name}; it is {read.id}")
        program = read.entry.command[0]
        if not program.startswith("/") and not os.access(tree / program, os.X_OK):
            schema.refuse(str(path), "entry.command[0]", f"{program} is not a program in the tree")
        names.append(folder.name)
    if not names:
        raise InputError(
            f"{tree} has no units: a release needs at least one units/NAME/unit.yml", key="--tree"
        )
    return names


def _copy_tree(source: Path, target: Path, unit_names: Sequence[str]) -> None:
    """Copy files and links of a tree, and write each unit.yml as a canonical unit.json in its place."""
    _copy_folder(source, target)
    for name in unit_names:
        folder = target / "units" / name
        written, generated = folder / "unit.yml", folder / "unit.json"
        if generated.exists() or generated.is_symlink():
            raise InputError(
                f"units/{name} has a unit.json beside its unit.yml: remove one", key=f"units/{name}"
            )
        generated.write_bytes(files.canonical(authored.load(written)))
        generated.chmod(0o644)
        written.unlink()


def _copy_folder(source: Path, target: Path) -> None:
    target.mkdir()
    for entry in sorted(os.scandir(source), key=lambda one: one.name):
        copy = target / entry.name
        if entry.is_symlink():
            copy.symlink_to(os.readlink(entry.path))  # noqa: PTH115 - pathlib would tidy the target up
        elif entry.is_dir():
            _copy_folder(Path(entry.path), copy)
        elif entry.is_file():
            shutil.copyfile(entry.path, copy)
            copy.chmod(stat.S_IMODE(entry.stat().st_mode) | stat.S_IRUSR | stat.S_IWUSR)
        else:
            raise InputError(f"{entry.path} is neither a file nor a directory nor a link", key="--tree")


def _existing(known: Sequence[Listed], release: Mapping[str, Any], root: str) -> Listed | None:
    """Return the listed release if it is this one; refuse where its version has other contents."""
    for one in known:
        custom = one.custom
        if (custom.name, custom.version) != (release["name"], release["version"]):
            continue
        if one.root == root:
            return one
        if custom.arch == release["arch"]:
            raise InputError(
                f"{one.title} exists already with root {one.root}, this tree gives {root}: "
                "a version never changes, take the next one",
                key="version",
            )
        if "any" in (custom.arch, release["arch"]):
            raise InputError(
                f"{one.title} exists already: a version is for any or for named ones", key="arch"
            )
    return None


def _channel_notes(there: Listed, wanted: Sequence[str]) -> list[str]:
    missing = ", ".join(sorted(set(wanted) - set(there.custom.channels)))
    return [f"{there.title} is not in {missing}: see `repo promote`"] if missing else []


def _version_notes(known: Sequence[Listed], release: Mapping[str, Any], channels: Sequence[str]) -> list[str]:
    wanted, notes = version.key(release["version"]), []
    for channel in channels:
        versions = [
            one.custom.version
            for one in known
            if one.custom.name == release["name"]
            and channel in one.custom.channels
            and one.custom.arch in ("any", release["arch"])
        ]
        highest = max(versions, key=version.key, default=None)
        if highest is not None and version.key(highest) > wanted:
            notes.append(f"{channel} has {highest} already, which is higher than {release['version']}")
    return notes


def _predecessors(known: Sequence[Listed], release: Mapping[str, Any], count: int) -> list[Listed]:
    """Return the `count` highest lower versions of the same name and architecture."""
    lower = [
        one
        for one in known
        if (one.custom.name, one.custom.arch) == (release["name"], release["arch"])
        and version.key(one.custom.version) < version.key(release["version"])
    ]
    return sorted(lower, key=lambda one: version.key(one.custom.version), reverse=True)[:count]


def _write_release(
    manifest: Manifest, tree: Path, work: Path, channels: tuple[str, ...], config: Config, progress: Progress
) -> Listed:
    """Write manifest and archive of a release, and return its line in the metadata."""
    document = manifest.canonical()
    manifest_path = work / f"releases/{manifest.root}.json"
    _write(manifest_path, document)
    with manifest_path.with_suffix(".json.zst").open("xb") as stream:
        manifest_bytes = patch.compress(io.BytesIO(document), stream, len(document), config.level)
    parts, sizes = archive.parts(manifest), []
    for part in parts:
        progress(f"compressing part {part.index + 1} of {len(parts)} ({part.size} bytes)")
        name = archive_name(manifest.root, part.index, len(parts))
        with tempfile.TemporaryFile(dir=work) as plain, (work / name).open("xb") as stream:
            archive.write_part(manifest, part, tree, plain)
            plain.seek(0)
            sizes.append(patch.compress(plain, stream, part.size, config.level))
    custom = Custom(
        manifest.name,
        manifest.version,
        manifest.arch,
        channels,
        tuple(sizes),
        manifest_bytes,
        manifest.size,
    )
    return Listed(manifest.root, len(document), hashlib.sha3_256(document).hexdigest(), custom)


def _write_patches(
    repository: Repository,
    old: Listed,
    new: Listed,
    manifest: Manifest,
    work: Path,
    config: Config,
    progress: Progress,
) -> int:
    """Write the patches from one earlier release that are smaller than the whole; returns their bytes."""
    old_manifest = catalogue.load_manifest(repository, old.root)
    old_tree = work / old.root
    progress(f"patching from {old.title}")
    _unpack_archive(repository, old, old_manifest, old_tree)
    whole = patch.make(old_manifest.canonical(), manifest.canonical(), config.level)
    written = _write_smaller(work / f"patches/{old.root}-{new.root}.json.zst", whole, new.custom.manifest)
    parts = archive.parts(manifest)
    for part in parts:
        # A patch this large would need more memory on a node than it may take.
        if part.size > archive.PREFIX_BYTES:
            continue
        plain = io.BytesIO()
        archive.write_part(manifest, part, work / "tree", plain)
        data = patch.make(archive.old_bytes(old_manifest, part, old_tree), plain.getvalue(), config.level)
        name = patch_name(old.root, new.root, part.index, len(parts))
        written += _write_smaller(work / name, data, new.custom.archive[part.index])
    shutil.rmtree(old_tree)
    return written


def _write_smaller(path: Path, data: bytes, limit: int) -> int:
    if len(data) >= limit:
        return 0
    _write(path, data)
    return len(data)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)


def _unpack_archive(repository: Repository, one: Listed, manifest: Manifest, target: Path) -> None:
    """Write the files of a listed release into a new directory, each checked against the manifest.

    Raises:
        DamagedError: a part is missing, or has other bytes than the manifest says; names it.
    """
    folder = Folder.make(target, manifest)
    parts = archive.parts(manifest)
    for part in parts:
        name = archive_name(one.root, part.index, len(parts))
        found = repository.find(name)
        if found is None:
            raise DamagedError(f"{name} of {one.title} is missing")
        with found.open("rb") as stream:
            archive.read_part(manifest, part, patch.unpack(stream, part.size), folder)


class Folder:
    """Takes the files of an archive into a directory, as `archive.Sink`."""

    def __init__(self, base: Path) -> None:
        self._base = base

    @classmethod
    def make(cls, base: Path, manifest: Manifest) -> Folder:
        """Make the directory with those that the manifest implies."""
        base.mkdir(parents=True)
        for folder in manifest.directories:
            (base / folder).mkdir()
        return cls(base)

    def file(self, entry: FileEntry, chunks: Iterator[bytes]) -> None:
        with (self._base / entry.path).open("xb") as stream:
            for chunk in chunks:
                stream.write(chunk)

    def link(self, entry: LinkEntry) -> None:
        (self._base / entry.path).symlink_to(entry.target)


def _move(work: Path, staged: Path) -> None:
    """Put the finished files where publication finds them, durably."""
    for folder in RELEASE_FOLDERS:
        for path in sorted((work / folder).iterdir()):
            with path.open("rb") as stream:
                os.fchmod(stream.fileno(), 0o644)  # a web server reads it, whatever the umask is
                os.fsync(stream.fileno())
            path.replace(staged / folder / path.name)
        files.fsync_directory(staged / folder)
