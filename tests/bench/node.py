"""A node below a folder of this machine: the real kosctl with a configuration and a root, and no systemd."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import process
from .process import CommandError, Cost
from .publisher import ENVIRONMENT


@dataclass(frozen=True)
class Answer:
    """What kosctl said.

    Attributes:
        result: `result` of its answer.
        cost: What the command took.
    """

    result: dict[str, Any]
    cost: Cost


class LocalNode:
    """A node whose `/` is a folder.

    Args:
        root: A new folder.
        mirror: Address of its only mirror.
        trust_root: Root of trust that it pins.
    """

    def __init__(self, root: Path, mirror: str, trust_root: bytes) -> None:
        self.root = root
        configuration = root / "etc/kos"
        for folder in ("etc/kos/trust", "var/lib/kos", "var/log/kos", "run/kos"):
            (root / folder).mkdir(parents=True)
        (configuration / "trust/root.json").write_bytes(trust_root)
        node = {"format": 1, "node": "bench", "fleet": "bench", "release": "kos", "channel": "stable"}
        (configuration / "node.json").write_text(json.dumps({**node, "mirrors": [mirror]}), "utf-8")

    def kosctl(self, *arguments: str) -> Answer:
        """Run a verb of kosctl and return its answer.

        Raises:
            CommandError: kosctl failed; the text holds what it said.
        """
        command = [sys.executable, "-m", "kosnode", "--root", str(self.root), *arguments, "--json"]
        done = process.run(command, env=ENVIRONMENT, check=False)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            raise CommandError(
                f"kosctl {arguments[0]} did not answer: {done.stderr.strip()[-4000:]}"
            ) from None
        if done.exit_code != 0:
            raise CommandError(f"kosctl {arguments[0]} ended with {done.exit_code}: {answer['error']}")
        return Answer(answer["result"], done.cost)

    def slot(self, release_root: str) -> Path:
        """Return the folder of a release that was staged."""
        return self.root / "var/lib/kos/releases" / release_root

    def take(self, release_root: str) -> None:
        """Make a staged release the current one without a trial: what a patch is made against."""
        current = self.root / "var/lib/kos/current"
        current.unlink(missing_ok=True)
        current.symlink_to(f"releases/{release_root}")
