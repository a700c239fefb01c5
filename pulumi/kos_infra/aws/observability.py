"""Who hears of an alarm, and what the network's log keeps."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from pulumi_aws.cloudwatch.log_group import LogGroup
from pulumi_aws.ec2.flow_log import FlowLog
from pulumi_aws.iam.role import Role
from pulumi_aws.iam.role_policy import RolePolicy
from pulumi_aws.sns.topic import Topic
from pulumi_aws.sns.topic_policy import TopicPolicy
from pulumi_aws.sns.topic_subscription import TopicSubscription

from .names import Names
from .permissions import Condition, document, statement, trust


class Observability(pulumi.ComponentResource):
    """A topic for alarms with its subscribers, and the flow log of the network."""

    def __init__(
        self,
        name: str,
        names: Names,
        *,
        vpc_id: pulumi.Input[str],
        key_arn: pulumi.Input[str],
        log_group: str,
        log_days: int,
        notify: Sequence[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        name: logical name.
        names: physical names and tags.
        vpc_id: the network whose flows are logged.
        key_arn: key that encrypts logs and alarms.
        log_group: name of the flow log.
        log_days: how long it is kept.
        notify: mail addresses that hear of alarms.
        """
        super().__init__("kos:aws:Observability", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        of_account: Condition = {"StringEquals": {"aws:SourceAccount": names.account}}
        self.topic = Topic(
            "alarms",
            name=names.of("alarms"),
            kms_master_key_id=key_arn,
            tags=names.tagged("alarms"),
            opts=own,
        )
        TopicPolicy(
            "alarms",
            arn=self.topic.arn,
            policy=document(
                statement(
                    "Alarms",
                    ["sns:Publish"],
                    [self.topic.arn],
                    principal={"Service": "cloudwatch.amazonaws.com"},
                    condition=of_account,
                )
            ),
            opts=own,
        )
        for address in notify:
            TopicSubscription(address, topic=self.topic.arn, protocol="email", endpoint=address, opts=own)
        flows = LogGroup(
            "flows",
            name=log_group,
            retention_in_days=log_days,
            kms_key_id=key_arn,
            tags=names.tagged("flows"),
            opts=own,
        )
        writer = Role(
            "flows",
            name=names.of("flows"),
            description=f"Writes the flow log of fleet {names.fleet}",
            assume_role_policy=trust("vpc-flow-logs.amazonaws.com", of_account),
            tags=names.tagged("flows"),
            opts=own,
        )
        RolePolicy(
            "flows",
            name="write",
            role=writer.name,
            policy=document(
                statement(
                    "Write",
                    ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                    [flows.arn.apply(lambda arn: f"{arn}:*")],
                )
            ),
            opts=own,
        )
        FlowLog(
            "flows",
            vpc_id=vpc_id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=flows.arn,
            iam_role_arn=writer.arn,
            tags=names.tagged("flows"),
            opts=own,
        )
        self.register_outputs({"topic": self.topic.arn})
