"""Whatever settings are right: what comes of them breaks no policy, keeps the contract and its limits."""

from __future__ import annotations

import base64
import json
import os
from ipaddress import IPv4Network
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from infra.conftest import ROOT, settings_of
from kos_infra import contract, policies, recording, userdata
from kos_infra.aws import regions
from kos_infra.aws.cluster_settings import ADDONS

# Each example runs a whole program.
ROUNDS = settings(
    max_examples=int(os.environ.get("KOS_ROUNDS", "1")) * 4,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

name = st.from_regex(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?", fullmatch=True)
tag = st.text("abcXYZ019 +-=._:/@", min_size=1, max_size=40)
TYPES = {
    "aarch64": ["t4g.small", "m7g.large", "c7gd.xlarge", "r8g.medium"],
    "x86_64": ["t3.small", "m7i.large", "m7a.large", "c6id.xlarge"],
}


@st.composite
def stacks(draw: st.DrawFn, prefix: int) -> dict[str, Any]:
    """What every stack is told; its subnets have `prefix` bits."""
    region = draw(st.sampled_from(regions.names()))
    zones = draw(st.permutations(regions.zones(region)))[: draw(st.integers(2, 3))]
    cidr = IPv4Network((10 << 24 | draw(st.integers(0, 255)) << 16, 16))
    spare = draw(st.permutations(list(cidr.subnets(new_prefix=prefix))[:8]))
    return {
        "fleet": draw(name),
        "account": draw(st.from_regex(r"[0-9]{12}", fullmatch=True)),
        "region": region,
        "residency": [region],
        "network": {
            "cidr": str(cidr),
            "subnets": {zone: str(subnet) for zone, subnet in zip(zones, spare, strict=False)},
        },
        "budget": {"monthly_usd": draw(st.integers(1, 10**6))},
        "notify": ["fleet@demo.example"],
        "log_days": draw(st.sampled_from([1, 90, 3653])),
        "tags": {"owner": draw(tag), "environment": draw(tag)},
    }


def machines(draw: st.DrawFn) -> dict[str, Any]:
    """Return an architecture and instance types of it."""
    arch = draw(st.sampled_from(sorted(TYPES)))
    types = draw(st.lists(st.sampled_from(TYPES[arch]), min_size=1, max_size=3, unique=True))
    return {"arch": arch, "instance_types": types}


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of program aws_fleet."""
    stack = draw(stacks(20))
    groups = []
    for number, group in enumerate(draw(st.lists(name, min_size=1, max_size=4, unique=True))):
        nodes = draw(st.integers(1, 40))
        groups.append(
            {
                **machines(draw),
                "name": group,
                "zone": draw(st.sampled_from(sorted(stack["network"]["subnets"]))),
                "class": draw(st.sampled_from(["griot", "hakim", "mzee"])),
                "wave": 0 if number == 0 else draw(st.integers(0, 99)),
                "nodes": nodes,
                "on_demand_base": draw(st.none() | st.integers(0, nodes)),
                "volume_gib": draw(st.integers(8, 16384)),
            }
        )
    return {
        **settings_of("aws_fleet", "dev"),
        **stack,
        "groups": groups,
        "backup": {
            "lock": draw(st.sampled_from(["GOVERNANCE", "COMPLIANCE"])),
            "lock_days": draw(st.integers(1, 36500)),
        },
    }


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of program aws_eks."""
    groups = [
        {
            **machines(draw),
            "name": group,
            "release": "1.34.1-20261105",
            "nodes": draw(st.integers(1, 5)),
            "max_nodes": draw(st.integers(5, 20)),
            "spot": draw(st.booleans()),
        }
        for group in draw(st.lists(name, min_size=1, max_size=3, unique=True))
    ]
    return {
        **settings_of("aws_eks", "dev"),
        **draw(stacks(18)),
        "addons": dict.fromkeys(ADDONS, "v1.2.3-eksbuild.4"),
        "public_from": draw(st.lists(st.sampled_from(["198.51.100.0/24", "192.0.2.1/32"]), unique=True)),
        "groups": groups,
        "deletion_protection": draw(st.booleans()),
    }


def registered(program: str, config: dict[str, Any]) -> recording.Recording:
    project = f"kos-{program.replace('_', '-')}"
    return recording.record_file(
        ROOT / f"pulumi/{program}/__main__.py",
        project=project,
        stack="any",
        config={f"{project}:settings": json.dumps(config)},
    )


@ROUNDS
@given(config=fleets())
def test_a_fleet_of_any_settings(config: dict[str, Any], files: dict[str, str], credentials: None) -> None:
    event(f"{len(config['groups'])} groups")
    recorded = registered("aws_fleet", {**config, **files})
    assert policies.violations(recorded.registrations, policies.RULES) == ()
    contract.check(recorded.outputs["kos_fleet"])
    templates = recorded.of_type("aws:ec2/launchTemplate:LaunchTemplate")
    assert len(templates) == len(config["groups"])
    for template in templates:
        assert len(base64.b64decode(template.inputs["userData"])) <= userdata.LIMIT


@ROUNDS
@given(config=clusters())
def test_a_cluster_of_any_settings(config: dict[str, Any], credentials: None) -> None:
    recorded = registered("aws_eks", config)
    assert policies.violations(recorded.registrations, policies.RULES) == ()
    assert len(recorded.of_type("aws:eks/nodeGroup:NodeGroup")) == len(config["groups"])
