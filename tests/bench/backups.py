"""What backups and restores of small and of large files cost, beside bare restic on the same files."""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backup import programs

from . import process
from .figures import ROOT, Figure
from .process import Cost

KIBIBYTE = 1024
# How many files, and how large at most.
KINDS = ((20_000, 8 * KIBIBYTE), (2_000, 1024 * KIBIBYTE))
CHANGED = 0.01
FOLDERS = 200
ROUNDS = 3
PASSWORD = "of a repository that is thrown away"
FIRST, NEXT, RESTORE = "first backup", "next backup", "restore with full verification"
GOALS = {
    FIRST: "at least 0.8 x of the peer",
    NEXT: "at least 0.9 x of the peer",
    RESTORE: "at least 0.9 x of the peer",
}
PEERS = {FIRST: "restic backup", NEXT: "restic backup", RESTORE: "restic restore --verify"}


@dataclass
class Costs:
    """What one step cost in each round, ours and the peer's."""

    ours: list[Cost] = field(default_factory=list)
    theirs: list[Cost] = field(default_factory=list)


def backups(work: Path, kinds: Sequence[tuple[int, int]] = KINDS, rounds: int = ROUNDS) -> list[Figure]:
    """Measure a first backup, one after 1 % of the files changed, and a restore, in turn with the peer."""
    return [figure for files, most_bytes in kinds for figure in _of_kind(work, files, most_bytes, rounds)]


def _of_kind(work: Path, files: int, most_bytes: int, rounds: int) -> Iterator[Figure]:
    costs = {step: Costs() for step in GOALS}
    for number in range(rounds):
        chance = random.Random(number)
        folder = work / str(number)
        data = make(folder / "data", files, most_bytes, chance)
        ours, theirs = Kosctl(folder, data), Restic(folder, data)
        for step, change in ((FIRST, 0), (NEXT, CHANGED), (RESTORE, 0)):
            alter(data, round(change * files), most_bytes, chance)
            # The first to read has the caches to fill, so they take turns at that.
            pair: list[tuple[list[Cost], Kosctl | Restic]]
            pair = [(costs[step].ours, ours), (costs[step].theirs, theirs)]
            for kept, runner in pair if number % 2 else reversed(pair):
                kept.append(runner.restore() if step == RESTORE else runner.backup())
        shutil.rmtree(folder)
    for step in GOALS:
        yield from _figures(
            f"{step}, {files} files of up to {most_bytes // KIBIBYTE} KiB", step, costs[step], files
        )


def _figures(name: str, step: str, costs: Costs, files: int) -> Iterator[Figure]:
    for unit, of in (("files/CPU-s", _cpu), ("files/s", _wall)):
        ours, theirs = (statistics.median(map(of, part)) for part in (costs.ours, costs.theirs))
        yield Figure(name, files / ours, unit, PEERS[step], files / theirs, GOALS[step])


def _cpu(cost: Cost) -> float:
    return cost.cpu_seconds


def _wall(cost: Cost) -> float:
    return cost.seconds


def make(folder: Path, files: int, most_bytes: int, chance: random.Random) -> Path:
    """Write files that do not compress into 200 folders."""
    for number in range(files):
        path = folder / f"{number % FOLDERS:03}" / f"{number:06}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(most_bytes)))
    return folder


def alter(folder: Path, count: int, most_bytes: int, chance: random.Random) -> None:
    """Give some of the files another content."""
    for path in chance.sample(sorted(folder.glob("*/*")), count):
        path.write_bytes(chance.randbytes(chance.randrange(most_bytes)))


class Kosctl:
    """A node in a folder, with one source and one repository."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._root, self._out = folder / "node", folder / "ours"
        etc = self._root / "etc/kos"
        (etc / "backup.secrets").mkdir(mode=0o700, parents=True)
        node = {"format": 1, "node": "n1", "fleet": "bench", "release": "kos", "channel": "stable"}
        (etc / "node.json").write_text(json.dumps({**node, "mirrors": ["http://127.0.0.1:9/"]}))
        source = {"class": "high", "method": "tree", "path": str(data)}
        table = {"repositories": {"main": {"url": str(folder / "repository")}}, "sources": {"data": source}}
        (etc / "backup.json").write_text(json.dumps({"format": 1, **table}))
        secret = etc / "backup.secrets/main.password"
        secret.write_text(PASSWORD)
        secret.chmod(0o600)
        path = f"{programs.ensure()}:{os.environ['PATH']}"
        self._environment = {"PATH": path, "PYTHONPATH": str(ROOT / "runtime")}
        self._kosctl = [sys.executable, "-m", "kosnode", "--root", str(self._root)]
        given = {**os.environ, **self._environment}
        init = [*self._kosctl, "backup", "init"]
        subprocess.run(init, input=b"a recovery key that is thrown away", env=given, check=True)

    def backup(self) -> Cost:
        return self._run("backup", "run")

    def restore(self) -> Cost:
        self._out.mkdir()
        return self._run("restore", "data", "--to", str(self._out))

    def _run(self, *words: str) -> Cost:
        return process.run([*self._kosctl, *words], env=self._environment).cost


class Restic:
    """restic as a person runs it by hand."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._data, self._out = data, folder / "theirs"
        words = ["--repo", str(folder / "bare"), "--cache-dir", str(folder / "cache"), "--quiet"]
        self._restic = [str(programs.ensure() / "restic"), *words]
        self._run("init")

    def backup(self) -> Cost:
        return self._run("backup", str(self._data))

    def restore(self) -> Cost:
        return self._run("restore", "latest", "--verify", "--target", str(self._out))

    def _run(self, *words: str) -> Cost:
        return process.run([*self._restic, *words], env={"RESTIC_PASSWORD": PASSWORD}).cost
