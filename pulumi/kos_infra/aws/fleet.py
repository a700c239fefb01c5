"""Program aws_fleet: machines of a fleet in one region, and the contract by which they are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
from pulumi_aws.cloudwatch.metric_alarm import MetricAlarm
from pulumi_aws.provider import Provider

from kosnode.errors import InputError

from .. import bundle, contract, userdata
from .buckets import Backup, Mirror, bucket_arn
from .budget import Costs
from .dns import Dns
from .fleet_settings import FleetSettings, NodeGroupSettings
from .instance_role import InstanceRole
from .keys import Keys
from .names import Names
from .network import NODE_SERVICES, Network
from .node_group import LAUNCH_HOOK, NodeGroup, Place
from .observability import Observability
from .program import check_names, read_then_declare


def main(folder: Path) -> None:
    """Read the stack's settings and declare what it consists of.

    Args:
        folder: the program's own; paths in settings start from it.

    Raises:
        pulumi.RunError: a setting breaks a rule; nothing has been registered then.
    """
    read_then_declare(FleetSettings, lambda wanted, stack: Fleet(wanted, stack, folder).declare)


class Fleet:
    """A fleet whose settings were checked, all of them, and that can be declared.

    Args:
        wanted: the stack's settings.
        stack: its name.
        folder: where paths in the settings start from.

    Raises:
        InputError: what a model cannot see: files, names that are put together, what a node would refuse.
    """

    def __init__(self, wanted: FleetSettings, stack: str, folder: Path) -> None:
        self.settings = wanted
        self.names = Names(wanted.fleet, stack, wanted.account, wanted.tags)
        check_names(self.names, stack)
        contract.check(self._contract("arn:aws:kms"))
        self.bundle = bundle.find(folder / wanted.bundle, "bundle")
        self.trust_root = _read(folder / wanted.trust_root, "trust_root")
        self.user_data = {group.name: self._user_data(group) for group in wanted.groups}

    def declare(self) -> None:
        """Register every resource and export the contract."""
        wanted, names = self.settings, self.names
        provider = Provider("aws", region=wanted.region, allowed_account_ids=[wanted.account])
        options = pulumi.ResourceOptions(provider=provider)
        logs = f"/kos/{names.fleet}/{names.stack}/"
        keys = Keys("keys", names, region=wanted.region, log_groups=logs, kept="backup", opts=options)
        network = Network(
            "network",
            names,
            region=wanted.region,
            cidr=wanted.network.cidr,
            subnets=wanted.network.subnets,
            services=NODE_SERVICES,
            buckets=[bucket_arn(names, "mirror"), bucket_arn(names, "backup")],
            opts=options,
        )
        mirror = Mirror("mirror", names, endpoint_id=network.s3.id, bundle=self.bundle, opts=options)
        Backup("backup", names, wanted.backup, key_arn=keys.kept.arn, opts=options)
        role = InstanceRole("node", names, region=wanted.region, backup_key_arn=keys.kept.arn, opts=options)
        observability = Observability(
            "observability",
            names,
            vpc_id=network.vpc.id,
            key_arn=keys.machines.arn,
            log_group=f"{logs}flows",
            log_days=wanted.log_days,
            notify=wanted.notify,
            opts=options,
        )
        Dns("dns", names, domain=wanted.dns_zone, vpc_id=network.vpc.id, opts=options)
        Costs("costs", names, monthly_usd=wanted.budget.monthly_usd, notify=wanted.notify, opts=options)
        before: list[pulumi.Resource] = [network, mirror, role]
        watched: list[MetricAlarm] = []
        for group in sorted(wanted.groups, key=lambda one: (one.wave, one.name)):
            place = Place(
                subnet_id=network.subnets[group.zone].id,
                security_group_id=network.nodes.id,
                instance_profile_arn=role.profile.arn,
                volume_key_arn=keys.machines.arn,
                alarm_topic_arn=observability.topic.arn,
            )
            made = NodeGroup(
                group,
                names,
                place,
                image=wanted.image(group.arch),
                user_data=self.user_data[group.name],
                watched=watched,
                opts=pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=before)),
            )
            before, watched = [*before, made], [*watched, *made.alarms]
        pulumi.export(contract.OUTPUT, self._contract(keys.kept.arn))

    def _user_data(self, group: NodeGroupSettings) -> str:
        wanted, node = self.settings, self.settings.node
        mirror = contract.mirror_url(self.names.bucket("mirror"), wanted.region)
        boot = userdata.Boot(
            node={
                "format": 1,
                "fleet": wanted.fleet,
                "zone": group.zone,
                "class": group.node_class,
                "release": node.release,
                "channel": node.channel,
                "mirrors": [mirror],
                "policy": node.policy,
            },
            trust_root=self.trust_root,
            operator_keys=tuple(node.operator_keys),
            admin_keys=tuple(node.admin_keys),
            bundle={
                "url": f"{mirror}{self.bundle.key}",
                "version": self.bundle.version,
                "sha256": self.bundle.sha256,
                "size": self.bundle.size,
            },
            hook={"name": LAUNCH_HOOK, "group": self.names.of(group.name), "region": wanted.region},
            install=node.install,
        )
        userdata.check(boot, "node")
        return userdata.encode(boot, f"groups: {group.name}")

    def _contract(self, backup_key_arn: object) -> dict[str, Any]:
        wanted = self.settings
        return contract.aws(
            fleet=wanted.fleet,
            stack=self.names.stack,
            account=wanted.account,
            region=wanted.region,
            zones=list(wanted.network.subnets),
            groups=[
                {
                    "name": group.name,
                    "zone": group.zone,
                    "class": group.node_class,
                    "arch": group.arch,
                    "wave": group.wave,
                    "autoscaling_group": self.names.of(group.name),
                }
                for group in wanted.groups
            ],
            tags=self.names.identity,
            mirror_bucket=self.names.bucket("mirror"),
            backup_bucket=self.names.bucket("backup"),
            backup_key_arn=backup_key_arn,
            dns_zone=wanted.dns_zone,
        )


def _read(path: Path, key: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{key}: {path} cannot be read: {error}", key=key) from None
