"""The swap: killed before any call that changes a name, it is finished or undone (K19)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kosnode.errors import KosError
from kosnode.restore import swap
from kosnode.restore.record import Step


class KilledError(BaseException):
    """The machine stops here."""


def world(folder: Path) -> list[Step]:
    """Make old and new data, and return the steps of their exchange."""
    folder.mkdir()
    for name, text in (("live", "old"), ("restore", "new")):
        (folder / name / "tree").mkdir(parents=True)
        (folder / name / "tree/file").write_text(text)
        (folder / name / "single").write_text(text)
    (folder / "live/log").write_text("old")
    (folder / "restore/added").write_text("new")
    steps = [
        Step(folder / "live" / name, folder / "restore" / name, folder / "before" / str(number) / name)
        for number, name in enumerate(("tree", "single", "added"))
    ]
    return [*steps, Step(folder / "live/log", None, folder / "before/3/log")]


def state(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


OLD = {"log": "old", "single": "old", "tree/file": "old"}
NEW = {"added": "new", "single": "new", "tree/file": "new"}


@contextmanager
def killed_at(call: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Stop before the `call`th rename or making of a directory."""
    counted = [0]

    def counting(real: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            counted[0] += 1
            if counted[0] == call:
                raise KilledError
            return real(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("rename", "mkdir"):
            patch.setattr(os, name, counting(getattr(os, name)))
        yield counted


def calls_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    steps = world(folder)
    with killed_at(0, monkeypatch) as counted:
        swap.forward(steps)
    return counted[0]


def test_new_data_takes_the_place_of_old_and_back(tmp_path: Path) -> None:
    steps = world(tmp_path / "w")
    swap.forward(steps)
    assert state(tmp_path / "w/live") == NEW
    assert sorted(state(tmp_path / "w/before").values()) == ["old"] * 3
    swap.backward(steps)
    assert state(tmp_path / "w/live") == OLD


def test_killed_anywhere_forward_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of(tmp_path / "count", monkeypatch)
    assert calls >= 6
    for call in range(1, calls + 1):
        folder = tmp_path / f"w{call}"
        steps = world(folder)
        with killed_at(call, monkeypatch), pytest.raises(KilledError):
            swap.forward(steps)
        swap.forward(steps)
        assert state(folder / "live") == NEW, call
        swap.forward(steps)
        assert state(folder / "live") == NEW, call
        swap.backward(steps)
        assert state(folder / "live") == OLD, call


def test_killed_anywhere_forward_is_undone_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in range(1, calls_of(tmp_path / "count", monkeypatch) + 1):
        folder = tmp_path / f"w{call}"
        steps = world(folder)
        with killed_at(call, monkeypatch), pytest.raises(KilledError):
            swap.forward(steps)
        swap.backward(steps)
        assert state(folder / "live") == OLD, call


def test_killed_anywhere_backward_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in range(1, 20):
        folder = tmp_path / f"w{call}"
        steps = world(folder)
        swap.forward(steps)
        try:
            with killed_at(call, monkeypatch):
                swap.backward(steps)
        except KilledError:
            swap.backward(steps)
        assert state(folder / "live") == OLD, call


def test_what_somebody_made_in_the_gap_is_not_written_over(tmp_path: Path) -> None:
    steps = world(tmp_path / "w")
    steps[0].before.parent.mkdir(parents=True)
    steps[0].live.rename(steps[0].before)
    steps[0].live.mkdir()
    (steps[0].live / "precious").write_text("x")
    with pytest.raises(KosError, match="came into being"):
        swap.forward(steps)
    assert (steps[0].live / "precious").read_text() == "x"
