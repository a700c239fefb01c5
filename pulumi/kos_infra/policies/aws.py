"""Policies about AWS: machines, data, rights and who pays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ..aws.settings import REQUIRED_TAGS
from ..recording import Registration
from . import rights
from .rule import Rule, StackRule, child, has, is_world, mappings, texts

TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
INSTANCE = "aws:ec2/instance:Instance"
VOLUME = "aws:ebs/volume:Volume"
SCALING_GROUP = "aws:autoscaling/group:Group"
SUBNET = "aws:ec2/subnet:Subnet"
SECURITY_GROUP = "aws:ec2/securityGroup:SecurityGroup"
DEFAULT_SECURITY_GROUP = "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"
SECURITY_GROUP_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
INGRESS_RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
INTERNET_GATEWAY = "aws:ec2/internetGateway:InternetGateway"
BUCKET = "aws:s3/bucket:Bucket"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
BUCKET_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
BUCKET_ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
BUCKET_VERSIONING = "aws:s3/bucketVersioning:BucketVersioning"
BUCKET_LOCK = "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"
KEY = "aws:kms/key:Key"
LOG_GROUP = "aws:cloudwatch/logGroup:LogGroup"
TOPIC = "aws:sns/topic:Topic"
CLUSTER = "aws:eks/cluster:Cluster"
WORKERS = "aws:eks/nodeGroup:NodeGroup"
ADDON = "aws:eks/addon:Addon"
BUDGET = "aws:budgets/budget:Budget"
PROVIDER = "pulumi:providers:aws"

BACKUPS = "backups"
"""Value of the tag kos:holds of what holds backups."""

LOG_TYPES = {"api", "audit", "authenticator", "controllerManager", "scheduler"}
_IMAGE = re.compile(r"ami-[0-9a-f]{8,17}")
_VERSION = re.compile(r"v?[0-9]+\.[0-9]+.*")
_MOVING = ("$Latest", "$Default")
_OWN_TAGS = ("kos:fleet", "kos:stack")

# What takes tags, of all that the programs make; what is neither here nor in UNTAGGED fails a test.
TAGGED = frozenset(
    {
        *(TEMPLATE, INSTANCE, VOLUME, SUBNET, SECURITY_GROUP, DEFAULT_SECURITY_GROUP, INGRESS_RULE),
        *(BUCKET, KEY, LOG_GROUP, TOPIC, CLUSTER, WORKERS, ADDON, BUDGET, INTERNET_GATEWAY),
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        "aws:costexplorer/anomalyMonitor:AnomalyMonitor",
        "aws:costexplorer/anomalySubscription:AnomalySubscription",
        "aws:ec2/flowLog:FlowLog",
        "aws:ec2/routeTable:RouteTable",
        "aws:ec2/vpc:Vpc",
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        "aws:eks/accessEntry:AccessEntry",
        "aws:iam/instanceProfile:InstanceProfile",
        "aws:iam/role:Role",
        "aws:route53/zone:Zone",
        "aws:s3/bucketObjectv2:BucketObjectv2",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    }
)
UNTAGGED = frozenset(
    {
        *(
            BUCKET_POLICY,
            BUCKET_BLOCK,
            BUCKET_ENCRYPTION,
            BUCKET_VERSIONING,
            BUCKET_LOCK,
            SECURITY_GROUP_RULE,
        ),
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "aws:kms/alias:Alias",
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls",
        "aws:sns/topicPolicy:TopicPolicy",
        "aws:sns/topicSubscription:TopicSubscription",
    }
)
# Things with data that is nowhere else.
DATA = frozenset(
    {
        "aws:dynamodb/table:Table",
        "aws:efs/fileSystem:FileSystem",
        "aws:rds/cluster:Cluster",
        "aws:rds/instance:Instance",
    }
)


def _imdsv2(one: Registration) -> Iterator[str]:
    options = child(one.inputs, "metadataOptions")
    if options.get("httpTokens") != "required":
        yield "metadataOptions.httpTokens must be required"
    if options.get("httpPutResponseHopLimit") != 1:
        yield "metadataOptions.httpPutResponseHopLimit must be 1: no container asks in its machine's name"


def _encrypted(one: Registration) -> Iterator[str]:
    properties = one.inputs
    if one.type == TEMPLATE:
        volumes = [child(one, "ebs") for one in mappings(properties.get("blockDeviceMappings"))]
        if not volumes:
            yield "blockDeviceMappings must say how the volumes of its machines are encrypted"
        for volume in volumes:
            if volume.get("encrypted") not in ("true", True) or not has(volume, "kmsKeyId"):
                yield "every volume must be encrypted with a key of the account"
    elif one.type == VOLUME:
        if not properties.get("encrypted") or not has(properties, "kmsKeyId"):
            yield "the volume must be encrypted with a key of the account"
    elif one.type == LOG_GROUP:
        if not has(properties, "kmsKeyId"):
            yield "kmsKeyId is missing: logs are encrypted with a key of the account"
        if not properties.get("retentionInDays"):
            yield "retentionInDays is missing: logs are not kept for ever"
    elif one.type == TOPIC:
        if not has(properties, "kmsMasterKeyId"):
            yield "kmsMasterKeyId is missing: what is sent is encrypted with a key of the account"
    elif one.type == KEY:
        if not properties.get("enableKeyRotation"):
            yield "enableKeyRotation must be true"
    elif one.type == CLUSTER:
        encryption = child(properties, "encryptionConfig")
        if "secrets" not in texts(encryption.get("resources")):
            yield "encryptionConfig must encrypt secrets"


def _closed(one: Registration) -> Iterator[str]:
    properties = one.inputs
    if one.type == INTERNET_GATEWAY:
        yield "an internet gateway is a way in; machines reach services through endpoints"
    elif one.type == SUBNET:
        if properties.get("mapPublicIpOnLaunch"):
            yield "mapPublicIpOnLaunch must be false: a subnet is private"
    elif one.type in (TEMPLATE, INSTANCE):
        asked = [properties, *mappings(properties.get("networkInterfaces"))]
        if any(interface.get("associatePublicIpAddress") in (True, "true") for interface in asked):
            yield "associatePublicIpAddress must not be set: a machine has no public address"
    elif one.type == CLUSTER:
        network = child(properties, "vpcConfig")
        public = network.get("endpointPublicAccess", True)
        allowed = texts(network.get("publicAccessCidrs"))
        if public and (not allowed or any(map(is_world, allowed))):
            yield "the API must be private, or name the networks from which it can be reached"
    else:
        yield from _world_let_in(one)


def _world_let_in(one: Registration) -> Iterator[str]:
    properties = one.inputs
    if one.type in (SECURITY_GROUP, DEFAULT_SECURITY_GROUP):
        ways = mappings(properties.get("ingress"))
    elif one.type == SECURITY_GROUP_RULE and properties.get("type") != "ingress":
        ways = []
    else:
        ways = [properties]
    keys = ("cidrBlocks", "ipv6CidrBlocks", "cidrIpv4", "cidrIpv6")
    for way in ways:
        for address in (address for key in keys if has(way, key) for address in texts(way[key])):
            if is_world(address):
                yield f"{address} is the world, and nothing is let in from there"


def _pinned(one: Registration) -> Iterator[str]:
    properties = one.inputs
    if one.type == WORKERS:
        if not _VERSION.fullmatch(str(properties.get("releaseVersion", ""))):
            yield "releaseVersion is missing: the machines' image is pinned"
    elif one.type == CLUSTER:
        if not _VERSION.fullmatch(str(properties.get("version", ""))):
            yield "version is missing: a cluster's version is pinned"
    elif one.type == ADDON:
        if not _VERSION.fullmatch(str(properties.get("addonVersion", ""))):
            yield "addonVersion is missing: an addon's version is pinned"
    else:
        key = "imageId" if one.type == TEMPLATE else "ami"
        # A template of workers has none: their release version pins it.
        image = properties.get(key)
        if image is not None and not _IMAGE.fullmatch(str(image)):
            yield f"{key} must be the id of one image, such as ami-0123456789abcdef0"


def _numbered_template(one: Registration) -> Iterator[str]:
    mixed = child(child(one.inputs, "mixedInstancesPolicy"), "launchTemplate")
    overrides = [child(way, "launchTemplateSpecification") for way in mappings(mixed.get("overrides"))]
    for template in (
        child(one.inputs, "launchTemplate"),
        child(mixed, "launchTemplateSpecification"),
        *overrides,
    ):
        if template and has(template, "version") and template["version"] in _MOVING:
            yield f"{template['version']} of a template moves unnoticed; name the number of a version"
        if template and not has(template, "version"):
            yield "a template's version is missing; $Default is meant then, which moves unnoticed"


def _protected(one: Registration) -> Iterator[str]:
    if one.type == BUCKET and one.inputs.get("forceDestroy"):
        yield "forceDestroy must not be set: a bucket with something in it stays"
    if one.type in DATA or (one.type == BUCKET and _holds_backups(one)):
        if not one.protect:
            yield "the option protect is missing: it holds data that is nowhere else"
        if one.type == BUCKET and not one.inputs.get("objectLockEnabled"):
            yield "objectLockEnabled must be true: nobody deletes a backup before its time"


def _tagged(one: Registration) -> Iterator[str]:
    wanted = (*REQUIRED_TAGS, *_OWN_TAGS)
    if one.type == SCALING_GROUP:
        tags = {
            str(tag.get("key")) for tag in mappings(one.inputs.get("tags")) if tag.get("propagateAtLaunch")
        }
    else:
        tags = set(child(one.inputs, "tags"))
    for tag in wanted:
        if tag not in tags:
            yield f"the tag {tag} is missing"
    if one.type == TEMPLATE:
        specified = {
            str(specification.get("resourceType")): set(child(specification, "tags"))
            for specification in mappings(one.inputs.get("tagSpecifications"))
        }
        for kind in ("instance", "volume"):
            missing = set(wanted) - specified.get(kind, set())
            if missing:
                yield f"tagSpecifications of {kind} lacks {', '.join(sorted(missing))}"


def _guarded(one: Registration) -> Iterator[str]:
    if not texts(one.inputs.get("allowedAccountIds")) and not one.inputs.get("allowedAccountIds"):
        yield "allowedAccountIds is missing: a provider works in no account that happens to be configured"


def _logged(one: Registration) -> Iterator[str]:
    missing = LOG_TYPES - set(texts(one.inputs.get("enabledClusterLogTypes")))
    if missing:
        yield f"enabledClusterLogTypes lacks {', '.join(sorted(missing))}"
    if child(one.inputs, "accessConfig").get("authenticationMode") != "API":
        yield "accessConfig.authenticationMode must be API: who may do what is in access entries"


def _buckets_are_whole(registrations: Sequence[Registration]) -> Iterator[tuple[Registration, str]]:
    """Each bucket has beside it what makes it one; which belongs to which is told by the bucket's name."""
    parts = {
        BUCKET_BLOCK: "a block of public access",
        BUCKET_ENCRYPTION: "encryption",
        BUCKET_POLICY: "a policy that refuses what comes without TLS",
        BUCKET_VERSIONING: "versioning",
        BUCKET_LOCK: "a lock",
    }
    beside: dict[str, dict[str, Registration]] = {kind: {} for kind in parts}
    for one in registrations:
        if one.type in parts:
            beside[one.type][str(one.inputs.get("bucket"))] = one
    for bucket in (one for one in registrations if one.type == BUCKET):
        name = str(bucket.inputs.get("bucket"))
        for kind, what in parts.items():
            needed = kind != BUCKET_LOCK or _holds_backups(bucket)
            part = beside[kind].get(name)
            if needed and (part is None or not _is_good(part)):
                yield bucket, f"the bucket lacks {what}"


