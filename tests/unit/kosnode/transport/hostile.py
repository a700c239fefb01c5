"""A web server for tests that serves a directory and, where it is told to, lies, stalls, dies or never ends.

    with HostileMirror(directory) as mirror:
        mirror.misbehave(r"metadata/timestamp\\.json", stall())
        fetch(mirror.url)
        assert mirror.requests[0].path == "metadata/timestamp.json"

It listens on loopback, or where it is told to, on a port that the kernel chooses.
"""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

Conduct = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One request and the means to answer it as one likes.

    `path` is below the mirror, `offset` where the Range begins (0 without), `sent` the bytes of body.
    """

    path: str
    header: dict[str, str]
    connection: socket.socket
    directory: Path
    over: threading.Event
    sent: int = 0
    offset: int = field(init=False)

    def __post_init__(self) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", self.header.get("range", ""))
        self.offset = int(match[1]) if match else 0

    def content(self) -> bytes | None:
        file = self.directory / self.path
        return file.read_bytes() if file.is_file() else None

    def head(self, status: int, *lines: str) -> None:
        text = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} X", *lines, "Connection: close", ""))
        self.connection.sendall(text.encode())

    def body(self, data: bytes) -> None:
        self.sent += len(data)  # before the client can have seen it
        self.connection.sendall(data)

    def serve(self, content: bytes | None, *, ranges: bool = True) -> None:
        """Answer as an honest server of static files that holds `content`."""
        if content is None:
            self.head(404, "Content-Length: 9")
            self.body(b"not found")
        elif not self.offset or not ranges:
            self.head(200, f"Content-Length: {len(content)}")
            self.body(content)
        elif self.offset >= len(content):
            self.head(416, f"Content-Range: bytes */{len(content)}", "Content-Length: 0")
        else:
            last = f"{len(content) - 1}/{len(content)}"
            self.head(
                206,
                f"Content-Range: bytes {self.offset}-{last}",
                f"Content-Length: {len(content) - self.offset}",
            )
            self.body(content[self.offset :])


def honest(exchange: Exchange) -> None:
    """Serve the file, ranges too."""
    exchange.serve(exchange.content())


def without_ranges(exchange: Exchange) -> None:
    """Serve the whole file whatever range was asked for."""
    exchange.serve(exchange.content(), ranges=False)


def lie(content: bytes | None = None) -> Conduct:
    """Serve other bytes: those given, or the file's own with one bit flipped in the middle."""

    def conduct(exchange: Exchange) -> None:
        true = exchange.content() or b"\0"
        middle = len(true) // 2
        flipped = true[:middle] + bytes([true[middle] ^ 1]) + true[middle + 1 :]
        exchange.serve(flipped if content is None else content)

    return conduct


def swap(other: str) -> Conduct:
    """Serve another file of the mirror in its place."""
    return lambda exchange: exchange.serve((exchange.directory / other).read_bytes())


def truncate(keep: int) -> Conduct:
    """Serve the beginning as if it were all."""
    return lambda exchange: exchange.serve((exchange.content() or b"")[:keep])


def die(after: int) -> Conduct:
    """Promise the whole, and hang up after some bytes of body."""

    def conduct(exchange: Exchange) -> None:
        content = (exchange.content() or b"")[exchange.offset :]
        total = exchange.offset + len(content)
        if exchange.offset:
            exchange.head(
                206,
                f"Content-Range: bytes {exchange.offset}-{total - 1}/{total}",
                f"Content-Length: {len(content)}",
            )
        else:
            exchange.head(200, f"Content-Length: {total}")
        exchange.body(content[:after])

    return conduct


def refuse(exchange: Exchange) -> None:
    """Hang up without a word."""


def oversize(declared: int) -> Conduct:
    """Say that the file is huge, and send on and on."""

    def conduct(exchange: Exchange) -> None:
        exchange.head(200, f"Content-Length: {declared}")
        _pour(exchange)

    return conduct


def endless(exchange: Exchange) -> None:
    """Send a body without a length and without an end."""
    exchange.head(200)
    _pour(exchange)


def endless_chunks(exchange: Exchange) -> None:
    """Send one chunk header that never ends."""
    exchange.head(200, "Transfer-Encoding: chunked")
    exchange.connection.sendall(b"1;")
    _pour(exchange)


def endless_header(exchange: Exchange) -> None:
    """Send header lines, slowly and without an end: no single read takes long."""
    exchange.connection.sendall(b"HTTP/1.1 200 X\r\n")
    while not exchange.over.wait(0.05):
        exchange.connection.sendall(b"a")


