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
from infra.engine.cloud import Json, Resource
from infra.engine.shapes import Shape

ACCOUNT = "111122223333"
# Names another account whose credentials these are.
ACCOUNT_VARIABLE = "KOS_FAKE_ACCOUNT"
# A record of each instance refresh, kept beside the resources: no program makes one.
REFRESH = "fake:autoscaling:InstanceRefresh"

_PREFIXES = {
    "aws:ec2/launchTemplate:LaunchTemplate": "lt-",
    "aws:ec2/routeTable:RouteTable": "rtb-",
    "aws:ec2/securityGroup:SecurityGroup": "sg-",
    "aws:ec2/subnet:Subnet": "subnet-",
    "aws:ec2/vpc:Vpc": "vpc-",
    "aws:ec2/vpcEndpoint:VpcEndpoint": "vpce-",
}
# Of these, AWS deletes none while something refers to it.
_OF_USE = tuple(_PREFIXES.values())

# Whatever the type: another of these is another resource.
_IDENTITY = {"name", "namePrefix", "bucket", "vpcId", "clusterName", "securityGroupId", "role", "region"}
_REPLACES = {
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
}
_NAMED = {
    "aws:eks/nodeGroup:NodeGroup": "nodeGroupName",
    "aws:s3/bucket:Bucket": "bucket",
    "aws:s3/bucketObjectv2:BucketObjectv2": "key",
}
_SCOPES = {
    "aws:iam/rolePolicy:RolePolicy": "role",
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
    empty = {"number": 0, "boolean": False, "list": [], "map": {}}
    made = {
        name: f"{request.id}/{name}" if shape["is"] == "string" else empty.get(shape["is"])
        for name, shape in outputs.items()
    }
    service, _, name = request.type.split(":")[1].partition("/")
    place = "" if service == "iam" else region
    arn = f"arn:aws:{service}:{place}:{_account()}:{name}/{request.id}"
    known = {"arn": arn, "region": region, "ownerId": _account(), "tagsAll": request.inputs.get("tags") or {}}
    return {**made, **{name: value for name, value in known.items() if name in outputs}}


def configure(settings: Mapping[str, Any]) -> None:
    """Refuse what the real provider refuses: no region, no credentials, an account not allowed."""
    if not settings.get("region"):
        raise RefusedError("invalid AWS Region: ")
    if not (os.environ.get("AWS_ACCESS_KEY_ID") or settings.get("accessKey") or settings.get("profile")):
        raise RefusedError("No valid credential sources found.")
    allowed = settings.get("allowedAccountIds")
    if allowed and _account() not in allowed:
        raise RefusedError(f"AWS account ID not allowed: {_account()}")


def _account() -> str:
    return os.environ.get(ACCOUNT_VARIABLE, ACCOUNT)


def invoke(settings: Mapping[str, Any], function: str, arguments: Json) -> Json:
    """Say which zones a region has; refuse all other functions by name."""
    if function != "aws:index/getAvailabilityZones:getAvailabilityZones":
        raise RefusedError(f"the fake aws does not answer {function}: a cloud's answer is not pinned")
    region = arguments.get("region") or settings.get("region")
    return {"id": region, "names": [f"{region}{letter}" for letter in "abc"]}


def _guard(resource: Resource, others: list[Resource]) -> None:
    """Refuse to delete what another resource still uses, and a cluster that is protected."""
    if resource.inputs.get("deletionProtection"):
        raise RefusedError(f"{resource.name}: deletion protection is enabled")
    for other in others:
        if other != resource and resource.id.startswith(_OF_USE) and _mentions(other.inputs, resource.id):
            raise RefusedError(f"DependencyViolation: {resource.id} is used by {other.type} {other.name}")


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
    if refresh:
        own = ("launchConfiguration", "launchTemplate", "mixedInstancesPolicy")
        triggers = {*own, *(refresh.get("triggers") or [])}
        if triggers & {path.partition(".")[0] for path in request.changed}:
            identity = f"refresh-{len(request.cloud.all(REFRESH)) + 1}"
            request.cloud.put(Resource(REFRESH, request.name, identity, refresh, {"group": request.id}))
    return {}


def _cluster(request: Request) -> Json:
    made = {"clusterSecurityGroupId": f"sg-of-{request.id}", "vpcId": f"vpc-of-{request.id}"}
    return {
        "vpcConfig": {**request.inputs["vpcConfig"], **made},
        "endpoint": f"https://{request.id}.gr7.{request.settings['region']}.eks.amazonaws.com",
        "certificateAuthority": {"data": base64.b64encode(b"-----BEGIN CERTIFICATE-----\n").decode()},
    }


def _bucket(request: Request) -> Json:
    host = f"{request.id}.s3.{request.settings['region']}.amazonaws.com"
    return {"arn": f"arn:aws:s3:::{request.id}", "bucketRegionalDomainName": host}


_OUTPUTS = {
    "aws:autoscaling/group:Group": _group,
    "aws:ec2/launchTemplate:LaunchTemplate": _launch_template,
    "aws:eks/cluster:Cluster": _cluster,
    "aws:kms/key:Key": lambda request: {"keyId": request.id},
    "aws:route53/zone:Zone": lambda request: {"zoneId": request.id},
    "aws:s3/bucket:Bucket": _bucket,
}

PACKAGE = Package("aws", behaviour, common, invoke, configure)
