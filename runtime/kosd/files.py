"""Writes a small file so that after a crash there is the old one or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Writes to a temporary name, syncs, renames and syncs the directory; a failed one leaves nothing."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def prove_writable(directory: Path) -> None:
    """Writes and removes a probe, the only proof that holds on a full, read-only or foreign directory.

    Raises OSError with the cause.
    """
    handle, probe = tempfile.mkstemp(prefix=".probe.", dir=directory)
    try:
        os.write(handle, b"kosd\n" * 64)
    finally:
        os.close(handle)
        Path(probe).unlink()
