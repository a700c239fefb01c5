"""A node below a temporary folder, with real restic, on which backup and restore are run as commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Keys of the table beside sources and repositories.
TOP = ("witness", "backend_timeout_s", "reserve_bytes", "retention")
RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
RECOVERY = "the recovery key of these tests"
PASSWORD = "the password of these tests"


@dataclass
class BackupNode:
    """One node.

    Args:
        root: what stands for `/` of its configuration and memory; the data is where the tests put it.
        programs: folder with restic.
        template: a repository that is empty and cheap to open.
    """

    root: Path
    programs: Path
    template: Path
    name: str = "n1"
    table: dict[str, Any] = field(default_factory=dict)

    @property
    def etc(self) -> Path:
        return self.root / "etc/kos"

    @property
    def var(self) -> Path:
        return self.root / "var/lib/kos/backup"

    def configure(self, sources: Mapping[str, Any], repositories: Mapping[str, Any], **more: Any) -> None:
        """Write node.json, backup.json and a password for each repository."""
        self.etc.mkdir(parents=True, exist_ok=True)
        node = {
            **{"format": 1, "node": self.name, "fleet": "demo", "release": "kos", "channel": "stable"},
            "mirrors": ["http://127.0.0.1:9/"],
        }
        (self.etc / "node.json").write_text(json.dumps(node))
        self.table = {"format": 1, "repositories": dict(repositories), "sources": dict(sources), **more}
        (self.etc / "backup.json").write_text(json.dumps(self.table))
        for repository in repositories:
            self.secret(f"{repository}.password", PASSWORD)

    def repository(self, path: Path) -> dict[str, str]:
        """Make a repository in a folder, and return its row of the table."""
        shutil.copytree(self.template, path)
        return {"url": str(path)}

    def tree(self, data: Path, **more: Any) -> None:
        """Configure one source, `files`, into one repository beside it, and open that."""
        source = {"class": "high", "method": "tree", "path": str(data)}
        top = {key: more.pop(key) for key in list(more) if key in TOP}
        self.configure(
            {"files": {**source, **more}}, {"main": self.repository(data.parent / "repository")}, **top
        )
        self.init()

    def refused(self, code: int, *words: str, **environment: str) -> str:
        """Run kosctl, which has to end with this exit code; returns the message."""
        answer = self.kosctl(*words, **environment)
        assert answer["exit"] == code, (answer["exit"], answer["error"], answer["result"], answer["progress"])
        return str(answer["error"]["message"])

    def restic(
        self, *words: str, repository: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run restic itself on the repository `main`; returns what it wrote."""
        where = self.table["repositories"]["main"]["url"] if repository is None else str(repository)
        given = {"PATH": "/usr/bin:/bin", "HOME": str(self.root), "RESTIC_PASSWORD": PASSWORD}
        given |= environment or {}
        argv = [str(self.programs / "restic"), "--no-cache", "-r", where, *words]
        return subprocess.run(argv, env=given, check=True, capture_output=True, text=True).stdout

    def snapshots(self) -> list[str]:
        """Return the ids of all snapshots of the repository of `tree`."""
        return [str(one["id"]) for one in json.loads(self.restic("snapshots", "--json"))]

    def secret(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a secret."""
        folder = self.etc / "backup.secrets"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def start(self, *words: str, wrapper: str = "", **environment: str) -> subprocess.Popen[bytes]:
        """Start kosctl with --json; `wrapper` is a line of shell that starts `"$@"`."""
        given = {**os.environ, "PYTHONPATH": str(RUNTIME), **environment}
        given["PATH"] = f"{self.programs}:{given['PATH']}"
        argv = [sys.executable, "-m", "kosnode", "--root", str(self.root), *words, "--json"]
        if wrapper:
            argv = ["sh", "-c", wrapper, "sh", *argv]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=given)

    def kosctl(self, *words: str, stdin: str = "", **environment: str) -> dict[str, Any]:
        """Run kosctl and return its answer."""
        process = self.start(*words, **environment)
        out, err = process.communicate(stdin.encode())
        try:
            answer: dict[str, Any] = json.loads(out)
        except ValueError:
            raise AssertionError(f"kosctl {' '.join(words)}: {out!r} {err.decode()}") from None
        assert answer["exit"] == process.returncode
        answer["progress"] = err.decode()
        return answer

    def init(self) -> dict[str, Any]:
        """Open the repositories."""
        answer = self.kosctl("backup", "init", stdin=RECOVERY)
        assert answer["ok"], answer
        return answer

    def run(self, *words: str, **environment: str) -> dict[str, Any]:
        """Make a run that has to succeed; returns its result."""
        answer = self.kosctl("backup", "run", *words, **environment)
        assert answer["ok"], (answer["error"], answer["result"], answer["progress"])
        result: dict[str, Any] = answer["result"]
        return result
