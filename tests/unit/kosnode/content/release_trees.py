"""Trees, manifests and archives that the tests of releases and slots begin with."""

from __future__ import annotations

import io
import os
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from kosnode import archive, files, merkle
from kosnode.errors import InputError
from kosnode.manifest import Entry, FileEntry, LinkEntry, Manifest, check_path
from kosnode.paths import NodePaths
from kosnode.slot import Slots

ROUNDS = int(os.environ.get("KOS_ROUNDS", "25"))
rounds = settings(
    max_examples=ROUNDS,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

Content = bytes | str
"""Bytes of a file, or the target of a link."""

APP: dict[str, Content] = {
    "bin/kosd": b"#!/bin/sh\nexec python3 -m kosd\n",
    "lib/app/__init__.py": b"",
    "lib/app/core.py": b"print('core')\n" * 300,
    "lib/current": "app",
    "share/notes": b"first\n",
}


def write_tree(tree: Path, contents: Mapping[str, Content]) -> Path:
    """Write files and links; what lies in bin/ is executable."""
    for path, content in contents.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.symlink_to(content)
        else:
            target.write_bytes(content)
            target.chmod(0o755 if path.startswith("bin/") else 0o644)
    return tree


def release(
    tree: Path, contents: Mapping[str, Content] = APP, version: str = "1.0.0", **meta: Any
) -> Manifest:
    """Write a tree and return its manifest."""
    return Manifest.build(write_tree(tree, contents), name="kos", version=version, **meta)


def packed(manifest: Manifest, tree: Path, part: archive.Part | None = None) -> bytes:
    """Return the archive of a release that has one part, or of one of its parts."""
    out = io.BytesIO()
    archive.write_part(manifest, part or only_part(manifest), tree, out)
    return out.getvalue()


def only_part(manifest: Manifest) -> archive.Part:
    (part,) = archive.parts(manifest)
    return part


def file(path: str, content: bytes = b"x", mode: str = "0444") -> dict[str, Any]:
    """Return an entry of `files` for a file."""
    return FileEntry(path, mode, len(content), merkle.sha3(content).hex()).as_json()


def link(path: str, target: str) -> dict[str, Any]:
    """Return an entry of `files` for a link."""
    return LinkEntry(path, target).as_json()


def signed_over(document: Mapping[str, Any]) -> bytes:
    """Return a release.json whose hashes are right, whatever else is wrong with it."""
    document = dict(document)
    entries: list[Entry] = [
        LinkEntry(e["path"], e["target"])
        if e["type"] == "link"
        else FileEntry(e["path"], e["mode"], e["size"], e["sha3"])
        for e in document["files"]
    ]
    tree = merkle.tree_hash((entry.path, entry.hash()) for entry in entries)
    rest = {key: value for key, value in document.items() if key not in ("root", "tree", "files")}
    document["tree"] = tree.hex()
    document["root"] = merkle.release_root(tree, files.canonical(rest)).hex()
    return files.canonical(document)


def document(*entries: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the value of a release.json with these files, valid but for what is given."""
    plain: dict[str, Any] = {
        "format": 1,
        "name": "kos",
        "version": "1.0.0",
        "arch": "any",
        "files": sorted(entries or [file("a")], key=lambda entry: str(entry["path"]).encode()),
        "units": [],
        "compat": {},
        "migrations": [],
        "sync_risk": "none",
        "breaking": [],
        "behavioral": False,
        "health": [],
    }
    return {**plain, **changes}


@dataclass
class Store:
    """A node's slots, and the trees that they were made from."""

    base: Path
    trees: dict[str, Path] = field(default_factory=dict)

    @property
    def paths(self) -> NodePaths:
        return NodePaths(self.base / "node")

    @property
    def slots(self) -> Slots:
        return Slots(self.paths)

    def prepared(self, contents: Mapping[str, Content], version: str) -> Manifest:
        """Write a tree that is no slot yet."""
        manifest = release(self.base / f"tree-{version}", contents, version)
        self.trees[manifest.root] = self.base / f"tree-{version}"
        return manifest

    def staged(
        self,
        contents: Mapping[str, Content] = APP,
        version: str = "1.0.0",
        extra: Callable[[Path], None] | None = None,
    ) -> Manifest:
        """Make a slot."""
        manifest = self.prepared(contents, version)
        self.stage(manifest, extra)
        return manifest

    def stage(self, manifest: Manifest, extra: Callable[[Path], None] | None = None) -> Path:
        with self.slots.begin(manifest) as building:
            for part in archive.parts(manifest):
                data = packed(manifest, self.trees[manifest.root], part)
                archive.read_part(manifest, part, io.BytesIO(data), building)
            return building.commit(extra)

    def tree(self, manifest: Manifest) -> Path:
        return self.paths.slot(manifest.root) / "tree"

    def good(self, manifest: Manifest) -> Callable[[FileEntry], Iterator[bytes]]:
        """Return what mends a slot, as a mirror would."""

        def repair(entry: FileEntry) -> Iterator[bytes]:
            yield (self.trees[manifest.root] / entry.path).read_bytes()

        return repair

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.paths.releases.iterdir() if path.name.startswith("."))


def flip(path: Path, position: int = 0) -> None:
    """Flip a bit of a file in a slot without changing its inode, mode or size, as a bad disk would."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    with path.open("r+b") as stream:
        stream.write(data)
    path.chmod(mode & 0o7777)


def forked(work: Callable[[], object]) -> int:
    """Do work in a process of its own; return its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _usable(name: str) -> bool:
    try:
        check_path(name, "name")
    except InputError:
        return False
    return True


_letters = st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="/\\")
names = st.one_of(
    st.sampled_from(["a", "b.txt", "long-" * 22, "é", "データ", "sp ace", "x" * 101, "-rf"]),
    st.text(_letters, min_size=1, max_size=12).map(lambda text: unicodedata.normalize("NFC", text)),
).filter(_usable)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Content]:
    """Draw a tree: nested folders, empty and executable files, long and Unicode names, links."""
    contents: dict[str, Content] = {}
    folded: dict[str, str] = {}
    wanted = draw(st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=8))
    for parts in wanted:
        prefixes = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        path = prefixes[-1]
        clash = any(folded.setdefault(_fold(prefix), prefix) != prefix for prefix in prefixes)
        below = any(other.startswith(f"{path}/") for other in contents)
        if clash or below or any(prefix in contents for prefix in prefixes) or len(path.encode()) > 1000:
            continue
        if draw(st.integers(0, 4)) == 0:
            ups = "../" * draw(st.integers(0, path.count("/")))
            contents[path] = ups + draw(names)
        else:
            contents[path] = draw(st.one_of(st.binary(max_size=1200), st.just(b""), st.just(bytes(512))))
    return contents or {"a": b""}


def _fold(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
