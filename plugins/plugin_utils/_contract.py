# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract of a cluster: found in what Pulumi wrote, checked against its schema, and typed. Pure."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OUTPUT = "kos_fleet"
FORMAT = 1

# How Pulumi marks a value that is no plain one, and what `pulumi stack output` shows in place of a secret:
# sdk/go/common/resource/sig.go and pkg/backend/display of pulumi.
_SPECIAL = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_SHOWN = "[secret]"


class ContractError(ValueError):
    """No contract, or one that is not understood; the message names place, key and rule."""


@dataclass(frozen=True)
class Group:
    """Nodes that are made from one template.

    Args:
        name, zone, node_class, arch: as the contract says.
        wave: place in the order in which the groups of a fleet are changed; the canary has the lowest.
        autoscaling_group: physical name, by which its instances are tagged.
    """

    name: str
    zone: str
    node_class: str
    arch: str
    wave: int
    autoscaling_group: str


@dataclass(frozen=True)
class Contract:
    """What a cluster says of itself.

    Args:
        document: all of it, as it was checked.
    """

    document: Mapping[str, t.Any]

    @property
    def fleet(self) -> str:
        return str(self.document["fleet"])

    @property
    def stack(self) -> str:
        return str(self.document["stack"])

    @property
    def account(self) -> str:
        return str(self.document["account"])

    @property
    def region(self) -> str:
        return str(self.document["region"])

    @property
    def tags(self) -> dict[str, str]:
        """The tags that every instance of the fleet carries."""
        return dict(self.document["instances"]["tags"])

    @property
    def groups(self) -> tuple[Group, ...]:
        return tuple(
            Group(
                name=group["name"],
                zone=group["zone"],
                node_class=group["class"],
                arch=group["arch"],
                wave=int(group["wave"]),
                autoscaling_group=group["autoscaling_group"],
            )
            for group in self.document["groups"]
        )


def of_deployment(document: t.Any, where: str) -> t.Any:
    """Return the contract's value out of a checkpoint or of what `pulumi stack export` wrote.

    Raises:
        ContractError: it is neither, the stack has no outputs, or none of that name.
    """
    resources = _resources(document)
    if resources is None:
        raise ContractError(f"{where}: holds neither a contract, nor a state or an export of Pulumi")
    stacks = [one for one in resources if isinstance(one, dict) and one.get("type") == "pulumi:pulumi:Stack"]
    outputs = stacks[0].get("outputs") if stacks else None
    return of_outputs(outputs or {}, where)


def of_outputs(outputs: t.Any, where: str) -> t.Any:
    """Return the contract's value out of all outputs of a stack.

    Raises:
        ContractError: there are none, or none of that name.
    """
    if not isinstance(outputs, Mapping) or OUTPUT not in outputs:
        names = ", ".join(sorted(outputs)) if isinstance(outputs, Mapping) else ""
        said = f"has no output {OUTPUT}, only {names}" if names else "has no outputs"
        raise ContractError(f"{where}: the stack {said}; `pulumi up` of a program of kOS Fleet writes it")
    return outputs[OUTPUT]


def of_file(document: t.Any, where: str) -> t.Any:
    """Return the contract's value out of an exported file: the output alone, all outputs, or the whole stack.

    Raises:
        ContractError: as `of_deployment`.
    """
    if isinstance(document, dict) and "format" in document:
        return document
    if isinstance(document, dict) and OUTPUT in document:
        return document[OUTPUT]
    return of_deployment(document, where)


def check(value: t.Any, where: str) -> Contract:
    """Check a contract and return it typed.

    Args:
        value: the contract's value.
        where: how its place is called in messages.

    Raises:
        ContractError: another format than this version knows, a secret inside, or what breaks the schema.
    """
    for key in _secrets(value, OUTPUT):
        raise ContractError(
            f"{where}: {key}: is a secret; a contract holds none, so that it can be read by all"
        )
    if not isinstance(value, Mapping):
        raise ContractError(f"{where}: {OUTPUT}: must be a mapping")
    known = value.get("format")
    if known != FORMAT or isinstance(known, bool):
        said = "is missing" if known is None else f"is {known!r}"
        raise ContractError(
            f"{where}: {OUTPUT}.format: {said}; this version of kos.fleet knows format {FORMAT} alone"
        )
    _check_schema(dict(value), where)
    contract = Contract(value)
    seen: set[str] = set()
    for index, group in enumerate(contract.groups):
        key = f"{where}: {OUTPUT}.groups[{index}]"
        if group.zone not in value["zones"]:
            raise ContractError(f"{key}.zone: {group.zone} is none of the zones {', '.join(value['zones'])}")
        if group.autoscaling_group in seen:
            raise ContractError(f"{key}.autoscaling_group: {group.autoscaling_group} stands twice")
        seen.add(group.autoscaling_group)
    return contract


def refuse_foreign_region(contract: Contract, regions: Sequence[str], where: str) -> None:
    """Refuse a cluster outside the regions in which a fleet may live (A74); an empty list allows all.

    Raises:
        ContractError: names the region and those that are allowed.
    """
    if regions and contract.region not in regions:
        raise ContractError(
            f"{where}: {OUTPUT}.region: {contract.region} is outside the regions of this fleet, "
            f"which are {', '.join(regions)}"
        )


def schema() -> dict[str, t.Any]:
    """Return the published schema of the contract."""
    text = Path(__file__).with_name("contract.schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _resources(document: t.Any) -> list[t.Any] | None:
    """The resources of a checkpoint (`checkpoint.latest`) or of an export (`deployment`)."""
    if not isinstance(document, dict):
        return None
    checkpoint = document.get("checkpoint")
    # A stack that was made and never filled has no `latest`.
    body = (checkpoint.get("latest") or {}) if isinstance(checkpoint, dict) else document.get("deployment")
    if not isinstance(body, dict):
        return None
    resources = body.get("resources", [])
    return resources if isinstance(resources, list) else None


def _secrets(value: t.Any, key: str) -> Iterator[str]:
    if value == _SHOWN or (isinstance(value, Mapping) and value.get(_SPECIAL) == _SECRET):
        yield key
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _secrets(inner, f"{key}[{index}]")


@cache
def _validator() -> Callable[[object], object]:
    import fastjsonschema

    validator: Callable[[object], object] = fastjsonschema.compile(_open(schema()), use_default=False)
    return validator


def _open(part: t.Any) -> t.Any:
    """A schema that lets keys pass that it does not know: they are added without a new format."""
    if isinstance(part, dict):
        return {
            key: _open(value)
            for key, value in part.items()
            if (key, value) != ("additionalProperties", False)
        }
    return [_open(value) for value in part] if isinstance(part, list) else part


def _check_schema(value: dict[str, t.Any], where: str) -> None:
    import fastjsonschema

    try:
        _validator()(value)
    except fastjsonschema.JsonSchemaValueException as error:
        key, rule = _broken(error)
        raise ContractError(f"{where}: {key}: {rule}") from None


def _broken(error: t.Any) -> tuple[str, str]:
    """The key that breaks a rule, and the rule."""
    key = str(error.name).replace("data", OUTPUT, 1)
    if error.rule == "required":
        missing = next(name for name in error.rule_definition if name not in error.value)
        return f"{key}.{missing}", "is missing"
    rule = (error.definition or {}).get("x-rule")
    if rule:
        return key, f"must be {rule}"
    return key, str(error.message).removeprefix(str(error.name)).strip()
