"""How a unit runs: as Deployment, StatefulSet or DaemonSet, how often, and a canary before the others."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from kosnode import files
from kosnode.errors import InputError
from kosnode.schema import join, refuse
from kosnode.unit import Unit

from .objects import CANARY, MAIN, NAME_LABEL, TRACK_LABEL, Object, labels, quantity
from .pods import SCRATCH, template
from .probes import PERIOD_S
from .settings import Canary, UnitSettings

# How long a replica has to be ready before the next is changed, and how long a change may take beyond the
# time that the unit says it needs to start: to fetch an image and to find a machine.
READY_S = 10
PATIENCE_S = 300
# How many are changed at a time, as patch does it by default; so there are as many steps.
SHARE = "25%"
STEPS = 4
REVISIONS = 3


@dataclass(frozen=True)
class Wish:
    """A unit and what a stack wants of it.

    Args:
        unit: a checked one, with the stack's resources.
        settings: the stack's settings of it.
        where: how the unit is called in messages.
        settings_where: how the settings are.
        namespace: where it will be.
        canary: None without one.
    """

    unit: Unit
    settings: UnitSettings
    where: str
    settings_where: str
    namespace: str
    canary: Canary | None


@dataclass(frozen=True)
class Workload:
    """What runs a unit.

    Args:
        kind: of the workload.
        replicas: how many; None is one on every machine.
        canary: what is changed first; None where there is nothing to prove it on.
        main: the rest.
        beside: what belongs to it: configuration, volume, disruption budget.
    """

    kind: str
    replicas: int | None
    canary: Object | None
    main: Object
    beside: tuple[Object, ...]


def workload(wish: Wish) -> Workload:
    """Return what runs a unit.

    Raises:
        InputError: more replicas than the unit allows, and what `pods.template` refuses.
    """
    unit = wish.unit
    if unit.entry.type == "oneshot":
        refuse(wish.where, "entry.type", "oneshot is nothing that Kubernetes keeps running; nodes run it")
    replicas = _replicas(wish)
    kind = _kind(unit)
    with_canary = wish.canary is not None and (replicas is None or replicas > 1)
    config_map = _config_map(wish)
    claim = _claim(wish)
    before = tuple(one.key for one in (config_map, claim) if one is not None)
    canary = _object(wish, kind, CANARY, 1, config_map, before) if with_canary else None
    rest = None if replicas is None else replicas - (1 if with_canary else 0)
    main = _object(wish, kind, MAIN, rest, config_map, before)
    budget = _budget(unit) if replicas is not None and replicas > 1 else None
    beside = tuple(one for one in (config_map, claim, budget) if one is not None)
    return Workload(kind, replicas, canary, main, beside)


def _replicas(wish: Wish) -> int | None:
    unit, asked, most = wish.unit, wish.settings.replicas, wish.unit.max_replicas
    key = f"units.{unit.id}.replicas"
    if unit.affinity.every_node:
        if most is not None:
            refuse(wish.where, "affinity.every_node", f"cannot be where max_replicas is {most}")
        if asked is not None:
            refuse(wish.settings_where, key, "cannot be said; the unit wants one on every machine")
        return None
    if asked is not None and most is not None and asked > most:
        refuse(wish.settings_where, key, f"{asked} is more than the unit allows, which is {most}")
    return asked or 1


def _kind(unit: Unit) -> str:
    if unit.affinity.every_node:
        return "DaemonSet"
    # Of these alone Kubernetes never starts a second before the first is known to be gone.
    return "StatefulSet" if unit.state_bytes is not None or unit.max_replicas == 1 else "Deployment"


def _object(
    wish: Wish,
    kind: str,
    track: str,
    replicas: int | None,
    config_map: Object | None,
    before: tuple[str, ...],
) -> Object:
    unit, canary = wish.unit, wish.canary
    name = unit.id if track == MAIN else f"{unit.id}-{CANARY}"
    ready = canary.bake_s if track == CANARY and canary is not None else READY_S
    step_s = unit.entry.timeout_s + ready
    steps = replicas if unit.max_replicas is not None and replicas is not None else STEPS
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {NAME_LABEL: unit.id, TRACK_LABEL: track}},
        "minReadySeconds": ready,
        "revisionHistoryLimit": REVISIONS,
        "template": template(
            unit,
            where=wish.where,
            namespace=wish.namespace,
            track=track,
            canary_zone=None if canary is None else canary.zone,
            config_map=None if config_map is None else config_map.body["metadata"]["name"],
            state=_state(unit),
        ),
    }
    if kind != "DaemonSet":
        spec["replicas"] = replicas
    if kind == "Deployment":
        spec["progressDeadlineSeconds"] = step_s + PATIENCE_S
        # A new one beside the old ones is one more than a unit may allow.
        one_by_one = {"maxSurge": 0, "maxUnavailable": 1}
        rolling = {"maxSurge": SHARE, "maxUnavailable": 0} if unit.max_replicas is None else one_by_one
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    if kind == "DaemonSet":
        spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": SHARE}}
    if kind == "StatefulSet":
        spec["serviceName"] = unit.id
        # In order, a pod that never gets ready would stay in the way of the change that mends it:
        # https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
        spec["podManagementPolicy"] = "Parallel"
        if track == CANARY:
            _ready_when_baked(spec["template"], ready)
        if _volumes_of_replicas(unit):
            spec["volumeClaimTemplates"] = [{"metadata": {"name": "state"}, "spec": _claim_spec(wish)}]
    metadata = {
        "name": name,
        "labels": {**labels(unit.id, unit.tier), TRACK_LABEL: track},
        "annotations": {
            "kos.fleet/version": unit.version,
            "kos.fleet/trust": unit.trust,
            # As long as Pulumi waits for it to be ready.
            "pulumi.com/timeoutSeconds": str(steps * step_s + PATIENCE_S),
        },
    }
    body = {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}
    return Object(name, body, after=before)


def _ready_when_baked(template: dict[str, Any], bake_s: int) -> None:
    """Let a pod count as ready after its bake alone: of a StatefulSet Pulumi waits for nothing more."""
    for container in template["spec"]["containers"]:
        if "readinessProbe" in container:
            answers = math.ceil(bake_s / PERIOD_S)
            container["readinessProbe"] = {**container["readinessProbe"], "successThreshold": answers}


def _state(unit: Unit) -> dict[str, Any] | None:
    if unit.state_bytes is None:
        return {"emptyDir": {"sizeLimit": SCRATCH}}
    return (
        None if _volumes_of_replicas(unit) else {"persistentVolumeClaim": {"claimName": f"{unit.id}-state"}}
    )


def _volumes_of_replicas(unit: Unit) -> bool:
    """Whether each replica has a volume of its own, which the workload then makes."""
    return unit.state_bytes is not None and unit.max_replicas != 1


def _claim(wish: Wish) -> Object | None:
    """The volume of a unit of which there is one: it outlives the workload, and the stack."""
    unit = wish.unit
    if unit.state_bytes is None or _volumes_of_replicas(unit):
        return None
    metadata = {
        "name": f"{unit.id}-state",
        "labels": labels(unit.id, unit.tier),
        # Most clusters bind a volume when its pod is placed, so that waiting for it would never end.
        "annotations": {"pulumi.com/skipAwait": "true"},
    }
    body = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": _claim_spec(wish),
    }
    return Object(f"{unit.id}-state", body, protect=True)


def _claim_spec(wish: Wish) -> dict[str, Any]:
    assert wish.unit.state_bytes is not None
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": quantity(wish.unit.state_bytes)}},
    }
    if wish.settings.storage_class is not None:
        spec["storageClassName"] = wish.settings.storage_class
    return spec


def _config_map(wish: Wish) -> Object | None:
    """The configuration; its name holds its hash, so that another one is another pod."""
    if not wish.settings.config:
        return None
    unit = wish.unit
    try:
        text = files.canonical(wish.settings.config).decode()
    except InputError as error:
        refuse(wish.settings_where, join(f"units.{unit.id}.config", error.key or ""), error.message)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{unit.id}-config-{digest}", "labels": labels(unit.id, unit.tier)},
        "immutable": True,
        "data": {f"{unit.id}.json": text},
    }
    return Object(f"{unit.id}-config", body)


def _budget(unit: Unit) -> Object:
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": unit.id, "labels": labels(unit.id, unit.tier)},
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {NAME_LABEL: unit.id}},
            # What is not ready keeps nobody from emptying its machine.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
    return Object(unit.id, body)
