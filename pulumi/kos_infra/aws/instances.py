"""Which architecture an instance type has, read from its name."""

from __future__ import annotations

import re
from typing import Literal

Arch = Literal["x86_64", "aarch64"]

# Family, generation, options, size: https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html
_TYPE = re.compile(r"(?P<family>[a-z]+)(?P<generation>[0-9]+)(?P<options>[a-z]*(?:-[a-z0-9]+)?)\.[a-z0-9-]+")


def arch_of(instance_type: str) -> Arch | None:
    """Return the architecture of an instance type; None for what is no type, or a Mac.

    The option `g` is a Graviton processor; family a1 was the first of them, from before options had letters.
    """
    named = _TYPE.fullmatch(instance_type)
    if named is None or named["family"] == "mac":
        return None
    graviton = "g" in named["options"].split("-")[0] or (named["family"], named["generation"]) == ("a", "1")
    return "aarch64" if graviton else "x86_64"
