"""What a fake provider knows of a resource type beyond its names: ids, outputs, and which changes replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.engine.cloud import Cloud, Json, Resource
from infra.engine.shapes import Shape


class RefusedError(Exception):
    """The cloud does not do what was asked; the message says why in its words."""


@dataclass(frozen=True)
class Request:
    """What a resource is made or changed from.

    Attributes:
        cloud: Where it will be.
        settings: What the provider was configured with, in the SDK's names.
        type: Its type token.
        name: Its logical name.
        id: The id that it has, or gets.
        inputs: What the program asks for, with the physical name filled in.
        old: The resource before an update, None on creation.
        changed: Paths of the inputs that an update changes.
    """

    cloud: Cloud
    settings: Mapping[str, Any]
    type: str
    name: str
    id: str
    inputs: Json
    old: Resource | None = None
    changed: tuple[str, ...] = ()


def nothing(request: Request) -> Json:
    """Return no outputs, and do nothing."""
    return {}


def never(resource: Resource, others: list[Resource]) -> None:
    """Let any resource be deleted."""


@dataclass(frozen=True)
class Behaviour:
    """How one resource type behaves.

    Attributes:
        prefix: What ids begin with; empty gives the physical name as id.
        named: Path of the input that holds the physical name. One is made up where a program gives none, and
            of two resources of a type with the same name the second is refused.
        scope: Path of the input within whose value names are unique; None where it is the whole cloud.
        replaces: Inputs, or paths in them, whose change makes a new resource.
        outputs: Outputs that are not inputs, and what else making or changing the resource does to the cloud.
        changing: Outputs that an update may change, and that a preview of an update thus cannot tell.
        settled: Inputs, or paths in them, that the cloud fills in itself: to leave one out is no change.
        guard: Raises RefusedError where the cloud would not delete the resource, given all that there are.
    """

    prefix: str = ""
    named: str | None = None
    scope: str | None = None
    replaces: frozenset[str] = frozenset()
    outputs: Callable[[Request], Json] = nothing
    changing: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()
    guard: Callable[[Resource, list[Resource]], None] = never


@dataclass(frozen=True)
class Package:
    """A provider's package.

    Attributes:
        name: `aws` or `kubernetes`.
        behaviour: Gives the behaviour of a type, from its token and what `Shapes.fields` says of its inputs.
        common: Values for the outputs, given with their shapes, that any type of the package may declare.
        invoke: Answers a function, or raises RefusedError.
        configure: Raises RefusedError where the real provider would refuse its configuration.
    """

    name: str
    behaviour: Callable[[str, Shape], Behaviour]
    common: Callable[[Request, Shape], Json]
    invoke: Callable[[Mapping[str, Any], str, Json], Json]
    configure: Callable[[Mapping[str, Any]], None]
