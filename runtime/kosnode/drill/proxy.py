"""A proxy on loopback in front of a repository that passes GET and HEAD alone, and remembers what was read.

A server of restic knows append-only, and not read-only. What a drill reads through here it cannot change,
whatever restic asks for; and who asks does not know where the repository is, nor how it is opened.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ..backup.restic import BackendError
from ..errors import NotFoundError
from .upstream import Part, Upstream, is_name

_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


class Proxy:
    """A proxy that runs until `close`.

    Args:
        upstream: what is read.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.refused = 0
        self.errors: list[str] = []
        self._read: dict[str, list[Part]] = {}
        self._lock = threading.Lock()
        # Others of this host reach loopback too.
        self._word = secrets.token_urlsafe(24)
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """The address of the repository, as restic writes it."""
        return f"rest:http://127.0.0.1:{self._server.server_port}/{self._word}/"

    @contextlib.contextmanager
    def recording(self) -> Iterator[dict[str, list[Part]]]:
        """Tell what is read in a block: the parts of each file, in order."""
        with self._lock:
            read: dict[str, list[Part]] = {}
            self._read = read
        try:
            yield read
        finally:
            with self._lock:
                self._read = {}

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def name_in(self, path: str) -> str | None:
        """Return what a request names; None where it does not know the word, or names nothing."""
        prefix, path = f"/{self._word}/", path.partition("?")[0]
        name = path[len(prefix) :]
        return name if secrets.compare_digest(path[: len(prefix)], prefix) and is_name(name) else None

    def note(self, name: str, part: Part) -> None:
        """Remember that a part of a file was read."""
        with self._lock:
            self._read.setdefault(name, []).append(part)

    def refuse(self) -> None:
        """Count a request that would have written."""
        with self._lock:
            self.refused += 1

    def fail(self, message: str) -> None:
        """Remember why the repository could not be read."""
        with self._lock:
            self.errors.append(message)


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    server_version = "kos-drill"
    sys_version = ""
    # Headers and body go out in one piece where the body is small.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._pass_on(head=False)

    def do_HEAD(self) -> None:
        self._pass_on(head=True)

    def _refuse(self) -> None:
        self.proxy.refuse()
        self.close_connection = True
        self._say(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_DELETE = do_PATCH = _refuse

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: standard error is for people."""

    def _pass_on(self, *, head: bool) -> None:
        name = self.proxy.name_in(self.path)
        if name is None:
            self._say(HTTPStatus.NOT_FOUND)
            return
        part = self._part()
        try:
            with self.proxy.upstream.open(name, part, head=head) as body:
                self.send_response(HTTPStatus.OK if part.whole else HTTPStatus.PARTIAL_CONTENT)
                self.send_header("Content-Type", body.kind)
                self.send_header("Content-Length", str(body.size))
                self.end_headers()
                if not head:
                    self.proxy.note(name, part)
                    for block in body.blocks:
                        self.wfile.write(block)
        except NotFoundError:
            self._say(HTTPStatus.NOT_FOUND)
        except BackendError as error:
            self.proxy.fail(error.message)
            self._say(HTTPStatus.BAD_GATEWAY)
        except Exception as error:
            # The answer has begun, so that only its end can say that it is not whole.
            self.proxy.fail(f"{name} broke off: {error}")
            self.close_connection = True

    def _part(self) -> Part:
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        if found is None:
            return Part()
        first = int(found[1])
        return Part(first, int(found[2]) - first + 1 if found[2] else None)

    def _say(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
