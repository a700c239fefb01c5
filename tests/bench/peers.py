"""The peers of the transfer benchmarks: a full archive, casync, OSTree static deltas, zstd on it all."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import zstandard

from . import process
from .process import Cost


def full_archive(tree: Path) -> int:
    """Return the bytes of a deterministic tar of a tree, as `zstd -19` makes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, tree)
    return len(zstandard.ZstdCompressor(level=19).compress(buffer.getvalue()))


def casync(old: Path, new: Path, work: Path) -> int:
    """Return the bytes that casync fetches for `new` where `old` is there: index and missing chunks."""
    work.mkdir(parents=True)
    store = work / "store.castr"

    def make(tree: Path, name: str) -> Path:
        index = work / f"{name}.caidx"
        options = ["--without=all", "--with=symlinks", "--store", str(store)]
        _run("casync", "make", *options, str(index), str(tree))
        return index

    make(old, "old")
    before = set(store.rglob("*.cacnk"))
    index = make(new, "new")
    return index.stat().st_size + sum(path.stat().st_size for path in set(store.rglob("*.cacnk")) - before)


def ostree(old: Path, new: Path, work: Path) -> int:
    """Return the bytes of OSTree's static delta from `old` to `new`, in one file with its metadata."""
    work.mkdir(parents=True)
    repository = f"--repo={work / 'repository'}"

    def commit(tree: Path) -> str:
        return _run("ostree", "commit", repository, "--branch=main", "--canonical-permissions", str(tree))

    _run("ostree", "init", repository, "--mode=archive")
    first, second = commit(old), commit(new)
    delta = work / "delta"
    _run(
        *("ostree", "static-delta", "generate", repository, f"--from={first}", f"--to={second}"),
        *("--inline", "--min-fallback-size=0", f"--filename={delta}"),
    )
    return delta.stat().st_size


def whole_patch(old: Path, new: Path, work: Path) -> Cost:
    """Return what undoing one `zstd -3 --patch-from` of the whole archive takes."""
    work.mkdir(parents=True)
    for tree, name in ((old, "old.tar"), (new, "new.tar")):
        with tarfile.open(work / name, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            _add(tar, tree)
    patch, result = work / "patch.zst", work / "result.tar"
    prefix = f"--patch-from={work / 'old.tar'}"
    _run("zstd", "--quiet", "-3", "--long=31", prefix, str(work / "new.tar"), "-o", str(patch))
    undo = ["zstd", "--quiet", "-d", "--long=31", "--memory=2048MB", prefix, str(patch), "-o", str(result)]
    return process.run(undo).cost


def _add(tar: tarfile.TarFile, tree: Path) -> None:
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            entry = tarfile.TarInfo(str(path.relative_to(tree)))
            entry.size = path.stat().st_size
            entry.mode = 0o444
            with path.open("rb") as stream:
                tar.addfile(entry, stream)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
