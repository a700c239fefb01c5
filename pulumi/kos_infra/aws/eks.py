"""Program aws_eks: a Kubernetes cluster of a fleet, and what others need to reach it."""

from __future__ import annotations

import pulumi
from pulumi_aws.provider import Provider

from .budget import Costs
from .cluster import KubernetesCluster, kubeconfig, log_groups
from .cluster_settings import CLUSTER_SERVICES, ClusterSettings
from .keys import Keys
from .names import Names
from .network import Network
from .observability import Observability
from .program import check_names, read_then_declare

OUTPUT = "kos_cluster"


def main() -> None:
    """Read the stack's settings and declare what it consists of.

    Raises:
        pulumi.RunError: a setting breaks a rule; nothing has been registered then.
    """
    read_then_declare(ClusterSettings, lambda wanted, stack: ClusterStack(wanted, stack).declare)


class ClusterStack:
    """A cluster whose settings were checked, all of them, and that can be declared.

    Args:
        wanted: the stack's settings.
        stack: its name.

    Raises:
        InputError: names that are put together and do not fit.
    """

    def __init__(self, wanted: ClusterSettings, stack: str) -> None:
        self.settings, self.stack = wanted, stack
        # A fleet's machines and its cluster may share a stack's name and an account, and no name in it.
        self.names = Names(wanted.fleet, f"{stack}-eks", wanted.account, wanted.tags)
        check_names(self.names, stack)

    def declare(self) -> None:
        """Register every resource, and export what a program that fills the cluster needs."""
        wanted, names = self.settings, self.names
        provider = Provider("aws", region=wanted.region, allowed_account_ids=[wanted.account])
        options = pulumi.ResourceOptions(provider=provider)
        keys = Keys(
            "keys",
            names,
            region=wanted.region,
            log_groups=log_groups(names),
            kept="secrets",
            protect=wanted.deletion_protection,
            opts=options,
        )
        network = Network(
            "network",
            names,
            region=wanted.region,
            cidr=wanted.network.cidr,
            subnets=wanted.network.subnets,
            services=CLUSTER_SERVICES,
            # Where ECR keeps the layers of images.
            buckets=[f"arn:aws:s3:::prod-{wanted.region}-starport-layer-bucket"],
            opts=options,
        )
        observability = Observability(
            "observability",
            names,
            vpc_id=network.vpc.id,
            key_arn=keys.machines.arn,
            log_group=f"{log_groups(names)}flows",
            log_days=wanted.log_days,
            notify=wanted.notify,
            opts=options,
        )
        Costs("costs", names, monthly_usd=wanted.budget.monthly_usd, notify=wanted.notify, opts=options)
        cluster = KubernetesCluster(
            "cluster",
            names,
            wanted,
            network=network,
            keys=keys,
            alarm_topic_arn=observability.topic.arn,
            opts=options,
        ).cluster
        pulumi.export(
            OUTPUT,
            {
                "format": 1,
                "fleet": wanted.fleet,
                "stack": self.stack,
                "provider": "aws",
                "account": wanted.account,
                "region": wanted.region,
                "zones": list(wanted.network.subnets),
                "name": cluster.name,
                "version": wanted.version,
                "kubeconfig": pulumi.Output.all(
                    cluster.name,
                    cluster.endpoint,
                    cluster.certificate_authority.apply(lambda authority: authority.data or ""),
                ).apply(lambda parts: kubeconfig(parts[0], wanted.region, parts[1], parts[2])),
            },
        )
