"""Picture of a stack in AWS, drawn from its registrations: zones, machines, the way out, what is beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any
from xml.sax.saxutils import escape

from .recording import Registration

_SUBNET = "aws:ec2/subnet:Subnet"
_GROUPS = ("aws:autoscaling/group:Group", "aws:eks/nodeGroup:NodeGroup")

WIDTH, GAP, LINE, PAD = 250, 16, 18, 12
# How wide a character is on average.
CHARACTER = 7
BESIDE = 270
# A canary stands out; what comes later fades.
WAVES = ("#f4b942", "#8fc1e3", "#b3d4ec", "#d0e4f3")
PLAIN, EDGE, TEXT, FAINT = "#eef2f5", "#5b6b78", "#1d2730", "#5b6b78"


@dataclass(frozen=True)
class Box:
    """A thing in the picture.

    Args:
        title: its name.
        lines: what is said of it.
        fill: its colour.
    """

    title: str
    lines: tuple[str, ...] = ()
    fill: str = PLAIN

    def wrapped(self, width: int) -> list[str]:
        """Return the lines as they fit into a box that is so many pixels wide."""
        return [part for line in self.lines for part in wrap(line, (width - PAD * 2) // CHARACTER)]

    def height(self, width: int) -> int:
        """Return the height in pixels of a box that is so many pixels wide."""
        return PAD * 2 + LINE * (1 + len(self.wrapped(width))) - 4


def svg(registrations: Sequence[Registration], title: str) -> str:
    """Return the picture.

    Args:
        registrations: of one stack; the network, its machines and what is beside it are looked for in them.
        title: what stands above the picture.
    """
    subnets = [one for one in registrations if one.type == _SUBNET]
    columns = {one.urn: [_group(group) for group in _in_zone(one, registrations)] for one in subnets}
    spanning = [
        *(_workers(one) for one in registrations if one.type == _GROUPS[1]),
        *_clusters(registrations),
        _endpoints(registrations),
    ]
    beside = list(_beside(registrations))
    inner_width = len(subnets) * (WIDTH + GAP) - GAP
    in_zones = max((_stacked(boxes, WIDTH - PAD * 2) for boxes in columns.values()), default=0)
    zones_height = in_zones + LINE * 2 if in_zones else LINE * 2 - PAD // 2
    network_height = LINE * 2 + zones_height + _stacked(spanning, inner_width) + GAP
    width = inner_width + GAP * 4 + BESIDE + PAD * 2
    height = max(network_height, _stacked(beside, BESIDE - GAP) + LINE * 2) + PAD * 2 + LINE * 2
    drawn = [_text(PAD, LINE + 4, title, bold=True)]
    top = PAD + LINE * 2
    drawn.append(_frame(PAD, top, inner_width + GAP * 2, network_height, _network_title(registrations)))
    for index, subnet in enumerate(subnets):
        left = PAD + GAP + index * (WIDTH + GAP)
        caption = f"{subnet.inputs['availabilityZone']}  {subnet.inputs['cidrBlock']}"
        drawn.append(_frame(left, top + LINE * 2, WIDTH, zones_height, caption))
        drawn += _column(columns[subnet.urn], left + PAD, top + LINE * 4, WIDTH - PAD * 2)
    drawn += _column(spanning, PAD + GAP, top + LINE * 2 + zones_height + GAP, inner_width)
    left = PAD + inner_width + GAP * 4
    drawn.append(_text(left, top + LINE, "beside the network", faint=True))
    drawn += _column(beside, left, top + LINE * 2, BESIDE - GAP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *drawn,
            "</svg>",
            "",
        ]
    )


def _in_zone(subnet: Registration, registrations: Sequence[Registration]) -> list[Registration]:
    """Return the groups of machines of one zone, in the order of their waves."""
    found = [one for one in registrations if one.type == _GROUPS[0] and subnet.urn in one.depends_on]
    return sorted(found, key=lambda one: (int(_tags(one).get("kos:wave", 0)), one.name))


def _tags(group: Registration) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in group.inputs.get("tags", ())}


def _group(group: Registration) -> Box:
    tags = _tags(group)
    wave = int(tags.get("kos:wave", 0))
    policy = group.inputs["mixedInstancesPolicy"]
    types = [one["instanceType"] for one in policy["launchTemplate"]["overrides"]]
    shares = policy["instancesDistribution"]
    nodes = int(group.inputs["desiredCapacity"])
    on_demand = min(nodes, int(shares["onDemandBaseCapacity"]))
    how = f"{on_demand} on demand, {nodes - on_demand} spot" if on_demand < nodes else "on demand"
    return Box(
        group.name,
        (
            f"wave {wave}: {'canary' if wave == 0 else tags.get('kos:class', '')}",
            f"{nodes} {'node' if nodes == 1 else 'nodes'}, {how}",
            f"{tags.get('kos:arch', '')}: {', '.join(types)}",
        ),
        WAVES[min(wave, len(WAVES) - 1)],
    )


def _workers(group: Registration) -> Box:
    scaling = group.inputs["scalingConfig"]
    kind = "spot" if group.inputs.get("capacityType") == "SPOT" else "on demand"
    return Box(
        group.name,
        (
            f"{int(scaling['minSize'])} to {int(scaling['maxSize'])} machines in all zones, {kind}",
            f"{group.inputs['amiType']} {group.inputs['releaseVersion']}: "
            f"{', '.join(group.inputs['instanceTypes'])}",
        ),
        WAVES[1],
    )


def _clusters(registrations: Sequence[Registration]) -> Iterator[Box]:
    for one in registrations:
        if one.type == "aws:eks/cluster:Cluster":
            network = one.inputs["vpcConfig"]
            allowed = ", ".join(network.get("publicAccessCidrs", ())) or "this network alone"
            addons = sorted(addon.name for addon in registrations if addon.type == "aws:eks/addon:Addon")
            yield Box(
                f"Kubernetes {one.inputs['version']}",
                (f"its API is reached from {allowed}", f"addons: {', '.join(addons)}"),
                WAVES[0],
            )


def _endpoints(registrations: Sequence[Registration]) -> Box:
    found = [one for one in registrations if one.type == "aws:ec2/vpcEndpoint:VpcEndpoint"]
    return Box("the only way out: endpoints", (", ".join(sorted(one.name for one in found)),))


def _network_title(registrations: Sequence[Registration]) -> str:
    vpc = next(one for one in registrations if one.type == "aws:ec2/vpc:Vpc")
    return f"private network  {vpc.inputs['cidrBlock']}"


def _beside(registrations: Sequence[Registration]) -> Iterator[Box]:
    locks = {
        one.inputs["bucket"]: one.inputs["rule"]["defaultRetention"]
        for one in registrations
        if one.type == "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"
    }
    for one in registrations:
        if one.type == "aws:s3/bucket:Bucket":
            lock = locks.get(one.inputs["bucket"])
            held = f"locked for {int(lock['days'])} days, {lock['mode'].lower()}" if lock else "read by nodes"
            kept = "protected, stays when the stack goes" if one.protect else "signed files, no secret"
            yield Box(f"bucket {one.name}", (held, kept))
    keys = [one.name for one in registrations if one.type == "aws:kms/key:Key"]
    if keys:
        yield Box("keys, rotated", (", ".join(sorted(keys)),))
    for one in registrations:
        if one.type == "aws:route53/zone:Zone":
            yield Box("private DNS zone", (str(one.inputs["name"]),))
    alarms = [one for one in registrations if one.type == "aws:cloudwatch/metricAlarm:MetricAlarm"]
    heard = [one.inputs["endpoint"] for one in registrations if one.type.endswith(":TopicSubscription")]
    if heard:
        yield Box(f"{len(alarms)} alarms, flow log", tuple(sorted(heard)))
    for one in registrations:
        if one.type == "aws:budgets/budget:Budget":
            yield Box("budget", (f"{one.inputs['limitAmount']} USD a month, anomalies watched",))


def _stacked(boxes: Sequence[Box], width: int) -> int:
    return sum(box.height(width) + GAP for box in boxes)


def _column(boxes: Sequence[Box], left: int, top: int, width: int) -> list[str]:
    drawn = []
    for box in boxes:
        height = box.height(width)
        drawn.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6" fill="{box.fill}" '
            f'stroke="{EDGE}"/>'
        )
        drawn.append(_text(left + PAD, top + PAD + LINE // 2, box.title, bold=True))
        for number, line in enumerate(box.wrapped(width), start=1):
            drawn.append(_text(left + PAD, top + PAD + LINE // 2 + number * LINE, line))
        top += height + GAP
    return drawn


def _frame(left: int, top: int, width: int, height: int, caption: str) -> str:
    return (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="8" fill="none" stroke="{EDGE}" '
        f'stroke-dasharray="5 4"/>\n{_text(left + PAD, top + LINE, caption, faint=True)}'
    )


def _text(left: int, top: int, text: str, *, bold: bool = False, faint: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{left}" y="{top}" fill="{FAINT if faint else TEXT}"{weight}>{escape(text)}</text>'
