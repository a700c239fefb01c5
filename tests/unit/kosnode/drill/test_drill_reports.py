"""Reports of drills: each bound to the one before, and whole or gone after a kill (M13)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.kosnode.drill.sample_report import report as a_report

from kosnode.backup import signing
from kosnode.drill.reports import Reports


@pytest.fixture
def reports(tmp_path: Path) -> Reports:
    signing.make_key(tmp_path / "key", "host")
    return Reports(tmp_path / "reports", tmp_path / "key")


def keep(reports: Reports, folder: Path, number: int) -> dict[str, Any]:
    id_ = f"20260101T000000Z-{number:08x}"
    made = a_report(id=id_, previous=reports.last(), signer=signing.public_key(folder / "key"), node="n1")
    return reports.keep(made).as_json()


def test_reports_that_are_as_they_were_written_have_no_finding(reports: Reports, tmp_path: Path) -> None:
    assert reports.check() == []
    kept = [keep(reports, tmp_path, number) for number in range(3)]
    assert reports.check(kept[-1]["sha3"]) == []
    assert [one["id"] for one in reports.trend("n1")] == [one["report"]["id"] for one in kept]
    assert reports.trend("n2") == []


def test_a_report_that_was_signed_anew_is_found(reports: Reports, tmp_path: Path) -> None:
    keep(reports, tmp_path, 1)
    path = next((tmp_path / "reports").glob("*.json"))
    data = path.read_bytes().replace(b'"outcome":"FAILED"', b'"outcome":"VERIFIED"', 1)
    path.write_bytes(data)
    path.with_name(f"{path.name}.sig").write_text(signing.sign(tmp_path / "key", data))
    (found,) = reports.check()
    assert found.text.endswith("it was changed")


def test_a_report_that_only_lacks_its_line_gets_it(reports: Reports, tmp_path: Path) -> None:
    first, second = keep(reports, tmp_path, 1), keep(reports, tmp_path, 2)
    chain = tmp_path / "reports/chain.jsonl"
    chain.write_text(chain.read_text().splitlines(keepends=True)[0])
    reports.finish_killed()
    assert reports.last() == {"id": second["report"]["id"], "sha3": second["sha3"]}
    assert reports.check() == []
    assert first["sha3"] == second["report"]["previous"]["sha3"]


@pytest.mark.parametrize("lost", [[".json.sig"], [".json.sig", ".json"], [".json"]])
def test_a_report_that_was_not_written_to_its_end_goes(
    reports: Reports, tmp_path: Path, lost: list[str]
) -> None:
    keep(reports, tmp_path, 1)
    kept = {path.name for path in (tmp_path / "reports").iterdir()}
    line = (tmp_path / "reports/chain.jsonl").read_text()
    second = keep(reports, tmp_path, 2)["report"]["id"]
    (tmp_path / "reports/chain.jsonl").write_text(line)
    for end in lost:
        (tmp_path / "reports" / f"{second}{end}").unlink()
    (tmp_path / f"reports/.{second}.json.abc").write_text("half")
    reports.finish_killed()
    assert {path.name for path in (tmp_path / "reports").iterdir()} == kept
    assert reports.check() == []
