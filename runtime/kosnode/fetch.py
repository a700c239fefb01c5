"""Mirrors: static files over HTTP(S) or from a directory, from hosts that nobody trusts.

A mirror may lie, stall, die, answer without end or send more than it said. Nothing here believes a byte
(what is right is decided by trust.py and transfer.py); everything here is bounded in size, time and memory.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from . import __version__
from .errors import DamagedError, InputError, MirrorError

CHUNK_BYTES = 64 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_UNSATISFIED_RANGE = re.compile(r"bytes \*/(\d{1,18})")

T = TypeVar("T")


class FetchError(MirrorError):
    """One mirror did not give one file.

    Args:
        url: the mirror.
        reason: what it did, without its address.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class WrongError(FetchError):
    """The mirror answers, but not with this file: another status, another size, other bytes."""


class AbsentError(FetchError):
    """The mirror answers that it has no such file.

    Args:
        status: 403, 404 or 410; object stores say 403 for what does not exist.
    """

    def __init__(self, url: str, path: str, status: int = 404) -> None:
        super().__init__(url, f"has no {path} (status {status})")
        self.status = status


@dataclass(frozen=True)
class Limits:
    """How long a mirror may take.

    Args:
        timeout_s: seconds to connect, to send the whole header, and between two bytes.
        total_s: seconds for one body.
        rate: a body that brings fewer bytes a second than this over `window_s` seconds has stalled.
        window_s: seconds over which `rate` is measured.
    """

    timeout_s: float = 10
    total_s: float = 600
    rate: int = 256
    window_s: float = 20


@dataclass(frozen=True)
class Answer:
    """What a mirror says before it sends a body.

    Args:
        offset: where in the file the body begins; 0 when a mirror knows no ranges.
        total: bytes of the whole file.
        read: gives the next bytes (at most the number asked for), b"" at the end.
        close: ends the connection or file.
    """

    offset: int
    total: int
    read: Callable[[int], bytes]
    close: Callable[[], None]


@dataclass(frozen=True)
class Body:
    """An open file of a mirror: `offset` and `total` as in `Answer`, and the bytes in chunks."""

    offset: int
    total: int
    chunks: Iterator[bytes]

    def read(self) -> bytes:
        """Return all of it; bounded by the limit that the file was opened with."""
        return b"".join(self.chunks)


