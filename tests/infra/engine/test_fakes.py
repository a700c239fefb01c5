"""The fake providers are as strict as the clouds they stand for: what passes under them is no accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.engine import aws, kubernetes
from infra.engine.behaviour import Package, RefusedError
from infra.engine.cloud import Cloud, Json
from infra.engine.fake import Difference, Fake, Target
from infra.engine.shapes import UNKNOWN, Shapes

TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
GROUP = "aws:autoscaling/group:Group"
SECURITY_GROUP = "aws:ec2/securityGroup:SecurityGroup"
SUBNET = "aws:ec2/subnet:Subnet"
VPC = "aws:ec2/vpc:Vpc"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"


class Asked:
    """A provider that is asked as the engine asks, one call after the other."""

    def __init__(self, package: Package, cloud: Cloud, shapes: Path, settings: Json) -> None:
        self.fake = Fake(package, cloud, Shapes(shapes))
        self.fake.configure(settings)

    def check(self, kind: str, inputs: Json) -> dict[str, str]:
        """Return what is wrong with inputs: path and reason."""
        return dict(self.fake.check(_target(kind), {}, inputs, b"seed")[1])

    def create(self, kind: str, inputs: Json, name: str = "it", preview: bool = False) -> tuple[str, Json]:
        """Return the id and the outputs of a new resource."""
        target = _target(kind, name)
        return self.fake.create(target, self.fake.check(target, {}, inputs, b"seed")[0], preview)

    def diff(self, kind: str, state: Json, inputs: Json) -> Difference:
        """Return how new inputs differ from a state."""
        return self.fake.diff(_target(kind), state, inputs)

    def update(self, kind: str, identity: str, state: Json, inputs: Json, preview: bool = False) -> Json:
        """Return the outputs of a resource after an update."""
        return self.fake.update(_target(kind), identity, state, inputs, preview)

    def delete(self, kind: str, identity: str, name: str = "it") -> None:
        """Delete a resource."""
        self.fake.delete(_target(kind, name), identity)


def _target(kind: str, name: str = "it") -> Target:
    return Target(f"urn:pulumi:test::fakes::kos:aws:Network${kind}::{name}")


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "cloud")


@pytest.fixture
def amazon(cloud: Cloud, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOACCOUNT")
    return Asked(aws.PACKAGE, cloud, shapes, {"region": "eu-central-1"})


@pytest.fixture
def cluster(cloud: Cloud, shapes: Path) -> Asked:
    return Asked(kubernetes.PACKAGE, cloud, shapes, {"kubeconfig": "{}"})


def test_a_name_that_the_sdk_does_not_have_is_refused_however_deep(amazon: Asked, cluster: Asked) -> None:
    assert amazon.check(TEMPLATE, {"metadataOptions": {"httpToken": "required"}}) == {
        "metadataOptions.httpToken": "LaunchTemplateMetadataOptionsArgs of the SDK has no such input"
    }
    container = {"name": "kosd", "imagePullPolcy": "Always"}
    pod = {"selector": {}, "template": {"spec": {"containers": [container]}}}
    assert list(cluster.check(DEPLOYMENT, {"spec": pod})) == [
        "spec.template.spec.containers[0].imagePullPolcy"
    ]


def test_an_input_that_is_missing_or_of_another_kind_is_refused(amazon: Asked) -> None:
    assert amazon.check(SUBNET, {"tags": ["Name"]}) == {
        "tags": "is list and not map",
        "vpcId": "is required and missing",
    }


def test_a_type_that_the_sdk_does_not_have_is_refused(amazon: Asked) -> None:
    with pytest.raises(RefusedError, match="no type aws:ec2/machine:Machine"):
        amazon.check("aws:ec2/machine:Machine", {})


def test_what_a_cloud_would_have_to_be_asked_for_is_refused_by_name(amazon: Asked) -> None:
    with pytest.raises(RefusedError, match="aws:ec2/getAmi:getAmi"):
        amazon.fake.invoke("aws:ec2/getAmi:getAmi", {"mostRecent": True})
    zones = amazon.fake.invoke("aws:index/getAvailabilityZones:getAvailabilityZones", {})
    assert zones["names"] == ["eu-central-1a", "eu-central-1b", "eu-central-1c"]


def test_a_preview_leaves_unknown_what_only_the_cloud_can_tell(amazon: Asked, cloud: Cloud) -> None:
    _, foreseen = amazon.create(TEMPLATE, {"imageId": "ami-1"}, preview=True)
    assert foreseen["imageId"] == "ami-1"
    assert foreseen["latestVersion"] == UNKNOWN
    assert "userData" not in foreseen
    assert cloud.all() == []


def test_a_new_version_of_a_template_is_unknown_until_it_is_there(amazon: Asked) -> None:
    identity, made = amazon.create(TEMPLATE, {"imageId": "ami-1"})
    asked = {"imageId": "ami-2", "name": made["name"]}
    assert amazon.update(TEMPLATE, identity, made, asked, preview=True)["latestVersion"] == UNKNOWN
    assert amazon.update(TEMPLATE, identity, made, asked)["latestVersion"] == 2


def test_a_group_begins_a_refresh_when_its_template_has_another_version(amazon: Asked, cloud: Cloud) -> None:
    asked = {
        **{"name": "nodes", "minSize": 1, "maxSize": 2},
        "launchTemplate": {"id": "lt-1", "version": "$Latest"},
        "instanceRefresh": {"strategy": "Rolling"},
    }
    identity, made = amazon.create(GROUP, asked)
    made = amazon.update(GROUP, identity, made, {**asked, "maxSize": 3})
    assert cloud.all(aws.REFRESH) == []
    amazon.update(GROUP, identity, made, {**asked, "launchTemplate": {"id": "lt-1", "version": "2"}})
    assert cloud.one(aws.REFRESH).state["group"] == "nodes"


def test_a_name_is_taken_until_its_resource_is_gone(amazon: Asked, cluster: Asked) -> None:
    identity, _ = amazon.create(GROUP, {"name": "nodes", "minSize": 1, "maxSize": 2})
    with pytest.raises(RefusedError, match=r"already has .* nodes"):
        amazon.create(GROUP, {"name": "nodes", "minSize": 1, "maxSize": 2}, "other")
    amazon.delete(GROUP, identity)
    amazon.create(GROUP, {"name": "nodes", "minSize": 1, "maxSize": 2}, "other")

    spec: Json = {"selector": {}, "template": {}}
    cluster.create(DEPLOYMENT, {"metadata": {"name": "kosd", "namespace": "a"}, "spec": spec})
    cluster.create(DEPLOYMENT, {"metadata": {"name": "kosd", "namespace": "b"}, "spec": spec})
    with pytest.raises(RefusedError, match=r"already has .* a/kosd"):
        cluster.create(DEPLOYMENT, {"metadata": {"name": "kosd", "namespace": "a"}, "spec": spec})


def test_what_is_in_use_is_not_deleted(amazon: Asked) -> None:
    vpc, _ = amazon.create(VPC, {"cidrBlock": "10.0.0.0/16"}, "network")
    subnet, _ = amazon.create(SUBNET, {"vpcId": vpc, "cidrBlock": "10.0.0.0/24"}, "subnet")
    with pytest.raises(RefusedError, match=r"DependencyViolation: vpc-.* is used by .* subnet"):
        amazon.delete(VPC, vpc, "network")
    amazon.delete(SUBNET, subnet, "subnet")
    amazon.delete(VPC, vpc, "network")


def test_some_changes_make_another_resource(amazon: Asked, cluster: Asked) -> None:
    _, subnet = amazon.create(SUBNET, {"vpcId": "vpc-1", "cidrBlock": "10.0.0.0/24", "tags": {"a": "b"}})
    asked = {"vpcId": "vpc-1", "cidrBlock": "10.0.1.0/24", "tags": {"a": "c"}}
    changed = amazon.diff(SUBNET, subnet, asked)
    assert (changed.replaces, changed.changed) == (("cidrBlock",), ("cidrBlock", "tags.a"))
    assert not amazon.diff(SUBNET, subnet, {**asked, "cidrBlock": "10.0.0.0/24"}).replaces

    selector = {"matchLabels": {"app": "kosd"}}
    spec = {"replicas": 1, "selector": selector, "template": {}}
    _, deployed = cluster.create(DEPLOYMENT, {"metadata": {"name": "kosd"}, "spec": spec})
    other = {"metadata": {"name": "kosd"}, "spec": {**spec, "selector": {"matchLabels": {"app": "kos"}}}}
    replaced = cluster.diff(DEPLOYMENT, deployed, other)
    assert replaced.replaces == ("spec.selector.matchLabels.app",)
    assert replaced.delete_first
    assert cluster.diff(DEPLOYMENT, deployed, {"metadata": {"name": "kosd"}, "spec": spec}).changed == ()


def test_without_credentials_or_in_another_account_nothing_can_be_done(
    cloud: Cloud, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RefusedError, match="No valid credential sources found"):
        Asked(aws.PACKAGE, cloud, shapes, {"region": "eu-central-1"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOACCOUNT")
    with pytest.raises(RefusedError, match="AWS account ID not allowed: 111122223333"):
        Asked(aws.PACKAGE, cloud, shapes, {"region": "eu-central-1", "allowedAccountIds": '["999999999999"]'})
    with pytest.raises(RefusedError, match="neither kubeconfig nor context"):
        Asked(kubernetes.PACKAGE, cloud, shapes, {})


def test_a_fault_strikes_as_often_as_it_was_ordered(amazon: Asked, cloud: Cloud) -> None:
    cloud.fail("create", kind=VPC, message="VpcLimitExceeded", times=2)
    for _ in range(2):
        with pytest.raises(RefusedError, match="VpcLimitExceeded"):
            amazon.create(VPC, {"cidrBlock": "10.0.0.0/16"})
    amazon.create(VPC, {"cidrBlock": "10.0.0.0/16"})
