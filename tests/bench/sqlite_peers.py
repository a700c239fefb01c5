"""The peers of the page deltas: Litestream, which ships the log of a database, and restic on a plain copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from backup import programs

from . import process
from .figures import BUILD

MODULE = Path(__file__).with_name("litestream")
# A replica that has not grown for so long has all there was.
_STILL_S = 10.0
_PATIENCE_S = 600.0


class Peer(Protocol):
    """Something that stores what changes in a database."""

    name: str

    def added(self) -> int:
        """Store the database as it is now, and return the bytes that were added since the call before."""


class Restic:
    """restic on a copy of the file, into a repository beside it."""

    name = "restic on a copy of the file"

    def __init__(self, database: Path, folder: Path) -> None:
        folder.mkdir()
        self._database = database
        self._copy = folder / "copy.db"
        self._repository = folder / "repository"
        self._command = [str(programs.ensure() / "restic"), "--quiet", "--no-cache", "--insecure-no-password"]
        self._command += ["--repo", str(self._repository)]
        process.run([*self._command, "init"])
        self.added()

    def added(self) -> int:
        before = size(self._repository)
        shutil.copyfile(self._database, self._copy)
        process.run([*self._command, "backup", str(self._copy)])
        return size(self._repository) - before


class Litestream:
    """A running `litestream replicate` into a folder."""

    name = "Litestream"

    def __init__(self, replica: Path) -> None:
        self._replica = replica
        self._known = 0
        self.added()

    def added(self) -> int:
        before, self._known = self._known, self._steady()
        return self._known - before

    def _steady(self) -> int:
        end = time.monotonic() + _PATIENCE_S
        known, since = 0, time.monotonic()
        while time.monotonic() < end:
            if (now := size(self._replica)) != known:
                known, since = now, time.monotonic()
            if known and time.monotonic() - since > _STILL_S:
                return known
            time.sleep(0.2)
        raise TimeoutError("litestream does not come to an end")


@contextmanager
def litestream(database: Path, folder: Path) -> Iterator[Litestream | None]:
    """Replicate a database while the block lasts; None where neither the command nor Go is there."""
    program = _program()
    if program is None:
        print("  LEFT OUT: Litestream is not on PATH, and there is no Go and C compiler to build it")
        yield None
        return
    folder.mkdir()
    config = folder / "litestream.yml"
    config.write_text(
        f"dbs:\n- path: {database}\n  replicas:\n  - type: file\n    path: {folder}/replica\n"
        "    sync-interval: 1s\n    snapshot-interval: 24h\n"
    )
    with (folder / "log").open("wb") as log:
        replicating = subprocess.Popen([program, "replicate", "-config", config], stdout=log, stderr=log)
        try:
            yield Litestream(folder / "replica")
        finally:
            replicating.terminate()
            replicating.wait(60)


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _program() -> Path | None:
    found = shutil.which("litestream")
    if found is not None:
        return Path(found)
    built = BUILD / "litestream"
    if not built.exists():
        if shutil.which("go") is None or shutil.which("gcc") is None:
            return None
        given = {**os.environ, "GOBIN": str(BUILD), "CGO_ENABLED": "1", "GOFLAGS": "-buildvcs=false"}
        subprocess.run(["go", "install", "tool"], cwd=MODULE, env=given, check=True)
    return built