def stall(after: int = 0) -> Conduct:
    """Send some bytes of body and then nothing, with the connection open."""

    def conduct(exchange: Exchange) -> None:
        content = exchange.content() or b""
        exchange.head(200, f"Content-Length: {len(content)}")
        exchange.body(content[:after])
        exchange.over.wait(60)

    return conduct


def silent(exchange: Exchange) -> None:
    """Take the request and say nothing."""
    exchange.over.wait(60)


def trickle(every_s: float) -> Conduct:
    """Send one byte at a time: no single read takes long, all of it takes for ever."""

    def conduct(exchange: Exchange) -> None:
        content = exchange.content() or b""
        exchange.head(200, f"Content-Length: {len(content)}")
        for byte in content:
            exchange.body(bytes([byte]))
            if exchange.over.wait(every_s):
                return

    return conduct


def wrong_length(difference: int) -> Conduct:
    """Send the true bytes under a Content-Length that is off by `difference`."""

    def conduct(exchange: Exchange) -> None:
        content = exchange.content() or b""
        exchange.head(200, f"Content-Length: {len(content) + difference}")
        exchange.body(content)

    return conduct


def wrong_range(exchange: Exchange) -> None:
    """Answer a range with another one."""
    content = exchange.content() or b""
    exchange.head(
        206,
        f"Content-Range: bytes 1-{len(content) - 1}/{len(content)}",
        f"Content-Length: {len(content) - 1}",
    )
    exchange.body(content[1:])


def compressed(exchange: Exchange) -> None:
    """Claim a content coding that nobody asked for."""
    exchange.head(200, "Content-Encoding: gzip", "Content-Length: 3")
    exchange.body(b"\x1f\x8b\x08")


def redirect(location: str) -> Conduct:
    """Send the client elsewhere."""
    return lambda exchange: exchange.head(302, f"Location: {location}", "Content-Length: 0")


def status(code: int) -> Conduct:
    """Answer with a status and no more."""
    return lambda exchange: exchange.head(code, "Content-Length: 0")


def _pour(exchange: Exchange) -> None:
    while not exchange.over.is_set():
        exchange.body(b"\0" * 4096)


def certificate(directory: Path) -> Path:
    """Make a certificate for 127.0.0.1 that signs itself: own.crt, and own.pem, which holds its key as well.

    Returns:
        The path of own.pem.
    """
    request = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=mirror"
    )
    own, key = directory / "own.crt", directory / "key"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{key}", "-out", f"{own}"]
    subprocess.run([*request.split(), *files], check=True, capture_output=True)
    pem = directory / "own.pem"
    pem.write_bytes(own.read_bytes() + key.read_bytes())
    return pem


class HostileMirror:
    """The server: honest, but for the paths that `misbehave` names.

    Args:
        directory: what it serves.
        tls: certificate and key in one PEM file; plain HTTP without.
        host: address of this machine to listen on.
    """

    def __init__(self, directory: Path, tls: Path | None = None, host: str = "127.0.0.1") -> None:
        self.directory = directory
        self.requests: list[Exchange] = []
        self._conducts: list[tuple[re.Pattern[str], Conduct]] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, 0))
        self._listener.settimeout(0.05)
        self._context = _server_context(tls) if tls else None
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://{host}:{self._listener.getsockname()[1]}"

    def misbehave(self, pattern: str, conduct: Conduct) -> None:
        """Answer paths that match `pattern` (in full) with `conduct`; what was said last counts."""
        self._conducts.insert(0, (re.compile(pattern), conduct))

    def behave(self) -> None:
        """Be honest again."""
        self._conducts.clear()

    def asked(self, pattern: str) -> list[Exchange]:
        """Return the requests whose path matches `pattern` in full."""
        return [request for request in self.requests if re.fullmatch(pattern, request.path)]

    @property
    def sent(self) -> int:
        """Bytes of all bodies so far."""
        return sum(request.sent for request in self.requests)

    def __enter__(self) -> HostileMirror:
        self._start(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._start(self._answer, connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                self._exchange(connection)
        except OSError:
            connection.close()  # the client hung up, as it should

    def _exchange(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            data = connection.recv(4096)
            if not data:
                return
            received += data
        first, *lines = received.split(b"\r\n\r\n", 1)[0].decode().split("\r\n")
        header = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path = first.split(" ")[1].lstrip("/")
        exchange = Exchange(path, header, connection, self.directory, self._over)
        conduct = next((conduct for pattern, conduct in self._conducts if pattern.fullmatch(path)), honest)
        self.requests.append(exchange)
        conduct(exchange)


def _server_context(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
