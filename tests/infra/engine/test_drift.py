"""The drift job under the real engine: only what was looked at and is unchanged is clean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.conftest import ROOT
from infra.engine.harness import Engine, Stack
from kos_infra import drift

EXAMPLE = ROOT / "pulumi/examples/drift.yml"
GROUP = "aws:autoscaling/group:Group"
VPC = "aws:ec2/vpc:Vpc"


def test_a_stack_that_is_as_it_was_made_is_clean(fleet: Stack) -> None:
    found = drift.look(fleet.automation)
    assert (found.answer, found.drifts, found.reason) == (drift.Answer.CLEAN, (), "")
    assert found.resources == len([each for each in fleet.state() if each["custom"]]) > 10


def test_what_was_changed_or_deleted_by_hand_is_named_without_its_values(fleet: Stack) -> None:
    fleet.cloud.edit(GROUP, "griot-b", maxSize=4711.0)
    gone = fleet.cloud.one("aws:cloudwatch/metricAlarm:MetricAlarm", "griot-b-missing")
    fleet.cloud.delete(gone.type, gone.id)
    before = fleet.state()
    found = drift.look(fleet.automation)
    assert found.answer is drift.Answer.DRIFTED
    named = {(each.urn.rpartition("::")[2], each.change, each.properties) for each in found.drifts}
    assert named == {("griot-b", "update", ("maxSize",)), ("griot-b-missing", "delete", ())}
    assert "4711" not in json.dumps(found.report())
    assert fleet.state() == before


def test_one_resource_that_could_not_be_asked_for_makes_the_answer_unknown(fleet: Stack) -> None:
    fleet.cloud.fail("read", VPC, message="UnauthorizedOperation")
    found = drift.look(fleet.automation)
    assert found.answer is drift.Answer.UNKNOWN
    assert "UnauthorizedOperation" in found.reason


def test_without_credentials_the_answer_is_unknown(fleet: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    found = drift.look(fleet.automation)
    assert found.answer is drift.Answer.UNKNOWN
    assert found.reason.count("No valid credential sources found") == 1


def test_an_empty_stack_is_unknown(engine: Engine) -> None:
    found = drift.look(engine.stack(ROOT / "pulumi/aws_fleet", "dev").automation)
    assert (found.answer, found.reason) == (drift.Answer.UNKNOWN, "the stack has no resources")


def job(fleet: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run what the example of a scheduled job runs, beside a program whose stack is up."""
    work = Path(str(fleet.automation.workspace.work_dir))
    steps = yaml.safe_load(EXAMPLE.read_text())["jobs"]["drift"]["steps"]
    (command,) = (step["run"] for step in steps if "kos_infra.drift" in step.get("run", ""))
    words = command.replace("${{ matrix.stack }}", "dev").replace("pulumi/aws_fleet", str(work)).split()
    assert words[0] == "python"
    return subprocess.run(
        [sys.executable, *words[1:], *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT / 'pulumi'}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_scheduled_job_ends_with_what_it_found(fleet: Stack) -> None:
    clean = job(fleet)
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout.startswith("dev: clean")

    fleet.cloud.edit(GROUP, "griot-b", maxSize=50.0)
    drifted = job(fleet, "--json")
    assert drifted.returncode == 3
    assert json.loads(drifted.stdout)["drifts"][0]["properties"] == ["maxSize"]

    unknown = job(fleet, "--stack", "another")
    assert unknown.returncode == 1
    assert "another: unknown" in unknown.stdout
