# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of backups on the controller: made once, one file each, readable by nobody else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.kos.fleet.plugins.plugin_utils import _whole_file

_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class SecretError(Exception):
    """A secret cannot be had; the message names the file, never what is in it."""


class Secrets:
    """The folder with the secrets of all nodes, a folder for each.

    Args:
        folder: where; made where it is missing.
        write: whether what is missing is made and kept. Else it is made up, for a plan.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        self._folder = folder
        self._write = write
        self.made: list[Path] = []

    def recovery(self, node: str) -> str:
        """Return the recovery key of a node's repositories."""
        return self._get(node, "recovery.key")

    def held(self, node: str, name: str) -> str:
        """Return a secret that has to be there; none is made.

        Args:
            node: whose.
            name: of its file, such as `recovery.key`.
        """
        path = self._path(node, name)
        with _told(path):
            if not path.exists():
                raise SecretError(f"{path} is not there; role kos.fleet.backup makes it")
            return _read(path)

    def public_keys(self, node: str) -> list[str]:
        """Return the public keys that a node has signed with, oldest first; none where none is known."""
        path = self._path(node, "node.pub")
        with _told(path):
            return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def note_public_key(self, node: str, key: str) -> None:
        """Keep a public key of a node, after those that it had before."""
        known = self.public_keys(node)
        path = self._path(node, "node.pub")
        if not self._write or key in known:
            return
        with _told(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _whole_file.write(path, "".join(f"{one}\n" for one in [*known, key]).encode(), mode=0o600)

    def repository(self, node: str, name: str) -> str:
        """Return the node's own password of one of its repositories."""
        return self._get(node, f"{name}.password")

    def rest(self, node: str) -> str:
        """Return the password that a node shows to rest-servers."""
        return self._get(node, "rest-server")

    def _path(self, node: str, name: str) -> Path:
        if not _NODE.fullmatch(node):
            raise SecretError(f"{node!r} cannot be the name of a folder with secrets")
        return self._folder / node / name

    def _get(self, node: str, name: str) -> str:
        path = self._path(node, name)
        with _told(path):
            if not path.exists():
                self.made.append(path)
                if not self._write:
                    return secrets.token_urlsafe(32)
                _make(path)
            return _read(path)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Name the file where the system refuses something."""
    try:
        yield
    except OSError as error:
        raise SecretError(f"{path} cannot be had: {error.strerror}") from None


def digest(password: str) -> str:
    """Return what an htpasswd file says of a password.

    A fast digest does, since the password is 32 random bytes that nobody can guess.
    """
    sha1 = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return f"{{SHA}}{base64.b64encode(sha1).decode()}"


def _make(path: Path) -> None:
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Whoever comes first has made it; a task that works for another host takes what is there.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        # The only copy of a recovery key has to outlive a power cut.
        holder = os.open(path.parent, os.O_RDONLY)
        os.fsync(holder)
        os.close(holder)
    finally:
        fresh.unlink()


def _read(path: Path) -> str:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise SecretError(f"{path} can be read by others (mode {mode:04o}); it has to be 0600")
    text = path.read_text(encoding="utf-8").strip()
    if not text or "\n" in text:
        raise SecretError(f"{path} has to hold one line")
    return text
