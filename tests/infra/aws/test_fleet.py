"""Program aws_fleet against mocks: what its machines are, who reaches them, and what they may do (D04)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from infra.aws.conftest import Run
from kos_infra import contract
from kos_infra.recording import Recording, Registration

GROUP = "aws:autoscaling/group:Group"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"


@pytest.fixture
def prod(run: Run) -> Recording:
    """What the example of a production stack registers."""
    recorded = run("aws_fleet", "prod")
    assert len(recorded.registrations) > 60
    return recorded


def document(one: Registration, key: str = "policy") -> list[dict[str, Any]]:
    """Return the statements of a policy document."""
    found: list[dict[str, Any]] = json.loads(one.inputs[key])["Statement"]
    return found


def test_everything_is_made_by_the_provider_of_the_allowed_account(prod: Recording) -> None:
    (provider,) = prod.of_type("pulumi:providers:aws")
    assert provider.inputs["allowedAccountIds"] == '["444455556666"]'
    assert provider.inputs["region"] == "eu-central-1"
    assert {one.provider for one in prod.registrations if one.type.startswith("aws:")} == {"aws"}


def test_a_refresh_goes_by_checkpoints_and_ends_on_an_alarm(prod: Recording) -> None:
    for group in prod.of_type(GROUP):
        preferences = group.inputs["instanceRefresh"]["preferences"]
        assert preferences["autoRollback"]
        assert preferences["checkpointPercentages"][-1] == 100
        assert len(preferences["checkpointPercentages"]) > 1
        own = {f"{group.inputs['name']}-missing", f"{group.inputs['name']}-failed"}
        assert own <= set(preferences["alarmSpecification"]["alarms"])


def test_the_canary_goes_first_and_its_alarms_end_every_later_refresh(prod: Recording) -> None:
    groups = {group.name: group for group in prod.of_type(GROUP)}
    canary = {"demo-prod-canary-a-missing", "demo-prod-canary-a-failed"}
    components = {one.name: one for one in prod.of_type("kos:aws:NodeGroup")}
    for name, group in groups.items():
        assert canary <= set(group.inputs["instanceRefresh"]["preferences"]["alarmSpecification"]["alarms"])
        waits_for_canary = groups["canary-a"].urn in components[name].depends_on
        assert waits_for_canary == (name != "canary-a")
    later = groups["archon-c"].inputs["instanceRefresh"]["preferences"]["alarmSpecification"]["alarms"]
    assert len(set(later)) == 2 * len(groups)


def test_a_refresh_names_no_more_alarms_than_aws_takes_and_its_own_and_the_canarys_among_them(
    run: Run,
) -> None:
    def more_groups(settings: dict[str, Any]) -> None:
        last = settings["groups"][-1]
        settings["groups"] += [{**last, "name": f"more-{number}", "wave": number} for number in range(4, 9)]

    wanted = {f"demo-prod-{name}-{what}" for name in ("canary-a", "more-8") for what in ("missing", "failed")}
    last = run("aws_fleet", "prod", more_groups).one(GROUP, "more-8")
    alarms = last.inputs["instanceRefresh"]["preferences"]["alarmSpecification"]["alarms"]
    assert len(alarms) == 10
    assert wanted <= set(alarms)


def test_no_data_of_a_group_is_no_health(prod: Recording) -> None:
    alarms = prod.of_type("aws:cloudwatch/metricAlarm:MetricAlarm")
    assert len(alarms) == 2 * len(prod.of_type(GROUP))
    assert {alarm.inputs["treatMissingData"] for alarm in alarms} == {"breaching"}
    assert all(alarm.inputs["alarmActions"] for alarm in alarms)


def test_a_machine_counts_as_launched_only_when_it_said_so(prod: Recording) -> None:
    for group in prod.of_type(GROUP):
        (hook,) = group.inputs["initialLifecycleHooks"]
        assert hook["defaultResult"] == "ABANDON"
        assert hook["lifecycleTransition"] == "autoscaling:EC2_INSTANCE_LAUNCHING"


def test_a_group_names_the_number_of_its_template(prod: Recording) -> None:
    for group in prod.of_type(GROUP):
        template = group.inputs["mixedInstancesPolicy"]["launchTemplate"]["launchTemplateSpecification"]
        assert template["version"] == "1"


def test_spot_machines_stand_on_a_base_on_demand(prod: Recording) -> None:
    def shares(name: str) -> tuple[int, int, str]:
        distribution = prod.one(GROUP, name).inputs["mixedInstancesPolicy"]["instancesDistribution"]
        return (
            distribution["onDemandBaseCapacity"],
            distribution["onDemandPercentageAboveBaseCapacity"],
            distribution["spotAllocationStrategy"],
        )

    assert shares("griot-a") == (2, 0, "price-capacity-optimized")
    assert shares("canary-a") == (1, 100, "price-capacity-optimized")


def test_tags_reach_machines_and_volumes(prod: Recording) -> None:
    wanted = {
        "owner": "platform",
        "cost-center": "4711",
        "kos:fleet": "demo",
        "kos:stack": "prod",
        "kos:group": "hakim-b",
        "kos:zone": "eu-central-1b",
        "kos:class": "hakim",
        "kos:arch": "x86_64",
        "kos:wave": "2",
    }
    template = prod.one(TEMPLATE, "hakim-b").inputs
    specified = {one["resourceType"]: one["tags"] for one in template["tagSpecifications"]}
    assert wanted.items() <= specified["instance"].items()
    assert wanted.items() <= specified["volume"].items()
    of_group = prod.one(GROUP, "hakim-b").inputs["tags"]
    assert wanted.items() <= {tag["key"]: tag["value"] for tag in of_group}.items()
    assert all(tag["propagateAtLaunch"] for tag in of_group)


def test_machines_are_found_by_tags_that_they_have(prod: Recording) -> None:
    wanted = prod.outputs["kos_fleet"]["instances"]["tags"]
    for template in prod.of_type(TEMPLATE):
        tags = {one["resourceType"]: one["tags"] for one in template.inputs["tagSpecifications"]}
        assert wanted.items() <= tags["instance"].items()


def test_nothing_reaches_a_machine_from_outside(prod: Recording) -> None:
    nodes = prod.one("aws:ec2/securityGroup:SecurityGroup", "nodes")
    assert "ingress" not in nodes.inputs
    rules = prod.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert [(rule.name, rule.inputs["referencedSecurityGroupId"]) for rule in rules] == [
        ("endpoints-from-nodes", "nodes-id")
    ]
    assert not prod.of_type("aws:ec2/internetGateway:InternetGateway")
    assert not prod.of_type("aws:ec2/natGateway:NatGateway")


def test_the_way_to_s3_leads_to_the_fleets_own_buckets_alone(prod: Recording) -> None:
    (statement,) = document(prod.one("aws:ec2/vpcEndpoint:VpcEndpoint", "s3"))
    mirror, backup = (
        "arn:aws:s3:::demo-prod-mirror-444455556666",
        "arn:aws:s3:::demo-prod-backup-444455556666",
    )
    assert set(statement["Resource"]) == {mirror, f"{mirror}/*", backup, f"{backup}/*"}


def test_the_mirror_is_read_through_the_network_and_not_without_tls(prod: Recording) -> None:
    statements = {one["Sid"]: one for one in document(prod.one("aws:s3/bucketPolicy:BucketPolicy", "mirror"))}
    allowed = [one for one in statements.values() if one["Effect"] == "Allow"]
    assert {action for one in allowed for action in one["Action"]} == {"s3:GetObject", "s3:ListBucket"}
    assert all(one["Condition"] == {"StringEquals": {"aws:SourceVpce": "s3-id"}} for one in allowed)
    assert statements["NoPlainHttp"]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_a_reader_without_credentials_can_decrypt_the_mirror(prod: Recording) -> None:
    kind = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    (rule,) = prod.one(kind, "mirror").inputs["rules"]
    assert rule["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "AES256"}


def test_the_bundle_is_on_the_mirror_where_first_boot_looks_for_it(prod: Recording) -> None:
    bundle = prod.one("aws:s3/bucketObjectv2:BucketObjectv2", "bundle")
    plain = base64.b64decode(prod.one(TEMPLATE, "canary-a").inputs["userData"]).decode()
    assert f"{prod.outputs['kos_fleet']['mirror']['url']}{bundle.inputs['key']}" in plain
    assert bundle.retain_on_delete, "a refresh that turns back needs the bundle before"


def test_backups_are_locked_protected_and_stay_when_the_stack_goes(prod: Recording) -> None:
    bucket = prod.one("aws:s3/bucket:Bucket", "backup")
    assert bucket.protect
    assert bucket.retain_on_delete
    assert bucket.inputs["objectLockEnabled"]
    lock = prod.one("aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration", "backup")
    assert lock.inputs["rule"]["defaultRetention"] == {"mode": "COMPLIANCE", "days": 90}
    assert prod.one("aws:kms/key:Key", "backup").protect


def test_a_node_may_be_reached_finish_its_launch_and_keep_backups_and_nothing_else(prod: Recording) -> None:
    policy = document(prod.one("aws:iam/rolePolicy:RolePolicy", "node"))
    assert {action for statement in policy for action in statement["Action"]} == {
        *(f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")),
        "ssm:UpdateInstanceInformation",
        "autoscaling:CompleteLifecycleAction",
        *("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
        *("kms:Decrypt", "kms:GenerateDataKey"),
    }
    (deletes,) = [one for one in policy if "s3:DeleteObject" in one["Action"]]
    assert deletes["Resource"] == ["arn:aws:s3:::demo-prod-backup-444455556666/*/locks/*"]
    (finishes,) = [one for one in policy if "autoscaling:CompleteLifecycleAction" in one["Action"]]
    assert finishes["Resource"][0].endswith(":autoScalingGroupName/demo-prod-*")


def test_a_machine_starts_when_its_rights_its_mirror_and_its_network_are_there(prod: Recording) -> None:
    (canary,) = [one for one in prod.of_type("kos:aws:NodeGroup") if one.name == "canary-a"]
    needed = {
        ("aws:s3/bucketObjectv2:BucketObjectv2", "bundle"),
        ("aws:s3/bucketPolicy:BucketPolicy", "mirror"),
        ("aws:iam/rolePolicy:RolePolicy", "node"),
        ("aws:ec2/vpcEndpoint:VpcEndpoint", "ssmmessages"),
        ("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", "nodes-to-s3"),
    }
    assert {prod.one(kind, name).urn for kind, name in needed} <= set(canary.depends_on)


def test_the_contract_says_what_the_inventory_needs_and_keeps_its_schema(prod: Recording) -> None:
    said = prod.outputs["kos_fleet"]
    contract.check(said)
    assert [(group["name"], group["wave"]) for group in said["groups"]] == [
        ("canary-a", 0),
        ("griot-a", 1),
        ("hakim-b", 2),
        ("archon-c", 3),
    ]
    assert {group["autoscaling_group"] for group in said["groups"]} == {
        group.inputs["name"] for group in prod.of_type(GROUP)
    }
    assert said["backup"]["kms_key"] == "arn:aws:key:backup"
    assert said["dns_zone"] == prod.one("aws:route53/zone:Zone", "private").inputs["name"]


def test_the_administrators_key_lets_site_in_and_the_operators_key_does_not(run: Run) -> None:
    for template in run("aws_fleet", "dev").of_type(TEMPLATE):
        config = json.loads(base64.b64decode(template.inputs["userData"]).decode().partition("\n")[2])
        (key,) = config["ssh_authorized_keys"]
        assert key.endswith(" administrator")


def test_a_change_of_one_group_leaves_the_user_data_of_the_others_alone(run: Run) -> None:
    def templates(change: Any) -> dict[str, str]:
        recorded = run("aws_fleet", "prod", change)
        return {one.name: one.inputs["userData"] for one in recorded.of_type(TEMPLATE)}

    before = templates(lambda _: None)
    after = templates(lambda settings: settings["groups"][1].update({"class": "skald"}))
    assert {name for name in before if before[name] != after[name]} == {"griot-a"}


def test_user_data_is_the_same_for_every_run(run: Run) -> None:
    first, second = (run("aws_fleet", "dev", lambda _: None) for _ in range(2))
    assert [one.inputs["userData"] for one in first.of_type(TEMPLATE)] == [
        one.inputs["userData"] for one in second.of_type(TEMPLATE)
    ]


def test_what_a_node_gets_holds_nothing_secret(prod: Recording) -> None:
    for template in prod.of_type(TEMPLATE):
        plain = base64.b64decode(template.inputs["userData"]).decode()
        for word in ("PRIVATE KEY", "AKIA", "of no account", "password"):
            assert word not in plain
