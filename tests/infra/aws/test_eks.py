"""Program aws_eks against mocks: what its cluster is, who may do what, and where its machines stand (D04)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.aws.conftest import Run
from kos_infra.recording import Recording

CLUSTER = "aws:eks/cluster:Cluster"


@pytest.fixture
def prod(run: Run) -> Recording:
    """What the example of a production cluster registers."""
    recorded = run("aws_eks", "prod")
    assert len(recorded.registrations) > 50
    return recorded


def test_the_api_is_private_where_no_network_is_named(run: Run, prod: Recording) -> None:
    network = prod.one(CLUSTER, "cluster").inputs["vpcConfig"]
    assert network["endpointPrivateAccess"]
    assert not network["endpointPublicAccess"]
    assert "publicAccessCidrs" not in network
    named = run("aws_eks", "dev").one(CLUSTER, "cluster").inputs["vpcConfig"]
    assert named["endpointPublicAccess"]
    assert named["publicAccessCidrs"] == ["198.51.100.0/24"]


def test_who_may_do_what_is_in_entries_and_whoever_made_the_cluster_may_nothing(prod: Recording) -> None:
    access = prod.one(CLUSTER, "cluster").inputs["accessConfig"]
    assert access == {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False}
    given = {
        one.name: one.inputs["policyArn"].rpartition("/")[2]
        for one in prod.of_type("aws:eks/accessPolicyAssociation:AccessPolicyAssociation")
    }
    assert given == {
        "444455556666:role/platform": "AmazonEKSClusterAdminPolicy",
        "444455556666:role/on-call": "AmazonEKSViewPolicy",
    }


def test_an_editor_of_a_namespace_is_one_of_that_namespace_alone(run: Run) -> None:
    recorded = run("aws_eks", "dev")
    association = recorded.one(
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation", "111122223333:role/developer"
    )
    assert association.inputs["accessScope"] == {"type": "namespace", "namespaces": ["kos"]}


def test_secrets_are_encrypted_and_everything_is_logged(prod: Recording) -> None:
    cluster = prod.one(CLUSTER, "cluster")
    assert cluster.inputs["encryptionConfig"] == {
        "provider": {"keyArn": "arn:aws:key:secrets"},
        "resources": ["secrets"],
    }
    assert len(cluster.inputs["enabledClusterLogTypes"]) == 5
    log = prod.one("aws:cloudwatch/logGroup:LogGroup", "control-plane")
    assert log.inputs["name"] == "/aws/eks/demo-prod-eks-cluster/cluster"
    assert log.urn in cluster.depends_on


@pytest.mark.parametrize(("stack", "protected"), [("dev", False), ("prod", True)])
def test_a_cluster_is_protected_by_the_engine_and_by_the_cloud(run: Run, stack: str, protected: bool) -> None:
    cluster = run("aws_eks", stack).one(CLUSTER, "cluster")
    assert cluster.protect is protected
    assert cluster.inputs["deletionProtection"] is protected
    assert run("aws_eks", stack).one("aws:kms/key:Key", "secrets").protect is protected


def test_machines_of_both_architectures_have_a_pinned_image(prod: Recording) -> None:
    groups = prod.of_type("aws:eks/nodeGroup:NodeGroup")
    assert {(one.inputs["amiType"], one.inputs["releaseVersion"]) for one in groups} == {
        ("AL2023_ARM_64_STANDARD", "1.34.1-20261105"),
        ("AL2023_x86_64_STANDARD", "1.34.1-20261105"),
    }
    assert all(one.ignore_changes == ("scalingConfig.desiredSize",) for one in groups)


def test_machines_wait_for_the_addons_without_which_they_are_not_ready(prod: Recording) -> None:
    addons = {one.name: one for one in prod.of_type("aws:eks/addon:Addon")}
    groups = prod.of_type("aws:eks/nodeGroup:NodeGroup")
    for group in groups:
        for addon in ("vpc-cni", "kube-proxy", "eks-pod-identity-agent"):
            assert addons[addon].urn in group.depends_on
    for addon in ("coredns", "aws-ebs-csi-driver"):
        assert {group.urn for group in groups} <= set(addons[addon].depends_on)


def test_addons_get_their_rights_by_pod_identity_of_this_cluster_alone(prod: Recording) -> None:
    for addon, account in (("vpc-cni", "aws-node"), ("aws-ebs-csi-driver", "ebs-csi-controller-sa")):
        (identity,) = prod.one("aws:eks/addon:Addon", addon).inputs["podIdentityAssociations"]
        assert identity["serviceAccount"] == account
        trust = json.loads(prod.one("aws:iam/role:Role", addon).inputs["assumeRolePolicy"])["Statement"][0]
        assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
        assert trust["Condition"]["ArnEquals"] == {"aws:SourceArn": "arn:aws:cluster:cluster"}
    worker = [
        one.inputs["policyArn"].rpartition("/")[2]
        for one in prod.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
        if one.inputs["role"] == "demo-prod-eks-worker"
    ]
    assert sorted(worker) == ["AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodePolicy"]


def test_roles_of_one_name_in_two_accounts_may_both_enter(run: Run) -> None:
    def another_account(settings: dict[str, Any]) -> None:
        other = "arn:aws:iam::999988887777:role/platform"
        settings["access"].append({"principal": other, "may": "view"})

    recorded = run("aws_eks", "dev", another_account)
    entries = recorded.of_type("aws:eks/accessEntry:AccessEntry")
    assert len({one.urn for one in entries}) == len(entries) == 3


def test_a_network_policy_is_enforced(prod: Recording) -> None:
    said = prod.one("aws:eks/addon:Addon", "vpc-cni").inputs["configurationValues"]
    assert json.loads(said)["enableNetworkPolicy"] == "true"


def test_an_alarm_asks_for_the_one_statistic_that_eks_gives(prod: Recording) -> None:
    alarms = prod.of_type("aws:cloudwatch/metricAlarm:MetricAlarm")
    assert {(one.inputs["metricName"], one.inputs["statistic"]) for one in alarms} == {
        ("apiserver_request_total_5XX", "Sum"),
        ("scheduler_pending_pods_UNSCHEDULABLE", "Sum"),
    }


def test_a_cluster_and_the_machines_of_its_fleet_share_an_account_and_no_name(
    run: Run, prod: Recording
) -> None:
    def names(recorded: Recording) -> set[tuple[str, str]]:
        # The name of an inline policy is its role's own.
        named = [one for one in recorded.registrations if "name" in one.inputs and "role" not in one.inputs]
        return {(one.type, one.inputs["name"]) for one in named}

    fleet = run("aws_fleet", "prod")
    assert names(fleet)
    assert names(prod)
    assert not names(fleet) & names(prod)
    # By which the inventory finds machines.
    wanted = fleet.outputs["kos_fleet"]["instances"]["tags"]
    for template in prod.of_type("aws:ec2/launchTemplate:LaunchTemplate"):
        for specification in template.inputs["tagSpecifications"]:
            assert not wanted.items() <= specification["tags"].items()


def test_the_output_is_enough_to_reach_the_cluster_and_holds_no_secret(prod: Recording) -> None:
    said = prod.outputs["kos_cluster"]
    assert (said["stack"], said["name"]) == ("prod", "demo-prod-eks-cluster")
    config = json.loads(said["kubeconfig"])
    assert config["clusters"][0]["cluster"]["server"] == "https://cluster.example"
    (user,) = config["users"]
    assert set(user["user"]) == {"exec"}
    assert user["user"]["exec"]["args"][:2] == ["eks", "get-token"]
