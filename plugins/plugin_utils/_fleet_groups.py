# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host is in which group with which variables: a contract joined with the instances that run. Pure."""

from __future__ import annotations

import re
import shlex
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.kos.fleet.plugins.plugin_utils._contract import Contract, ContractError, Group


@dataclass(frozen=True)
class Host:
    """One node."""

    name: str
    groups: tuple[str, ...]
    variables: Mapping[str, t.Any]


@dataclass(frozen=True)
class Hosts:
    """What belongs into an inventory.

    Args:
        groups: variables by name of the group.
        hosts: the nodes, by instance id.
        warnings: a sentence for each thing that is not as the contract says.
    """

    groups: Mapping[str, Mapping[str, t.Any]]
    hosts: tuple[Host, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def join(contract: Contract, instances: Sequence[Mapping[str, t.Any]], profile: str | None = None) -> Hosts:
    """Join a contract with the instances that carry its tags.

    Args:
        contract: a checked one.
        instances: as `_cloud.running_instances` returns them.
        profile: of the AWS configuration, for connections.

    Raises:
        ContractError: an instance is in a zone that is not that of its group.
    """
    known = {group.autoscaling_group: group for group in contract.groups}
    of_stack = group_name("stack", contract.fleet, contract.stack)
    groups: dict[str, dict[str, t.Any]] = {
        "nodes": {},
        "mirrors": {},
        of_stack: {
            "bootstrap_fleet": contract.fleet,
            "bootstrap_mirrors": [contract.document["mirror"]["url"]],
            **_connection(contract, profile),
        },
    }
    for group in contract.groups:
        groups.setdefault(group_name("zone", group.zone), {"bootstrap_zone": group.zone})
        groups.setdefault(group_name("class", group.node_class), {"bootstrap_class": group.node_class})
        groups.setdefault(group_name("arch", group.arch), {})
        groups.setdefault(group_name("wave", group.wave), {})
    hosts: list[Host] = []
    strangers: list[str] = []
    for instance in instances:
        made_by = known.get(instance["autoscaling_group"])
        if made_by is None:
            strangers.append(instance["id"])
        else:
            hosts.append(_host(instance, made_by, of_stack))
    warnings = []
    if strangers:
        warnings.append(
            f"left out, of no group of the contract, although they carry the tags of fleet {contract.fleet}: "
            f"{', '.join(strangers)}"
        )
    if not instances:
        warnings.append(f"no instance of fleet {contract.fleet} runs in {contract.region}")
    return Hosts(groups, tuple(hosts), tuple(warnings))


def group_name(*parts: object) -> str:
    """Return the name of a group: parts joined by `_`, which also stands for what Ansible does not allow."""
    return re.sub(r"[^A-Za-z0-9_]", "_", "_".join(map(str, parts)))


def _host(instance: Mapping[str, t.Any], group: Group, of_stack: str) -> Host:
    if instance["availability_zone"] != group.zone:
        raise ContractError(
            f"instance {instance['id']} is in zone {instance['availability_zone']}, "
            f"but its group {group.name} is in zone {group.zone}"
        )
    return Host(
        name=instance["id"],
        groups=(
            "nodes",
            of_stack,
            group_name("zone", group.zone),
            group_name("class", group.node_class),
            group_name("arch", group.arch),
            group_name("wave", group.wave),
        ),
        variables={
            "ansible_host": instance["id"],
            "ansible_aws_ssm_instance_id": instance["id"],
            "kos_instance": {**instance, "group": group.name, "wave": group.wave},
        },
    )


def _connection(contract: Contract, profile: str | None) -> dict[str, t.Any]:
    """What reaches a node from afar, with no port of it open: SSH inside a session of SSM."""
    start = ["aws", "ssm", "start-session", "--region", contract.region]
    if profile:
        start += ["--profile", profile]
    start += ["--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=%p", "--target", "%h"]
    bucket = contract.document["connection"].get("bucket")
    return {
        # The session is already with the instance of that id, and an id is never used again.
        "ansible_ssh_common_args": (
            f"-o StrictHostKeyChecking=accept-new -o ProxyCommand={shlex.quote(shlex.join(start))}"
        ),
        "ansible_aws_ssm_region": contract.region,
        **({"ansible_aws_ssm_bucket_name": bucket} if bucket else {}),
        **({"ansible_aws_ssm_profile": profile} if profile else {}),
    }
