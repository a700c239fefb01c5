"""Nodes of one zone, class and architecture: template, auto scaling group, alarms that end a refresh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws.autoscaling._enums import Metric
from pulumi_aws.autoscaling._inputs import (
    GroupInitialLifecycleHookArgs,
    GroupInstanceRefreshArgs,
    GroupInstanceRefreshPreferencesAlarmSpecificationArgs,
    GroupInstanceRefreshPreferencesArgs,
    GroupMixedInstancesPolicyArgs,
    GroupMixedInstancesPolicyInstancesDistributionArgs,
    GroupMixedInstancesPolicyLaunchTemplateArgs,
    GroupMixedInstancesPolicyLaunchTemplateLaunchTemplateSpecificationArgs,
    GroupMixedInstancesPolicyLaunchTemplateOverrideArgs,
    GroupTagArgs,
)
from pulumi_aws.autoscaling.group import Group
from pulumi_aws.cloudwatch.metric_alarm import MetricAlarm
from pulumi_aws.ec2._inputs import (
    LaunchTemplateBlockDeviceMappingArgs,
    LaunchTemplateBlockDeviceMappingEbsArgs,
    LaunchTemplateIamInstanceProfileArgs,
    LaunchTemplateMetadataOptionsArgs,
    LaunchTemplateMonitoringArgs,
    LaunchTemplateTagSpecificationArgs,
)
from pulumi_aws.ec2.launch_template import LaunchTemplate

from .fleet_settings import LAUNCH_SECONDS, Image, NodeGroupSettings
from .names import Names

LAUNCH_HOOK = "kos-node"
CHECKPOINTS = (34, 67, 100)
CHECKPOINT_DELAY = "600"
# https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_AlarmSpecification.html
MOST_ALARMS = 10
TAGGED = ("instance", "volume", "network-interface")


@dataclass(frozen=True)
class Place:
    """What a group of nodes is put into.

    Args:
        subnet_id: the private subnet of its zone.
        security_group_id: the nodes' security group.
        instance_profile_arn: what the nodes may do.
        volume_key_arn: what encrypts their volumes.
        alarm_topic_arn: who hears of its alarms.
    """

    subnet_id: pulumi.Input[str]
    security_group_id: pulumi.Input[str]
    instance_profile_arn: pulumi.Input[str]
    volume_key_arn: pulumi.Input[str]
    alarm_topic_arn: pulumi.Input[str]


class NodeGroup(pulumi.ComponentResource):
    """A launch template and a group that takes its changes up in checkpointed steps, and ends on an alarm."""

    def __init__(
        self,
        settings: NodeGroupSettings,
        names: Names,
        place: Place,
        *,
        image: Image,
        user_data: str,
        watched: Sequence[MetricAlarm] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        settings: what the stack says of the group.
        names: physical names and tags.
        place: network, role, key and alarms.
        image: machine image of the group's architecture.
        user_data: what a node does at its first boot, base64.
        watched: alarms of the groups before, the canary's first; when one of them goes off, this group's
            refresh ends as well. There is room for those of four groups besides its own.
        """
        super().__init__("kos:aws:NodeGroup", settings.name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        tags = names.tagged(
            settings.name,
            {
                "kos:group": settings.name,
                "kos:zone": settings.zone,
                "kos:class": settings.node_class,
                "kos:arch": settings.arch,
                "kos:wave": str(settings.wave),
            },
        )
        group_name = names.of(settings.name)
        template = LaunchTemplate(
            settings.name,
            name=group_name,
            image_id=image.id,
            instance_type=settings.instance_types[0],
            iam_instance_profile=LaunchTemplateIamInstanceProfileArgs(arn=place.instance_profile_arn),
            vpc_security_group_ids=[place.security_group_id],
            metadata_options=LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            monitoring=LaunchTemplateMonitoringArgs(enabled=True),
            block_device_mappings=[
                LaunchTemplateBlockDeviceMappingArgs(
                    device_name=image.root_device,
                    ebs=LaunchTemplateBlockDeviceMappingEbsArgs(
                        volume_type="gp3",
                        volume_size=settings.volume_gib,
                        encrypted="true",
                        kms_key_id=place.volume_key_arn,
                        delete_on_termination="true",
                    ),
                )
            ],
            tag_specifications=[
                LaunchTemplateTagSpecificationArgs(resource_type=kind, tags=tags) for kind in TAGGED
            ],
            user_data=user_data,
            update_default_version=True,
            tags=tags,
            opts=own,
        )
        self.alarms = self._alarms(group_name, settings, place, tags, own)
        ended_by = [alarm.name for alarm in (*self.alarms, *watched)][:MOST_ALARMS]
        self.group = Group(
            settings.name,
            name=group_name,
            min_size=settings.nodes,
            max_size=settings.nodes + 1,
            desired_capacity=settings.nodes,
            vpc_zone_identifiers=[place.subnet_id],
            mixed_instances_policy=_instances(settings, template),
            capacity_rebalance=settings.on_demand_base is not None,
            health_check_type="EC2",
            initial_lifecycle_hooks=[
                GroupInitialLifecycleHookArgs(
                    name=LAUNCH_HOOK,
                    lifecycle_transition="autoscaling:EC2_INSTANCE_LAUNCHING",
                    default_result="ABANDON",
                    heartbeat_timeout=LAUNCH_SECONDS,
                )
            ],
            instance_refresh=GroupInstanceRefreshArgs(
                strategy="Rolling",
                preferences=GroupInstanceRefreshPreferencesArgs(
                    # To the template that the group has; the provider has made that the new one by then:
                    # https://github.com/hashicorp/terraform-provider-aws/issues/34189
                    auto_rollback=True,
                    min_healthy_percentage=100,
                    max_healthy_percentage=110,
                    checkpoint_percentages=list(CHECKPOINTS),
                    checkpoint_delay=CHECKPOINT_DELAY,
                    skip_matching=True,
                    alarm_specification=GroupInstanceRefreshPreferencesAlarmSpecificationArgs(
                        alarms=ended_by
                    ),
                ),
            ),
            enabled_metrics=[Metric.GROUP_IN_SERVICE_INSTANCES, Metric.GROUP_DESIRED_CAPACITY],
            tags=[
                GroupTagArgs(key=key, value=value, propagate_at_launch=True) for key, value in tags.items()
            ],
            wait_for_capacity_timeout=f"{LAUNCH_SECONDS}s",
            opts=own,
        )
        self.register_outputs({"autoscaling_group": self.group.name})

    def _alarms(
        self,
        group_name: str,
        settings: NodeGroupSettings,
        place: Place,
        tags: Mapping[str, str],
        own: pulumi.ResourceOptions,
    ) -> tuple[MetricAlarm, ...]:
        """No data is not health: both alarms go off when nothing is heard of the group."""
        missing = MetricAlarm(
            f"{settings.name}-missing",
            name=f"{group_name}-missing",
            alarm_description=f"Fewer than {settings.nodes} nodes of group {settings.name} are in service",
            namespace="AWS/AutoScaling",
            metric_name="GroupInServiceInstances",
            dimensions={"AutoScalingGroupName": group_name},
            statistic="Minimum",
            comparison_operator="LessThanThreshold",
            threshold=settings.nodes,
            period=60,
            evaluation_periods=5,
            treat_missing_data="breaching",
            alarm_actions=[place.alarm_topic_arn],
            ok_actions=[place.alarm_topic_arn],
            tags=tags,
            opts=own,
        )
        failed = MetricAlarm(
            f"{settings.name}-failed",
            name=f"{group_name}-failed",
            alarm_description=f"A node of group {settings.name} fails the checks of its machine",
            namespace="AWS/EC2",
            metric_name="StatusCheckFailed",
            dimensions={"AutoScalingGroupName": group_name},
            statistic="Maximum",
            comparison_operator="GreaterThanThreshold",
            threshold=0,
            period=60,
            evaluation_periods=3,
            treat_missing_data="breaching",
            alarm_actions=[place.alarm_topic_arn],
            ok_actions=[place.alarm_topic_arn],
            tags=tags,
            opts=own,
        )
        return missing, failed


def _instances(settings: NodeGroupSettings, template: LaunchTemplate) -> GroupMixedInstancesPolicyArgs:
    specification = GroupMixedInstancesPolicyLaunchTemplateLaunchTemplateSpecificationArgs(
        launch_template_id=template.id,
        # A number: with `$Latest` the group would not notice a change, and no refresh would start.
        version=template.latest_version.apply(str),
    )
    base = settings.on_demand_base
    return GroupMixedInstancesPolicyArgs(
        launch_template=GroupMixedInstancesPolicyLaunchTemplateArgs(
            launch_template_specification=specification,
            overrides=[
                GroupMixedInstancesPolicyLaunchTemplateOverrideArgs(instance_type=instance_type)
                for instance_type in settings.instance_types
            ],
        ),
        instances_distribution=GroupMixedInstancesPolicyInstancesDistributionArgs(
            on_demand_allocation_strategy="prioritized",
            on_demand_base_capacity=settings.nodes if base is None else base,
            on_demand_percentage_above_base_capacity=100 if base is None else 0,
            spot_allocation_strategy="price-capacity-optimized",
        ),
    )