def _is_good(part: Registration) -> bool:
    properties = part.inputs
    if part.type == BUCKET_BLOCK:
        switches = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
        return all(properties.get(switch) is True for switch in switches)
    if part.type == BUCKET_POLICY:
        return any(map(rights.refuses_plain_http, rights.statements(properties.get("policy"))))
    if part.type == BUCKET_VERSIONING:
        return child(properties, "versioningConfiguration").get("status") == "Enabled"
    if part.type == BUCKET_LOCK:
        retention = child(child(properties, "rule"), "defaultRetention")
        return bool(retention.get("mode")) and bool(retention.get("days") or retention.get("years"))
    return True


def _budgeted(registrations: Sequence[Registration]) -> Iterator[tuple[None, str]]:
    ours = [one for one in registrations if one.type.startswith("aws:")]
    budgets = [one for one in ours if one.type == BUDGET]
    if ours and not any(float(one.inputs.get("limitAmount") or 0) > 0 for one in budgets):
        yield None, "the stack has no budget of more than nothing"


def _holds_backups(bucket: Registration) -> bool:
    tags: Mapping[str, object] = child(bucket.inputs, "tags")
    return tags.get("kos:holds") == BACKUPS


def _of(*types: str) -> frozenset[str]:
    return frozenset(types)


