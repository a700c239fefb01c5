"""Settings of an AWS fleet, and every rule that they have to keep."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from ..settings import Name, Settings
from . import regions
from .instances import Arch, arch_of

# fmt: off
NodeClass = Literal[
    "griot", "tohunga", "ronin", "musa", "hakim", "skald", "oracle",
    "junzi", "yachay", "sachem", "archon", "amauta", "mzee",
]
# fmt: on
Account = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
Domain = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$")]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]

REQUIRED_TAGS = ("owner", "environment")
# Four at the beginning and the last one: https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html
RESERVED_ADDRESSES = 5


class Image(Settings):
    """A machine image, pinned."""

    id: Annotated[str, StringConstraints(pattern=r"^ami-[0-9a-f]{8,17}$")]
    root_device: str = "/dev/xvda"


class Images(Settings):
    """The image of each architecture."""

    x86_64: Image | None = None
    aarch64: Image | None = None


class NetworkSettings(Settings):
    """Addresses, one private subnet a zone."""

    cidr: IPv4Network
    subnets: dict[str, IPv4Network] = Field(min_length=2, max_length=3)

    @model_validator(mode="after")
    def _subnets_fit(self) -> NetworkSettings:
        if not 16 <= self.cidr.prefixlen <= 24:
            raise ValueError(f"cidr {self.cidr} must be between /16 and /24")
        for zone, subnet in self.subnets.items():
            if not subnet.subnet_of(self.cidr):
                raise ValueError(f"subnets.{zone}: {subnet} is outside of cidr {self.cidr}")
            if subnet.prefixlen > 28:
                raise ValueError(f"subnets.{zone}: {subnet} is too small; a subnet is /28 or larger")
        for (zone, subnet), (other, taken) in combinations(self.subnets.items(), 2):
            if subnet.overlaps(taken):
                raise ValueError(f"subnets.{other}: {taken} overlaps {subnet} of {zone}")
        return self


class NodeGroupSettings(Settings):
    """Nodes of one zone, class and architecture."""

    name: Name
    zone: str
    node_class: NodeClass = Field(alias="class")
    arch: Arch
    wave: int = Field(ge=0, le=99)
    nodes: int = Field(ge=1, le=500)
    instance_types: list[str] = Field(min_length=1, max_length=20)
    on_demand_base: int | None = Field(default=None, ge=0)
    volume_gib: int = Field(default=30, ge=8, le=16384)

    @field_validator("instance_types")
    @classmethod
    def _types_are_types(cls, types: list[str]) -> list[str]:
        for one in types:
            if arch_of(one) is None:
                raise ValueError(f"{one} is no instance type that nodes can run on")
        return types

    @model_validator(mode="after")
    def _types_have_the_architecture(self) -> NodeGroupSettings:
        for one in self.instance_types:
            if arch_of(one) != self.arch:
                raise ValueError(f"instance_types: {one} is {arch_of(one)}, and the group is {self.arch}")
        return self


class FleetSettings(Settings):
    """Everything that a stack of program aws_fleet is told."""

    fleet: Name
    account: Account
    region: str
    residency: list[str] = Field(min_length=1)
    network: NetworkSettings
    images: Images
    groups: list[NodeGroupSettings] = Field(min_length=1)
    dns_zone: Domain
    tags: dict[str, str]

    @field_validator("region")
    @classmethod
    def _region_is_known(cls, region: str) -> str:
        if region not in regions.names():
            raise ValueError(f"{region} is no region that this program knows")
        return region

    @model_validator(mode="after")
    def _parts_fit(self) -> FleetSettings:
        if self.region not in self.residency:
            raise ValueError(
                f"region: {self.region} is outside of the fleet's residency, {', '.join(self.residency)}"
            )
        known = regions.zones(self.region)
        for zone in self.network.subnets:
            if zone not in known:
                raise ValueError(
                    f"network.subnets.{zone}: {self.region} has no such zone; it has {', '.join(known)}"
                )
        for index, group in enumerate(self.groups):
            if group.zone not in self.network.subnets:
                raise ValueError(
                    f"groups.{index}.zone: {group.zone} has no subnet; those with one are "
                    f"{', '.join(self.network.subnets)}"
                )
            if getattr(self.images, group.arch) is None:
                raise ValueError(f"images.{group.arch}: is missing, and group {group.name} needs it")
        return self

    def image(self, arch: Arch) -> Image:
        """Return the image of an architecture that a group has."""
        image: Image | None = getattr(self.images, arch)
        assert image is not None
        return image
