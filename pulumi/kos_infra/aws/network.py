"""Network without a way in: private subnets, and endpoints for the few services that nodes ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network

import pulumi
from pulumi_aws.ec2.default_security_group import DefaultSecurityGroup
from pulumi_aws.ec2.route_table import RouteTable
from pulumi_aws.ec2.route_table_association import RouteTableAssociation
from pulumi_aws.ec2.security_group import SecurityGroup
from pulumi_aws.ec2.subnet import Subnet
from pulumi_aws.ec2.vpc import Vpc
from pulumi_aws.ec2.vpc_endpoint import VpcEndpoint
from pulumi_aws.vpc.security_group_egress_rule import SecurityGroupEgressRule
from pulumi_aws.vpc.security_group_ingress_rule import SecurityGroupIngressRule

from .names import Names
from .permissions import document, statement

NODE_SERVICES = ("autoscaling", "ssm", "ssmmessages")
"""What a node of the fleet asks: its launch hook, and Systems Manager."""


class Network(pulumi.ComponentResource):
    """A VPC of private subnets, one a zone, that reaches S3 and the named services and nothing else."""

    def __init__(
        self,
        name: str,
        names: Names,
        *,
        region: str,
        cidr: IPv4Network,
        subnets: Mapping[str, IPv4Network],
        services: Sequence[str],
        buckets: Sequence[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        name: logical name.
        names: physical names and tags.
        region: where it is.
        cidr: addresses of the VPC.
        subnets: addresses by zone.
        services: endpoints that are offered in each zone, by their short names.
        buckets: ARNs of the buckets that can be reached; no other can, so nothing leaks into a stranger's.
        """
        super().__init__("kos:aws:Network", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        self.vpc = Vpc(
            "vpc",
            cidr_block=str(cidr),
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=names.tagged("vpc"),
            opts=own,
        )
        # The group that a VPC is born with lets its members talk to each other; nobody is in it by accident.
        DefaultSecurityGroup("closed", vpc_id=self.vpc.id, tags=names.tagged("closed"), opts=own)
        table = RouteTable("private", vpc_id=self.vpc.id, tags=names.tagged("private"), opts=own)
        self.subnets: dict[str, Subnet] = {}
        for zone, addresses in subnets.items():
            subnet = Subnet(
                zone,
                vpc_id=self.vpc.id,
                availability_zone=zone,
                cidr_block=str(addresses),
                map_public_ip_on_launch=False,
                tags=names.tagged(zone),
                opts=own,
            )
            RouteTableAssociation(zone, subnet_id=subnet.id, route_table_id=table.id, opts=own)
            self.subnets[zone] = subnet

        endpoints = SecurityGroup(
            "endpoints",
            name_prefix=names.of("endpoints-"),
            description="Endpoints of AWS services",
            vpc_id=self.vpc.id,
            tags=names.tagged("endpoints"),
            opts=own,
        )
        self.nodes = SecurityGroup(
            "nodes",
            name_prefix=names.of("nodes-"),
            description="Nodes: no way in",
            vpc_id=self.vpc.id,
            tags=names.tagged("nodes"),
            opts=own,
        )
        self.s3 = VpcEndpoint(
            "s3",
            vpc_id=self.vpc.id,
            service_name=f"com.amazonaws.{region}.s3",
            vpc_endpoint_type="Gateway",
            policy=document(
                statement(
                    "Buckets",
                    ["s3:*"],
                    [*buckets, *(f"{bucket}/*" for bucket in buckets)],
                    principal="*",
                )
            ),
            route_table_ids=[table.id],
            tags=names.tagged("s3"),
            opts=own,
        )
        for service in services:
            VpcEndpoint(
                service,
                vpc_id=self.vpc.id,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=[subnet.id for subnet in self.subnets.values()],
                security_group_ids=[endpoints.id],
                tags=names.tagged(service),
                opts=own,
            )
        SecurityGroupIngressRule(
            "endpoints-from-nodes",
            security_group_id=endpoints.id,
            referenced_security_group_id=self.nodes.id,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            tags=names.tagged("endpoints-from-nodes"),
            opts=own,
        )
        SecurityGroupEgressRule(
            "nodes-to-endpoints",
            security_group_id=self.nodes.id,
            referenced_security_group_id=endpoints.id,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            tags=names.tagged("nodes-to-endpoints"),
            opts=own,
        )
        SecurityGroupEgressRule(
            "nodes-to-s3",
            security_group_id=self.nodes.id,
            prefix_list_id=self.s3.prefix_list_id,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            tags=names.tagged("nodes-to-s3"),
            opts=own,
        )
        self.register_outputs({"vpc_id": self.vpc.id})