RULES: tuple[Rule | StackRule, ...] = (
    Rule(
        "imdsv2",
        "A machine's metadata service wants a token, and answers its machine alone.",
        _of(TEMPLATE, INSTANCE),
        _imdsv2,
    ),
    Rule(
        "encrypted",
        "What is stored or sent is encrypted with a key of the account.",
        _of(TEMPLATE, VOLUME, LOG_GROUP, TOPIC, KEY, CLUSTER),
        _encrypted,
    ),
    Rule(
        "closed",
        "Nothing is let in from the world.",
        _of(
            *(SECURITY_GROUP, DEFAULT_SECURITY_GROUP, SECURITY_GROUP_RULE, INGRESS_RULE, INTERNET_GATEWAY),
            *(SUBNET, TEMPLATE, INSTANCE, CLUSTER),
        ),
        _closed,
    ),
    Rule(
        "pinned",
        "Images and versions are pinned.",
        _of(TEMPLATE, INSTANCE, WORKERS, CLUSTER, ADDON),
        _pinned,
    ),
    Rule(
        "numbered-template",
        "A group names the number of its template's version, so that a change is noticed.",
        _of(SCALING_GROUP, WORKERS),
        _numbered_template,
    ),
    Rule(
        "protected-data",
        "Data that is nowhere else is protected from deletion.",
        DATA | _of(BUCKET),
        _protected,
    ),
    Rule("tagged", "Everything says whose it is.", TAGGED | _of(SCALING_GROUP), _tagged),
    Rule("least-rights", "Rights name what they are for.", rights.TYPES, rights.breaches),
    Rule("guarded", "A provider works in the accounts that are allowed alone.", _of(PROVIDER), _guarded),
    Rule("logged", "A cluster logs everything, and says in entries who may do what.", _of(CLUSTER), _logged),
    StackRule(
        "whole-buckets",
        "A bucket is private, encrypted, versioned and asks for TLS; one that holds backups has a lock.",
        _buckets_are_whole,
    ),
    StackRule("budgeted", "A stack has a budget.", _budgeted),
)
