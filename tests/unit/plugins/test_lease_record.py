"""What the controller notes of the lease of its rollout, and who may take it up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.kos.fleet.plugins.plugin_utils import _lease_record
from ansible_collections.kos.fleet.plugins.plugin_utils._lease_record import begin, end


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return _lease_record.place(tmp_path / "build", ["/inventory"])


def test_a_run_that_was_killed_hands_its_lease_to_the_next(note: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as run:
        assert begin(note, None, "r1", ["n1"], run.pid, write=True) == "r1"
        with pytest.raises(_lease_record.StillRunsError, match=f"still runs .process {run.pid}, lease r1"):
            begin(note, None, "r2", ["n1"], os.getpid(), write=True)
        run.kill()
    assert begin(note, None, "r2", ["n1"], os.getpid(), write=True) == "r1"


def test_a_later_process_with_the_same_number_is_not_taken_for_the_run(note: Path) -> None:
    begin(note, None, "r1", ["n1"], os.getpid(), write=True)
    started = _lease_record._started(os.getpid())
    note.write_text(note.read_text().replace(started, "1"))
    assert begin(note, None, "r2", ["n1"], os.getppid(), write=True) == "r1"


def test_the_note_goes_when_the_last_node_gave_the_lease_back(note: Path) -> None:
    begin(note, None, "r1", ["n1", "n2"], os.getpid(), write=True)
    end(note, "r1", ["n1"])
    assert begin(note, None, "r2", ["n3"], os.getpid(), write=True) == "r1"
    end(note, "other", ["n2", "n3"])
    end(note, "r1", ["n3"])
    assert note.exists()
    end(note, "r1", ["n2"])
    assert not note.exists()


def test_an_id_that_a_person_names_goes_before_and_a_check_writes_nothing(note: Path) -> None:
    assert begin(note, "left", "r1", ["n1"], os.getpid(), write=False) == "left"
    assert not note.parent.exists()
    begin(note, None, "r1", ["n1"], os.getpid(), write=True)
    assert begin(note, "left", "r2", ["n1"], os.getpid(), write=True) == "left"


def test_inventories_do_not_share_a_note(tmp_path: Path) -> None:
    assert _lease_record.place(tmp_path, ["/a"]) != _lease_record.place(tmp_path, ["/b"])
    assert _lease_record.place(tmp_path, ["/a", "/b"]) == _lease_record.place(tmp_path, ["/b", "/a"])
