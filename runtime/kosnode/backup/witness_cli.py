"""`kosctl witness`: what the account of a witness runs for the nodes that reach it.

Over SSH the forced command of a node's key is `kosctl witness --node NAME`; what the node asks for then
stands in SSH_ORIGINAL_COMMAND and is one of two words. `serve` offers the same over HTTP.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..command import Result
from ..errors import InputError, KosError, RefusedError, TrustError
from . import trail
from .trail import Line
from .witness import Folder

_ASKED = re.compile(r"(append)|(read)(?: (\d{1,12}))?")
_TIMEOUT_S = 30


def add_parser(subparsers: Any) -> None:
    """Register `witness`; it sets `func`, from arguments to a `Result`.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned.
    """
    said = "Keep the lines of other nodes' backups, and give them back."
    parser = subparsers.add_parser("witness", help=said, description=said)
    parser.add_argument(
        "what", nargs="?", choices=["append", "read", "serve"], help="without it, what SSH was asked for"
    )
    parser.add_argument("--node", metavar="NAME", help="whose lines; the forced command names it")
    parser.add_argument("--since", type=int, default=0, metavar="N", help="only lines after this number")
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/lib/kos/witness"), metavar="DIR", help="its files"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:8470", metavar="HOST:PORT", help="for serve; a proxy adds TLS"
    )
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="answer with one JSON object"
    )
    parser.set_defaults(func=witness, run=witness, verb="witness")


def witness(args: argparse.Namespace) -> Result:
    """Take a line on standard input, give lines, or serve both over HTTP."""
    folder = Folder(args.folder)
    if args.what == "serve":
        server(folder, args.listen).serve_forever()
    what, since = args.what, args.since
    if what is None:
        found = _ASKED.fullmatch(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
        if found is None:
            raise InputError("a witness is asked for `append` or `read N`", key="SSH_ORIGINAL_COMMAND")
        what, since = found[1] or found[2], int(found[3] or 0)
    if args.node is None:
        raise InputError("--node says whose lines they are", key="node")
    if what == "append":
        line = _line(sys.stdin.buffer.read(trail.MAX_LINE + 2))
        folder.append(args.node, line)
        return Result({"seq": line.seq}, True, [f"take line {line.seq} of {args.node}"])
    lines = folder.read(args.node, since)
    text = "\n".join(line.raw.decode("utf-8") for line in lines)
    return Result({"lines": [dict(line.value) for line in lines]}, text=text or "\n")


def server(folder: Folder, listen: str) -> ThreadingHTTPServer:
    """Return an HTTP server of a witness, not started yet.

    Args:
        listen: HOST:PORT; port 0 takes a free one.

    Raises:
        InputError: that is no address to listen at.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InputError("listen: must be HOST:PORT", key="listen")
    handler = type("Handler", (_Handler,), {"folder": folder})
    return ThreadingHTTPServer((host.strip("[]"), int(port)), handler)


class _Handler(BaseHTTPRequestHandler):
    """GET /NODE?since=N and POST /NODE, as `witness_http.Http` asks."""

    folder: Folder
    timeout = _TIMEOUT_S
    server_version = "kos-witness"
    sys_version = ""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        since = parse_qs(parts.query).get("since", ["0"])[0]
        if not since.isdecimal():
            self._say(HTTPStatus.BAD_REQUEST, b"since must be a number")
            return
        self._do(
            lambda: b"".join(line.raw + b"\n" for line in self.folder.read(self._node(), int(since[:12])))
        )

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > trail.MAX_LINE + 1:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"a line has a length, and not more than 16 KiB")
            return
        data = self.rfile.read(int(length))

        def take() -> bytes:
            self.folder.append(self._node(), _line(data))
            return b""

        self._do(take)

    def _node(self) -> str:
        return trail.check_node(urlsplit(self.path).path.rpartition("/")[2])

    def _do(self, work: Any) -> None:
        try:
            self._say(HTTPStatus.OK, work())
        except (RefusedError, TrustError) as error:
            self._say(HTTPStatus.CONFLICT, error.message.encode())
        except KosError as error:
            self._say(HTTPStatus.BAD_REQUEST, error.message.encode())

    def _say(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _line(data: bytes) -> Line:
    return trail.parse(data.removesuffix(b"\n"))
