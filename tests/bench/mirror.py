"""A web server of static files on loopback that counts the bytes it sends: what kosctl says is held to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_CHUNK = 256 * 1024


@dataclass
class Sent:
    """What a mirror has sent since it was last cleared.

    Attributes:
        bodies: Bytes of bodies by path.
        requests: Number of requests.
        absent: Paths that were asked for and are not there.
    """

    bodies: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    absent: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Forget everything."""
        self.bodies.clear()
        self.absent.clear()
        self.requests = 0

    @property
    def body_bytes(self) -> int:
        """Bytes of all bodies."""
        return sum(self.bodies.values())


@dataclass(frozen=True)
class Mirror:
    """A mirror that runs.

    Attributes:
        url: Its address.
        sent: What it has sent.
    """

    url: str
    sent: Sent


@contextmanager
def serve(folder: Path) -> Iterator[Mirror]:
    """Serve a folder on a free port of loopback until the block ends."""
    sent = Sent()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            found = folder / path
            there = ".." not in path.split("/") and found.is_file()
            size = found.stat().st_size if there else 0
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", str(size))
            with lock:
                sent.requests += 1
                if not there:
                    sent.absent.append(path)
            self.end_headers()
            if there:
                self._send(found, path)

        def _send(self, found: Path, path: str) -> None:
            with found.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    self.wfile.write(chunk)
                    with lock:
                        sent.bodies[path] = sent.bodies.get(path, 0) + len(chunk)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing: what was asked for is in `sent`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Mirror(f"http://127.0.0.1:{server.server_port}/", sent)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
