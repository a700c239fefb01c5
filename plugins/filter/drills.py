# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that say whose backups are drilled, where, and with what, from the variables of the hosts."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.kos.fleet.plugins.plugin_utils import _drills

# What role backup takes where a host does not say what is backed up.
_SOURCES = {"node": {"class": "critical", "method": "node"}}
# Keys of role backup's settings that say something to a drill, too.
_SETTINGS = ("reserve_bytes", "backend_timeout_s")
_URL_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")


def drills(
    hosts: t.Any, hostvars: t.Any, seed: t.Any, among: Sequence[str] | None = None
) -> list[dict[str, str]]:
    """Return the drills as a list of dictionaries with `node`, `on` and `class`."""
    known = _known("drills", hosts, hostvars)
    wanted = frozenset(map(str, hosts if among is None else among))
    try:
        chosen = _drills.choose(known, str(seed), among=wanted)
    except _drills.ChoiceError as error:
        raise AnsibleFilterError(str(error)) from None
    return [{"node": one.node, "on": one.on, "class": one.rank} for one in chosen]


def drill_tables(hosts: t.Any, hostvars: t.Any) -> dict[str, dict[str, dict[str, t.Any]]]:
    """Return by host the nodes that are drilled on it, each with what a drill has to know of it."""
    known = _known("drill_tables", hosts, hostvars)
    tables: dict[str, dict[str, dict[str, t.Any]]] = {}
    for name, host in sorted(known.items()):
        try:
            on = _drills.place(host, known)
        except _drills.ChoiceError as error:
            raise AnsibleFilterError(str(error)) from None
        if on is not None and host.rank:
            tables.setdefault(on, {})[name] = _row(name, hostvars[name])
    return tables


def _row(name: str, variables: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return a node's row of the table of a host that drills it, but for its public keys."""
    settings = variables.get("backup_settings") or {}
    # A witness over SSH lets in its nodes alone; its lines come with the request.
    witness = "" if variables.get("backup_witness_host") else variables.get("backup_witness_url")
    row = {
        "repositories": {
            str(key): _repository(f"backup_repositories.{key} of {name}", one)
            for key, one in variables["backup_repositories"].items()
        },
        "witness": {"url": str(witness)} if witness else None,
        "table": variables.get("backup_sources"),
        "interval_s": (settings.get("drill") or {}).get("interval_s"),
        **{key: settings.get(key) for key in _SETTINGS},
    }
    return {key: value for key, value in row.items() if value is not None}


def _repository(what: str, one: t.Any) -> dict[str, str]:
    if not isinstance(one, Mapping) or not one.get("url"):
        raise AnsibleFilterError(f"{what} has to be a mapping with url")
    if _URL_PASSWORD.search(str(one["url"])):
        raise AnsibleFilterError(f"{what}: its url holds a password, which has to be a secret")
    return {key: str(one[key]) for key in ("url", "ca") if one.get(key)}


def _known(what: str, hosts: t.Any, hostvars: t.Any) -> dict[str, _drills.Host]:
    if isinstance(hosts, str) or not isinstance(hosts, Sequence):
        raise AnsibleFilterError(f"{what} needs a list of hosts")
    return {str(name): _host(str(name), hostvars[name]) for name in hosts if _is_backed_up(hostvars[name])}


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
        return {"drills": drills, "drill_tables": drill_tables}
