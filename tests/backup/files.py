"""Trees of files for these tests, and what is compared of them."""

from __future__ import annotations

import os
import random
from pathlib import Path


def tree(folder: Path) -> Path:
    """Make a small tree and return it."""
    data = folder / "data"
    (data / "below").mkdir(parents=True)
    (data / "a").write_text("one")
    (data / "below/b").write_bytes(b"two" * 100_000)
    (data / "link").symlink_to("below//b")
    return data


def odd(folder: Path) -> Path:
    """Make a tree with every kind of name, mode and owner that a file system takes."""
    data = folder / "odd *[data]"
    data.mkdir()
    for name in (
        b"new\nline",
        b"not utf-8 \xff\xfe",
        b"back\\slash",
        b"\\xff",
        b" blank ",
        b"*",
        b"[a]?",
        b"#",
    ):
        Path(os.fsdecode(bytes(data) + b"/" + name)).write_bytes(name)
    (data / "empty folder").mkdir(mode=0o700)
    (data / "empty file").touch()
    (data / "set-id").write_text("x")
    (data / "set-id").chmod(0o4751)
    (data / "owned").write_text("y")
    os.chown(data / "owned", 12345, 23456)
    os.link(data / "owned", data / "hard link")
    (data / "dangling").symlink_to("/nowhere/../at all")
    os.mkfifo(data / "pipe")
    (data / "old").write_text("z")
    os.utime(data / "old", ns=(1, 1_000_000_007))
    return data


def noise(path: Path, size: int, seed: int) -> Path:
    """Write a file of bytes that do not compress."""
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def listing(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, object]:
    """Return kind, mode, owner, time and content of all that is below a folder, by path."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name in without:
            continue
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            # A Path would tidy the text up.
            content = os.readlink(path)  # noqa: PTH115
        elif path.is_file():
            content = (path.read_bytes(), status.st_mtime_ns)
        found[name] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found
