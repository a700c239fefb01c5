"""A stand-in for a store that speaks S3, with credentials that can only read; it asks for no signature."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_TIME = ("Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T00:00:00.000Z")
_DENIED = b"<Error><Code>AccessDenied</Code><Message>these credentials can only read</Message></Error>"


class Store(BaseHTTPRequestHandler):
    """The bucket `bucket`, whose keys are the files below a folder."""

    folder: Path
    refused: list[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query, key = parse_qs(parts.query, keep_blank_values=True), unquote(parts.path).lstrip("/")
        key = key.removeprefix("bucket").lstrip("/")
        path = self.folder / key
        if "location" in query:
            self._say(200, b"<LocationConstraint>us-east-1</LocationConstraint>")
        elif not key:
            self._say(200, self._list(query.get("prefix", [""])[0]))
        elif path.is_file():
            self._give(path.read_bytes())
        else:
            self._say(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.refused.append(f"{self.command} {self.path}")
        self.close_connection = True
        self._say(403, _DENIED)

    do_PUT = do_POST = do_DELETE = _refuse

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _list(self, prefix: str) -> bytes:
        keys = {
            str(path.relative_to(self.folder)): path.stat().st_size
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>x</ETag>"
            f"<LastModified>{_TIME[1]}</LastModified></Contents>"
            for key, size in keys.items()
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()

    def _give(self, data: bytes) -> None:
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if not wanted:
            self._say(200, data)
            return
        first, _, last = wanted.partition("-")
        end = min(int(last), len(data) - 1) if last else len(data) - 1
        self._say(206, data[int(first) : end + 1], f"bytes {first}-{end}/{len(data)}")

    def _say(self, status: int, body: bytes, of: str = "") -> None:
        self.send_response(status)
        self.send_header("Last-Modified", _TIME[0])
        self.send_header("ETag", '"x"')
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        if of:
            self.send_header("Content-Range", of)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def s3_store(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Offer a folder as a bucket on loopback; yields its address, and what it refused."""
    refused: list[str] = []
    handler = type("Handler", (Store,), {"folder": folder, "refused": refused})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"s3:http://127.0.0.1:{server.server_port}/bucket/", refused
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
