"""Fixtures: a repository with holders, and a mirror that serves a folder on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from publisher_world import Client, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def opened(world: World) -> World:
    """A repository whose first, empty state is published."""
    return world.open()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves a folder on loopback and gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def client(serve: Callable[[Path], str], tmp_path: Path) -> Callable[[World], Client]:
    """Makes a client of a world's mirror with its first root pinned."""
    made: list[Client] = []

    def make(world: World) -> Client:
        root = (world.repository.metadata_dir / "1.root.json").read_bytes()
        made.append(Client(serve(world.repository.public), tmp_path / f"client-{len(made)}", root))
        return made[-1]

    return make
