"""Settings of program aws_eks, and every rule that they have to keep."""

from __future__ import annotations

from ipaddress import IPv4Network
from math import ceil
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from ..settings import Name, Settings
from .instances import Arch
from .settings import StackSettings, refuse_other_architecture, refuse_twins

CLUSTER_SERVICES = ("ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "sts")
"""What nodes and pods of a cluster ask."""

ADDONS = ("aws-ebs-csi-driver", "coredns", "eks-pod-identity-agent", "kube-proxy", "vpc-cni")

# https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html
CONTROL_PLANE_ADDRESSES = 6
# https://docs.aws.amazon.com/eks/latest/APIReference/API_KubernetesNetworkConfigRequest.html
SERVICE_BLOCKS = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
SERVICE_PREFIXES = range(12, 25)
# Each pod takes an address of the subnet; this is what a machine of size large or xlarge takes at most.
ADDRESSES_OF_A_NODE = 58
WORLD_PREFIX = 8

AddonVersion = Annotated[str, StringConstraints(pattern=r"^v[0-9]+\.[0-9]+\.[0-9]+-eksbuild\.[0-9]+$")]
Principal = Annotated[
    str, StringConstraints(pattern=r"^arn:aws:iam::[0-9]{12}:(role|user)/[A-Za-z0-9+=,.@_/-]{1,512}$")
]


class AccessSettings(Settings):
    """Who may do what in the cluster; nobody else can, not even who made it."""

    principal: Principal
    may: Literal["admin", "edit", "view"]
    namespaces: list[Name] = Field(default_factory=list)

    @field_validator("namespaces")
    @classmethod
    def _admin_is_everywhere(cls, namespaces: list[str], info: ValidationInfo) -> list[str]:
        if namespaces and info.data.get("may") == "admin":
            raise ValueError("an admin is one of the whole cluster; leave this out, or let it be edit")
        return namespaces


class WorkerGroupSettings(Settings):
    """Machines of one architecture that pods run on, in all zones."""

    name: Name
    arch: Arch
    instance_types: list[str] = Field(min_length=1, max_length=20)
    release: Annotated[str, StringConstraints(pattern=r"^1\.[0-9]{2}\.[0-9]+-[0-9]{8}$")]
    nodes: int = Field(ge=1, le=450)
    max_nodes: int = Field(ge=1, le=450)
    spot: bool = False
    volume_gib: int = Field(default=50, ge=20, le=16384)

    @field_validator("instance_types")
    @classmethod
    def _types_run_the_image(cls, types: list[str], info: ValidationInfo) -> list[str]:
        if "arch" in info.data:
            refuse_other_architecture(types, info.data["arch"])
        return types

    @field_validator("max_nodes")
    @classmethod
    def _room_for_all(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("nodes", 0):
            raise ValueError(f"{most} is less than the {info.data['nodes']} nodes there are")
        return most


class ClusterSettings(StackSettings):
    """Everything that a stack of program aws_eks is told."""

    version: Annotated[str, StringConstraints(pattern=r"^1\.[0-9]{2}$")]
    addons: dict[str, AddonVersion]
    access: list[AccessSettings]
    public_from: list[IPv4Network] = Field(default_factory=list)
    service_cidr: IPv4Network = IPv4Network("172.20.0.0/16")
    groups: list[WorkerGroupSettings] = Field(min_length=1)
    deletion_protection: bool = True

    @field_validator("addons")
    @classmethod
    def _addons_are_pinned(cls, addons: dict[str, str]) -> dict[str, str]:
        for name in ADDONS:
            if name not in addons:
                raise ValueError(f"{name} is missing; a cluster needs {', '.join(ADDONS)}")
        for name in addons:
            if name not in ADDONS:
                raise ValueError(f"{name} is no addon that this program knows; known are {', '.join(ADDONS)}")
        return addons

    @field_validator("access")
    @classmethod
    def _somebody_can(cls, access: list[AccessSettings]) -> list[AccessSettings]:
        refuse_twins("principal", [one.principal for one in access])
        if not any(one.may == "admin" for one in access):
            raise ValueError("nobody is admin; the cluster could not be managed by anybody")
        return access

    @field_validator("public_from")
    @classmethod
    def _not_the_world(cls, networks: list[IPv4Network]) -> list[IPv4Network]:
        for network in networks:
            if network.prefixlen < WORLD_PREFIX:
                raise ValueError(f"{network} is most of the world; an allow list is narrower than /8")
        return networks

    @field_validator("groups")
    @classmethod
    def _groups_differ(cls, groups: list[WorkerGroupSettings]) -> list[WorkerGroupSettings]:
        refuse_twins("group", [group.name for group in groups])
        return groups

    @model_validator(mode="after")
    def _parts_fit(self) -> ClusterSettings:
        inside = any(self.service_cidr.subnet_of(block) for block in SERVICE_BLOCKS)
        if not inside or self.service_cidr.prefixlen not in SERVICE_PREFIXES:
            raise ValueError(
                f"service_cidr: {self.service_cidr} must be between /12 and /24, "
                f"in one of {', '.join(map(str, SERVICE_BLOCKS))}"
            )
        if self.service_cidr.overlaps(self.network.cidr):
            raise ValueError(f"service_cidr: {self.service_cidr} overlaps network.cidr {self.network.cidr}")
        for index, group in enumerate(self.groups):
            if not group.release.startswith(f"{self.version}."):
                raise ValueError(f"groups.{index}.release: {group.release} is not of version {self.version}")
        # A group spreads over all zones, and an update adds a machine before it takes one away.
        machines = sum(ceil((group.max_nodes + 1) / len(self.network.subnets)) for group in self.groups)
        needed = machines * ADDRESSES_OF_A_NODE + CONTROL_PLANE_ADDRESSES + len(CLUSTER_SERVICES)
        self.network.refuse_less_than(dict.fromkeys(self.network.subnets, needed))
        return self
