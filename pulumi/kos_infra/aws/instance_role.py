"""What a node may do in its account: be reached, finish its launch, and keep its backups."""

from __future__ import annotations

import pulumi
from pulumi_aws.iam.instance_profile import InstanceProfile
from pulumi_aws.iam.role import Role
from pulumi_aws.iam.role_policy import RolePolicy

from .buckets import bucket_arn
from .names import Names
from .permissions import document, statement, trust


class InstanceRole(pulumi.ComponentResource):
    """The role of every node of a fleet."""

    def __init__(
        self,
        name: str,
        names: Names,
        *,
        region: str,
        backup_key_arn: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        name: logical name.
        names: physical names and tags.
        region: where the nodes are.
        backup_key_arn: key that encrypts the backups.
        """
        super().__init__("kos:aws:InstanceRole", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        role = Role(
            name,
            name=names.of(name),
            description=f"Nodes of fleet {names.fleet}",
            assume_role_policy=trust("ec2.amazonaws.com"),
            tags=names.tagged(name),
            opts=own,
        )
        groups = f"arn:aws:autoscaling:{region}:{names.account}:autoScalingGroup:*:autoScalingGroupName"
        instances = f"arn:aws:ec2:{region}:{names.account}:instance/*"
        backup = bucket_arn(names, "backup")
        policy = document(
            # These four know no resources.
            statement(
                "Channels",
                [
                    f"ssmmessages:{verb}{kind}Channel"
                    for verb in ("Create", "Open")
                    for kind in ("Control", "Data")
                ],
                ["*"],
            ),
            statement("Register", ["ssm:UpdateInstanceInformation"], [instances]),
            statement("FinishLaunch", ["autoscaling:CompleteLifecycleAction"], [f"{groups}/{names.of('*')}"]),
            statement("ListBackups", ["s3:ListBucket"], [backup]),
            statement("KeepBackups", ["s3:GetObject", "s3:PutObject"], [f"{backup}/*"]),
            # A tool that keeps locks in a repository has to take them away again; nothing else.
            statement("ReleaseLocks", ["s3:DeleteObject"], [f"{backup}/*/locks/*"]),
            statement("EncryptBackups", ["kms:Decrypt", "kms:GenerateDataKey"], [backup_key_arn]),
        )
        granted = RolePolicy(name, name="node", role=role.name, policy=policy, opts=own)
        # A machine that starts before its rights are there could not finish its launch.
        self.profile = InstanceProfile(
            name,
            name=names.of(name),
            role=role.name,
            tags=names.tagged(name),
            opts=pulumi.ResourceOptions.merge(own, pulumi.ResourceOptions(depends_on=[granted])),
        )
        self.register_outputs({"profile": self.profile.arn})
