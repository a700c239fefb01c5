# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses by a seed whose backups are drilled, so that anyone chooses the same, and says where. Pure."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass

# How much a source matters; a host matters as much as its most important source.
CLASSES = ("critical", "high", "medium", "low")


class ChoiceError(Exception):
    """There is nothing to choose from; the message says what to do."""


@dataclass(frozen=True)
class Host:
    """A host that is backed up.

    Args:
        name: in the inventory.
        zone: what may fail together with it; empty where that is not known.
        classes: of its sources.
        place: the host that it is to be drilled on; empty where that is not said.
    """

    name: str
    zone: str
    classes: frozenset[str]
    place: str = ""

    @property
    def rank(self) -> str | None:
        """The class of its most important source; None where nothing of it is backed up."""
        return next((one for one in CLASSES if one in self.classes), None)


@dataclass(frozen=True)
class Drill:
    """A drill that is to be.

    Args:
        node: whose backups.
        on: where they are restored.
        rank: class of the node.
    """

    node: str
    on: str
    rank: str


def choose(hosts: Mapping[str, Host], seed: str, *, among: frozenset[str]) -> list[Drill]:
    """Return all hosts of class critical and a random one of each other class, each with a host to drill on.

    Args:
        hosts: all that are backed up, by name.
        seed: the same one gives the same choice.
        among: names of those that may be drilled.

    Raises:
        ChoiceError: nothing is backed up, or there is no other host.
    """
    wanted = [host for name, host in sorted(hosts.items()) if name in among and host.rank]
    if not wanted:
        raise ChoiceError("no host here has backup_repositories and a source that is backed up")
    drills = []
    for rank in CLASSES:
        of_rank = [host for host in wanted if host.rank == rank]
        if rank != "critical" and of_rank:
            of_rank = [random.Random(f"{seed}:{rank}").choice(of_rank)]
        for host in of_rank:
            on = place(host, hosts)
            if on is None:
                raise ChoiceError(
                    f"no other host than {host.name} is backed up, so none is known to have what a drill "
                    "needs; name one in backup_drill_host"
                )
            drills.append(Drill(host.name, on, rank))
    return drills


def place(host: Host, hosts: Mapping[str, Host]) -> str | None:
    """Return where a host is drilled: always the same place, since reports are chained where they are.

    Args:
        host: is drilled.
        hosts: all that are backed up, by name.

    Returns:
        The host that it names, or another one that is backed up too, of another zone where there is one; None
        where there is no other.

    Raises:
        ChoiceError: it names itself.
    """
    if host.place == host.name:
        raise ChoiceError(f"a drill of {host.name} belongs on another host; name it in backup_drill_host")
    if host.place:
        return host.place
    others = [other for name, other in hosts.items() if name != host.name]
    if not others:
        return None

    def order(other: Host) -> tuple[bool, bytes]:
        same = bool(host.zone) and other.zone == host.zone
        return same, hashlib.sha256(f"{host.name} {other.name}".encode()).digest()

    return min(others, key=order).name
