"""Runs playbooks as a person does, from the controller, and returns what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import lane, record

PROGRAM = Path(sys.executable).with_name("ansible-playbook")


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        rc: Exit code of ansible-playbook; 0 is green.
        text: What it printed.
        run: What its tasks said; None where it ended before it began.
    """

    rc: int
    text: str
    run: record.Run | None

    @property
    def words(self) -> str:
        """What it printed, without its line breaks."""
        return " ".join(self.text.split())

    @property
    def said(self) -> record.Run:
        """What its tasks said."""
        assert self.run is not None, self.text
        return self.run


@dataclass(frozen=True)
class Started:
    """A run that goes on."""

    process: subprocess.Popen[str]
    recorded: Path

    def wait(self, seconds: float = 300) -> Outcome:
        """Wait until it has ended.

        Args:
            seconds: After so many it is ended.
        """
        try:
            text, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            text, _ = self.process.communicate()
        runs = record.read(self.recorded) if self.recorded.is_file() else []
        self.recorded.unlink(missing_ok=True)
        return Outcome(self.process.returncode, text, runs[-1] if runs else None)


def start(
    playbook: str | Path,
    *,
    variables: Mapping[str, Any] | None = None,
    limit: str | None = None,
    check: bool = False,
    inventories: Sequence[Path] = lane.INVENTORIES,
    more: Sequence[str] = (),
) -> Started:
    """Start a playbook.

    Args:
        playbook: A path, or a name such as kos.fleet.patch.
        variables: Extra variables.
        limit: Hosts to limit it to.
        check: Whether in check mode, with differences shown.
        inventories: Inventories instead of those of the lane.
        more: More options.
    """
    recorded = lane.CONTROLLER / f"run-{uuid.uuid4().hex}.jsonl"
    command = [str(PROGRAM), *(f"--inventory={path}" for path in inventories), str(playbook), *more]
    if variables:
        command += ["--extra-vars", json.dumps(variables)]
    if limit:
        command += ["--limit", limit]
    if check:
        command += ["--check", "--diff"]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(lane.REPOSITORY / "ansible.cfg"),
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).with_name("callback_plugins")),
        "ANSIBLE_CALLBACKS_ENABLED": "kos_record",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "KOS_RECORD": str(recorded),
        "KOS_PROJECT": str(lane.REPOSITORY),
    }
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=lane.CONTROLLER,
        env=environment,
    )
    return Started(process, recorded)


def run(playbook: str | Path, **options: Any) -> Outcome:
    """Run a playbook to its end; see `start`."""
    return start(playbook, **options).wait()
