"""From a tree of files to a staged release: manifest, archive, patches, and its line in the metadata."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.metadata import Targets

from .. import archive, authored, files, patch, schema, unit, version
from ..errors import DamagedError, InputError, TrustError
from ..manifest import Manifest
from ..metadata import RELEASES
from . import catalogue, documents, publication
from .catalogue import Listed
from .documents import Custom
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
    document.setdefault("arch", "any")
    if document["arch"] not in ARCHITECTURES:
        schema.refuse(where, "arch", f"must be one of {', '.join(ARCHITECTURES)}; it is {document['arch']!r}")
    if not isinstance(document["version"], str):
        schema.refuse(where, "version", "must be text")
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
        floor = draft.unrecognized_fields[documents.FLOOR].get(release["name"])
        if floor is not None and version.key(release["version"]) < version.key(floor):
            raise InputError(f"{release['version']} is below the security floor {floor}", key="version")
        with repository.work() as work:
            prepared = work / "tree"
            _copy_tree(tree, prepared, names)
            progress(f"hashing {tree}")
            manifest = Manifest.build(prepared, units=names, **release)
            known = catalogue.listed(draft)
            there = _existing(known, release, manifest.root)
            if there is not None:
                return Built(manifest.root, False, there.custom.archive, notes=_channel_notes(there, wanted))
            for folder in RELEASE_FOLDERS:
                (work / folder).mkdir()
            listed = _write_release(manifest, prepared, work / "releases", wanted, config, progress)
            patches = {}
            for old in _predecessors(known, release, config.patches):
                patches[old.root] = _write_patches(repository, old, listed, manifest, work, config, progress)
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
