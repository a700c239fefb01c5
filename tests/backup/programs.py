"""Takes restic and its rest-server out of a node image: Debian 12 has an old one, and lacks the other.

Both need nothing but the C library, and that of Debian 13 is older than what they ask for on Debian 12. Any
image of Debian 13 that is there will do, since other changes of its recipe do not change them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bed import image
from bed.command import one_at_a_time, run

PROGRAMS = ("restic", "restic-rest-server")
FOLDER = Path(__file__).resolve().parents[2] / "build/programs/trixie"


def ensure() -> Path:
    """Return a folder with the programs; the node image is built where none is there yet."""
    with one_at_a_time(Path(__file__)):
        if not FOLDER.is_dir():
            _take(_present() or image.ensure("trixie", print))
    return FOLDER


def _present() -> str | None:
    """Return the tag of an image of Debian 13 that has the programs."""
    listed = run(
        ["podman", "images", "--format", "{{.Repository}}:{{.Tag}}", image.REPOSITORY]
    ).stdout.split()
    for tag in (one for one in listed if ":trixie-" in one):
        with _files(tag) as root:
            if all((root / "usr/bin" / name).is_file() for name in PROGRAMS):
                return tag
    return None


@contextmanager
def _files(tag: str) -> Iterator[Path]:
    """Have the files of an image for a block."""
    root = Path(run(["podman", "image", "mount", tag]).stdout.strip())
    try:
        yield root
    finally:
        run(["podman", "image", "unmount", tag])


def _take(tag: str) -> None:
    new = FOLDER.with_name(f".{FOLDER.name}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    with _files(tag) as root:
        for name in PROGRAMS:
            shutil.copy2(root / "usr/bin" / name, new / name)
    new.rename(FOLDER)
