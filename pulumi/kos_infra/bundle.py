"""The bundle of kosctl that nodes fetch from their mirror, checked before anything refers to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kosnode import files
from kosnode.errors import InputError

PREFIX = "kosctl"
"""Folder of the mirror in which bundles are; releases are beside it."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on this machine.

    Args:
        path: the archive.
        version: the folder that it becomes below /opt/kos.
        sha256: of the archive, hex.
        size: in bytes.
    """

    path: Path
    version: str
    sha256: str
    size: int

    @property
    def key(self) -> str:
        """Where it is on a mirror."""
        return f"{PREFIX}/{self.path.name}"


def find(folder: Path, key: str) -> Bundle:
    """Return the bundle that `make collection` left in a folder.

    Args:
        folder: holds `kosctl.json` and the archive that it describes.
        key: the setting that names the folder, for messages.

    Raises:
        InputError: there is none, or its bytes are not those that were described.
    """
    description = folder / "kosctl.json"
    try:
        said = files.read_json(description, limit=4096)
        path = folder / said["file"]
        data = path.read_bytes()
        bundle = Bundle(path, said["version"], said["sha256"], len(data))
    except FileNotFoundError as error:
        raise InputError(
            f"{key}: {error.filename} is not there; `make collection` makes it", key=key
        ) from None
    except (KeyError, TypeError):
        raise InputError(f"{key}: {description} does not describe a bundle of kosctl", key=key) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{key}: {description} cannot be read: {error}", key=key) from None
    found = hashlib.sha256(data).hexdigest()
    if found != bundle.sha256:
        raise InputError(f"{key}: {path} has the digest {found}, not {bundle.sha256}", key=key)
    return bundle
