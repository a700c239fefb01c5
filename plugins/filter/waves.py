# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that turns the nodes of each zone into the ordered waves of a rollout."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.kos.fleet.plugins.plugin_utils import _rollout


def waves(
    nodes: t.Any,
    batch: int | str = 1,
    canary: t.Any = "first",
    zone_order: Sequence[str] | None = None,
) -> list[dict[str, t.Any]]:
    """Return the waves as a list of dictionaries with `name`, `zone` and `hosts`."""
    if not isinstance(nodes, Mapping):
        raise AnsibleFilterError("waves needs a dictionary from zone to its list of nodes")
    try:
        plan = _rollout.waves(
            {str(zone): [str(host) for host in hosts] for zone, hosts in nodes.items()},
            batch=batch,
            canary=canary,
            zone_order=zone_order,
        )
    except _rollout.PlanError as error:
        raise AnsibleFilterError(str(error)) from None
    return [wave.as_dict() for wave in plan]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        return {"waves": waves}
