"""Killed at any write, a page chain is what it was before or after, and goes on (M11)."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from page_world import ABOUT, BEGAN, History, chance, changed, image, restored

from kosnode import disk
from kosnode.backup import page_chain
from kosnode.backup.page_chain import PageChain

# What the interpreter tells of before it asks the kernel for it.
_STEPS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}


def killed(chain: PageChain, data: bytes, minutes: int, step: int) -> bool:
    """Add a state in a process that is killed before its step of that number; return whether it was."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, _: Any) -> None:
            nonlocal left
            if event in _STEPS:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sync = disk.sync

        def counted_sync(path: Path) -> None:
            count("os.rename", None)
            sync(path)

        disk.sync = counted_sync
        try:
            with chain.workspace() as workspace:
                (workspace / "copy").write_bytes(data)
                sys.addaudithook(count)
                point = chain.append(workspace / "copy", BEGAN + timedelta(minutes=minutes), ABOUT)
            chain.forget(point)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("base", [False, True], ids=["a delta", "a new base"])
def test_a_crash_at_any_step_leaves_the_state_before_or_after(
    tmp_path: Path, base: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_chain, "LEAST_BYTES", 0)
    dice = chance()
    first = image(dice, 20)
    second = changed(dice, first, 2)
    third = image(dice, 20) if base else changed(dice, second, 2)
    begun = History(tmp_path / "begun")
    begun.add(first)
    begun.add(second)
    outcomes = []
    for step in range(1000):
        history = History(shutil.copytree(begun.folder, tmp_path / f"{step}"))
        if not killed(history.chain, third, 2, step):
            break
        now = restored(history.shipped())
        assert now in (second, third), step
        outcomes.append(now == third)
        follower = changed(dice, third, 1)
        history.add(follower, minutes=3)
        assert restored(history.shipped()) == follower, step
    assert step > 15
    # Once it has happened it stays so.
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}
