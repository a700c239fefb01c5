# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that chooses whose backups are drilled, and where, from the variables of the hosts."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.kos.fleet.plugins.plugin_utils import _drills

# What role backup takes where a host does not say what is backed up.
_SOURCES = {"node": {"class": "critical", "method": "node"}}


def drills(
    hosts: t.Any, hostvars: t.Any, seed: t.Any, among: Sequence[str] | None = None, place: str = ""
) -> list[dict[str, str]]:
    """Return the drills as a list of dictionaries with `node`, `on` and `class`."""
    if isinstance(hosts, str) or not isinstance(hosts, Sequence):
        raise AnsibleFilterError("drills needs a list of hosts")
    known = {str(name): _host(str(name), hostvars[name]) for name in hosts if _is_backed_up(hostvars[name])}
    wanted = frozenset(map(str, hosts if among is None else among))
    try:
        chosen = _drills.choose(known, str(seed), among=wanted, on=place)
    except _drills.ChoiceError as error:
        raise AnsibleFilterError(str(error)) from None
    return [{"node": one.node, "on": one.on, "class": one.rank} for one in chosen]


def _is_backed_up(variables: Mapping[str, t.Any]) -> bool:
    return bool(variables.get("backup_repositories"))


def _host(name: str, variables: Mapping[str, t.Any]) -> _drills.Host:
    sources = variables.get("backup_sources", _SOURCES)
    if not isinstance(sources, Mapping) or not all(isinstance(one, Mapping) for one in sources.values()):
        raise AnsibleFilterError(f"backup_sources of {name} has to be a mapping from names to mappings")
    zone = next((group for group in variables.get("group_names") or [] if group.startswith("zone_")), "")
    classes = frozenset(str(one.get("class")) for one in sources.values())
    return _drills.Host(name, zone, classes, str(variables.get("backup_drill_host") or ""))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        return {"drills": drills}
