"""Who answers here: the node's current release, and the faults that a demo release carries on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kosd import documents

# A manifest names every file of its release, so it may be long.
MAX_MANIFEST_BYTES = 16 << 20
FAULT_PATH = Path("share/kosd/fault.json")


@dataclass(frozen=True)
class Release:
    """The release that `current` points to; `problem` says what could not be read."""

    root: str | None
    name: str | None
    version: str | None
    problem: str | None = None


def read_release(current: Path) -> Release:
    """Reads the release root from the link's target and name and version from the slot's release.json."""
    try:
        root = current.readlink().name
    except OSError as error:
        return Release(None, None, None, f"{current}: is no link to a slot: {error.strerror}")
    try:
        document = documents.read(current / "release.json", "release.schema.json", MAX_MANIFEST_BYTES)
    except documents.DocumentError as error:
        return Release(root, None, None, str(error))
    return Release(root, document["name"], document["version"])


@dataclass(frozen=True)
class Fault:
    """The fault-injection switch of demo releases: /health reports failing after so many seconds."""

    fail_health_after_s: float


def read_fault(tree: Path) -> Fault | None:
    """Returns the fault that the release's tree asks for, None without the file; raises DocumentError."""
    try:
        document = documents.read(tree / FAULT_PATH, "fault.schema.json")
    except documents.DocumentMissingError:
        return None
    return Fault(document["fail_health_after_s"])
