"""Policy documents of AWS, from statements with a name each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

Statement = dict[str, Any]
Condition = Mapping[str, Mapping[str, Any]]


def statement(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[pulumi.Input[str]] = (),
    *,
    effect: str = "Allow",
    principal: Mapping[str, Any] | str | None = None,
    condition: Condition | None = None,
) -> Statement:
    """Return one statement; parts that are empty are left out.

    Args:
        sid: what it is for, letters and digits.
        actions: what is allowed or denied.
        resources: on what; a role's trust policy has none.
        effect: `Allow` or `Deny`.
        principal: to whom, where the policy belongs to a resource.
        condition: only then.
    """
    made: Statement = {"Sid": sid, "Effect": effect, "Action": list(actions)}
    if resources:
        made["Resource"] = list(resources)
    if principal is not None:
        made["Principal"] = principal
    if condition is not None:
        made["Condition"] = condition
    return made


def document(*statements: Statement) -> pulumi.Output[str]:
    """Return the document of these statements, JSON."""
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(service: str, condition: Condition | None = None) -> pulumi.Output[str]:
    """Return the document by which a service may take a role."""
    return document(
        statement("Service", ["sts:AssumeRole"], principal={"Service": service}, condition=condition)
    )


def tls_only(bucket_arn: str) -> Statement:
    """Return the statement that refuses whatever comes to a bucket over TLS before 1.2."""
    return statement(
        "TlsOnly",
        ["s3:*"],
        [bucket_arn, f"{bucket_arn}/*"],
        effect="Deny",
        principal="*",
        condition={"NumericLessThan": {"s3:TlsVersion": "1.2"}},
    )


def plain_refused(bucket_arn: str) -> Statement:
    """Return the statement that refuses whatever comes to a bucket without TLS."""
    return statement(
        "NoPlainHttp",
        ["s3:*"],
        [bucket_arn, f"{bucket_arn}/*"],
        effect="Deny",
        principal="*",
        condition={"Bool": {"aws:SecureTransport": "false"}},
    )
