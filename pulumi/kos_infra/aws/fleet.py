"""Program aws_fleet: machines of a fleet in one region, and the contract by which they are found."""

from __future__ import annotations

import pulumi
from pulumi_aws.cloudwatch.metric_alarm import MetricAlarm
from pulumi_aws.provider import Provider

from kosnode.errors import InputError

from .. import contract, settings
from .names import Names
from .network import NODE_SERVICES, Network
from .node_group import NodeGroup, Place
from .settings import FleetSettings


def main() -> None:
    """Read the stack's settings and declare what it consists of.

    Raises:
        pulumi.RunError: a setting breaks a rule; nothing has been registered then.
    """
    try:
        config = pulumi.Config()
        wanted = settings.read(FleetSettings, config.get("settings"), config.full_key("settings"))
        fleet = Fleet(wanted, pulumi.get_stack())
    except InputError as error:
        raise pulumi.RunError(str(error)) from None
    fleet.declare()


class Fleet:
    """A fleet that was checked and can be declared."""

    def __init__(self, wanted: FleetSettings, stack: str) -> None:
        self.settings = wanted
        self.names = Names(wanted.fleet, stack, wanted.account, wanted.tags)
        contract.check(self._contract("arn:not-known-yet"))

    def declare(self) -> None:
        """Register every resource and export the contract."""
        wanted = self.settings
        provider = Provider("aws", region=wanted.region, allowed_account_ids=[wanted.account])
        options = pulumi.ResourceOptions(provider=provider)
        network = Network(
            "network",
            self.names,
            region=wanted.region,
            cidr=wanted.network.cidr,
            subnets=wanted.network.subnets,
            services=NODE_SERVICES,
            opts=options,
        )
        earlier: list[NodeGroup] = []
        watched: list[MetricAlarm] = []
        for group in sorted(wanted.groups, key=lambda one: (one.wave, one.name)):
            place = Place(network.subnets[group.zone].id, network.nodes.id, "arn:", "arn:", "arn:")
            made = NodeGroup(
                group,
                self.names,
                place,
                image=wanted.image(group.arch),
                user_data="",
                watched=watched,
                opts=pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=list(earlier))),
            )
            earlier.append(made)
            watched.extend(made.alarms)
        pulumi.export(contract.OUTPUT, self._contract("arn:not-known-yet"))

    def _contract(self, backup_key_arn: object) -> dict[str, object]:
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
