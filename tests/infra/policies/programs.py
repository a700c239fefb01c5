"""One small program for each policy that it violates, and nothing else wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pulumi
from pulumi_aws.autoscaling._inputs import GroupLaunchTemplateArgs, GroupTagArgs
from pulumi_aws.autoscaling.group import Group
from pulumi_aws.cloudwatch.log_group import LogGroup
from pulumi_aws.ec2._inputs import (
    LaunchTemplateBlockDeviceMappingArgs,
    LaunchTemplateBlockDeviceMappingEbsArgs,
    LaunchTemplateMetadataOptionsArgs,
    LaunchTemplateTagSpecificationArgs,
    SecurityGroupIngressArgs,
)
from pulumi_aws.ec2.internet_gateway import InternetGateway
from pulumi_aws.ec2.launch_template import LaunchTemplate
from pulumi_aws.ec2.security_group import SecurityGroup
from pulumi_aws.ec2.subnet import Subnet
from pulumi_aws.eks._inputs import (
    ClusterAccessConfigArgs,
    ClusterEncryptionConfigArgs,
    ClusterEncryptionConfigProviderArgs,
    ClusterVpcConfigArgs,
)
from pulumi_aws.eks.addon import Addon
from pulumi_aws.eks.cluster import Cluster
from pulumi_aws.iam.role import Role
from pulumi_aws.iam.role_policy import RolePolicy
from pulumi_aws.iam.role_policy_attachment import RolePolicyAttachment
from pulumi_aws.kms.key import Key
from pulumi_aws.provider import Provider
from pulumi_aws.s3.bucket import Bucket
from pulumi_aws.s3.bucket_policy import BucketPolicy
from pulumi_aws.vpc.security_group_ingress_rule import SecurityGroupIngressRule
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.batch.v1 import CronJob
from pulumi_kubernetes.core.v1 import PersistentVolumeClaim, Service
from pulumi_kubernetes.networking.v1 import Ingress

TAGS = {"owner": "platform", "environment": "test", "kos:fleet": "demo", "kos:stack": "test"}
IMAGE = "registry.example/kos@sha256:" + "a" * 64


def template(**changes: Any) -> LaunchTemplate:
    """Register a template with which nothing is wrong but what is changed."""
    volume = LaunchTemplateBlockDeviceMappingEbsArgs(encrypted="true", kms_key_id="arn:aws:kms:key")
    inputs: dict[str, Any] = {
        "image_id": "ami-0123456789abcdef0",
        "metadata_options": LaunchTemplateMetadataOptionsArgs(
            http_tokens="required", http_put_response_hop_limit=1
        ),
        "block_device_mappings": [LaunchTemplateBlockDeviceMappingArgs(ebs=volume)],
        "tag_specifications": [
            LaunchTemplateTagSpecificationArgs(resource_type=kind, tags=TAGS)
            for kind in ("instance", "volume")
        ],
        "tags": TAGS,
    }
    return LaunchTemplate("template", **{**inputs, **changes})


def cluster(**changes: Any) -> Cluster:
    """Register a cluster with which nothing is wrong but what is changed."""
    inputs: dict[str, Any] = {
        "role_arn": "arn:aws:iam::111122223333:role/cluster",
        "version": "1.34",
        "vpc_config": ClusterVpcConfigArgs(subnet_ids=["subnet-1"], endpoint_public_access=False),
        "access_config": ClusterAccessConfigArgs(authentication_mode="API"),
        "encryption_config": ClusterEncryptionConfigArgs(
            provider=ClusterEncryptionConfigProviderArgs(key_arn="arn:aws:kms:key"), resources=["secrets"]
        ),
        "enabled_cluster_log_types": ["api", "audit", "authenticator", "controllerManager", "scheduler"],
        "tags": TAGS,
    }
    return Cluster("cluster", **{**inputs, **changes})


def key(statement: dict[str, Any], *, rotation: bool = True) -> Key:
    """Register a key with one statement."""
    policy = json.dumps({"Statement": [{"Effect": "Allow", "Resource": "*", **statement}]})
    return Key("key", policy=policy, enable_key_rotation=rotation, tags=TAGS)


def role_policy(**statement: Any) -> RolePolicy:
    """Register a role's policy with one statement."""
    policy = json.dumps({"Statement": [{"Effect": "Allow", **statement}]})
    return RolePolicy("policy", role="role", policy=policy)


def group(version: str | None) -> Group:
    """Register a scaling group that names its template so."""
    return Group(
        "group",
        min_size=1,
        max_size=1,
        launch_template=GroupLaunchTemplateArgs(id="lt-1", version=version),
        tags=[GroupTagArgs(key=name, value=value, propagate_at_launch=True) for name, value in TAGS.items()],
    )


