"""What a policy is: a rule over what a program registers, without the engine that asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from ..recording import Registration

Properties = Mapping[str, Any]

WORLD_PREFIX = 8


@dataclass(frozen=True)
class Rule:
    """A rule that one resource alone can break.

    Args:
        name: by which it is known, such as `imdsv2`.
        description: what has to be so, one sentence.
        types: the types of resources that it is about.
        check: yields one message for each breach.
    """

    name: str
    description: str
    types: frozenset[str]
    check: Callable[[Registration], Iterator[str]]


@dataclass(frozen=True)
class StackRule:
    """A rule about resources that belong together.

    Args:
        name, description: as of `Rule`.
        check: yields for each breach the resource, or None for the stack as a whole, and one message.
    """

    name: str
    description: str
    check: Callable[[Sequence[Registration]], Iterator[tuple[Registration | None, str]]]


@dataclass(frozen=True)
class Violation:
    """A breach of a rule.

    Args:
        rule: name of the rule.
        urn: of the resource; empty for the stack as a whole.
        message: what is wrong with it.
    """

    rule: str
    urn: str
    message: str


def violations(
    registrations: Sequence[Registration], rules: Iterable[Rule | StackRule]
) -> tuple[Violation, ...]:
    """Return every breach of the rules by what a program registers."""
    found = []
    for rule in rules:
        if isinstance(rule, StackRule):
            for culprit, message in rule.check(registrations):
                found.append(Violation(rule.name, culprit.urn if culprit else "", message))
            continue
        for one in registrations:
            if one.type in rule.types:
                found += [Violation(rule.name, one.urn, message) for message in rule.check(one)]
    return tuple(found)


def has(properties: Properties, key: str) -> bool:
    """Whether a property is given; in a preview its value may not be known yet, and is not looked at."""
    return key in set(properties)


def mappings(value: Any) -> list[Properties]:
    """Return the mappings in a list, or the one mapping, or none."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [one for one in value if isinstance(one, Mapping)]
    return []


def texts(value: Any) -> list[str]:
    """Return the texts in a list, or the one text, or none."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Sequence):
        return [one for one in value if isinstance(one, str)]
    return []


def child(properties: Properties, key: str) -> Properties:
    """Return a property that is a mapping; an empty one where it is none."""
    value = properties.get(key)
    return value if isinstance(value, Mapping) else {}


def is_world(address: str) -> bool:
    """Whether a network is so wide that to name it keeps nobody out; two halves of the world are one each."""
    try:
        return ip_network(address, strict=False).prefixlen < WORLD_PREFIX
    except ValueError:
        return False
