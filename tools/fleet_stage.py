"""What both acts of the demo stand on: the fleet, its folders, playbooks run in view, and expectations.

A step that does not end as it has to raises `DemoError`, which ends the demo red.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "runtime")]

from bed import Bed  # noqa: E402 - found through the line above

# What a script on a node may take at most.
SCRIPT_S = 120.0
Step = tuple[str, Callable[[], None]]


class DemoError(Exception):
    """A step did not end as it has to; the message says which expectation failed."""


@dataclass(frozen=True)
class Folders:
    """Where the demo keeps what it makes, all below one folder that it makes anew."""

    root: Path

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    @property
    def backup(self) -> Path:
        """Of the second act: secrets, gem, anchors, and what was acknowledged."""
        return self.root / "backup"


class Stage:
    """A fleet that is up, and how a story is told on it.

    Args:
        bed: the machines.
        inventory: folder of the inventory that the bed wrote.
        folders: where keys, repository, report and evidence go.
    """

    def __init__(self, bed: Bed, inventory: Path, folders: Folders) -> None:
        self.bed = bed
        self.inventory = inventory
        self.folders = folders
        self.nodes = [node for node in bed.nodes() if node.zone]
        self.mirrors = [node for node in bed.nodes() if not node.zone]
        self.started = time.monotonic()

    def tell(self, steps: Sequence[Step]) -> None:
        """Do one step after the other, under its title and the time since the beginning.

        Raises:
            DemoError: a step ended in another way than it has to.
        """
        for number, (title, step) in enumerate(steps, 1):
            print(f"\n━━ {number}. {title}  [{time.monotonic() - self.started:.0f} s]\n", flush=True)
            step()

    def playbook(self, name: str, *arguments: str, red: bool = False) -> None:
        """Run a playbook of the collection, or one by its path; `red` if it has to fail."""
        code = subprocess.run(
            self.command(name, *arguments), cwd=ROOT, env=self.environment(), check=False
        ).returncode
        if red:
            self.expect(code != 0, f"the playbook {name} ended red")
        elif code != 0:
            raise DemoError(f"the playbook {name} failed with exit code {code}")

    def command(self, name: str, *arguments: str) -> list[str]:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return [program, name if "/" in name else f"kos.fleet.{name}", "-i", str(self.inventory), *arguments]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "KOS_REPORT_DIR": str(self.folders.report),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        }

    def version_on_disk(self, node: str) -> str:
        """Return the version that `current` leads to, read past kosctl."""
        return str(json.loads(self.on(node, "cat /var/lib/kos/current/release.json"))["version"])

    def status(self, node: str) -> dict[str, Any]:
        """Return what kosctl on a node says of itself."""
        answer = json.loads(self.on(node, "/opt/kos/current/bin/kosctl status --json"))
        result: dict[str, Any] = answer["result"]
        return result

    def healthy(self, node: str) -> bool:
        """Whether the node's units pass their health checks, as kosctl measures it there."""
        command = ["/opt/kos/current/bin/kosctl", "health", "--json"]
        return self.bed.exec(node, command, check=False).returncode == 0

    def expect_fleet(self, versions: dict[str, str]) -> None:
        """Hold each node to the version it has to run, and to being healthy on it."""
        for node, version in versions.items():
            self.expect(self.version_on_disk(node) == version, f"{node} runs {version}", quiet=True)
            self.wait(partial(self.healthy, node), 30, f"{node} is healthy on {version}", quiet=True)
        shown = ", ".join(f"{node} {version}" for node, version in versions.items())
        print(f"   ✔ healthy: {shown}", flush=True)

    def expect(self, true: bool, what: str, *, quiet: bool = False) -> None:
        if not true:
            raise DemoError(f"not so: {what}")
        if not quiet:
            print(f"   ✔ {what}", flush=True)

    def wait(self, true: Callable[[], bool], seconds: float, what: str, *, quiet: bool = False) -> None:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise DemoError(f"not so within {seconds:.0f} s: {what}")
            time.sleep(0.5)
        self.expect(True, what, quiet=quiet)

    def on(self, node: str, script: str) -> str:
        return self.bed.exec(node, ["sh", "-c", script], timeout=SCRIPT_S).stdout

    @staticmethod
    def shown(path: Path) -> Path:
        return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns, the first of them as the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for index, row in enumerate(rows):
        print("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        if index == 0:
            print("  " + "  ".join("─" * width for width in widths))
