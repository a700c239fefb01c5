"""Rows of build/faults.json: a lane that ran whole replaces its own, and leaves those of the other (D05)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fault import rows
from fault.rows import Rows


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rows, "FILE", tmp_path / "build/faults.json")
    return tmp_path / "build/faults.json"


def wrote(*names: str, lane: str, whole: tuple[str, ...]) -> None:
    found = Rows()
    for name in names:
        found.of(f"test_{name}", "pytest", lane).count()
    found.write(whole=whole)


def names(file: Path) -> list[str]:
    return [row["name"] for row in json.loads(file.read_text())]


def test_a_lane_that_ran_whole_drops_its_former_rows_alone(file: Path) -> None:
    wrote("a_boot", "a_cut", lane="fault", whole=("fault",))
    wrote("a_flip", "a_lock", lane="backup", whole=("backup",))
    wrote("a_flip", lane="backup", whole=("backup",))
    assert names(file) == ["a boot", "a cut", "a flip"]


def test_a_part_of_a_lane_leaves_the_rows_of_the_rest(file: Path) -> None:
    wrote("a_flip", "a_lock", lane="backup", whole=("backup",))
    wrote("a_flip", lane="backup", whole=())
    assert names(file) == ["a flip", "a lock"]


def test_what_workers_found_of_one_fault_is_one_row(file: Path) -> None:
    found = Rows()
    for _ in range(2):
        worker = Rows()
        row = worker.of("test_a_kill", "pytest", "backup")
        row.count()
        row.lost += 1
        found.add(worker.known())
    found.write(whole=())
    (row,) = json.loads(file.read_text())
    assert (row["runs"], row["lost"], row["lane"]) == (2, 2, "backup")
