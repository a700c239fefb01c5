"""A mirror with real releases in it, and a node that stages them, for tests of the transport."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unit.kosnode.trust.node import Node
from unit.kosnode.trust.tiny import TinyRepository

from kosnode import archive, patch
from kosnode.fetch import Mirror
from kosnode.manifest import Manifest
from kosnode.slot import Slots
from kosnode.transfer import Transfer, archive_name, patch_name

Tree = Mapping[str, bytes]
LEVEL = 1


class Publisher:
    """Puts releases on a mirror as docs/architecture.md says.

    Args:
        folder: of the mirror; trees are kept beside it.
    """

    def __init__(self, folder: Path) -> None:
        self.repository = TinyRepository(folder)
        self.folder = folder
        for name in ("releases", "patches"):
            (folder / name).mkdir()
        self._trees = folder.with_name("trees")

    def publish(
        self, version: str, tree: Tree, *, patches_from: Sequence[Manifest] = (), **signed: Any
    ) -> Manifest:
        """Build a release, put its files on the mirror, and sign it.

        Args:
            version: SemVer.
            tree: content of each file by path.
            patches_from: older releases that patches are made against.
            signed: other values of what is signed of it.
        """
        directory = self._write(version, tree)
        manifest = Manifest.build(directory, name="kos", version=version)
        parts = archive.parts(manifest)
        plain = [self._part(manifest, part, directory) for part in parts]
        packed = [compressed(data) for data in plain]
        for part, data in zip(parts, packed, strict=True):
            self.put(archive_name(manifest.root, part.index, len(parts)), data)
        document = manifest.canonical()
        self.put(f"releases/{manifest.root}.json", document)
        self.put(f"releases/{manifest.root}.json.zst", compressed(document))
        for old in patches_from:
            made = patch.make(old.canonical(), document, LEVEL)
            self.put(f"patches/{old.root}-{manifest.root}.json.zst", made)
            for part, data in zip(parts, plain, strict=True):
                before = archive.old_bytes(old, part, self._trees / old.version)
                name = patch_name(old.root, manifest.root, part.index, len(parts))
                self.put(name, patch.make(before, data, LEVEL))
        sizes = {
            "archive": [len(data) for data in packed],
            "manifest": len(compressed(document)),
            "unpacked": manifest.size,
        }
        self.repository.release(version, root=manifest.root, document=document, **{**sizes, **signed})
        self.repository.publish()
        return manifest

    def put(self, path: str, data: bytes) -> None:
        (self.folder / path).write_bytes(data)

    def size(self, path: str) -> int:
        return (self.folder / path).stat().st_size

    def _write(self, version: str, tree: Tree) -> Path:
        directory = self._trees / version
        for path, content in tree.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
        return directory

    @staticmethod
    def _part(manifest: Manifest, part: archive.Part, directory: Path) -> bytes:
        out = io.BytesIO()
        archive.write_part(manifest, part, directory, out)
        return out.getvalue()


class Station(Node):
    """A node that stages releases. Each call is a new process: nothing is remembered but what is on disk."""

    @property
    def slots(self) -> Slots:
        return Slots(self.paths)

    def transfer(self, version: str, *mirrors: Mirror, **options: Any) -> Transfer:
        """Refresh trust from `mirrors`, and begin to bring a release."""
        trust = self.trust(*mirrors)
        refreshed = trust.refresh()
        release = trust.resolve(version, "kos", "stable", "x86_64")
        return Transfer(release, self.slots, trust.mirrors, refreshed=refreshed, **options)

    def make_current(self, root: str) -> None:
        self.paths.current.unlink(missing_ok=True)
        self.paths.current.symlink_to(f"releases/{root}")

    def tree(self, root: str) -> dict[str, bytes]:
        """Return what a slot's tree holds."""
        top = self.paths.slot(root) / "tree"
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def compressed(data: bytes) -> bytes:
    out = io.BytesIO()
    patch.compress(io.BytesIO(data), out, len(data), LEVEL)
    return out.getvalue()
