"""Real servers of targets on loopback, for the length of a block."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 60


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Args:
        port: on 127.0.0.1.
        process: of the server, for a test that ends or stops it.
    """

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"rest:http://127.0.0.1:{self.port}/"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def listening(argv: list[str], port: int) -> Iterator[Server]:
    """Run a server until the end of the block; it begins when the server listens."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + _PATIENCE_S
    try:
        while True:
            assert process.poll() is None, f"{argv[0]} ended with {process.returncode}"
            assert time.monotonic() < end, f"{argv[0]} does not listen at port {port}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield Server(port, process)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def rest_server(programs: Path, folder: Path, *options: str, port: int = 0) -> Iterator[Server]:
    """Serve a folder with rest-server.

    Args:
        programs: the folder that has it.
        port: 0 takes a free one.
    """
    port = port or free_port()
    argv = [str(programs / "restic-rest-server"), "--path", str(folder), "--listen", f"127.0.0.1:{port}"]
    with listening([*argv, "--no-auth", *options], port) as server:
        yield server
