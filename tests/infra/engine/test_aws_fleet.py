"""Program aws_fleet under the real engine: what an operator sees it do, from the first `up` to `destroy`."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pulumi_aws.ec2.internet_gateway import InternetGateway

from infra import fleet_files
from infra.conftest import ROOT
from infra.engine import aws
from infra.engine.harness import Engine, Stack
from kos_infra import contract, drift

PROGRAM = ROOT / "pulumi/aws_fleet"
SETTINGS = "kos-aws-fleet:settings"

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
BUCKET = "aws:s3/bucket:Bucket"
GROUP = "aws:autoscaling/group:Group"
OBJECT = "aws:s3/bucketObjectv2:BucketObjectv2"
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


def test_changed_user_data_reaches_a_group_by_a_refresh_and_replaces_nothing(
    fleet: Stack, tmp_path: Path
) -> None:
    groups = {group.id for group in fleet.cloud.all(GROUP)}
    fleet.change(SETTINGS, lambda settings: settings.update(fleet_files.make(tmp_path / "another trust")))
    fleet.cloud.forget_calls()
    outcome = fleet.up()
    assert outcome.error == ""
    changed = {call.name: call.changed for call in fleet.cloud.calls("update", TEMPLATE)}
    assert changed == {"canary-a": ("userData",), "griot-b": ("userData",)}
    assert {group.id for group in fleet.cloud.all(GROUP)} == groups
    assert not fleet.cloud.calls("create", GROUP) + fleet.cloud.calls("delete", GROUP)
    refreshes = fleet.cloud.all(aws.REFRESH)
    assert {refresh.state["group"] for refresh in refreshes} == groups
    for refresh in refreshes:
        assert refresh.inputs["preferences"]["autoRollback"] is True
        assert refresh.inputs["preferences"]["checkpointPercentages"][-1] == 100


def test_the_canary_gets_a_change_first_and_a_failure_there_spares_the_others(
    fleet: Stack, tmp_path: Path
) -> None:
    fleet.change(SETTINGS, lambda settings: settings.update(fleet_files.make(tmp_path / "another trust")))
    fleet.cloud.fail("update", GROUP, "canary-a", message="ValidationError")
    fleet.cloud.forget_calls()
    assert "ValidationError" in fleet.up().error
    assert [call.name for call in fleet.cloud.calls("update", GROUP)] == ["canary-a"]
    assert fleet.up().error == ""
    assert [call.name for call in fleet.cloud.calls("update", GROUP)] == ["canary-a", "canary-a", "griot-b"]


def test_the_canary_can_be_changed_alone(fleet: Stack) -> None:
    def other_images(settings: dict[str, Any]) -> None:
        settings["images"]["aarch64"]["id"] = "ami-0ddddddddddddddd4"
        settings["images"]["x86_64"]["id"] = "ami-0eeeeeeeeeeeeeee5"

    fleet.change(SETTINGS, other_images)
    alone = fleet.up(target=["**::canary-a"])
    assert alone.error == ""
    assert {name for _, _, name in alone.steps} == {"canary-a"}
    rest = fleet.up()
    assert rest.error == ""
    assert {name for _, _, name in rest.steps} == {"griot-b"}


def test_another_bundle_is_on_the_mirror_before_a_machine_is_told_of_it(fleet: Stack, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    data = gzip.compress(b"another one")
    (tmp_path / "bundle/kosctl-1.0.1-00000000.tar.gz").write_bytes(data)
    described = {"version": "1.0.1-00000000", "file": "kosctl-1.0.1-00000000.tar.gz"}
    described["sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "bundle/kosctl.json").write_text(json.dumps(described))
    fleet.change(SETTINGS, lambda settings: settings.update(bundle=str(tmp_path / "bundle")))
    fleet.cloud.forget_calls()
    outcome = fleet.up()
    assert outcome.error == ""
    calls = [(call.operation, call.type) for call in fleet.cloud.calls()]
    told = min(calls.index(("update", kind)) for kind in (TEMPLATE, GROUP))
    assert calls.index(("create", OBJECT)) < told
    # A refresh that turns back starts machines that were told of the bundle before.
    assert ("delete", OBJECT) not in calls


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
    stack.automation.cancel()
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
    # The bundle stays as well: whoever gives the mirror up empties its bucket, of releases and of bundles.
    assert {(made.type, made.id) for made in fleet.cloud.all() if made.type != OBJECT} == kept


@pytest.mark.parametrize("operation", ["preview", "up"])
def test_in_an_account_that_is_not_allowed_nothing_is_made(engine: Engine, operation: str) -> None:
    stack = engine.stack(PROGRAM, "dev")

    def another_account(settings: dict[str, Any]) -> None:
        settings["account"] = "999999999999"

    stack.change(SETTINGS, another_account)
    outcome = getattr(stack, operation)()
    assert f"AWS account ID not allowed: {aws.ACCOUNT}" in outcome.error
    assert engine.cloud.all() == []


def test_no_provider_of_the_machine_makes_anything(engine: Engine) -> None:
    def stray() -> None:
        InternetGateway("stray")

    outcome = engine.stack(PROGRAM, "dev", also=stray).preview()
    assert "Default provider for 'aws' disabled" in outcome.error


def test_everything_that_was_made_names_the_provider_that_is_guarded(fleet: Stack) -> None:
    made = {each["provider"] for each in fleet.state() if each["custom"] and "provider" in each}
    (provider,) = made
    assert "pulumi:providers:aws::aws" in provider
    (guarded,) = (each for each in fleet.state() if provider.startswith(each["urn"]))
    assert json.loads(guarded["inputs"]["allowedAccountIds"]) == [aws.ACCOUNT]


def test_bad_input_is_one_message_and_no_resource(engine: Engine) -> None:
    stack = engine.stack(PROGRAM, "dev")
    stack.change(SETTINGS, lambda settings: settings.update(region="us-east-1"))
    outcome = stack.up()
    assert "region: us-east-1 is outside of the fleet's residency" in outcome.error
    assert "Traceback" not in outcome.text
    assert engine.cloud.calls() == []
