"""The witness: keeps its end on another host, and talks to it from a node over SSH, HTTP or a mounted folder.

At the witness a node has a file of lines (`trail.py`), NODE.jsonl, which only grows, and a public key,
NODE.pub (one a line, where the node has had several), without which nothing is taken.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from .. import files
from ..errors import InputError, RefusedError, TrustError
from ..journal import JsonLines
from . import signing, trail
from .restic import BackendError
from .trail import Line

# What one answer may hold: some ten years of many sources.
MAX_BYTES = 64 * 1024 * 1024


class Witness(Protocol):
    """What a node wants of its witness."""

    def read(self, node: str, since: int) -> list[Line]:
        """Return the lines after a number, oldest first; raises BackendError or RefusedError."""

    def append(self, node: str, line: Line) -> None:
        """Add a line; raises BackendError, or RefusedError where it does not continue the chain."""


class Folder:
    """The witness's own side.

    Args:
        path: the folder; what is in it belongs to the account of the witness.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def register(self, node: str, public: str) -> None:
        """Take a node's public key; raises RefusedError where others are there already."""
        public = signing.parse_public(public, "the public key")
        path = self._key(node)
        with self._alone(node):
            if path.exists() and public not in self._publics(node):
                raise RefusedError(f"the witness knows node {node} by another key", key="node")
            if not path.exists():
                files.write_durable(path, f"{public}\n".encode())

    def read(self, node: str, since: int) -> list[Line]:
        found = [trail.parse(raw) for raw in JsonLines(self._file(node)).lines()]
        return [line for line in found if line.seq > since]

    def append(self, node: str, line: Line) -> None:
        publics = self._publics(node)
        with self._alone(node):
            lines = JsonLines(self._file(node), mode=0o640)
            raw = list(lines.lines())[-1:]
            last = trail.parse(raw[0]) if raw else None
            if last is not None and last.raw == line.raw:
                # The answer to the first time got lost.
                return
            trail.follow([line], last, trail.check_node(node))
            trail.check_signature(line, publics)
            lines.append(line.value)

    def _file(self, node: str) -> Path:
        return self._path / f"{trail.check_node(node)}.jsonl"

    def _key(self, node: str) -> Path:
        return self._path / f"{trail.check_node(node)}.pub"

    def _publics(self, node: str) -> list[str]:
        path = self._key(node)
        try:
            return [
                signing.parse_public(one, str(path)) for one in path.read_text().splitlines() if one.strip()
            ]
        except FileNotFoundError:
            raise RefusedError(
                f"the witness does not know node {node}: {path} is missing", key="node"
            ) from None

    @contextmanager
    def _alone(self, node: str) -> Iterator[None]:
        self._path.mkdir(parents=True, exist_ok=True)
        with (self._path / f".{node}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Mounted(Folder):
    """A folder of this host that is the witness's, mostly one that is mounted."""

    def read(self, node: str, since: int) -> list[Line]:
        if not self._path.is_dir():
            raise BackendError(f"the witness {self._path} is not there; is it mounted?", key="witness")
        return super().read(node, since)

    def append(self, node: str, line: Line) -> None:
        if not self._path.is_dir():
            raise BackendError(f"the witness {self._path} is not there; is it mounted?", key="witness")
        super().append(node, line)


class Ssh:
    """A witness whose account runs nothing but `kosctl witness` for this node's key.

    Args:
        destination: USER@HOST.
        port: of its SSH server.
        identity: the node's private key.
        known_hosts: file with the keys of the witness.
    """

    def __init__(
        self, destination: str, port: int, identity: Path, known_hosts: Path, *, timeout_s: float
    ) -> None:
        self._destination = destination
        self._port = port
        self._identity = identity
        self._known_hosts = known_hosts
        self._timeout_s = timeout_s

    def read(self, node: str, since: int) -> list[Line]:
        return lines_of(self._ask(f"read {since}", b""))

    def append(self, node: str, line: Line) -> None:
        self._ask("append", line.raw + b"\n")

    def _ask(self, what: str, data: bytes) -> bytes:
        program = shutil.which("ssh")
        if program is None:
            raise InputError("ssh is not installed on this host", key="ssh")
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self._known_hosts),
            "ConnectTimeout": str(max(1, int(min(self._timeout_s, 30)))),
            "LogLevel": "ERROR",
        }
        words = [f"-o{key}={value}" for key, value in options.items()]
        argv = [program, "-F", "none", "-T", "-p", str(self._port), "-i", str(self._identity), *words]
        try:
            done = subprocess.run(
                [*argv, "--", self._destination, what],
                input=data,
                capture_output=True,
                timeout=self._timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BackendError(
                f"the witness gave no answer in {self._timeout_s:g} s", key="witness"
            ) from None
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        last = (said[-1] if said else "it said nothing").removeprefix("error: ")
        if done.returncode == RefusedError.exit_code or done.returncode == TrustError.exit_code:
            raise RefusedError(f"the witness refuses: {last}", key="witness")
        if done.returncode != 0:
            raise BackendError(
                f"the witness cannot be asked (ssh ended with {done.returncode}): {last}", key="witness"
            )
        return done.stdout


def connect(url: str, *, identity: Path, known_hosts: Path, timeout_s: float) -> Witness:
    """Return the witness at an address of the table.

    Args:
        url: ssh://, http(s):// or file://; the schema has checked its form.
        identity: the node's private key.
        known_hosts: file with the keys of a witness over SSH.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Mounted(Path(unquote(parts.path)))
    if parts.scheme == "ssh":
        return Ssh(
            f"{parts.username}@{parts.hostname}",
            parts.port or 22,
            identity,
            known_hosts,
            timeout_s=timeout_s,
        )
    # What talks HTTP takes long to import.
    from .witness_http import Http

    return Http(url, timeout_s=timeout_s)


def lines_of(data: bytes) -> list[Line]:
    """Read what a witness answered; raises BackendError or RefusedError where it is no answer."""
    if len(data) > MAX_BYTES:
        raise BackendError(f"the witness gave more than {MAX_BYTES} bytes", key="witness")
    try:
        return [trail.parse(raw) for raw in data.split(b"\n") if raw]
    except InputError as error:
        raise RefusedError(f"the witness's answer cannot be read: {error.message}", key="witness") from None
