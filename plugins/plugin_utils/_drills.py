# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses whose backups are drilled, and on which host: by a seed, so that anyone chooses the same. Pure."""

from __future__ import annotations

import random
from collections import Counter
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
    """

    name: str
    zone: str
    classes: frozenset[str]

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


def choose(
    hosts: Mapping[str, Host], seed: str, *, among: frozenset[str], on: str | None = None
) -> list[Drill]:
    """Return all hosts of class critical and a random one of each other class, each with a host to drill on.

    Args:
        hosts: all that are backed up, by name; any of them may be drilled on.
        seed: the same one gives the same choice.
        among: names of those that may be drilled.
        on: the host to drill on. Else another one that is backed up too, in another zone where there is one.

    Raises:
        ChoiceError: nothing is backed up, or there is no other host.
    """
    wanted = [host for name, host in sorted(hosts.items()) if name in among and host.rank]
    if not wanted:
        raise ChoiceError("no host has backup_repositories and a source that is backed up")
    chosen: list[tuple[str, Host]] = []
    for rank in CLASSES:
        of_rank = [host for host in wanted if host.rank == rank]
        if rank != "critical" and of_rank:
            of_rank = [random.Random(f"{seed}:{rank}").choice(of_rank)]
        chosen += [(rank, host) for host in of_rank]
    used: Counter[str] = Counter()
    drills = []
    for rank, host in chosen:
        place = on or _place(host, hosts, used, seed)
        if place == host.name:
            raise ChoiceError(f"a drill of {host.name} belongs on another host; name it by -e drill_on=HOST")
        used[place] += 1
        drills.append(Drill(host.name, place, rank))
    return drills


def _place(host: Host, hosts: Mapping[str, Host], used: Mapping[str, int], seed: str) -> str:
    others = [other for name, other in sorted(hosts.items()) if name != host.name]
    if not others:
        raise ChoiceError(
            f"no other host than {host.name} is backed up, so none is known to have what a drill needs; "
            "name one by -e drill_on=HOST"
        )
    random.Random(f"{seed}:{host.name}").shuffle(others)
    return min(others, key=lambda other: (used[other.name], bool(host.zone) and other.zone == host.zone)).name
