"""All objects of a stack of units, in the order in which they come to be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kosnode.schema import refuse
from kosnode.unit import Unit

from . import network
from .objects import Object
from .pods import priority_class
from .probes import probes
from .settings import UnitsSettings
from .workloads import Wish, Workload, workload

TIERS = range(4)
_HIGHEST = 1_000_000
_STEP = 100_000


@dataclass(frozen=True)
class Rendered:
    """What a stack consists of.

    Args:
        objects: each after those that it waits for.
        workloads: by the unit's id.
        notes: a sentence for each thing that a node would hold to and Kubernetes does not.
    """

    objects: tuple[Object, ...]
    workloads: Mapping[str, Workload]
    notes: tuple[str, ...] = ()


def render(units: Mapping[str, Unit], settings: UnitsSettings, where: str) -> Rendered:
    """Render units.

    Args:
        units: checked, by how they are called in messages, mostly their path.
        settings: the stack's, which name each of them.
        where: how the settings are called in messages.

    Raises:
        InputError: what a unit forbids or Kubernetes cannot; names file, key and rule.
    """
    shared = (network.nothing_else(), *(_priority(settings, tier) for tier in TIERS))
    workloads: dict[str, Workload] = {}
    beside: list[Object] = []
    late: list[Object] = []
    notes: list[str] = []
    for place, unit in sorted(units.items(), key=lambda item: item[1].id):
        wanted = settings.units[unit.id]
        if wanted.resources:
            unit = unit.with_resources(wanted.resources, where)
        made = workload(Wish(unit, wanted, place, where, settings.namespace, settings.canary))
        service = network.service(unit, headless=made.kind == "StatefulSet")
        beside += [network.policy(unit), *([service] if service else []), *made.beside]
        if wanted.expose is not None:
            late.append(network.ingress(unit, wanted.expose, where))
        notes += _notes(unit, place)
        workloads[unit.id] = made
    before = tuple(one.key for one in shared)
    canaries = [_after(made.canary, before) for made in workloads.values() if made.canary is not None]
    # One canary that does not get ready stops what comes after it, of all units.
    proven = (*before, *(one.key for one in canaries))
    mains = [_after(made.main, proven) for made in workloads.values()]
    # What is in a namespace goes with it.
    kept = any(unit.state_bytes is not None for unit in units.values())
    namespace = _namespace(settings.namespace, protect=kept)
    objects = [_inside(one, namespace) for one in (*shared, *beside, *canaries, *mains, *late)]
    _refuse_twins(objects, where)
    return Rendered((namespace, *objects), workloads, tuple(notes))


def _namespace(name: str, *, protect: bool) -> Object:
    # The cluster itself refuses a pod that asks for more than the units here ever do.
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    return Object("namespace", body, protect=protect)


def _priority(settings: UnitsSettings, tier: int) -> Object:
    name = priority_class(settings.namespace, tier)
    body = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": _HIGHEST - tier * _STEP,
        "globalDefault": False,
        "description": f"Units of tier {tier} of fleet {settings.fleet}.",
    }
    return Object(f"tier-{tier}", body)


def _after(one: Object, keys: tuple[str, ...]) -> Object:
    return replace(one, after=(*one.after, *keys))


def _inside(one: Object, namespace: Object) -> Object:
    """Put an object into the namespace; a PriorityClass is the whole cluster's."""
    if one.body["kind"] == "PriorityClass":
        return one
    metadata = {**one.body["metadata"], "namespace": namespace.body["metadata"]["name"]}
    return replace(one, body={**one.body, "metadata": metadata}, after=(namespace.key, *one.after))


def _notes(unit: Unit, where: str) -> list[str]:
    told = list(probes(unit, where).notes)
    if unit.resources.max_tasks is not None:
        told.append(f"{where}: resources.max.tasks: Kubernetes bounds processes by a setting of its machines")
    return told


def _refuse_twins(objects: list[Object], where: str) -> None:
    seen: set[str] = set()
    for one in objects:
        if one.key in seen:
            refuse(where, f"units.{one.name}", "the canary of another unit has that name")
        seen.add(one.key)
    hosts: dict[str, str] = {}
    for one in (each for each in objects if each.body["kind"] == "Ingress"):
        host = one.body["spec"]["rules"][0]["host"]
        if host in hosts:
            refuse(where, f"units.{one.name}.expose.host", f"{host} is that of {hosts[host]} already")
        hosts[host] = one.name
