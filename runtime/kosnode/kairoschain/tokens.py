"""The admin token: one, made once, replaced before it expires; and which tokens a store knows (K25).

The store keeps digests alone, and its form is the application's own affair: nothing is taken for granted here
but that the SHA-256 of a token stands in the entry of that token.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import KosError
from ..host import Change, Owned, System
from . import layout
from .application import ACCOUNT, Application

_DAY_S = 86_400
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True)
class AdminToken:
    """One token of the role owner, in a file of root's and in the store of the data directory.

    Args:
        path: the file.
        spare: where a new one is written to before it is in its place.
        data: the data directory.
        application: makes it.
        days: age at which it is replaced.
    """

    path: Path
    spare: Path
    data: Path
    application: Application
    days: int

    def plan(self, system: System) -> list[Change]:
        del system
        if not self.path.is_file():
            return [Change("make an admin token")]
        if digest(self.path) not in known(self.data):
            return [Change("make another admin token: the server does not know the one that is here")]
        age = age_s(self.path) / _DAY_S
        if age > self.days:
            return [Change(f"replace the admin token, which is {age:.0f} days old")]
        return []

    def apply(self, system: System) -> None:
        # One that an earlier run made and did not put into its place is taken up.
        if not (self.spare.is_file() and digest(self.spare) in known(self.data)):
            self.spare.unlink(missing_ok=True)
            self.application.add_admin(self.data, self.spare)
        made = digest(self.spare)
        if made not in known(self.data):
            raise KosError(f"the token that {self.application.program.name} made is not in its store")
        if self.path.is_file() and digest(self.path) != made:
            revoke(self.data, digest(self.path), system)
        files.write_durable(self.path, self.spare.read_bytes().strip() + b"\n", mode=0o600)
        self.spare.unlink()


def digest(path: Path) -> str:
    """Return the digest of the token in a file."""
    return hashlib.sha256(path.read_bytes().strip()).hexdigest()


def age_s(path: Path) -> float:
    """Return the seconds since a token was written to its file."""
    return time.time() - path.stat().st_mtime


def known(data: Path) -> frozenset[str]:
    """Return the digests of all tokens in the store of a data directory."""
    with contextlib.suppress(FileNotFoundError):
        return frozenset(_DIGEST.findall((data / layout.TOKENS).read_text("utf-8", "replace")))
    return frozenset()


def revoke(data: Path, wanted: str, system: System) -> None:
    """Take the entry of a token out of the store. A server goes on knowing it until it is started again."""
    path = data / layout.TOKENS
    kept = _without(json.loads(path.read_text("utf-8")), wanted)
    files.write_durable(path, json.dumps(kept, indent=2, ensure_ascii=False).encode(), mode=0o600)
    Owned(ACCOUNT, ACCOUNT, 0o600).give(path, system)


def _without(value: Any, wanted: str) -> Any:
    if isinstance(value, dict):
        return {
            key: _without(item, wanted)
            for key, item in value.items()
            if key != wanted and not _is_entry(item, wanted)
        }
    if isinstance(value, list):
        return [_without(item, wanted) for item in value if item != wanted and not _is_entry(item, wanted)]
    return value


def _is_entry(value: Any, wanted: str) -> bool:
    return isinstance(value, dict) and wanted in [item for item in value.values() if isinstance(item, str)]
