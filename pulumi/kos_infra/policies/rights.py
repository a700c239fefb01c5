"""Which rights are too wide: policy documents of IAM, of buckets, keys and topics, read as AWS reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..recording import Registration
from .rule import child, has, mappings, texts

ROLE = "aws:iam/role:Role"
ROLE_POLICY = "aws:iam/rolePolicy:RolePolicy"
POLICY = "aws:iam/policy:Policy"
ATTACHMENT = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
KEY = "aws:kms/key:Key"
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
TOPIC_POLICY = "aws:sns/topicPolicy:TopicPolicy"

TYPES = frozenset({ROLE, ROLE_POLICY, POLICY, ATTACHMENT, KEY, ENDPOINT, BUCKET_POLICY, TOPIC_POLICY})

# Actions that know no resources, so that there is nothing to name.
WITHOUT_RESOURCES = frozenset(
    {
        "ec2:DescribeInstances",
        "ecr:GetAuthorizationToken",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    }
)
_TOO_WIDE = re.compile(r"/(AdministratorAccess|PowerUserAccess|IAMFullAccess|\w*FullAccess)$")
_ACCOUNT = re.compile(r"arn:aws:iam::[0-9]{12}:root")


def statements(document: Any) -> list[Mapping[str, Any]]:
    """Return the statements of a document, text or mapping; none of what is no document."""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            return []
    return mappings(document.get("Statement")) if isinstance(document, Mapping) else []


def refuses_plain_http(statement: Mapping[str, Any]) -> bool:
    """Whether a statement refuses everybody who does not use TLS."""
    secure = child(child(statement, "Condition"), "Bool").get("aws:SecureTransport")
    return (
        statement.get("Effect") == "Deny"
        and _everybody(statement.get("Principal"))
        and str(secure).lower() == "false"
        and bool({"*", "s3:*"} & set(texts(statement.get("Action"))))
    )


def breaches(one: Registration) -> Iterator[str]:
    """Yield a message for each right that is too wide."""
    properties = one.inputs
    if one.type == ATTACHMENT:
        arn = properties.get("policyArn", "") if has(properties, "policyArn") else ""
        if _TOO_WIDE.search(str(arn)):
            yield f"{str(arn).rpartition('/')[2]} gives more than any program needs"
        return
    if one.type == ROLE:
        yield from _of_role(properties)
        return
    document = properties.get("policy")
    if one.type == ENDPOINT and document is None and properties.get("vpcEndpointType") == "Gateway":
        yield "an endpoint of buckets names the buckets that can be reached through it"
    for statement in statements(document):
        if statement.get("Effect") != "Allow":
            continue
        if one.type == KEY:
            yield from _of_key(statement)
        elif one.type == ENDPOINT:
            if "*" in texts(statement.get("Resource")):
                yield "Resource * lets everything through; an endpoint names what can be reached"
        elif one.type in (ROLE_POLICY, POLICY):
            yield from _of_identity(statement)
        else:
            yield from _wild_actions(statement)
            yield from _open_to_everybody(statement)


def _of_role(properties: Mapping[str, Any]) -> Iterator[str]:
    for statement in statements(properties.get("assumeRolePolicy")):
        yield from _open_to_everybody(statement)
    for inline in mappings(properties.get("inlinePolicies")):
        for statement in statements(inline.get("policy")):
            if statement.get("Effect") == "Allow":
                yield from _of_identity(statement)
    for arn in texts(properties.get("managedPolicyArns")):
        if _TOO_WIDE.search(arn):
            yield f"{arn.rpartition('/')[2]} gives more than any program needs"


def _of_identity(statement: Mapping[str, Any]) -> Iterator[str]:
    yield from _wild_actions(statement)
    if "*" in texts(statement.get("Resource")):
        wide = sorted(set(texts(statement.get("Action"))) - WITHOUT_RESOURCES)
        if wide:
            yield f"Resource * for {', '.join(wide)}; name what it is about"
    for key in ("NotAction", "NotResource"):
        if has(statement, key):
            yield f"{key} allows whatever is not named; name what is allowed"


def _of_key(statement: Mapping[str, Any]) -> Iterator[str]:
    """In a key's own policy Resource * is that key; all of its rights belong to the account alone."""
    principals = texts(child(statement, "Principal").get("AWS"))
    if principals and all(_ACCOUNT.fullmatch(principal) for principal in principals):
        return
    for action in texts(statement.get("Action")):
        if action in ("*", "kms:*"):
            yield f"{action} for others than the account itself"
    yield from _open_to_everybody(statement)


def _wild_actions(statement: Mapping[str, Any]) -> Iterator[str]:
    for action in texts(statement.get("Action")):
        if "*" in action:
            yield f"Action {action} allows what nobody thought of; name the actions"


def _open_to_everybody(statement: Mapping[str, Any]) -> Iterator[str]:
    if _everybody(statement.get("Principal")) and not child(statement, "Condition"):
        yield "everybody is allowed, without a condition"


def _everybody(principal: Any) -> bool:
    if isinstance(principal, Mapping):
        return "*" in texts(principal.get("AWS"))
    return "*" in texts(principal)
