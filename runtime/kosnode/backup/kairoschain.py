"""The data of a KairosChain node: copied whole while the ledger's lock keeps appends off, and verified.

What is in a data directory and how appends lock it is that of versions 3.64.0 to 3.75.0.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DamagedError, DiskError, InputError, NotFoundError
from ..ledger import anchor, lock, verifier
from . import manifest, patterns, scan, tree
from .places import Places
from .source import Finding, Prepared, Restored, Root, Source

LEDGER = PurePosixPath("storage/blockchain.json")
# The class of each path (K05): the first that fits counts. What is skipped is made again by the application.
CLASSES = (
    ("storage/blockchain.json", "critical"),
    ("storage/*.lock", "skip"),
    ("storage/embeddings", "skip"),
    ("storage/export", "low"),
    ("storage/snapshots", "medium"),
    ("storage", "critical"),
    ("keys", "critical"),
    ("skills/action_log.jsonl", "low"),
    ("skills", "critical"),
    ("config", "high"),
    (".kairos_meta.yml", "high"),
    (".admin_token", "high"),
    ("knowledge", "high"),
    ("skillsets", "high"),
    ("context", "medium"),
)


class KairosChain(Source):
    """One data directory."""

    @property
    def path(self) -> Path:
        """The data directory; the table asks for it."""
        assert self.spec.path is not None, "the table is checked when it is read"
        return self.spec.path

    def check(self) -> None:
        tree.check_path(self.path, self.places, self.spec.name)
        if not (self.path / LEDGER).is_file():
            # The application would make an empty one and call it whole.
            raise NotFoundError(
                f"source {self.spec.name}: {self.path / LEDGER} is not there",
                key=f"sources.{self.spec.name}.path",
            )
        excluded = patterns.matcher(patterns.anchored(self.spec.exclude, [self.path]))
        if excluded(os.fspath(self.path / LEDGER)):
            raise InputError(f"source {self.spec.name}: the ledger is left out by a pattern", key="exclude")

    @contextlib.contextmanager
    def prepare(self, stage: Path) -> Iterator[Prepared]:
        self.check()
        copy = stage / self.path.name
        skipped = [f"{patterns.literal(str(self.path))}/{one}" for one, rank in CLASSES if rank == "skip"]
        excluded = patterns.matcher([*patterns.anchored(self.spec.exclude, [self.path]), *skipped])
        with lock.shared(self.path / LEDGER):
            _copy(scan.walk([Root(self.path, self.path)], excluded), self.path, copy)
        head = verifier.head(copy / LEDGER)
        yield Prepared([Root(self.path, copy)], head.as_dict())

    def rank_of(self, path: str) -> str | None:
        copy = Places.staged_data(self.places.stage(self.spec.name)) / self.path.name
        return class_of(path.removeprefix(manifest.relative(copy)).lstrip("/"))

    def verify(self, restored: Restored) -> list[Finding]:
        found = []
        for root in restored.roots:
            verdict = verifier.verify(root.stored / LEDGER)
            if not verdict.ok or verdict.head is None:
                found.append(Finding("ledger", verdict.sentence(), str(LEDGER)))
            elif verdict.head.as_dict() != dict(restored.heads):
                wanted = f"{restored.heads.get('index')}:{restored.heads.get('hash')}"
                text = f"the ledger ends with block {anchor.anchor_of(verdict.head)}, not {wanted}"
                found.append(Finding("head", text, str(LEDGER)))
        return found

    def went_back(self, before: Mapping[str, Any], prepared: Prepared) -> str | None:
        if "index" not in before:
            return None
        known = anchor.Anchor(int(before["index"]), str(before["hash"]))
        found = anchor.compare(prepared.roots[0].stored / LEDGER, known)
        if found.continues:
            return None
        if found.relation == anchor.CUT:
            return f"the ledger ends before block {known.index}, which it had"
        return f"the ledger has another block {known.index}: it is that of another node, or was made anew"


def class_of(name: str) -> str | None:
    """Return the class of a path below the data directory; None where the table has none for it."""
    path = PurePosixPath(name)
    for pattern, rank in CLASSES:
        depth = pattern.count("/") + 1
        if any(len(one.parts) == depth and one.match(pattern) for one in (path, *path.parents)):
            return rank
    return None


def _copy(found: scan.Walk, source: Path, target: Path) -> None:
    """Copy what a walk found, with owners, modes and times.

    Raises:
        DiskError: there is no room for it.
        DamagedError: something of it cannot be read.
    """
    if found.unread:
        path, why = next(iter(found.unread.items()))
        raise DamagedError(f"{path} cannot be read: {why}")
    needed = sum(one.status.st_size for one in found.seen.values() if stat.S_ISREG(one.status.st_mode))
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise DiskError(f"{target.parent}: {needed - free} bytes are missing for a copy of {source}")
    copies = [(target / Path(path).relative_to(source), one) for path, one in sorted(found.seen.items())]
    for copy, one in copies:
        if stat.S_ISDIR(one.status.st_mode):
            copy.mkdir(mode=0o700)
        elif stat.S_ISLNK(one.status.st_mode):
            # A Path would tidy the text up.
            os.symlink(os.readlink(one.path), copy)  # noqa: PTH115, PTH211
        else:
            shutil.copyfile(one.path, copy, follow_symlinks=False)
    # From within to without, since what is made in a directory changes its time.
    for copy, one in reversed(copies):
        os.lchown(copy, one.status.st_uid, one.status.st_gid)
        if not stat.S_ISLNK(one.status.st_mode):
            copy.chmod(stat.S_IMODE(one.status.st_mode))
        os.utime(copy, ns=(one.status.st_atime_ns, one.status.st_mtime_ns), follow_symlinks=False)
