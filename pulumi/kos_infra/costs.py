"""What a stack costs a month at most, from its registrations and a dated file of list prices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from .recording import Registration

_GROUP = "aws:autoscaling/group:Group"
_WORKERS = "aws:eks/nodeGroup:NodeGroup"
_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        what: what costs.
        count: how many of it.
        unit_usd: price of one for a month; None where the file has no price.
    """

    what: str
    count: int
    unit_usd: float | None

    @property
    def usd(self) -> float:
        """Price of all of it for a month."""
        return self.count * (self.unit_usd or 0.0)


@cache
def prices() -> dict[str, Any]:
    """Return the price file: USD an `hour` or a `month` by what it is, with its date and region."""
    text = resources.files(__package__).joinpath("data/prices.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def rows(registrations: Sequence[Registration]) -> tuple[Row, ...]:
    """Return what costs by existing; traffic, requests and stored bytes are not known beforehand.

    A group counts with its dearest instance type on demand: neither spot nor a cheaper type is relied on.
    """
    counted: Counter[tuple[str, float | None]] = Counter()
    for one in registrations:
        for what, count, unit in _parts(one, registrations):
            counted[what, unit] += count
    ordered = sorted(counted.items(), key=lambda item: item[0][0])
    return tuple(Row(what, count, unit) for (what, unit), count in ordered)


def table(registrations: Sequence[Registration]) -> str:
    """Return the table in Markdown, with a total and where its prices come from."""
    found, file = rows(registrations), prices()
    lines = ["| what | how many | USD each a month | USD a month |", "|---|---:|---:|---:|"]
    for row in found:
        unit = "no price" if row.unit_usd is None else f"{row.unit_usd:.2f}"
        lines.append(f"| {row.what} | {row.count} | {unit} | {row.usd:.2f} |")
    bound = "at least" if any(row.unit_usd is None for row in found) else "at most"
    lines.append(f"| **{bound}** | | | **{sum(row.usd for row in found):.2f}** |")
    return "\n".join([*lines, "", f"Prices of {file['date']} in {file['region']}. {file['note']}", ""])


def _parts(one: Registration, all_of_them: Sequence[Registration]) -> Iterator[tuple[str, int, float | None]]:
    file = prices()
    month: dict[str, float] = file["month"]
    hours: int = file["hours"]
    simple: dict[str, Callable[[], tuple[str, int, float]]] = {
        "aws:cloudwatch/metricAlarm:MetricAlarm": lambda: ("alarm", 1, month["alarm"]),
        "aws:eks/cluster:Cluster": lambda: ("control plane", 1, hours * file["hour"]["cluster"]),
        "aws:kms/key:Key": lambda: ("key", 1, month["key"]),
        "aws:route53/zone:Zone": lambda: ("private DNS zone", 1, month["private_zone"]),
        "aws:ec2/vpcEndpoint:VpcEndpoint": lambda: (
            "endpoint in a zone",
            len(one.inputs.get("subnetIds", ())),
            hours * file["hour"]["endpoint"],
        ),
    }
    if one.type in simple:
        what, count, unit = simple[one.type]()
        if count:
            yield what, count, unit
    elif one.type in (_GROUP, _WORKERS):
        yield from _machines(one, all_of_them, file)


def _machines(
    group: Registration, all_of_them: Sequence[Registration], file: dict[str, Any]
) -> Iterator[tuple[str, int, float | None]]:
    template = next(one for one in all_of_them if one.type == _TEMPLATE and one.urn in group.depends_on)
    if group.type == _GROUP:
        overrides = group.inputs["mixedInstancesPolicy"]["launchTemplate"]["overrides"]
        types = [way["instanceType"] for way in overrides]
        count = int(group.inputs["desiredCapacity"])
        yield "detailed monitoring of a machine", count, file["month"]["machine_metrics"]
    else:
        types = list(group.inputs["instanceTypes"])
        count = int(group.inputs["scalingConfig"]["desiredSize"])
    known: dict[str, float] = file["machine_hour"]
    unpriced = [kind for kind in types if kind not in known]
    dearest = unpriced[0] if unpriced else max(types, key=lambda kind: known[kind])
    yield f"machine {dearest}", count, None if unpriced else file["hours"] * known[dearest]
    size = sum(int(volume["ebs"]["volumeSize"]) for volume in template.inputs["blockDeviceMappings"])
    yield "GiB of volume", count * size, file["month"]["volume_gib"]
