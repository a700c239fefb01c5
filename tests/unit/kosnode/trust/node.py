"""A node for tests of trust: its paths, its pinned root, its clock, and what is left on its disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from unit.kosnode.trust.tiny import FixedClock, TinyRepository

from kosnode.fetch import FileMirror, Limits, Mirror
from kosnode.paths import NodePaths
from kosnode.trust import Trust

QUICK = Limits(timeout_s=0.4, total_s=3, rate=256, window_s=0.5)


class Node:
    """Each call of `trust` is a new process: nothing is remembered but what is on disk."""

    def __init__(self, root: Path, repository: TinyRepository) -> None:
        self.paths = NodePaths(root)
        self.clock = FixedClock()
        self.folder = repository.folder
        self.pin(repository.first_root)

    def pin(self, root: bytes) -> None:
        self.paths.pinned_root.parent.mkdir(parents=True, exist_ok=True)
        self.paths.pinned_root.write_bytes(root)

    def trust(self, *mirrors: Mirror) -> Trust:
        """Return the node's trust, with the repository's folder as its mirror where none is named."""
        return Trust(self.paths, mirrors or [folder_mirror(self.folder)], self.clock)

    @property
    def metadata(self) -> Path:
        return self.paths.trust / "metadata"

    def disk(self) -> dict[str, tuple[int, bytes]]:
        """Return inode and content of each file below the trust directory."""
        files = (path for path in self.paths.trust.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_ino, path.read_bytes()) for path in files}


def folder_mirror(folder: Path) -> FileMirror:
    return FileMirror(f"file://{folder}", QUICK)


def copy_of(folder: Path, name: str) -> Path:
    """Keep the state that a folder is in, as an old mirror would."""
    return Path(shutil.copytree(folder, folder.with_name(name)))
