"""Builds and runs the stand-in for the gem kairos-chain (tests/fixtures/kairos-chain)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "fixtures/kairos-chain"
OLD, NEW = "3.59.0", "3.75.0"


def build(folder: Path, version: str) -> Path:
    """Build the gem of a version into a folder and return its path."""
    path = folder / f"kairos-chain-{version}.gem"
    subprocess.run(
        ["gem", "build", "--quiet", "--output", str(path), "kairos-chain.gemspec"],
        cwd=FOLDER,
        env={**os.environ, "KAIROS_CHAIN_VERSION": version},
        check=True,
        capture_output=True,
    )
    return path


@dataclass(frozen=True)
class KairosChain:
    """The command, run from the source so that an older Ruby than the gem's will do.

    Attributes:
        data: the data directory.
        version: the version that is played.
    """

    data: Path
    version: str = NEW

    @property
    def ledger(self) -> Path:
        return self.data / "storage/blockchain.json"

    def run(self, *words: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command on the data directory."""
        return subprocess.run(
            ["ruby", str(FOLDER / "exe/kairos-chain"), "--data-dir", str(self.data), *words],
            input=stdin,
            env={**os.environ, "KAIROS_CHAIN_VERSION": self.version, "LANG": "C.UTF-8"},
            cwd=self.data.parent,
            umask=0o077,
            check=check,
            capture_output=True,
            text=True,
        )

    def ask(self, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        """Send messages over standard input and return the answers."""
        lines = [json.dumps({"jsonrpc": "2.0", "id": number, **one}) for number, one in enumerate(messages)]
        done = self.run(stdin="\n".join(lines) + "\n")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def tool(self, name: str, **arguments: object) -> str:
        """Call one tool and return its text, or the message of its error."""
        message = {"method": "tools/call", "params": {"name": name, "arguments": arguments}}
        answered = self.ask(message)[0]
        if "error" in answered:
            return str(answered["error"]["message"])
        return str(answered["result"]["content"][0]["text"])

    def record(self, *logs: Sequence[object]) -> None:
        """Append a block for each list."""
        self.ask(
            *(
                {"method": "tools/call", "params": {"name": "chain_record", "arguments": {"logs": list(one)}}}
                for one in logs
            )
        )
