"""What every stack in AWS is told: whose it is, where it may be, its addresses, what it may cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from ..settings import Name, Settings
from . import regions
from .instances import Arch, arch_of

Account = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
LogDays = Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653]

REQUIRED_TAGS = ("owner", "environment")
# An object of a bucket, which the bundle is, has ten tags at most, and three of them are this program's:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
MOST_TAGS = 7
# As many as a budget tells:
# https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_budgets_NotificationWithSubscribers.html
MOST_ADDRESSES = 10
_TAG_KEY = re.compile(r"[A-Za-z0-9 +\-=._:/@]{1,128}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9 +\-=._:/@]{0,256}")
# Four at the beginning and the last one: https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html
RESERVED_ADDRESSES = 5


class NetworkSettings(Settings):
    """Addresses, one private subnet a zone."""

    cidr: IPv4Network
    subnets: dict[str, IPv4Network] = Field(min_length=2, max_length=3)

    @model_validator(mode="after")
    def _subnets_fit(self) -> NetworkSettings:
        if not 16 <= self.cidr.prefixlen <= 24:
            raise ValueError(f"cidr: {self.cidr} must be between /16 and /24")
        for zone, subnet in self.subnets.items():
            if not subnet.subnet_of(self.cidr):
                raise ValueError(f"subnets.{zone}: {subnet} is outside of cidr {self.cidr}")
            if subnet.prefixlen > 28:
                raise ValueError(f"subnets.{zone}: {subnet} is too small; a subnet is /28 or larger")
        for (zone, subnet), (other, taken) in combinations(self.subnets.items(), 2):
            if subnet.overlaps(taken):
                raise ValueError(f"subnets.{other}: {taken} overlaps {subnet} of {zone}")
        return self

    def refuse_less_than(self, needed: dict[str, int]) -> None:
        """Refuse a subnet that has fewer addresses than what is put into it.

        Args:
            needed: addresses by zone, without those that AWS keeps.
        """
        for zone, subnet in self.subnets.items():
            wanted = needed[zone] + RESERVED_ADDRESSES
            if subnet.num_addresses < wanted:
                raise ValueError(
                    f"network.subnets.{zone}: {subnet} is too small; it has {subnet.num_addresses} addresses "
                    f"and needs {wanted}"
                )


class BudgetSettings(Settings):
    """What the stack may cost."""

    monthly_usd: int = Field(gt=0)


class StackSettings(Settings):
    """What every stack is told."""

    fleet: Name
    account: Account
    region: str
    residency: list[str] = Field(min_length=1)
    network: NetworkSettings
    budget: BudgetSettings
    notify: list[Email] = Field(min_length=1, max_length=MOST_ADDRESSES)
    log_days: LogDays = 90
    tags: dict[str, str] = Field(max_length=MOST_TAGS)

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
            if key.lower().startswith(("aws:", "kos:")) or key.lower() == "name":
                raise ValueError(f"{key} is set by AWS or by this program")
            if not _TAG_KEY.fullmatch(key) or not _TAG_VALUE.fullmatch(value):
                raise ValueError(f"{key} or its value has characters that a tag cannot hold, or too many")
        # IAM takes Owner and owner for one.
        refuse_twins("tag", [key.lower() for key in tags])
        return tags

    @field_validator("notify")
    @classmethod
    def _addresses_differ(cls, addresses: list[str]) -> list[str]:
        refuse_twins("address", addresses)
        return addresses

    @model_validator(mode="after")
    def _place_is_allowed(self) -> StackSettings:
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
        return self


def refuse_twins(what: str, values: Sequence[str]) -> None:
    """Refuse a list in which something stands twice.

    Args:
        what: what the values are, for the message.
        values: what must differ.
    """
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what} {value} stands twice")


def refuse_other_architecture(instance_types: Sequence[str], arch: Arch) -> None:
    """Refuse instance types that are none, or on which a group's image does not run."""
    refuse_twins("instance type", instance_types)
    for one in instance_types:
        found = arch_of(one)
        if found is None:
            raise ValueError(f"{one} is no instance type that nodes can run on")
        if found != arch:
            raise ValueError(f"{one} is {found}, and the group is {arch}")
