"""Settings of program aws_fleet, and every rule that they have to keep."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from ..settings import Name, Settings
from .instances import Arch
from .network import NODE_SERVICES
from .settings import StackSettings, refuse_other_architecture, refuse_twins

# fmt: off
NodeClass = Literal[
    "griot", "tohunga", "ronin", "musa", "hakim", "skald", "oracle",
    "junzi", "yachay", "sachem", "archon", "amauta", "mzee",
]
# fmt: on
PublicKey = Annotated[
    str, StringConstraints(pattern=r"^(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]{64,}={0,2}( [ -~]*)?$")
]
Domain = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$")]


class Image(Settings):
    """A machine image, pinned."""

    id: Annotated[str, StringConstraints(pattern=r"^ami-[0-9a-f]{8,17}$")]
    root_device: Annotated[str, StringConstraints(pattern=r"^/dev/(xvd|sd)[a-z][0-9]?$")] = "/dev/xvda"


class Images(Settings):
    """The image of each architecture."""

    x86_64: Image | None = None
    aarch64: Image | None = None

    def of(self, arch: Arch) -> Image | None:
        """Return the image of an architecture."""
        return self.x86_64 if arch == "x86_64" else self.aarch64


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
    def _types_run_the_image(cls, types: list[str], info: ValidationInfo) -> list[str]:
        if "arch" in info.data:
            refuse_other_architecture(types, info.data["arch"])
        return types

    @field_validator("on_demand_base")
    @classmethod
    def _base_is_a_part(cls, base: int | None, info: ValidationInfo) -> int | None:
        nodes = info.data.get("nodes")
        if base is not None and nodes is not None and base > nodes:
            raise ValueError(f"{base} is more than the {nodes} nodes there are")
        return base


LAUNCH_SECONDS = 900
"""How long a machine has for its first boot, after which it is replaced."""

BEFORE_TRIAL_SECONDS = 300
"""How much of that it needs before it can try a release."""


class NodeSettings(Settings):
    """What every node of the fleet is told; the rest of its node.json follows from where it is."""

    release: str = "kos"
    channel: str = "stable"
    policy: dict[str, int | bool] = Field(default_factory=dict)
    operator_keys: list[str] = Field(min_length=1)
    admin_keys: list[PublicKey] = Field(default_factory=list)
    install: bool = False

    @model_validator(mode="after")
    def _first_boot_has_time(self) -> NodeSettings:
        deadline, most = self.policy.get("deadline_s", 0), LAUNCH_SECONDS - BEFORE_TRIAL_SECONDS
        if self.install and deadline > most:
            raise ValueError(
                f"policy.deadline_s: {deadline} is longer than the {most} seconds that a machine has to "
                "install a release at its first boot; make it shorter, or install false"
            )
        return self


class BackupSettings(Settings):
    """How long backups are kept from everybody's hands."""

    lock: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    lock_days: int = Field(default=35, ge=1, le=36500)
    cool_after_days: int = Field(default=30, ge=1, le=36500)


class FleetSettings(StackSettings):
    """Everything that a stack of program aws_fleet is told."""

    images: Images
    groups: list[NodeGroupSettings] = Field(min_length=1)
    node: NodeSettings
    trust_root: str
    bundle: str
    backup: BackupSettings = BackupSettings()
    dns_zone: Domain

    @field_validator("groups")
    @classmethod
    def _groups_differ(cls, groups: list[NodeGroupSettings]) -> list[NodeGroupSettings]:
        refuse_twins("group", [group.name for group in groups])
        if not any(group.wave == 0 for group in groups):
            raise ValueError("no group has wave 0; the canary is changed before all others")
        return groups

    @model_validator(mode="after")
    def _groups_have_a_place(self) -> FleetSettings:
        for index, group in enumerate(self.groups):
            if group.zone not in self.network.subnets:
                zones = ", ".join(self.network.subnets)
                raise ValueError(
                    f"groups.{index}.zone: {group.zone} has no subnet; those with one are {zones}"
                )
            if self.images.of(group.arch) is None:
                raise ValueError(f"images.{group.arch}: is missing, and group {group.name} needs it")
        # A refresh starts a node before it ends one.
        nodes = {
            zone: sum(group.nodes + 1 for group in self.groups if group.zone == zone)
            for zone in self.network.subnets
        }
        self.network.refuse_less_than({zone: count + len(NODE_SERVICES) for zone, count in nodes.items()})
        return self

    def image(self, arch: Arch) -> Image:
        """Return the image of an architecture that a group has."""
        image = self.images.of(arch)
        assert image is not None
        return image
