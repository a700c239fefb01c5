"""Keys that encrypt, each of one thing, rotated every year."""

from __future__ import annotations

import pulumi
from pulumi_aws.kms.alias import Alias
from pulumi_aws.kms.key import Key

from .names import Names
from .permissions import Condition, Statement, document, statement

USE = ("kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*")
DELETION_DAYS = 30


class Keys(pulumi.ComponentResource):
    """The customer-managed keys of a stack: one of its machines, and one of what has to outlive them."""

    def __init__(
        self,
        name: str,
        names: Names,
        *,
        region: str,
        log_groups: str,
        kept: str,
        protect: bool = True,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        name: logical name.
        names: physical names and tags.
        region: where the keys are.
        log_groups: what the names of the log groups begin with that the machines' key encrypts.
        kept: what the other key encrypts.
        protect: whether that one stays, so that nobody deletes it by accident.
        """
        super().__init__("kos:aws:Keys", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        lasting = pulumi.ResourceOptions(parent=self, protect=protect, retain_on_delete=protect)
        self.machines = _key("machines", names, own, _machines(names, region, log_groups))
        self.kept = _key(kept, names, lasting, [_owner(names)])
        self.register_outputs({})


def _key(what: str, names: Names, opts: pulumi.ResourceOptions, policy: list[Statement]) -> Key:
    key = Key(
        what,
        description=f"Fleet {names.fleet}, stack {names.stack}: {what}",
        policy=document(*policy),
        enable_key_rotation=True,
        deletion_window_in_days=DELETION_DAYS,
        tags=names.tagged(what),
        opts=opts,
    )
    Alias(what, name=f"alias/{names.of(what)}", target_key_id=key.key_id, opts=opts)
    return key


def _owner(names: Names) -> Statement:
    """The account may manage its key and say in IAM who else may; without this nobody could, not even AWS."""
    return statement("Account", ["kms:*"], ["*"], principal={"AWS": f"arn:aws:iam::{names.account}:root"})


def _machines(names: Names, region: str, log_groups: str) -> list[Statement]:
    account, logs = names.account, f"logs.{region}.amazonaws.com"
    # The auto scaling service has no role to name before its first use in an account. What it does, it does
    # through EC2 in the account, as everybody who starts a machine.
    through_ec2: Condition = {
        "StringEquals": {"kms:CallerAccount": account, "kms:ViaService": f"ec2.{region}.amazonaws.com"}
    }
    of_account: Condition = {"StringEquals": {"aws:SourceAccount": account}}
    of_logs = f"arn:aws:logs:{region}:{account}:log-group:{log_groups}*"
    return [
        _owner(names),
        statement("Volumes", [*USE, "kms:CreateGrant"], ["*"], principal={"AWS": "*"}, condition=through_ec2),
        statement(
            "Logs",
            USE,
            ["*"],
            principal={"Service": logs},
            condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": of_logs}},
        ),
        statement(
            "Alarms",
            ["kms:Decrypt", "kms:GenerateDataKey*"],
            ["*"],
            principal={"Service": "cloudwatch.amazonaws.com"},
            condition=of_account,
        ),
    ]
