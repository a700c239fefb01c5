"""A node below a temporary folder, with real restic, on which backup and restore are run as commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
RECOVERY = "the recovery key of these tests"


@dataclass
class BackupNode:
    """One node.

    Args:
        root: what stands for `/` of its configuration and memory; the data is where the tests put it.
        programs: folder with restic.
    """

    root: Path
    programs: Path
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
            self.secret(f"{repository}.password", f"password of {repository} on {self.name}")

    def secret(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a secret."""
        folder = self.etc / "backup.secrets"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start kosctl with --json."""
        given = {**os.environ, "PYTHONPATH": str(RUNTIME), **environment}
        given["PATH"] = f"{self.programs}:{given['PATH']}"
        argv = [sys.executable, "-m", "kosnode", "--root", str(self.root), *words, "--json"]
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
