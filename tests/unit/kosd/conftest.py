"""Fixtures: a node of files, a daemon that has looked at it, a client of the daemon, wheels for a release."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from kosd_node import REPOSITORY, Client, Manager, Node

from kosd.daemon import Daemon


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node")


@pytest.fixture
def look() -> Callable[[Daemon], None]:
    """Takes one sample of a daemon, as its loop would."""

    def take(daemon: Daemon) -> None:
        asyncio.run(daemon.observer.observe())
        daemon.after_sample()

    return take


@pytest.fixture
def daemon(node: Node, look: Callable[[Daemon], None]) -> Daemon:
    """A daemon that has looked once."""
    made = node.daemon()
    look(made)
    return made


@pytest.fixture
def client(daemon: Daemon) -> Client:
    return Client(daemon)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of the daemon's libraries, made again from what is installed: no test needs a network."""
    folder = tmp_path_factory.mktemp("wheels")
    for line in (REPOSITORY / "requirements/kosd.txt").read_text().splitlines():
        if "==" not in line:
            continue
        name = line.split("==")[0]
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            # exceptiongroup is for Python 3.10 alone.
            assert name == "exceptiongroup", f"{name} of requirements/kosd.txt is not installed"
            continue
        with zipfile.ZipFile(
            folder / f"{name.replace('-', '_')}-{installed.version}-py3-none-any.whl", "w"
        ) as wheel:
            for path in installed.files or ():
                if ".." not in path.parts and path.suffix != ".pyc":
                    wheel.write(Path(str(path.locate())), str(path))
    return folder
