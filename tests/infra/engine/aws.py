"""The fake provider `aws`: what the types that our programs use do beyond what any type does.

Sources: the pages of these resources in the provider's documentation (what forces a replacement, what is
computed), and the AWS API references for what a deletion refuses and when an instance refresh starts.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any

from infra.engine.behaviour import Behaviour, Package, RefusedError, Request, nothing
from infra.engine.cloud import Cloud, Json, Resource
from infra.engine.shapes import Shape

ACCOUNT = "111122223333"
# A record of each instance refresh, kept beside the resources: no program makes one.
REFRESH = "fake:autoscaling:InstanceRefresh"
ZONES = {
    "eu-central-1": ("eu-central-1a", "eu-central-1b", "eu-central-1c"),
    "eu-west-1": ("eu-west-1a", "eu-west-1b", "eu-west-1c"),
    "eu-north-1": ("eu-north-1a", "eu-north-1b", "eu-north-1c"),
    "us-east-1": ("us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d", "us-east-1e", "us-east-1f"),
}

_PREFIXES = {
    "aws:ec2/eip:Eip": "eipalloc-",
    "aws:ec2/flowLog:FlowLog": "fl-",
    "aws:ec2/internetGateway:InternetGateway": "igw-",
    "aws:ec2/launchTemplate:LaunchTemplate": "lt-",
    "aws:ec2/natGateway:NatGateway": "nat-",
    "aws:ec2/routeTable:RouteTable": "rtb-",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": "rtbassoc-",
    "aws:ec2/securityGroup:SecurityGroup": "sg-",
    "aws:ec2/securityGroupRule:SecurityGroupRule": "sgrule-",
    "aws:ec2/subnet:Subnet": "subnet-",
    "aws:ec2/vpc:Vpc": "vpc-",
    "aws:ec2/vpcEndpoint:VpcEndpoint": "vpce-",
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": "a-",
    "aws:kms/key:Key": "key-",
    "aws:route53/zone:Zone": "Z",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": "sgr-",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": "sgr-",
}

# Whatever the type: another of these is another resource.
_IDENTITY = {"name", "namePrefix", "bucket", "vpcId", "clusterName", "securityGroupId", "role", "region"}
_REPLACES = {
    "aws:autoscaling/lifecycleHook:LifecycleHook": {"autoscalingGroupName"},
    "aws:ec2/routeTableAssociation:RouteTableAssociation": {"subnetId"},
    "aws:ec2/securityGroup:SecurityGroup": {"description"},
    "aws:ec2/subnet:Subnet": {"availabilityZone", "cidrBlock"},
    "aws:ec2/vpc:Vpc": {"cidrBlock", "instanceTenancy"},
    "aws:ec2/vpcEndpoint:VpcEndpoint": {"serviceName", "vpcEndpointType"},
    "aws:eks/addon:Addon": {"addonName"},
    "aws:eks/accessEntry:AccessEntry": {"principalArn", "type"},
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": {"principalArn", "policyArn", "accessScope"},
    "aws:eks/cluster:Cluster": {
        *("roleArn", "kubernetesNetworkConfig", "bootstrapSelfManagedAddons"),
        *("encryptionConfig.provider", "accessConfig.bootstrapClusterCreatorAdminPermissions"),
    },
    "aws:eks/nodeGroup:NodeGroup": {
        *("amiType", "capacityType", "diskSize", "instanceTypes", "nodeRoleArn", "subnetIds"),
        *("nodeGroupName", "nodeGroupNamePrefix", "launchTemplate.id", "launchTemplate.name"),
    },
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": {"policyArn"},
    "aws:kms/key:Key": {"customerMasterKeySpec", "keyUsage", "multiRegion"},
    "aws:s3/bucket:Bucket": {"objectLockEnabled"},
    "aws:s3/bucketObjectv2:BucketObjectv2": {"key"},
    "aws:s3/bucketObject:BucketObject": {"key"},
}
_NAMED = {
    "aws:eks/nodeGroup:NodeGroup": "nodeGroupName",
    "aws:s3/bucket:Bucket": "bucket",
    "aws:s3/bucketObject:BucketObject": "key",
    "aws:s3/bucketObjectv2:BucketObjectv2": "key",
}
_SCOPES = {
    "aws:autoscaling/lifecycleHook:LifecycleHook": "autoscalingGroupName",
    "aws:iam/rolePolicy:RolePolicy": "role",
    "aws:s3/bucketObject:BucketObject": "bucket",
    "aws:s3/bucketObjectv2:BucketObjectv2": "bucket",
}
_SETTLED = {
    "aws:ec2/launchTemplate:LaunchTemplate": {"defaultVersion"},
    "aws:eks/cluster:Cluster": {"vpcConfig.clusterSecurityGroupId", "vpcConfig.vpcId", "version"},
    "aws:eks/nodeGroup:NodeGroup": {"version", "releaseVersion"},
}
_CHANGING = {"aws:ec2/launchTemplate:LaunchTemplate": {"latestVersion", "defaultVersion"}}


def behaviour(kind: str, definition: Shape) -> Behaviour:
    """Return how a type of AWS behaves."""
    inputs = definition["fields"].keys()
    named = _NAMED.get(kind, "name" if "name" in inputs and "name" not in definition["required"] else None)
    return Behaviour(
        prefix=_PREFIXES.get(kind, "" if named else f"{kind.rpartition(':')[2].lower()}-"),
        named=named,
        scope=_SCOPES.get(kind),
        replaces=frozenset(_IDENTITY & inputs | _REPLACES.get(kind, set())),
        outputs=_OUTPUTS.get(kind, nothing),
        changing=frozenset(_CHANGING.get(kind, set()) | {"tagsAll"}),
        settled=frozenset(_SETTLED.get(kind, set()) | ({"region"} & inputs)),
        guard=_guard,
    )


def common(request: Request, outputs: Shape) -> Json:
    """Return an ARN, all tags, and something of the right kind for whatever else a type declares."""
    region = request.inputs.get("region") or request.settings.get("region")
    default = {"string": f"{request.id}/", "number": 0, "boolean": False, "list": [], "map": {}}
    made = {
        name: f"{default['string']}{name}" if shape["is"] == "string" else default.get(shape["is"])
        for name, shape in outputs.items()
    }
    service, _, name = request.type.split(":")[1].partition("/")
    place = "" if service == "iam" else region
    arn = f"arn:aws:{service}:{place}:{ACCOUNT}:{name}/{request.id}"
    own = request.inputs.get("tags")
    # The tags of a group are a list, and no default joins them.
    tags = {**_default_tags(request.settings), **own} if isinstance(own, dict) else {}
    known = {"arn": arn, "region": region, "ownerId": ACCOUNT, "tagsAll": tags}
    return {**made, **{name: value for name, value in known.items() if name in outputs}}


def configure(cloud: Cloud, settings: Mapping[str, Any]) -> None:
    """Refuse what the real provider refuses: no region, no credentials, an account not allowed."""
    if not settings.get("region"):
        raise RefusedError("invalid AWS Region: ")
    if not (os.environ.get("AWS_ACCESS_KEY_ID") or settings.get("accessKey") or settings.get("profile")):
        raise RefusedError("No valid credential sources found.")
    allowed = settings.get("allowedAccountIds")
    if allowed and ACCOUNT not in allowed:
        raise RefusedError(f"AWS account ID not allowed: {ACCOUNT}")


def invoke(cloud: Cloud, settings: Mapping[str, Any], function: str, arguments: Json) -> Json:
    """Answer the few functions that tell nothing but where a program runs; refuse all others by name."""
    region = arguments.get("region") or settings.get("region") or ""
    zones = ZONES.get(region, ())
    answers: dict[str, Json] = {
        "aws:index/getAvailabilityZones:getAvailabilityZones": {
            **{"id": region, "names": list(zones), "groupNames": [region], "region": region},
            "zoneIds": [f"{region}-az{number}" for number, _ in enumerate(zones, 1)],
        },
        "aws:index/getCallerIdentity:getCallerIdentity": {
            **{"id": ACCOUNT, "accountId": ACCOUNT, "userId": "AIDAFAKE"},
            "arn": f"arn:aws:iam::{ACCOUNT}:user/fake",
        },
        "aws:index/getRegion:getRegion": {
            **{"id": region, "name": region, "region": region},
            **{"description": region, "endpoint": f"ec2.{region}.amazonaws.com"},
        },
        "aws:index/getPartition:getPartition": {
            **{"id": "aws", "partition": "aws", "dnsSuffix": "amazonaws.com"},
            "reverseDnsPrefix": "com.amazonaws",
        },
    }
    if function not in answers:
        raise RefusedError(
            f"the fake aws does not answer {function}: a program that asks a cloud is not pinned"
        )
    return answers[function]


def _default_tags(settings: Mapping[str, Any]) -> Json:
    tags: Json = (settings.get("defaultTags") or {}).get("tags") or {}
    return tags


def _guard(resource: Resource, others: list[Resource]) -> None:
    """Refuse to delete what another resource still uses, and a cluster that is protected."""
    if resource.inputs.get("deletionProtection"):
        raise RefusedError(f"{resource.name}: deletion protection is enabled")
    for other in others:
        if other != resource and resource.id.startswith(_OF_USE) and _mentions(other.inputs, resource.id):
            raise RefusedError(f"DependencyViolation: {resource.id} is used by {other.type} {other.name}")


# Ids of what AWS refuses to delete while something refers to it.
_OF_USE = ("vpc-", "subnet-", "sg-", "rtb-", "igw-", "lt-", "vpce-")


def _mentions(value: Any, identity: str) -> bool:
    if isinstance(value, dict):
        return any(_mentions(item, identity) for item in value.values())
    if isinstance(value, list):
        return any(_mentions(item, identity) for item in value)
    return bool(value == identity)


def _launch_template(request: Request) -> Json:
    latest = request.old.state["latestVersion"] + 1 if request.old else 1
    first = request.old.state["defaultVersion"] if request.old else 1
    default = latest if request.inputs.get("updateDefaultVersion") else first
    return {"latestVersion": latest, "defaultVersion": request.inputs.get("defaultVersion", default)}


def _group(request: Request) -> Json:
    """Begin an instance refresh where the provider does: the template changed, or one of the triggers did."""
    refresh = request.inputs.get("instanceRefresh")
    triggers = {"launchConfiguration", "launchTemplate", "mixedInstancesPolicy"}
    if refresh and {path.partition(".")[0] for path in request.changed} & (
        triggers | set(refresh.get("triggers") or [])
    ):
        number = len(request.cloud.all(REFRESH)) + 1
        request.cloud.put(
            Resource(REFRESH, request.name, f"refresh-{number}", refresh, {"group": request.id})
        )
    return {}


def _cluster(request: Request) -> Json:
    region = request.settings.get("region")
    network = {
        **request.inputs["vpcConfig"],
        **{"clusterSecurityGroupId": f"sg-of-{request.id}", "vpcId": f"vpc-of-{request.id}"},
    }
    certificate = base64.b64encode(b"-----BEGIN CERTIFICATE-----\n").decode()
    return {
        **{"vpcConfig": network, "status": "ACTIVE", "platformVersion": "eks.1"},
        "endpoint": f"https://{request.id.upper()}.gr7.{region}.eks.amazonaws.com",
        "certificateAuthority": {"data": certificate},
        "certificateAuthorities": [{"data": certificate}],
        "identities": [
            {"oidcs": [{"issuer": f"https://oidc.eks.{region}.amazonaws.com/id/{request.id.upper()}"}]}
        ],
    }


def _bucket(request: Request) -> Json:
    region = request.settings.get("region")
    return {
        "arn": f"arn:aws:s3:::{request.id}",
        "bucketDomainName": f"{request.id}.s3.amazonaws.com",
        "bucketRegionalDomainName": f"{request.id}.s3.{region}.amazonaws.com",
    }


def _arn_of_service(service: str, form: str) -> Any:
    def outputs(request: Request) -> Json:
        region = request.settings.get("region")
        return {"arn": f"arn:aws:{service}:{region}:{ACCOUNT}:{form.format(id=request.id)}"}

    return outputs


_OUTPUTS = {
    "aws:autoscaling/group:Group": _group,
    "aws:cloudwatch/logGroup:LogGroup": _arn_of_service("logs", "log-group:{id}"),
    "aws:ec2/launchTemplate:LaunchTemplate": _launch_template,
    "aws:eks/cluster:Cluster": _cluster,
    "aws:kms/key:Key": lambda request: {"keyId": request.id, **_arn_of_service("kms", "key/{id}")(request)},
    "aws:route53/zone:Zone": lambda request: {
        "zoneId": request.id,
        "nameServers": ["ns-1.example", "ns-2.example"],
    },
    "aws:s3/bucket:Bucket": _bucket,
    "aws:sns/topic:Topic": _arn_of_service("sns", "{id}"),
}

PACKAGE = Package("aws", behaviour, common, invoke, configure)
