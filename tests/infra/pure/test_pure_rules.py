"""Rules that are functions: architectures, zones, names, the contract's schema, the recorder itself."""

from __future__ import annotations

import copy
import json
from typing import Any, get_args

import boto3
import jsonschema
import pulumi
import pytest
from pulumi_aws.ec2.subnet import Subnet
from pulumi_aws.get_caller_identity import get_caller_identity

from kos_infra import contract, recording
from kos_infra.aws import regions
from kos_infra.aws.cluster import kubeconfig
from kos_infra.aws.fleet_settings import NodeClass
from kos_infra.aws.instances import arch_of
from kosnode import schema
from kosnode.errors import InputError


@pytest.mark.parametrize(
    ("instance_type", "arch"),
    [
        *(
            (name, "aarch64")
            for name in "t4g.small m7g.2xlarge c7gn.metal r8gd.large a1.medium x2gd.4xlarge".split()
        ),
        *((name, "aarch64") for name in "im4gn.large is4gen.medium g5g.xlarge hpc7g.16xlarge".split()),
        *((name, "x86_64") for name in "t3.micro t3a.small m7i-flex.large m7i.metal-24xl c6id.large".split()),
        *(
            (name, "x86_64")
            for name in "g4dn.xlarge g4ad.xlarge gr6.4xlarge i3en.large p4de.24xlarge".split()
        ),
        *((name, None) for name in ("mac2.metal", "small", "t3", "T3.small", "", "t3.small ", "../t3.small")),
    ],
)
def test_the_architecture_is_in_the_name_of_an_instance_type(instance_type: str, arch: str | None) -> None:
    assert arch_of(instance_type) == arch


def test_zones_are_those_of_their_region() -> None:
    assert regions.zones("ca-central-1") == ("ca-central-1a", "ca-central-1b", "ca-central-1d")
    assert regions.zones("nowhere-1") == ()
    for region in regions.names():
        assert all(zone.startswith(region) for zone in regions.zones(region))


def test_every_region_that_the_sdk_knows_has_its_zones_in_the_file() -> None:
    assert set(regions.names()) == set(boto3.Session().get_available_regions("ec2"))


GOOD: dict[str, Any] = contract.aws(
    fleet="demo",
    stack="dev",
    account="111122223333",
    region="eu-central-1",
    zones=["eu-central-1a"],
    groups=[
        {
            "name": name,
            "zone": "eu-central-1a",
            "class": "griot",
            "arch": "aarch64",
            "wave": wave,
            "autoscaling_group": f"demo-dev-{name}",
        }
        for name, wave in (("b", 1), ("canary", 0), ("a", 1))
    ],
    tags={"kos:fleet": "demo"},
    mirror_bucket="demo-dev-mirror-111122223333",
    backup_bucket="demo-dev-backup-111122223333",
    backup_key_arn="arn:aws:kms:key",
    dns_zone="demo.kos.internal",
)


def test_groups_stand_in_the_order_of_their_waves() -> None:
    assert [group["name"] for group in GOOD["groups"]] == ["canary", "a", "b"]


def test_the_schema_of_the_contract_is_one_and_knows_the_node_s_own_classes() -> None:
    jsonschema.Draft7Validator.check_schema(contract.schema())
    group = contract.schema()["properties"]["groups"]["items"]["properties"]
    of_nodes = [one for one in schema.load("node")["properties"]["class"]["enum"] if one]
    assert group["class"]["enum"] == of_nodes == list(get_args(NodeClass))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), 2, "kos_fleet.format"),
        (("account",), "1", "kos_fleet.account: must be the twelve digits of an AWS account"),
        (
            ("mirror", "url"),
            "http://mirror/",
            "kos_fleet.mirror.url: must be an address that begins with https://",
        ),
        (("groups", 0, "wave"), -1, "kos_fleet.groups[0].wave"),
        (("groups", 0, "class"), "wizard", "kos_fleet.groups[0].class"),
        (("groups",), [], "kos_fleet.groups"),
        (("instances", "tags"), {}, "kos_fleet.instances.tags"),
        (("dns_zone",), "Demo.", "kos_fleet.dns_zone: must be a domain name"),
        (("secret",), "x", "kos_fleet"),
    ],
)
def test_a_contract_that_breaks_its_schema_is_refused_by_key(
    path: tuple[str | int, ...], value: Any, message: str
) -> None:
    document = copy.deepcopy(GOOD)
    inner: Any = document
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    with pytest.raises(InputError) as refused:
        contract.check(document)
    assert message in str(refused.value)


