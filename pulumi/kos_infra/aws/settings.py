"""Settings of an AWS fleet, and every rule that they have to keep."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from ..settings import Name, Settings
from . import regions
from .instances import Arch, arch_of
from .network import NODE_SERVICES

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
_TAG_KEY = re.compile(r"[A-Za-z0-9 +\-=._:/@]{1,128}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9 +\-=._:/@]{0,256}")
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
        if self.on_demand_base is not None and self.on_demand_base > self.nodes:
            raise ValueError(
                f"on_demand_base: {self.on_demand_base} is more than the {self.nodes} nodes there are"
            )
        return self


class NodeSettings(Settings):
    """What every node of the fleet is told; the rest of its node.json follows from where it is."""

    release: str = "kos"
    channel: str = "stable"
    policy: dict[str, int | bool] = Field(default_factory=dict)
    operator_keys: list[str] = Field(min_length=1)
    install: bool = False


class BackupSettings(Settings):
    """How long backups are kept from everybody's hands."""

    lock: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    lock_days: int = Field(default=35, ge=1, le=36500)
    cool_after_days: int = Field(default=30, ge=1, le=36500)


class BudgetSettings(Settings):
    """What the stack may cost."""

    monthly_usd: int = Field(gt=0)


class FleetSettings(Settings):
    """Everything that a stack of program aws_fleet is told."""

    fleet: Name
    account: Account
    region: str
    residency: list[str] = Field(min_length=1)
    network: NetworkSettings
    images: Images
    groups: list[NodeGroupSettings] = Field(min_length=1)
    node: NodeSettings
    trust_root: str
    bundle: str = "../../roles/bootstrap/files"
    backup: BackupSettings = BackupSettings()
    budget: BudgetSettings
    notify: list[Email] = Field(min_length=1)
    log_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653] = 90
    dns_zone: Domain
    tags: dict[str, str]

    @field_validator("region")
    @classmethod
    def _region_is_known(cls, region: str) -> str:
        if region not in regions.names():
            raise ValueError(f"{region} is no region that this program knows")
        return region

    @field_validator("tags")
    @classmethod
    def _tags_say_whose(cls, tags: dict[str, str]) -> dict[str, str]:
        for key in REQUIRED_TAGS:
            if not tags.get(key):
                raise ValueError(f"{key} is missing; every resource says whose it is")
        for key, value in tags.items():
            if key.lower().startswith(("aws:", "kos:")) or key == "Name":
                raise ValueError(f"{key} is set by AWS or by this program")
            if not _TAG_KEY.fullmatch(key) or not _TAG_VALUE.fullmatch(value):
                raise ValueError(f"{key} or its value has characters that a tag cannot hold, or too many")
        return tags

    @field_validator("groups")
    @classmethod
    def _groups_differ(cls, groups: list[NodeGroupSettings]) -> list[NodeGroupSettings]:
        names = [group.name for group in groups]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two groups are called {name}")
        if not any(group.wave == 0 for group in groups):
            raise ValueError("no group has wave 0; the canary is changed before all others")
        return groups

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
        for zone, subnet in self.network.subnets.items():
            # A refresh starts a node before it ends one.
            needed = sum(group.nodes + 1 for group in self.groups if group.zone == zone)
            needed += len(NODE_SERVICES) + RESERVED_ADDRESSES
            if subnet.num_addresses < needed:
                raise ValueError(
                    f"network.subnets.{zone}: {subnet} is too small; it has {subnet.num_addresses} addresses "
                    f"and needs {needed}"
                )
        return self

    def image(self, arch: Arch) -> Image:
        """Return the image of an architecture that a group has."""
        image: Image | None = getattr(self.images, arch)
        assert image is not None
        return image
