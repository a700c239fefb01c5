# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of a rollout: zones, the waves that come of them, and whether to go on. Pure."""

from __future__ import annotations

import math
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

ZONE_PREFIX = "zone_"


class PlanError(ValueError):
    """An inventory or a wish that no rollout can be made of; the message names it."""


@dataclass(frozen=True)
class Wave:
    """Nodes that are patched at the same time.

    Args:
        name: `canary`, or the zone with a number where the zone has several waves.
        zone: the zone; None for a canary wave over several zones.
        hosts: in inventory order.
    """

    name: str
    zone: str | None
    hosts: tuple[str, ...]

    def as_dict(self) -> dict[str, t.Any]:
        return {"name": self.name, "zone": self.zone, "hosts": list(self.hosts)}


@dataclass(frozen=True)
class Verdict:
    """Whether a rollout may go on.

    Args:
        failed: node to one sentence, for nodes that failed or of which nothing is known.
        budget: how many such nodes are put up with.
        paused: the pause file, if it is there.
    """

    failed: Mapping[str, str] = field(default_factory=dict)
    budget: int = 0
    paused: str | None = None

    @property
    def stop(self) -> bool:
        return len(self.failed) > self.budget or self.paused is not None

    @property
    def story(self) -> str:
        """Each sentence with the nodes that failed so; it may begin with the node's name itself."""
        told: dict[str, list[str]] = {}
        for node, why in self.failed.items():
            told.setdefault(why, []).append(node)
        return "; ".join(
            why if why.startswith(f"{nodes[0]} ") else f"{', '.join(nodes)}: {why}"
            for why, nodes in told.items()
        )

    @property
    def reason(self) -> str:
        """Why the rollout stops; empty where it goes on."""
        if len(self.failed) > self.budget:
            told = self.story
            allowed = f" (failure budget {self.budget})" if self.budget else ""
            return f"{told}{allowed}"
        if self.paused is not None:
            return (
                f"paused: {self.paused} exists. Remove it and run the same command again; "
                "nodes that are confirmed already are skipped"
            )
        return ""


def zones(groups: Mapping[str, Iterable[str]], nodes: Sequence[str]) -> dict[str, list[str]]:
    """Return the nodes of each zone, zones by name, nodes in inventory order.

    Args:
        groups: the inventory's groups; `zone_a` is zone a.
        nodes: the nodes that count.

    Raises:
        PlanError: there is no zone, or a node is in none or in several; one message names all of it.
    """
    by_zone = {
        name[len(ZONE_PREFIX) :]: set(hosts) for name, hosts in groups.items() if name.startswith(ZONE_PREFIX)
    }
    if not nodes:
        raise PlanError("the inventory has no nodes: put them into the group `nodes`")
    if not by_zone:
        raise PlanError(
            "the inventory has no zones: put each node into exactly one group whose name begins with `zone_` "
            "(zone_a, zone_b), so that a release can be proven in one zone before it reaches the next"
        )
    found = {node: sorted(zone for zone, hosts in by_zone.items() if node in hosts) for node in nodes}
    none = [node for node in nodes if not found[node]]
    several = [f"{node} is in {' and '.join(found[node])}" for node in nodes if len(found[node]) > 1]
    problems = [f"{', '.join(none)} in no zone"] if none else []
    problems += several
    if problems:
        raise PlanError(f"each node has to be in exactly one group zone_*: {'; '.join(problems)}")
    return {
        zone: members
        for zone in sorted(by_zone)
        if (members := [node for node in nodes if found[node] == [zone]])
    }


