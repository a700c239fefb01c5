"""Names of a fleet inside its own network."""

from __future__ import annotations

import pulumi
from pulumi_aws.route53._inputs import ZoneVpcArgs
from pulumi_aws.route53.zone import Zone

from .names import Names


class Dns(pulumi.ComponentResource):
    """A private zone that only the fleet's network sees."""

    def __init__(
        self,
        name: str,
        names: Names,
        *,
        domain: str,
        vpc_id: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        name: logical name.
        names: physical names and tags.
        domain: of the zone.
        vpc_id: the network that sees it.
        """
        super().__init__("kos:aws:Dns", name, None, opts)
        Zone(
            "private",
            name=domain,
            comment=f"Fleet {names.fleet}, stack {names.stack}",
            vpcs=[ZoneVpcArgs(vpc_id=vpc_id)],
            tags=names.tagged("dns"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({"domain": domain})
