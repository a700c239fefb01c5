"""From `up` to Ansible with no value copied by hand: the inventory reads what the engine wrote (D07)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, inventory_loader
from moto import mock_aws

from infra.conftest import ROOT
from infra.engine import aws
from infra.engine.cloud import Cloud, Resource
from infra.engine.harness import Stack

GROUP = "aws:autoscaling/group:Group"
SUBNET = "aws:ec2/subnet:Subnet"
REGION = "eu-central-1"

# Ansible finds plugins only in collections that it loaded itself.
init_plugin_loader([str(ROOT / "build")])


@pytest.fixture
def running(fleet: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The instances that the fleet's groups would start, with the tags that those hand down: group by id."""
    with mock_aws():
        role = boto3.client("sts", region_name=REGION).assume_role(
            RoleArn=f"arn:aws:iam::{aws.ACCOUNT}:role/operator", RoleSessionName="test"
        )["Credentials"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", role["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", role["SecretAccessKey"])
        monkeypatch.setenv("AWS_SESSION_TOKEN", role["SessionToken"])
        ec2 = boto3.Session(region_name=REGION).client("ec2")
        groups = fleet.cloud.all(GROUP)
        yield {started: group.name for group in groups for started in _start(ec2, fleet.cloud, group)}


def _start(ec2: Any, cloud: Cloud, group: Resource) -> list[str]:
    (subnet,) = group.inputs["vpcZoneIdentifiers"]
    zone = next(one.inputs["availabilityZone"] for one in cloud.all(SUBNET) if one.id == subnet)
    tags = {tag["key"]: tag["value"] for tag in group.inputs["tags"] if tag["propagateAtLaunch"]}
    tags["aws:autoscaling:groupName"] = group.id
    count = int(group.inputs["desiredCapacity"])
    started = ec2.run_instances(
        ImageId="ami-12c6146b",
        MinCount=count,
        MaxCount=count,
        Placement={"AvailabilityZone": zone},
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": key, "Value": tags[key]} for key in tags]}
        ],
    )
    return [instance["InstanceId"] for instance in started["Instances"]]


def read(folder: Path, **options: Any) -> InventoryData:
    """Return the inventory as Ansible reads it from a file with these options."""
    path = folder / "fleet.pulumi.yml"
    path.write_text(yaml.safe_dump({"plugin": "kos.fleet.pulumi", **options}))
    inventory = InventoryData()
    inventory_loader.get("kos.fleet.pulumi").parse(inventory, DataLoader(), str(path), cache=False)
    inventory.reconcile_inventory()
    return inventory


def test_the_hosts_of_the_inventory_are_the_machines_of_the_groups(
    fleet: Stack, running: dict[str, str], tmp_path: Path
) -> None:
    work = Path(str(fleet.automation.workspace.work_dir))
    exported = tmp_path / "exported.json"
    subprocess.run(
        ["pulumi", "stack", "export", "--stack", "dev", "--file", str(exported)], cwd=work, check=True
    )
    sources = [
        {"stack": "dev", "project": "kos-aws-fleet", "state": os.environ["PULUMI_BACKEND_URL"]},
        {"stack": "dev", "project_dir": str(work)},
        {"file": str(exported)},
    ]
    for source in sources:
        inventory = read(tmp_path, **source)
        found = {name: host.vars["kos_instance"]["group"] for name, host in inventory.hosts.items()}
        assert found == running
        waves = {name: {host.name for host in group.hosts} for name, group in inventory.groups.items()}
        canaries = {identity for identity, group in running.items() if group == "canary-a"}
        assert waves["wave_0"] == canaries != set()
        assert waves["zone_eu_central_1b"] == set(running) - canaries
