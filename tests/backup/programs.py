"""Takes restic and its rest-server out of the node image: Debian 12 has an old one, and lacks the other.

Both need nothing but the C library, and that of Debian 13 is older than what they ask for on Debian 12.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bed import image
from bed.command import one_at_a_time, run

BUILD = Path(__file__).resolve().parents[2] / "build"
PROGRAMS = ("restic", "restic-rest-server")


def ensure() -> Path:
    """Return a folder with the programs of today's node image, which is built where it is missing."""
    tag = image.tag("trixie")
    folder = BUILD / "programs" / tag.rpartition(":")[2]
    with one_at_a_time(Path(__file__)):
        if not folder.is_dir():
            image.ensure("trixie", print)
            new = folder.with_name(f".{folder.name}")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            root = Path(run(["podman", "image", "mount", tag]).stdout.strip())
            try:
                for name in PROGRAMS:
                    shutil.copy2(root / "usr/bin" / name, new / name)
            finally:
                run(["podman", "image", "unmount", tag])
            new.rename(folder)
    return folder
