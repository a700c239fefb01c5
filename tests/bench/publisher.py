"""Publishes the releases of the benchmarks by the publisher's own commands, with keys made for the run."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any

from . import process
from .figures import ROOT

HOLDERS = ("alice", "bob", "carol")
ENVIRONMENT = {"PYTHONPATH": str(ROOT / "runtime")}


class Publisher:
    """A repository whose releases three holders sign, two of whom must agree.

    Args:
        folder: A new folder for keys, repository and mirror.
        level: zstd level of archives and patches.
    """

    def __init__(self, folder: Path, level: int = 19) -> None:
        folder.mkdir(parents=True)
        self._keys = folder / "keys"
        self._keys.mkdir(mode=0o700)
        self.repository = folder / "repository"
        self.mirror = folder / "mirror"
        self.mirror.mkdir()
        self._passphrase = self._keys / "passphrase"
        self._passphrase.touch(mode=0o600)
        self._passphrase.write_text(f"{secrets.token_urlsafe(24)}\n", "ascii")
        for name in (*HOLDERS, "online"):
            self._call("key", "new", "--out", str(self._keys / f"{name}.key"), *self._passphrase_option())
        public = [str(self._keys / f"{name}.pub") for name in HOLDERS]
        self._call(
            "init",
            str(self.repository),
            *(f"--root-key={path}" for path in public),
            *(f"--releases-key={path}" for path in public),
            *("--root-threshold", "2", "--releases-threshold", "2"),
            *("--online-key", str(self._keys / "online.key"), *self._passphrase_option()),
            *("--level", str(level)),
        )
        self._sign("root", "targets", "releases")
        self.publish()

    @property
    def trust_root(self) -> bytes:
        """The root of trust that nodes pin."""
        return (self.mirror / "metadata/1.root.json").read_bytes()

    def build(self, tree: Path, version: str) -> dict[str, Any]:
        """Make a release of a tree, have it signed, and return what the publisher says of it."""
        built = self._call(
            "build", str(self.repository), f"--tree={tree}", "--name=kos", f"--version={version}"
        )
        self._sign("releases")
        self.publish()
        return built

    def publish(self) -> None:
        """Make what is signed visible on the mirror."""
        self._call("publish", str(self.repository), f"--to={self.mirror}", *self._passphrase_option())

    def _sign(self, *roles: str) -> None:
        for role in roles:
            for name in HOLDERS[:2]:
                key = str(self._keys / f"{name}.key")
                self._call(
                    "sign", str(self.repository), f"--role={role}", f"--key={key}", *self._passphrase_option()
                )

    def _passphrase_option(self) -> tuple[str, str]:
        return "--passphrase-file", str(self._passphrase)

    def _call(self, *arguments: str) -> dict[str, Any]:
        verb = [sys.executable, "-m", "kosnode.publish", *arguments, "--json"]
        answer = json.loads(process.run(verb, env=ENVIRONMENT).stdout)
        result: dict[str, Any] = answer["result"]
        return result
