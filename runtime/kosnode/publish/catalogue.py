"""The releases that a repository lists: found, promoted, withdrawn, and the lowest version still safe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuf.api.metadata import TargetFile, Targets

from .. import listing, version
from ..errors import DamagedError, InputError, NotFoundError
from ..listing import Custom
from ..manifest import Manifest
from ..metadata import RELEASES
from . import publication
from .repository import Change, Repository

MIN_ROOT_PREFIX = 12

_ROOT = re.compile(rf"[0-9a-f]{{{MIN_ROOT_PREFIX},64}}")


@dataclass(frozen=True)
class Listed:
    """One release as its signed target has it.

    Args:
        root: its release root.
        length: bytes of its manifest.
        digest: SHA3-256 of its manifest, hex.
        custom: the rest.
    """

    root: str
    length: int
    digest: str
    custom: Custom

    @property
    def title(self) -> str:
        """Return how people call it."""
        return f"{self.custom.name} {self.custom.version} ({self.custom.arch})"

    def target(self) -> TargetFile:
        """Return its form in the metadata."""
        hashes = {listing.HASH: self.digest}
        return TargetFile(
            self.length, hashes, f"releases/{self.root}.json", {"custom": self.custom.to_dict()}
        )


def listed(releases: Targets) -> list[Listed]:
    """Return the releases of a document, by name, precedence of version, and architecture."""
    found = [
        Listed(listing.root_of(path), target.length, target.hashes[listing.HASH], listing.custom_of(target))
        for path, target in releases.targets.items()
    ]
    return sorted(found, key=lambda one: (one.custom.name, version.key(one.custom.version), one.custom.arch))


def check_channels(channels: Sequence[str]) -> tuple[str, ...]:
    """Return the channels sorted and without repetition; raises InputError where one is not a name."""
    for channel in channels:
        if not listing.is_name(channel):
            raise InputError(f"{channel!r} is not a channel: a-z, 0-9 and -, a letter first", key="--channel")
    return tuple(sorted(set(channels)))


def find(repository: Repository, reference: str, name: str | None = None) -> list[Listed]:
    """Return the releases that a version or a root names: one, or one for each architecture.

    Args:
        repository: where to look, staged changes included.
        reference: a version, or a root or its beginning (12 digits or more).
        name: the release line; needed where several lines have the version.

    Raises:
        NotFoundError: there is none.
        InputError: several release lines have it.
    """
    releases = [
        one for one in listed(repository.effective(RELEASES).signed) if name in (None, one.custom.name)
    ]
    found = [one for one in releases if one.custom.version == reference]
    if not found and _ROOT.fullmatch(reference):
        found = [one for one in releases if one.root.startswith(reference)]
    if not found:
        known = ", ".join(sorted({one.custom.version for one in releases})) or "none"
        raise NotFoundError(
            f"there is no release {reference}{f' of {name}' if name else ''}; there are: {known}"
        )
    lines = sorted({one.custom.name for one in found})
    if len(lines) > 1:
        raise InputError(f"{reference} is a release of {' and of '.join(lines)}: say which", key="--name")
    return found


def promote(repository: Repository, reference: str, channel: str, *, name: str | None = None) -> Change:
    """Stage that a release is in one more channel, byte for byte what it is (decision 0002).

    Raises:
        NotFoundError, InputError: see `find`; the channel is not a name.
    """
    (wanted,) = check_channels([channel])
    with repository.locked():
        draft: Targets = repository.draft(RELEASES)
        for one in find(repository, reference, name):
            channels = check_channels([*one.custom.channels, wanted])
            put(draft, replace(one, custom=replace(one.custom, channels=channels)))
        return repository.stage(RELEASES, draft)


def withdraw(
    repository: Repository, reference: str, *, name: str | None = None, channel: str | None = None
) -> Change:
    """Stage that a release is taken out of a channel, or out of the repository.

    Nodes that run it keep it. To keep others from going back to it, raise the floor.

    Raises:
        NotFoundError, InputError: see `find`; the release is not in the channel.
    """
    with repository.locked():
        draft: Targets = repository.draft(RELEASES)
        for one in find(repository, reference, name):
            if channel is None:
                del draft.targets[f"releases/{one.root}.json"]
                continue
            if channel not in one.custom.channels:
                raise InputError(f"{one.title} is not in the channel {channel}", key="--channel")
            left = tuple(item for item in one.custom.channels if item != channel)
            put(draft, replace(one, custom=replace(one.custom, channels=left)))
        change = repository.stage(RELEASES, draft)
        publication.prune_staged(
            repository, {one.root for one in listed(repository.effective(RELEASES).signed)}
        )
        return change


def set_floor(repository: Repository, name: str, lowest: str) -> Change:
    """Stage the lowest version of a release line that nodes may go to.

    Raises:
        InputError: not a name or not a version, lower than the floor that is published, or above every
            release.
    """
    if not listing.is_name(name):
        raise InputError(f"{name!r} is not a name of releases", key="NAME")
    wanted = version.key(lowest)
    with repository.locked():
        draft: Targets = repository.draft(RELEASES)
        published = repository.published().releases
        floor: dict[str, Any] = dict(draft.unrecognized_fields[listing.SECURITY_FLOOR])
        before = {} if published is None else published.signed.unrecognized_fields[listing.SECURITY_FLOOR]
        if name in before and wanted < version.key(before[name]):
            raise InputError(f"the floor of {name} is {before[name]} and only ever rises", key="VERSION")
        versions = [one.custom.version for one in listed(draft) if one.custom.name == name]
        if not any(version.key(one) >= wanted for one in versions):
            raise InputError(
                f"no release of {name} is {lowest} or later: nodes could go nowhere", key="VERSION"
            )
        floor[name] = lowest
        draft.unrecognized_fields[listing.SECURITY_FLOOR] = floor
        return repository.stage(RELEASES, draft)


def put(releases: Targets, one: Listed) -> None:
    """List a release in a document, in place of an earlier listing of the same root."""
    releases.targets[f"releases/{one.root}.json"] = one.target()


def table(repository: Repository) -> list[dict[str, Any]]:
    """Return one row for each release, published or staged, with the bytes of its archive and its patches."""
    repository.require()
    published = repository.published().releases
    public = {} if published is None else {one.root: one for one in listed(published.signed)}
    staged = repository.staged(RELEASES)
    effective = public if staged is None else {one.root: one for one in listed(staged.document.signed)}
    rows = []
    for root, one in {**public, **effective}.items():
        state = "published" if public.get(root) == effective.get(root) else "staged"
        rows.append(
            {
                "name": one.custom.name,
                "version": one.custom.version,
                "arch": one.custom.arch,
                "channels": list(one.custom.channels),
                "root": root,
                "state": "withdrawn" if root not in effective else state,
                "files": _file_count(repository, root),
                "unpacked": one.custom.unpacked,
                "archive": sum(one.custom.archive),
                "manifest": one.custom.manifest,
                "patches": _patches(repository, root, {**public, **effective}),
            }
        )
    return rows


def _file_count(repository: Repository, root: str) -> int:
    return len(load_manifest(repository, root).files)


def load_manifest(repository: Repository, root: str) -> Manifest:
    """Return the manifest of a release, staged or published.

    Raises:
        DamagedError: its file is missing, or is another manifest than its name says.
    """
    path = repository.find(f"releases/{root}.json")
    if path is None:
        raise DamagedError(f"releases/{root}.json is missing")
    found = Manifest.parse(path.read_bytes())
    if found.root != root:
        raise DamagedError(f"{path} is the manifest of {found.root}")
    return found


def _patches(repository: Repository, root: str, known: dict[str, Listed]) -> list[dict[str, Any]]:
    sizes: dict[str, int] = {}
    for base in (repository.public, repository.staged_dir):
        for path in (base / "patches").glob(f"*-{root}.*"):
            old = path.name[: len(root)]
            sizes[old] = sizes.get(old, 0) + path.stat().st_size
    rows = [
        {"root": old, "version": known[old].custom.version if old in known else None, "bytes": size}
        for old, size in sizes.items()
    ]
    return sorted(rows, key=lambda row: str(row["root"]))