def container(**changes: Any) -> dict[str, Any]:
    """Return a container with which nothing is wrong but what is changed; `x__y` reaches into `x`."""
    made: dict[str, Any] = {
        "name": "kosd",
        "image": IMAGE,
        "resources": {"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi", "cpu": "10m"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    for name, value in changes.items():
        *parents, last = name.split("__")
        inner = made
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    return made


def deployment(spec: dict[str, Any] | None = None, **changes: Any) -> Deployment:
    """Register a deployment of one container."""
    pod = {"containers": [container(**changes)], **(spec or {})}
    return Deployment("kosd", spec={"selector": {}, "template": {"spec": pod}})


def service(**spec: Any) -> Service:
    """Register a service."""
    return Service("kosd", spec={"ports": [{"port": 443}], **spec})


def cron_job(**changes: Any) -> CronJob:
    """Register a job of one container that comes again and again."""
    job = {"template": {"spec": {"containers": [container(**changes)]}}}
    return CronJob("kosd", spec={"schedule": "0 0 * * *", "jobTemplate": {"spec": job}})


def public_bucket(policy: dict[str, Any]) -> None:
    """Register a bucket's policy with one statement."""
    BucketPolicy("bucket", bucket="bucket", policy=json.dumps({"Statement": [policy]}))


def backups(*, protect: bool, lock: bool) -> None:
    """Register a bucket that holds backups."""
    Bucket(
        "backup",
        bucket="backup",
        object_lock_enabled=lock,
        tags={**TAGS, "kos:holds": "backups"},
        opts=pulumi.ResourceOptions(protect=protect),
    )


def volume(**changes: Any) -> list[LaunchTemplateBlockDeviceMappingArgs]:
    """Return one volume of a template."""
    return [LaunchTemplateBlockDeviceMappingArgs(ebs=LaunchTemplateBlockDeviceMappingEbsArgs(**changes))]


Program = Callable[[], object]
_ACCOUNT = {"AWS": "arn:aws:iam::111122223333:root"}
_WAY_IN = SecurityGroupIngressArgs(protocol="tcp", from_port=22, to_port=22, cidr_blocks=["0.0.0.0/0"])
_PUBLIC = ClusterVpcConfigArgs(subnet_ids=["subnet-1"], endpoint_public_access=True)
_EVERYBODY = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}

# Policy, what is wrong, and the program that does it.
VIOLATIONS: list[tuple[str, str, Program]] = [
    (
        "imdsv2",
        "without a token",
        lambda: template(
            metadata_options=LaunchTemplateMetadataOptionsArgs(
                http_tokens="optional", http_put_response_hop_limit=1
            )
        ),
    ),
    (
        "imdsv2",
        "within a container's reach",
        lambda: template(
            metadata_options=LaunchTemplateMetadataOptionsArgs(
                http_tokens="required", http_put_response_hop_limit=2
            )
        ),
    ),
    ("imdsv2", "nothing said", lambda: template(metadata_options=None)),
    ("encrypted", "a volume nobody speaks of", lambda: template(block_device_mappings=None)),
    (
        "encrypted",
        "a volume in the clear",
        lambda: template(block_device_mappings=volume(encrypted="false", kms_key_id="arn:aws:kms:key")),
    ),
    ("encrypted", "a log in the clear", lambda: LogGroup("log", retention_in_days=7, tags=TAGS)),
    ("encrypted", "a log for ever", lambda: LogGroup("log", kms_key_id="arn:aws:kms:key", tags=TAGS)),
    (
        "encrypted",
        "a key for ever",
        lambda: key({"Action": "kms:*", "Principal": _ACCOUNT}, rotation=False),
    ),
    ("encrypted", "secrets of a cluster", lambda: cluster(encryption_config=None)),
    ("closed", "SSH from the world", lambda: SecurityGroup("group", ingress=[_WAY_IN], tags=TAGS)),
    (
        "closed",
        "a rule apart",
        lambda: SecurityGroupIngressRule(
            "rule", security_group_id="sg-1", ip_protocol="tcp", cidr_ipv6="::/0", tags=TAGS
        ),
    ),
    (
        "closed",
        "half of the world",
        lambda: SecurityGroupIngressRule(
            "rule", security_group_id="sg-1", ip_protocol="tcp", cidr_ipv4="128.0.0.0/1", tags=TAGS
        ),
    ),
    (
        "closed",
        "the world in other letters",
        lambda: SecurityGroupIngressRule(
            "rule", security_group_id="sg-1", ip_protocol="tcp", cidr_ipv6="0::0/0", tags=TAGS
        ),
    ),
    ("closed", "a public subnet", lambda: Subnet("s", vpc_id="v", map_public_ip_on_launch=True, tags=TAGS)),
    ("closed", "an internet gateway", lambda: InternetGateway("gateway", vpc_id="vpc-1", tags=TAGS)),
    ("closed", "an API for everybody", lambda: cluster(vpc_config=_PUBLIC)),
    ("pinned", "the newest image", lambda: template(image_id="resolve:ssm:/aws/debian/12")),
    ("pinned", "any cluster", lambda: cluster(version=None)),
    (
        "pinned",
        "any addon",
        lambda: Addon("addon", cluster_name="cluster", addon_name="coredns", tags=TAGS),
    ),
    ("numbered-template", "the latest template", lambda: group("$Latest")),
    ("numbered-template", "a template without a version", lambda: group(None)),
    ("protected-data", "unprotected", lambda: backups(protect=False, lock=True)),
    ("protected-data", "backups without a lock", lambda: backups(protect=True, lock=False)),
    ("protected-data", "what goes with all in it", lambda: Bucket("b", force_destroy=True, tags=TAGS)),
    ("tagged", "nobody's", lambda: Subnet("subnet", vpc_id="vpc-1", tags={"owner": "platform"})),
    ("tagged", "machines of nobody", lambda: template(tag_specifications=None)),
    ("least-rights", "every deed", lambda: role_policy(Action="s3:*", Resource="arn:aws:s3:::b")),
    ("least-rights", "everything", lambda: role_policy(Action="s3:GetObject", Resource="*")),
    ("least-rights", "all but one", lambda: role_policy(NotAction="iam:PassRole", Resource="arn:b")),
    (
        "least-rights",
        "an administrator",
        lambda: RolePolicyAttachment(
            "admin", role="role", policy_arn="arn:aws:iam::aws:policy/AdministratorAccess"
        ),
    ),
    (
        "least-rights",
        "a role for everybody",
        lambda: Role(
            "role",
            tags=TAGS,
            assume_role_policy=json.dumps(
                {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}]}
            ),
        ),
    ),
    ("least-rights", "a bucket for everybody", lambda: public_bucket(_EVERYBODY)),
    ("least-rights", "a key for all", lambda: key({"Action": "kms:Decrypt", "Principal": {"AWS": "*"}})),
    ("guarded", "any account", lambda: Provider("aws", region="eu-central-1")),
    ("logged", "no audit", lambda: cluster(enabled_cluster_log_types=["api"])),
    (
        "logged",
        "access by a map",
        lambda: cluster(access_config=ClusterAccessConfigArgs(authentication_mode="CONFIG_MAP")),
    ),
    ("whole-buckets", "a bucket alone", lambda: Bucket("bucket", bucket="bucket", tags=TAGS)),
    ("unprivileged-pods", "privileged", lambda: deployment(securityContext__privileged=True)),
    ("unprivileged-pods", "more later", lambda: deployment(securityContext__allowPrivilegeEscalation=True)),
    ("unprivileged-pods", "root", lambda: deployment(securityContext__runAsUser=0)),
    ("unprivileged-pods", "a disk", lambda: deployment(securityContext__readOnlyRootFilesystem=False)),
    ("unprivileged-pods", "capabilities", lambda: deployment(securityContext__capabilities={"drop": []})),
    ("unprivileged-pods", "every system call", lambda: deployment(securityContext__seccompProfile={})),
    ("unprivileged-pods", "the machine's network", lambda: deployment({"hostNetwork": True})),
    (
        "unprivileged-pods",
        "the machine's files",
        lambda: deployment({"volumes": [{"name": "etc", "hostPath": {"path": "/etc"}}]}),
    ),
    (
        "unprivileged-pods",
        "root, against its pod's word",
        lambda: deployment({"securityContext": {"runAsNonRoot": True}}, securityContext__runAsNonRoot=False),
    ),
    (
        "unprivileged-pods",
        "root, by its pod's word",
        lambda: deployment({"securityContext": {"runAsUser": 0}}),
    ),
    ("unprivileged-pods", "the machine's port", lambda: deployment(ports=[{"hostPort": 80}])),
    ("unprivileged-pods", "a job", lambda: cron_job(securityContext__privileged=True)),
    ("limited-pods", "memory without an end", lambda: deployment(resources__limits={})),
    ("limited-pods", "a job", lambda: cron_job(resources={})),
    ("closed-services", "a port of every machine", lambda: service(type="NodePort")),
    ("closed-services", "another's address", lambda: service(externalIPs=["192.0.2.1"])),
    ("closed-services", "a balancer for everybody", lambda: service(type="LoadBalancer")),
    (
        "closed-services",
        "a balancer for the world",
        lambda: service(type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0/8", "0.0.0.0/0"]),
    ),
    (
        "closed-services",
        "a way in without TLS",
        lambda: Ingress(
            "kosd",
            spec={"tls": [{"hosts": ["a.example"]}], "rules": [{"host": "a.example"}, {"host": "b.example"}]},
        ),
    ),
    ("protected-volumes", "a volume to be deleted", lambda: PersistentVolumeClaim("state", spec={})),
    ("image-by-digest", "an image by its tag", lambda: deployment(image="registry.example/kos:1.0")),
    ("budgeted", "no budget", lambda: Subnet("subnet", vpc_id="vpc-1", tags=TAGS)),
]
