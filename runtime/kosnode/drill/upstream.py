"""What the proxy of a drill reads from: a REST server of restic, or a repository in a directory.

The protocol is that of https://restic.readthedocs.io/en/stable/100_references.html#rest-backend, version 2.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import ssl
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import urllib3

from ..backup.restic import BackendError
from ..errors import NotFoundError

LIST = "application/vnd.x.restic.rest.v2"
_KINDS = "data|index|keys|locks|snapshots"
_NAME = re.compile(rf"config|(?:{_KINDS})/|(?:{_KINDS})/[0-9a-f]{{64}}")
_BLOCK = 1 << 18
_MISSING = 404


@dataclass(frozen=True)
class Part:
    """A part of a file, or all of it.

    Args:
        first: offset in bytes.
        length: bytes; None goes to the end.
    """

    first: int = 0
    length: int | None = None

    @property
    def whole(self) -> bool:
        return self.first == 0 and self.length is None


@dataclass(frozen=True)
class Body:
    """What an upstream gives.

    Args:
        size: bytes of this body.
        kind: its media type.
        blocks: the bytes, to be read once; empty where only the size was asked for.
    """

    size: int
    kind: str
    blocks: Iterator[bytes]


class Upstream(Protocol):
    """A repository that is read file by file."""

    def open(
        self, name: str, part: Part = Part(), *, head: bool = False
    ) -> contextlib.AbstractContextManager[Body]:
        """Give a file, or the list of a folder whose name ends with a slash.

        Raises:
            NotFoundError: there is no such file.
            BackendError: nobody answers.
        """


def is_name(name: str) -> bool:
    """Say whether this names something that a repository can have."""
    return _NAME.fullmatch(name) is not None


class Server:
    """A REST server; who may read it is known here, and not to restic.

    Args:
        url: http(s)://…, with or without a slash at its end.
        user, password: for it; None where it asks for none.
        certificates: PEM text that it is checked against; None takes the system's.
        timeout_s: seconds without an answer after which it counts as dead.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        certificates: str | None = None,
        timeout_s: float,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = dict[str, str]()
        if user is not None:
            self._headers = dict(urllib3.make_headers(basic_auth=f"{user}:{password or ''}"))
        context = ssl.create_default_context(cadata=certificates)
        self._pool = urllib3.PoolManager(
            ssl_context=context, timeout=urllib3.Timeout(connect=min(timeout_s, 20.0), read=timeout_s)
        )

    @contextlib.contextmanager
    def open(self, name: str, part: Part = Part(), *, head: bool = False) -> Iterator[Body]:
        headers = {**self._headers, **_wanted(name, part)}
        try:
            answer = self._pool.request(
                "HEAD" if head else "GET",
                f"{self._url}/{name}",
                headers=headers,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise BackendError(f"the repository does not answer: {error}", key="repository.url") from None
        try:
            if answer.status == _MISSING:
                raise NotFoundError(f"the repository has no {name}")
            if answer.status not in (200, 206):
                raise BackendError(
                    f"the repository answered {answer.status} to a read of {name}", key="repository.url"
                )
            kind = answer.headers.get("Content-Type", "application/octet-stream")
            if name.endswith("/"):
                # Of a list a server does not say the length.
                listed = answer.read()
                yield Body(len(listed), kind, iter([listed]))
                return
            size = answer.headers.get("Content-Length", "")
            if not size.isdecimal():
                raise BackendError(f"the repository does not say how long {name} is", key="repository.url")
            yield Body(int(size), kind, answer.stream(_BLOCK))
            if head:
                answer.release_conn()
        finally:
            answer.close()


class Folder:
    """A repository in a directory of this host.

    Args:
        path: of the repository.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def open(self, name: str, part: Part = Part(), *, head: bool = False) -> Iterator[Body]:
        if name.endswith("/"):
            listed = json.dumps(list(self._list(name.rstrip("/")))).encode()
            yield Body(len(listed), LIST, iter([listed]))
            return
        try:
            descriptor = os.open(place(self._path, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError(f"the repository has no {name}") from None
        except OSError as error:
            raise BackendError(f"{name} of the repository cannot be read: {error.strerror}") from None
        with os.fdopen(descriptor, "rb") as stream:
            size = max(0, os.fstat(stream.fileno()).st_size - part.first)
            size = size if part.length is None else min(size, part.length)
            stream.seek(part.first)
            yield Body(size, "application/octet-stream", _blocks(stream.fileno(), part.first, size))

    def _list(self, folder: str) -> Iterator[Mapping[str, object]]:
        for path in sorted((self._path / folder).rglob("*")):
            if is_name(f"{folder}/{path.name}") and stat.S_ISREG(path.lstat().st_mode):
                yield {"name": path.name, "size": path.lstat().st_size}


def place(repository: Path, name: str) -> Path:
    """Return where a repository in a directory has a file."""
    kind, _, file = name.partition("/")
    return repository / kind / file[:2] / file if kind == "data" else repository / name


def _blocks(descriptor: int, offset: int, left: int) -> Iterator[bytes]:
    while left and (block := os.pread(descriptor, min(_BLOCK, left), offset)):
        offset, left = offset + len(block), left - len(block)
        yield block


def _wanted(name: str, part: Part) -> dict[str, str]:
    if name.endswith("/"):
        return {"Accept": LIST}
    if part.whole:
        return {}
    last = "" if part.length is None else str(part.first + part.length - 1)
    return {"Range": f"bytes={part.first}-{last}"}
