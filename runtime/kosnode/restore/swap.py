"""Puts restored data in the place of live data by renames, and back again; both can be killed and run again.

`SWAPPING` and `UNDOING` are written down before the first rename. From then on a step is where its paths say.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from .. import files, state
from ..errors import KosError
from .record import Step


def forward(steps: Sequence[Step]) -> None:
    """Do what is left of the steps, in order.

    Raises:
        OSError: a rename failed; `backward` brings back what was there.
        KosError: somebody put something in a place that was just made free.
    """
    for step in steps:
        _make_parents(step.before)
        if step.restored is None:
            if os.path.lexists(step.live) and not os.path.lexists(step.before):
                step.live.rename(step.before)
        elif os.path.lexists(step.restored):
            if os.path.lexists(step.live):
                if os.path.lexists(step.before):
                    raise KosError(f"{step.live} came into being while it was swapped; who writes there?")
                step.live.rename(step.before)
            step.restored.rename(step.live)
        sync_parents([step])


def backward(steps: Sequence[Step]) -> None:
    """Bring back what was there before, from the last step to the first.

    What was restored goes back to where it was made; what nothing stood in the place of just goes.
    """
    for step in reversed(steps):
        if step.restored is not None and not os.path.lexists(step.restored) and os.path.lexists(step.live):
            _make_parents(step.restored)
            step.live.rename(step.restored)
        if os.path.lexists(step.before):
            step.before.rename(step.live)
        sync_parents([step])


def sync_parents(steps: Iterable[Step]) -> None:
    """Make the names that steps changed durable."""
    folders = {path.parent for step in steps for path in (step.live, step.before, step.restored) if path}
    for folder in folders:
        if folder.is_dir():
            files.fsync_directory(folder)


def remove(folders: Iterable[Path]) -> None:
    """Remove what a restore made beside live data."""
    for folder in folders:
        state.remove_tree(folder)


def _make_parents(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