def waves(
    by_zone: Mapping[str, Sequence[str]],
    *,
    batch: int | str = 1,
    canary: t.Any = "first",
    zone_order: Sequence[str] | None = None,
) -> list[Wave]:
    """Return the waves of a rollout: the canary, then zone by zone in batches.

    Args:
        by_zone: nodes of each zone, in the order in which they are to be patched.
        batch: nodes at a time in a zone: a number, or a share such as "25%" of the zone (one at least).
        canary: "first" (the first node of the first zone), "each_zone" (the first of every zone), "none",
            the name of a node, or a list of names.
        zone_order: all zones in the wanted order; by default the order of `by_zone`.

    Raises:
        PlanError: an unknown zone, node, batch or canary, or a zone that is left out.
    """
    order = list(dict.fromkeys(by_zone if zone_order is None else zone_order))
    for zone in order:
        if zone not in by_zone:
            raise PlanError(f"zone {zone!r} has no nodes here; zones are {', '.join(by_zone)}")
    left_out = [zone for zone in by_zone if zone not in order]
    if left_out:
        raise PlanError(
            f"zone_order leaves out {', '.join(left_out)}, whose nodes would not be touched: name every zone"
        )
    first = _canary(by_zone, order, canary)
    plan: list[Wave] = []
    if first:
        in_zones = [zone for zone in order if set(first) & set(by_zone[zone])]
        plan.append(Wave("canary", in_zones[0] if len(in_zones) == 1 else None, tuple(first)))
    for zone in order:
        rest = [node for node in by_zone[zone] if node not in first]
        size = _size(batch, len(by_zone[zone]))
        chunks = [tuple(rest[start : start + size]) for start in range(0, len(rest), size)]
        for index, chunk in enumerate(chunks, start=1):
            plan.append(
                Wave(
                    f"zone {zone}" if len(chunks) == 1 else f"zone {zone} {index}/{len(chunks)}", zone, chunk
                )
            )
    return plan


def judge(
    results: Mapping[str, Mapping[str, t.Any] | None], *, budget: int = 0, paused: str | None = None
) -> Verdict:
    """Judge what the nodes of the waves so far have said. No data is not success.

    Args:
        results: node to the registered result of its task; None where there is none.
        budget: how many failed nodes are put up with.
        paused: the pause file, if it is there.
    """
    failed = {node: why for node, result in results.items() if (why := _failure(result))}
    return Verdict(failed=failed, budget=budget, paused=paused)


def _failure(result: Mapping[str, t.Any] | None) -> str:
    if not result:
        return "no data (its task did not run)"
    if result.get("unreachable"):
        return f"cannot be reached: {_sentence(result)}"
    if result.get("failed"):
        return _sentence(result)
    if "outcome" in result and result["outcome"] not in ("confirmed", "present", "planned"):
        return f"ended as {result['outcome']}"
    if result.get("skipped"):
        return "no data (its task was skipped)"
    return ""


def _sentence(result: Mapping[str, t.Any]) -> str:
    return " ".join(str(result.get("msg") or "failed without a word").split()).rstrip(".")


def _canary(by_zone: Mapping[str, Sequence[str]], order: Sequence[str], canary: t.Any) -> list[str]:
    all_nodes = [node for zone in order for node in by_zone[zone]]
    if canary in (None, "none", False) or not all_nodes:
        return []
    if canary == "first":
        return all_nodes[:1]
    if canary == "each_zone":
        return [by_zone[zone][0] for zone in order if by_zone[zone]]
    # Once each: a wave is as many nodes of the play as its list is long.
    named = [canary] if isinstance(canary, str) else list(dict.fromkeys(canary))
    for node in named:
        if node not in all_nodes:
            raise PlanError(
                f"canary {node!r} is not one of the nodes of this rollout ({', '.join(all_nodes)}); "
                "it may also be first, each_zone or none"
            )
    return named


def _size(batch: int | str, zone_size: int) -> int:
    text = str(batch).strip()
    number = text[:-1] if text.endswith("%") else text
    if not number.isdigit() or int(number) < 1:
        raise PlanError(f"batch {batch!r} is not a number of nodes above zero, nor a share such as 25%")
    if text.endswith("%"):
        return max(1, math.floor(zone_size * min(int(number), 100) / 100))
    return int(number)
