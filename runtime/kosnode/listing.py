"""How the role `releases` lists a release: path and hash of its target, and `custom`, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from tuf.api.metadata import TargetFile

from . import files, version
from .errors import InputError

HASH = "sha3_256"
SECURITY_FLOOR = "x-kos-security-floor"

_TARGET_PATH = re.compile(r"releases/([0-9a-f]{64})\.json")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_ARCHITECTURES = ("any", "x86_64", "aarch64")


@dataclass(frozen=True)
class Custom:
    """What the signed target of a release says beside its hash (docs/architecture.md, Mirror).

    Args:
        name: release line.
        version: SemVer.
        arch: `any`, `x86_64` or `aarch64`.
        channels: channels it is promoted to.
        archive: compressed bytes of each part of the archive.
        manifest: compressed bytes of the manifest.
        unpacked: sum of the sizes of its files in bytes.
    """

    name: str
    version: str
    arch: str
    channels: tuple[str, ...]
    archive: tuple[int, ...]
    manifest: int
    unpacked: int

    def to_dict(self) -> dict[str, Any]:
        """Return the form in the metadata."""
        values = {name: getattr(self, name) for name in KEYS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


KEYS = tuple(one.name for one in fields(Custom))


def root_of(path: str) -> str:
    """Return the release root in a target's path `releases/ROOT.json`; raises InputError."""
    match = _TARGET_PATH.fullmatch(path)
    if match is None:
        raise InputError("its path is not releases/ROOT.json", key="targets")
    return match[1]


def custom_of(target: TargetFile) -> Custom:
    """Read what the target of a release says. Keys that are not known here are of a later publisher.

    Raises:
        InputError: another hash than SHA3-256, a key that is missing or of the wrong kind, a manifest that
            is too large.
    """
    if set(target.hashes) != {HASH}:
        raise _refused(f"its hashes are {', '.join(sorted(target.hashes))}, only {HASH} is allowed")
    if target.length > files.MAX_JSON_BYTES:
        raise _refused(f"the manifest has {target.length} bytes, at most {files.MAX_JSON_BYTES} are allowed")
    custom = target.custom
    if not isinstance(custom, dict):
        raise _refused("it has no custom")
    for key in KEYS:
        if key not in custom:
            raise _refused(f"{key!r} is missing in custom")
    if not is_name(custom["name"]):
        raise _refused("custom.name is not the name of a release line")
    if custom["arch"] not in _ARCHITECTURES:
        raise _refused(f"custom.arch is not one of {', '.join(_ARCHITECTURES)}")
    if not isinstance(custom["version"], str):
        raise _refused("custom.version is not text")
    version.key(custom["version"])
    channels, archive = custom["channels"], custom["archive"]
    if not (isinstance(channels, list) and all(is_name(channel) for channel in channels)):
        raise _refused("custom.channels is not a list of names")
    if not (isinstance(archive, list) and archive and all(_is_size(size) for size in archive)):
        raise _refused("custom.archive is not a list of sizes")
    if not (_is_size(custom["manifest"]) and _is_size(custom["unpacked"])):
        raise _refused("custom.manifest and custom.unpacked are not sizes")
    values = {key: custom[key] for key in KEYS}
    return Custom(**{**values, "channels": tuple(channels), "archive": tuple(archive)})


def is_name(value: object) -> bool:
    """Say whether a value is what a release line or a channel can be called."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _refused(rule: str) -> InputError:
    return InputError(rule, key="custom")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
