"""What the controller notes of the leases of its rollouts, and who may give them back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.kos.fleet.plugins.plugin_utils import _lease_record
from ansible_collections.kos.fleet.plugins.plugin_utils._lease_record import Begun, StillRunsError, end

OURS = os.getpid()


class Notes:
    """The notes of one controller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "build"

    def begin(self, lease: str, *nodes: str, pid: int = OURS, write: bool = True) -> Begun:
        return _lease_record.begin(self.folder, ["/inventory"], lease, nodes, pid, write=write)

    def died(self, lease: str, *nodes: str) -> Begun:
        """A rollout whose run was killed."""
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as run:
            begun = self.begin(lease, *nodes, pid=run.pid)
            run.kill()
        return begun

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*"))


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
def other() -> Iterator[int]:
    """A process that runs on."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as run:
        yield run.pid


def test_rollouts_collide_only_where_they_share_a_node(notes: Notes, other: int) -> None:
    notes.begin("r1", "n1", "n2", pid=other)
    assert notes.begin("r2", "n3", "n4").left == ()
    with pytest.raises(StillRunsError, match=f"still runs on n2 .process {other}, lease r1"):
        notes.begin("r3", "n2", "n3")
    with pytest.raises(StillRunsError, match="still runs on n2"):
        notes.begin("r3", "n2", "n3", write=False)
    assert len(notes.files) == 2


def test_one_lease_is_not_that_of_two_rollouts_at_once(notes: Notes, other: int) -> None:
    notes.begin("r1", "n1", pid=other)
    with pytest.raises(StillRunsError, match="lease r1"):
        notes.begin("r1", "n2")


def test_a_run_that_was_killed_leaves_its_leases_to_the_next_of_its_nodes(notes: Notes) -> None:
    notes.died("r1", "n1", "n2")
    notes.died("r2", "n3")
    assert notes.begin("r3", "n4").left == ()
    assert notes.begin("r4", "n2", "n3", write=False).left == notes.begin("r4", "n2", "n3").left
    assert sorted(notes.begin("r5", "n1", "n2", "n3").left) == ["r1", "r2", "r4"]


def test_what_was_left_is_handed_on_until_it_was_given_back(notes: Notes) -> None:
    notes.died("r1", "n1", "n2")
    second = notes.died("r2", "n1", "n2")
    assert second.left == ("r1",)
    end(second.path, "r2", ["n1"])
    third = notes.begin("r3", "n2")
    assert sorted(third.left) == ["r1", "r2"]
    end(third.path, "r3", ["n2"])
    assert notes.files == []


def test_a_later_process_with_the_same_number_is_not_taken_for_the_run(notes: Notes, other: int) -> None:
    note = notes.begin("r1", "n1", pid=other).path
    note.write_text(note.read_text().replace(_lease_record._started(other), "1"))
    assert notes.begin("r2", "n1").left == ("r1",)


def test_the_note_goes_when_the_last_node_gave_the_lease_back(notes: Notes) -> None:
    begun = notes.begin("r1", "n1", "n2")
    end(begun.path, "r1", ["n1"])
    end(begun.path, "other", ["n2"])
    assert notes.files == [begun.path]
    end(begun.path, "r1", ["n2"])
    assert notes.files == []


def test_a_lease_that_a_person_names_is_the_rollouts_own(notes: Notes) -> None:
    notes.died("left", "n1", "n2")
    begun = notes.begin("left", "n1")
    assert begun.left == ()
    end(begun.path, "left", ["n1"])
    assert notes.begin("r2", "n2").left == ("left",)


def test_a_check_writes_nothing(notes: Notes) -> None:
    assert notes.begin("r1", "n1", write=False).left == ()
    assert not notes.folder.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"id": 1}', "\0"])
def test_a_note_that_cannot_be_read_is_none(notes: Notes, text: str) -> None:
    notes.begin("r1", "n1").path.write_text(text)
    assert notes.begin("r2", "n1").left == ()


def test_inventories_do_not_share_their_notes(tmp_path: Path, other: int) -> None:
    for sources in (["/a"], ["/b"]):
        _lease_record.begin(tmp_path, sources, "r1", ["n1"], other, write=True)
    with pytest.raises(StillRunsError):
        _lease_record.begin(tmp_path, ["/a"], "r2", ["n1"], OURS, write=True)
