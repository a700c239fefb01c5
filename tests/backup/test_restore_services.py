"""Restores of data that a service uses: stopped only when that was said, and started again always."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from backup.backup_node import BackupNode
from backup.files import listing, tree
from kosnode.backup.context import Context
from kosnode.errors import RefusedError
from kosnode.paths import NodePaths
from kosnode.restore import swap
from kosnode.restore.choose import Wish
from kosnode.restore.restoring import Order, Restoring
from kosnode.systemd import StartError, Systemd


class FakeSystemd:
    """A service that runs, and a list of what was done to it."""

    def __init__(self) -> None:
        self.active = {"app.service"}
        self.done: list[str] = []

    def is_active(self, name: str) -> bool:
        return name in self.active

    def stop(self, names: Sequence[str], *, timeout_s: float = 60.0) -> None:
        self.done += [f"stop {name}" for name in names]
        self.active -= set(names)

    def start(self, names: Sequence[str], *, timeout_s: float = 60.0) -> None:
        self.done += [f"start {name}" for name in names]
        self.active |= set(names)


@pytest.fixture
def systemd() -> FakeSystemd:
    return FakeSystemd()


@pytest.fixture
def restore(
    node: BackupNode, tmp_path: Path, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> Restoring:
    """A node whose source has a service that runs, one run old."""
    monkeypatch.setenv("PATH", f"{node.programs}:{os.environ['PATH']}")
    node.tree(tree(tmp_path), service="app.service")
    node.run()
    return Restoring(Context(NodePaths(node.root), systemd=cast(Systemd, systemd)))


def order(*, stop: bool) -> Order:
    return Order(Wish("files"), stop=stop)


def test_a_running_service_is_not_stopped_without_the_word(
    restore: Restoring, systemd: FakeSystemd, tmp_path: Path
) -> None:
    before = listing(tmp_path / "data")
    with pytest.raises(RefusedError, match="--stop"):
        restore.begin(order(stop=False))
    assert (systemd.done, listing(tmp_path / "data")) == ([], before)


def test_with_the_word_it_is_stopped_for_the_swap_and_runs_again(
    restore: Restoring, systemd: FakeSystemd, tmp_path: Path
) -> None:
    done = restore.begin(order(stop=True))
    assert systemd.done == ["stop app.service", "start app.service"]
    with pytest.raises(RefusedError, match="--stop"):
        restore.undo(done["id"], stop=False)
    restore.undo(done["id"], stop=True)
    assert systemd.active == {"app.service"}


def test_a_service_that_did_not_run_is_not_started(
    restore: Restoring, systemd: FakeSystemd, tmp_path: Path
) -> None:
    systemd.active = set()
    restore.begin(order(stop=False))
    assert systemd.done == []


@pytest.mark.fault
def test_a_swap_that_fails_brings_the_old_state_and_the_service_back(
    restore: Restoring, systemd: FakeSystemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data/a").write_text("newer")
    before = listing(tmp_path / "data")

    def fails(steps: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(swap, "forward", fails)
    with pytest.raises(OSError, match="No space"):
        restore.begin(order(stop=True))
    assert listing(tmp_path / "data") == before
    assert systemd.active == {"app.service"}


@pytest.mark.fault
def test_a_service_that_does_not_start_on_restored_data_gets_the_old_data_back(
    restore: Restoring, systemd: FakeSystemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data/a").write_text("newer")
    before = listing(tmp_path / "data")
    real = systemd.start
    tries: list[int] = []

    def starts_late(names: Sequence[str], *, timeout_s: float = 60.0) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise StartError("app.service did not start")
        real(names)

    monkeypatch.setattr(systemd, "start", starts_late)
    with pytest.raises(StartError):
        restore.begin(order(stop=True))
    assert listing(tmp_path / "data") == before
    assert systemd.active == {"app.service"}


class KilledError(BaseException):
    """The machine stops here."""


@pytest.mark.fault
def test_killed_in_the_middle_of_the_swap_the_next_one_finishes_and_starts_the_service(
    restore: Restoring, systemd: FakeSystemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = listing(tmp_path / "data")
    (tmp_path / "data/a").write_text("newer")

    def killed(steps: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(swap, "forward", killed)
        with pytest.raises(KilledError):
            restore.begin(order(stop=True))
    assert systemd.active == set()
    assert len(restore.recover()) == 1
    assert systemd.active == {"app.service"}
    assert listing(tmp_path / "data") == good