class Mirror(ABC):
    """Files below one address. Implementations say how to reach them (`_open`); this class keeps the bounds.

    Attributes:
        url: how the mirror is named in results.
        received: bytes of all bodies so far, those of failed attempts too.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        self.url = url
        self.limits = limits
        self.received = 0

    @abstractmethod
    def _open(self, path: str, offset: int) -> Answer:
        """Open `path` (relative, `/` between components) at byte `offset`, or at 0 if it cannot."""

    @contextmanager
    def open(self, path: str, *, offset: int = 0, limit: int) -> Iterator[Body]:
        """Open a file of the mirror.

        Args:
            path: relative to the mirror's address.
            offset: the byte to begin with; the mirror may begin with 0 instead, see `Body.offset`.
            limit: the most bytes that the whole file may have.

        Raises:
            AbsentError: no such file.
                WrongError: it answers with something else.
            FetchError: it is dead or stalls, now or while the body is read.
        """
        answer = self._open(path, offset)
        try:
            if answer.total > limit:
                raise WrongError(
                    self.url, f"{path} is oversized: {answer.total} bytes, at most {limit} are allowed"
                )
            if not (answer.offset == offset or answer.offset == 0) or answer.offset > answer.total:
                raise WrongError(self.url, f"{path} begins at byte {answer.offset}, {offset} was asked for")
            yield Body(answer.offset, answer.total, self._chunks(path, answer))
        finally:
            answer.close()

    def _chunks(self, path: str, answer: Answer) -> Iterator[bytes]:
        pace = _Pace(self.limits)
        position = answer.offset
        while position < answer.total:
            chunk = answer.read(min(CHUNK_BYTES, answer.total - position))
            if not chunk:
                raise FetchError(self.url, f"{path} ended after {position} of {answer.total} bytes")
            position += len(chunk)
            self.received += len(chunk)
            reason = pace.after(len(chunk)) if position < answer.total else None
            if reason:
                raise FetchError(self.url, f"{path} {reason}")
            yield chunk


class FileMirror(Mirror):
    """A directory: a mounted medium, a synchronised folder.

    Args:
        url: `file:///…`.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        super().__init__(url, limits)
        self.directory = Path(unquote(urlsplit(url).path))

    def _open(self, path: str, offset: int) -> Answer:
        if ".." in path.split("/") or path.startswith("/"):
            raise FetchError(self.url, f"{path} is not a relative path")
        try:
            # O_NONBLOCK: a FIFO on a medium must not hang the node.
            descriptor = os.open(self.directory / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            if not self.directory.is_dir():
                raise FetchError(self.url, "no such directory") from None
            raise AbsentError(self.url, path) from None
        except OSError as error:
            raise FetchError(self.url, f"{path}: {error.strerror}") from None
        stream = os.fdopen(descriptor, "rb", buffering=0)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            stream.close()
            raise FetchError(self.url, f"{path} is not a regular file")
        begin = offset if offset <= status.st_size else 0
        stream.seek(begin)

        def read(size: int) -> bytes:
            try:
                return stream.read(size) or b""
            except OSError as error:
                raise FetchError(self.url, f"{path}: {error.strerror}") from None

        return Answer(begin, status.st_size, read, stream.close)


class HttpMirror(Mirror):
    """A web server. No redirects, no proxies from the environment, no content coding, no retries.

    An answer must declare its length: every server of static files does, and neither an endless body nor an
    endless chunk header can then reach this node.

    Args:
        url: `http://…` or `https://…`.
        ca: PEM file of the authorities that may certify an https mirror; None takes the system's.
    """

    def __init__(self, url: str, limits: Limits, *, ca: Path | None = None) -> None:
        super().__init__(url, limits)
        self._base = urlsplit(url).path.rstrip("/")
        self._ca = ca

    @cached_property
    def _pool(self) -> urllib3.HTTPConnectionPool:
        """Made when the first connection is needed: a `ca` that is bad is this mirror's trouble alone."""
        parts = urlsplit(self.url)
        timeout = urllib3.Timeout(connect=self.limits.timeout_s, read=self.limits.timeout_s)
        if parts.scheme == "http":
            return _HttpPool(str(parts.hostname), parts.port, timeout=timeout, retries=False)
        try:
            context = ssl.create_default_context(cafile=str(self._ca) if self._ca else None)
        except OSError as error:
            raise FetchError(
                self.url, f"no authorities can be read from {self._ca}: {_last(error)}"
            ) from None
        return _HttpsPool(
            str(parts.hostname), parts.port, timeout=timeout, retries=False, ssl_context=context
        )

    def _open(self, path: str, offset: int) -> Answer:
        headers = {"User-Agent": f"kosctl/{__version__}", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        pool = self._pool
        with self._reasons(path):
            response = pool.urlopen(
                "GET",
                f"{self._base}/{quote(path, safe='/%')}",
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        if response.status == 416 and offset:
            response.close()
            unsatisfied = _UNSATISFIED_RANGE.fullmatch(response.headers.get("content-range", ""))
            if unsatisfied and int(unsatisfied[1]) == offset:  # all of it was there already
                return Answer(offset, offset, lambda size: b"", response.close)
            return self._open(path, 0)
        try:
            begin, total = self._range(path, response)
        except BaseException:
            response.close()
            raise

        def read(size: int) -> bytes:
            with self._reasons(path):
                return response.read1(size, decode_content=False) or b""

        def close() -> None:
            # A connection is used again only when all of its body was read.
            if response.length_remaining == 0:
                response.release_conn()
            else:
                response.close()

        return Answer(begin, total, read, close)

    def _range(self, path: str, response: Any) -> tuple[int, int]:
        """Return where the body begins and what the whole file has, from status and header."""
        status, headers = response.status, response.headers
        if status in (403, 404, 410):
            raise AbsentError(self.url, path, status)
        if 300 <= status < 400:
            raise WrongError(self.url, f"{path} is redirected (status {status}), which is refused")
        if status not in (200, 206):
            raise WrongError(self.url, f"{path} answers with status {status}")
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise WrongError(self.url, f"{path} comes with a content coding that was not asked for")
        if "transfer-encoding" in headers or response.length_remaining is None:
            raise WrongError(self.url, f"{path} comes without a valid Content-Length")
        length = response.length_remaining
        if status == 200:
            return 0, length
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if not match or int(match[2]) - int(match[1]) + 1 != length or int(match[2]) + 1 != int(match[3]):
            raise WrongError(self.url, f"{path} comes with a wrong Content-Range")
        return int(match[1]), int(match[3])

    @contextmanager
    def _reasons(self, path: str) -> Iterator[None]:
        """Turn what the network library raises into words of ours."""
        try:
            yield
        except urllib3.exceptions.SSLError as error:
            raise FetchError(self.url, f"TLS failed: {_last(error)}") from None
        except urllib3.exceptions.ConnectTimeoutError as error:
            raise FetchError(self.url, f"cannot connect: {_last(error)}") from None
        except urllib3.exceptions.TimeoutError:
            raise FetchError(self.url, f"{path} stalled: nothing for {self.limits.timeout_s:g} s") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise FetchError(self.url, f"{path} broke off: {_last(error)}") from None


def mirrors(urls: Sequence[str], limits: Limits, *, ca: Path | None = None) -> list[Mirror]:
    """Make the mirrors of a configuration, in its order.

    Args:
        urls: `http://`, `https://` or `file:///` addresses.
        limits: times for each of them.
        ca: see `HttpMirror`.

    Raises:
        InputError: the list is empty, or an address is not one; names the key.
    """
    if not urls:
        raise InputError("the mirror list is empty: at least one address is needed", key="mirrors")
    return [_mirror(url, index, limits, ca) for index, url in enumerate(urls)]


def _mirror(url: str, index: int, limits: Limits, ca: Path | None) -> Mirror:
    key = f"mirrors[{index}]"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError as error:
        raise InputError(f"{key} is not an address: {error}", key=key) from None
    if parts.username is not None or parts.password is not None:
        raise InputError(f"{key} holds a user name: addresses of mirrors hold no credentials", key=key)
    if parts.query or parts.fragment:
        raise InputError(f"{key} holds a query or fragment: a mirror is a folder of static files", key=key)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FileMirror(url, limits)
    if parts.scheme in ("http", "https") and parts.hostname:
        return HttpMirror(url, limits, ca=ca)
    raise InputError(f"{key} is {url!r}: it must begin with http://, https:// or file:///", key=key)


def download(
    mirror: Mirror,
    path: str,
    part: Path,
    *,
    limit: int,
    size: int | None = None,
    check_room: Callable[[int], None] = lambda size: None,
) -> int:
    """Bring a file of a mirror into `part`, going on where an earlier attempt ended.

    Args:
        mirror: where from.
        path: relative to the mirror.
        part: where to; kept when this fails, so that the next attempt brings only the rest.
        limit: the most bytes the file may have.
        size: the bytes it must have, where that is signed.
        check_room: raises where there is no room for so many bytes more, before any of them is read.

    Returns:
        Bytes that were taken over from an earlier attempt; 0 if all came now.

    Raises:
        FetchError: as `Mirror.open`; WrongError where the size is not `size`.
    """
    bound = limit if size is None else size
    have = part.stat().st_size if part.exists() else 0
    if have > bound:
        part.unlink()
        have = 0
    if size is not None and have == size:
        return have
    with mirror.open(path, offset=have, limit=bound) as body:
        if size is not None and body.total != size:
            raise WrongError(mirror.url, f"{path} has {body.total} bytes, {size} are signed")
        check_room(body.total - body.offset)
        with part.open("r+b" if have else "wb") as stream:
            stream.truncate(body.offset)
            stream.seek(body.offset)
            for chunk in body.chunks:
                stream.write(chunk)
    return body.offset


def download_checked(
    mirror: Mirror,
    path: str,
    part: Path,
    use: Callable[[Path], T],
    *,
    limit: int,
    size: int | None = None,
    check_room: Callable[[int], None] = lambda size: None,
) -> T:
    """Bring a file and use it; bytes that prove wrong are dropped, and fetched once more if some were old.

    Args:
        use: reads the file, raises DamagedError or InputError when it is wrong. It must be repeatable.
        mirror, path, part, limit, size, check_room: as for `download`.

    Returns:
        What `use` returned. The caller removes `part` when it needs it no more.

    Raises:
        FetchError: the mirror did not give the file; WrongError where it gave wrong bytes.
    """
    while True:
        kept = download(mirror, path, part, limit=limit, size=size, check_room=check_room)
        try:
            return use(part)
        except (DamagedError, InputError) as error:
            part.unlink()
            if not kept:
                raise WrongError(mirror.url, f"{path} has wrong bytes: {error.message}") from error


class _Pace:
    """Says when a body is too slow or takes too long."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._begin = self._window = time.monotonic()
        self._bytes = 0

    def after(self, size: int) -> str | None:
        now = time.monotonic()
        self._bytes += size
        if now - self._begin > self._limits.total_s:
            return f"took longer than {self._limits.total_s:g} s"
        if now - self._window >= self._limits.window_s:
            if self._bytes < self._limits.rate * (now - self._window):
                return f"stalled: fewer than {self._limits.rate} bytes/s over {self._limits.window_s:g} s"
            self._window, self._bytes = now, 0
        return None


class _BoundedHeader:
    """Ends a connection whose header is not complete within the read timeout.

    The timeout of a socket is for each read: a server that sends one byte of header at a time would hold the
    node for ever.
    """

    timeout: Any
    sock: Any

    def getresponse(self) -> HTTPResponse:
        late = threading.Event()
        timer = threading.Timer(float(self.timeout), self._shut, [late])
        timer.daemon = True
        timer.start()
        try:
            response: HTTPResponse = super().getresponse()  # type: ignore[misc]  # a mixin of connections
        except Exception:
            if late.is_set():
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
        if late.is_set():
            raise TimeoutError
        return response

    def _shut(self, late: threading.Event) -> None:
        late.set()
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


class _HttpConnection(_BoundedHeader, HTTPConnection):  # type: ignore[misc]  # the mixin comes first by intent
    pass


class _HttpsConnection(_BoundedHeader, HTTPSConnection):  # type: ignore[misc]  # the mixin comes first by intent
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


def _last(error: BaseException) -> str:
    """Return the innermost reason of a chain of wrapped errors."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _last(reason)
    text = str(error.args[-1]) if error.args else str(error)
    return text.split("\n")[0][:200] or type(error).__name__
