"""Program aws_fleet under the real engine: what an operator sees it do, from the first `up` to `destroy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.conftest import ROOT
from infra.engine import aws
from infra.engine.harness import Engine, Stack
from kos_infra import contract, drift

PROGRAM = ROOT / "pulumi/aws_fleet"
SETTINGS = "kos-aws-fleet:settings"

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
BUCKET = "aws:s3/bucket:Bucket"
GROUP = "aws:autoscaling/group:Group"
SUBNET = "aws:ec2/subnet:Subnet"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
VPC = "aws:ec2/vpc:Vpc"


def another_image(settings: dict[str, Any]) -> None:
    settings["images"]["x86_64"]["id"] = "ami-0ccccccccccccccc3"


def test_the_first_up_makes_what_the_contract_names(fleet: Stack) -> None:
    found = fleet.outputs()[contract.OUTPUT]
    contract.check(found)
    groups = {group["autoscaling_group"] for group in found["groups"]}
    assert groups == {made.id for made in fleet.cloud.all(GROUP)} != set()


def test_a_second_up_changes_nothing(fleet: Stack) -> None:
    fleet.cloud.forget_calls()
    outcome = fleet.up()
    assert (outcome.error, outcome.changes()) == ("", {})
    assert not fleet.cloud.calls("create") + fleet.cloud.calls("update") + fleet.cloud.calls("delete")


def test_a_changed_template_reaches_a_group_by_a_refresh_and_replaces_nothing(fleet: Stack) -> None:
    group = fleet.cloud.one(GROUP, "griot-b")
    fleet.change(SETTINGS, another_image)
    outcome = fleet.up()
    assert outcome.error == ""
    assert outcome.steps == (("update", TEMPLATE, "griot-b"), ("update", GROUP, "griot-b"))
    assert fleet.cloud.one(GROUP, "griot-b").id == group.id
    refresh = fleet.cloud.one(aws.REFRESH)
    assert refresh.state == {"group": group.id}
    assert refresh.inputs["preferences"]["autoRollback"] is True
    assert refresh.inputs["preferences"]["checkpointPercentages"][-1] == 100


def test_another_subnet_is_there_before_its_group_leaves_the_old_one(fleet: Stack) -> None:
    old = fleet.cloud.one(SUBNET, "eu-central-1b").id

    def another_range(settings: dict[str, Any]) -> None:
        settings["network"]["subnets"]["eu-central-1b"] = "10.20.32.0/20"

    fleet.change(SETTINGS, another_range)
    fleet.cloud.forget_calls()
    outcome = fleet.up()
    assert outcome.error == ""
    new = fleet.cloud.one(SUBNET, "eu-central-1b").id
    order = [("create", SUBNET), ("update", GROUP), ("delete", SUBNET)]
    assert [
        call for call in ((each.operation, each.type) for each in fleet.cloud.calls()) if call in order
    ] == order
    assert fleet.cloud.one(GROUP, "griot-b").inputs["vpcZoneIdentifiers"] == [new] != [old]


def test_what_someone_changed_by_hand_is_found_and_put_back(fleet: Stack) -> None:
    fleet.cloud.edit(GROUP, "griot-b", maxSize=50.0)
    deleted = fleet.cloud.one(ALARM, "griot-b-missing")
    fleet.cloud.delete(ALARM, deleted.id)
    found = fleet.refresh()
    assert found.error == ""
    assert found.changes() == {"update": 1, "delete": 1}
    mended = fleet.up()
    assert mended.error == ""
    assert set(mended.steps) >= {("update", GROUP, "griot-b"), ("create", ALARM, "griot-b-missing")}
    assert fleet.cloud.one(GROUP, "griot-b").state["maxSize"] == 3
    assert fleet.up().changes() == {}


def test_an_update_that_the_cloud_stops_halfway_is_taken_up_by_the_same_command(engine: Engine) -> None:
    stack = engine.stack(PROGRAM, "dev")
    engine.cloud.fail("create", GROUP, "griot-b", message="InsufficientInstanceCapacity")
    stopped = stack.up()
    assert "InsufficientInstanceCapacity" in stopped.error
    assert [group.name for group in engine.cloud.all(GROUP)] == ["canary-a"]
    resumed = stack.up()
    assert resumed.error == ""
    assert resumed.changes() == {"create": 1}
    assert stack.up().changes() == {}


def test_a_provider_that_is_killed_halfway_is_survived_by_the_same_command(engine: Engine) -> None:
    stack = engine.stack(PROGRAM, "dev")
    engine.cloud.fail("create", GROUP, "griot-b", kills="provider")
    assert stack.up().error != ""
    assert stack.up(refresh=True).error == ""
    assert stack.up().changes() == {}


def test_an_engine_that_is_killed_halfway_leaves_a_lock_and_no_doubt(engine: Engine) -> None:
    stack = engine.stack(PROGRAM, "dev")
    engine.cloud.fail("create", GROUP, "griot-b", kills="engine")
    assert stack.up().error != ""
    assert "the stack is currently locked" in stack.up().error
    stack.cancel()
    interrupted = drift.look(stack.automation)
    assert interrupted.answer is drift.Answer.UNKNOWN
    assert "pulumi refresh" in interrupted.reason
    assert stack.refresh(clear_pending_creates=True).error == ""
    assert stack.up().error == ""
    assert stack.up().changes() == {}


def test_a_plan_that_was_saved_is_what_is_applied(fleet: Stack, tmp_path: Path) -> None:
    fleet.change(SETTINGS, another_image)
    plan = tmp_path / "plan.json"
    assert fleet.preview(plan=plan).error == ""
    outcome = fleet.up(plan=plan)
    assert outcome.error == ""
    assert outcome.changes() == {"update": 2}


def test_a_saved_plan_that_no_longer_fits_changes_nothing_beyond_it(fleet: Stack, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert fleet.preview(plan=plan).error == ""
    fleet.change(SETTINGS, another_image)
    before = fleet.cloud.all()
    outcome = fleet.up(plan=plan)
    assert "violates plan" in outcome.error
    assert fleet.cloud.all() == before


def test_destroy_refuses_to_take_the_backups_along(fleet: Stack) -> None:
    outcome = fleet.destroy()
    assert "because it is protected" in outcome.error
    assert fleet.cloud.one(BUCKET, "backup")


def test_after_a_person_took_the_protection_away_destroy_leaves_the_backups_alone(fleet: Stack) -> None:
    kept = {(made.type, made.id) for made in fleet.cloud.all(name="backup*")}
    fleet.unprotect()
    outcome = fleet.destroy()
    assert outcome.error == ""
    assert fleet.state() == []
    assert {(made.type, made.id) for made in fleet.cloud.all()} == kept


@pytest.mark.parametrize("operation", ["preview", "up"])
def test_in_an_account_that_is_not_allowed_nothing_is_made(engine: Engine, operation: str) -> None:
    stack = engine.stack(PROGRAM, "dev")

    def another_account(settings: dict[str, Any]) -> None:
        settings["account"] = "999999999999"

    stack.change(SETTINGS, another_account)
    outcome = getattr(stack, operation)()
    assert f"AWS account ID not allowed: {aws.ACCOUNT}" in outcome.error
    assert engine.cloud.all() == []
