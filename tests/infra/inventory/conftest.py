"""A contract, a cloud that is none, and an inventory that is read as Ansible reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, inventory_loader
from botocore.loaders import JSONFileLoader
from moto import mock_aws

ROOT = Path(__file__).resolve().parents[3]
REGION = "eu-central-1"
ACCOUNT = "123456789012"

# Before a test imports from the collection: Ansible finds plugins only in collections that it loaded itself.
init_plugin_loader([str(ROOT / "build")])

_load_file = JSONFileLoader.load_file

Read = Callable[..., InventoryData]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare what takes a second a test: a thousand images that nobody asks for, and AWS's API read anew."""
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    monkeypatch.setattr(JSONFileLoader, "load_file", lambda _self, path: _api(path))


@cache
def _api(path: str) -> Any:
    return _load_file(JSONFileLoader(), path)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AWS in this process."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield


@pytest.fixture
def contract() -> dict[str, Any]:
    """A fleet of two groups in two zones."""

    def group(name: str, zone: str, arch: str, wave: int) -> dict[str, Any]:
        return {
            "name": name,
            "zone": zone,
            "class": "griot",
            "arch": arch,
            "wave": wave,
            "autoscaling_group": f"demo-{name}",
        }

    return {
        "format": 1,
        "fleet": "demo",
        "stack": "dev",
        "provider": "aws",
        "account": ACCOUNT,
        "region": REGION,
        "zones": ["eu-central-1a", "eu-central-1b"],
        "groups": [
            group("canary", "eu-central-1a", "aarch64", 0),
            group("rest", "eu-central-1b", "x86_64", 1),
        ],
        "instances": {"tags": {"kos:fleet": "demo", "kos:stack": "dev"}},
        "connection": {"kind": "ssm", "bucket": "demo-transfer"},
        "mirror": {"url": "https://mirror.demo.example/", "bucket": "demo-mirror"},
        "backup": {"bucket": "demo-backup", "region": REGION, "kms_key": "arn:aws:kms:eu-central-1:1:key/1"},
        "dns_zone": "demo.internal",
    }


@pytest.fixture
def read(tmp_path: Path, contract: dict[str, Any]) -> Read:
    """Return a function that reads an inventory of these options, by default one of the exported contract."""
    (tmp_path / "contract.json").write_text(json.dumps(contract))

    def read(flush: bool = False, **options: Any) -> InventoryData:
        if not {"stack", "file", "project"} & set(options):
            options["file"] = "contract.json"
        path = tmp_path / "fleet.pulumi.yml"
        path.write_text(yaml.safe_dump({"plugin": "kos.fleet.pulumi", **options}))
        inventory = InventoryData()
        plugin = inventory_loader.get("kos.fleet.pulumi")
        plugin.parse(inventory, DataLoader(), str(path), cache=not flush)
        plugin.update_cache_if_changed()
        inventory.reconcile_inventory()
        return inventory

    return read


def launch(
    contract: dict[str, Any], group: str, count: int = 1, zone: str | None = None, **tags: str
) -> list[str]:
    """Start instances as the auto scaling group of that name would; return their ids."""
    of = next((one for one in contract["groups"] if one["name"] == group), None)
    all_tags = {**contract["instances"]["tags"], "kos:group": group, **tags}
    all_tags["aws:autoscaling:groupName"] = of["autoscaling_group"] if of else group
    ec2 = boto3.client("ec2", region_name=contract["region"])
    started = ec2.run_instances(
        ImageId="ami-12c6146b",
        MinCount=count,
        MaxCount=count,
        InstanceType="m6g.large",
        Placement={"AvailabilityZone": zone or (of["zone"] if of else contract["zones"][0])},
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in all_tags.items()],
            }
        ],
    )
    return sorted(one["InstanceId"] for one in started["Instances"])