def test_a_kubeconfig_asks_who_the_caller_is_and_holds_no_secret() -> None:
    config = json.loads(kubeconfig("c", "eu-central-1", "https://api", "QQ=="))
    assert config["users"][0]["user"]["exec"]["command"] == "aws"
    assert set(config["users"][0]["user"]) == {"exec"}


def test_a_program_that_asks_the_cloud_while_it_is_recorded_is_told_so() -> None:
    with pytest.raises(Exception, match="the cloud is asked for aws:index/getCallerIdentity"):
        recording.record(lambda: get_caller_identity(), project="p", stack="s", config={})


def test_one_recording_knows_nothing_of_another() -> None:
    def program() -> None:
        Subnet(pulumi.get_stack(), vpc_id=pulumi.Config().require("vpc"))

    first, second = (
        recording.record(program, project="p", stack=name, config={"p:vpc": name}) for name in ("a", "b")
    )
    assert [(one.name, one.inputs["vpcId"]) for one in first.registrations] == [("a", "a")]
    assert [(one.name, one.inputs["vpcId"]) for one in second.registrations] == [("b", "b")]


def test_a_program_that_fails_halfway_leaves_what_it_registered() -> None:
    def program() -> None:
        Subnet("first", vpc_id="vpc-1")
        raise ValueError("halfway")

    seen: list[recording.Registration] = []
    with pytest.raises(ValueError, match="halfway"):
        recording.record(program, project="p", stack="s", config={}, into=seen)
    assert [one.name for one in seen] == ["first"]


def test_options_and_ancestors_are_recorded_as_the_engine_has_them() -> None:
    def program() -> None:
        outer = pulumi.ComponentResource("kos:test:Outer", "outer")
        other = Subnet("other", vpc_id="vpc-1")
        inner = pulumi.ComponentResource(
            "kos:test:Inner", "inner", None, pulumi.ResourceOptions(parent=outer)
        )
        Subnet(
            "subnet",
            vpc_id="vpc-1",
            opts=pulumi.ResourceOptions(
                parent=inner, protect=True, retain_on_delete=True, ignore_changes=["tags"], depends_on=[other]
            ),
        )

    recorded = recording.record(program, project="p", stack="s", config={})
    subnet = recorded.one("aws:ec2/subnet:Subnet", "subnet")
    chain = "kos:test:Outer$kos:test:Inner$aws:ec2/subnet:Subnet"
    assert subnet.urn == f"urn:pulumi:s::p::{chain}::subnet"
    assert subnet.parent == "urn:pulumi:s::p::kos:test:Outer$kos:test:Inner::inner"
    assert subnet.depends_on == (recorded.one("aws:ec2/subnet:Subnet", "other").urn,)
    assert (subnet.protect, subnet.retain_on_delete, subnet.ignore_changes) == (True, True, ("tags",))


def test_an_export_is_read_as_the_registrations_that_it_came_from() -> None:
    urn = "urn:pulumi:s::p::aws:ec2/subnet:Subnet::subnet"
    provider = "urn:pulumi:s::p::pulumi:providers:aws::eu::0c0f"
    document = {
        "version": 3,
        "deployment": {
            "resources": [
                {"urn": "urn:pulumi:s::p::pulumi:pulumi:Stack::p-s", "type": "pulumi:pulumi:Stack"},
                {
                    "urn": urn,
                    "type": "aws:ec2/subnet:Subnet",
                    "custom": True,
                    "inputs": {"vpcId": "vpc-1"},
                    "provider": provider,
                    "protect": True,
                    "dependencies": ["urn:b", "urn:a"],
                },
            ]
        },
    }
    (one,) = recording.from_export(document)
    assert one == recording.Registration(
        urn=urn,
        type="aws:ec2/subnet:Subnet",
        name="subnet",
        inputs={"vpcId": "vpc-1"},
        provider="eu",
        depends_on=("urn:a", "urn:b"),
        protect=True,
    )


def test_an_export_of_an_empty_stack_holds_nothing() -> None:
    assert recording.from_export({"version": 3, "deployment": {}}) == ()
