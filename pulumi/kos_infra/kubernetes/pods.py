"""The pod of a unit: what runs, within which bounds, and without any right beyond those of a node's unit."""

from __future__ import annotations

from typing import Any

from kosnode.render import STATE, STOP_TIMEOUT_S, UNIT_CONFIG
from kosnode.schema import refuse
from kosnode.unit import Unit

from .objects import CANARY, MAIN, NAME_LABEL, NODE_LABEL, TRACK_LABEL, ZONE_LABEL, labels, literal, quantity
from .probes import TREE, outside_ports, probes, program

# An account that no machine has: what the unit's own account is on a node.

USER = 65532
# What PrivateTmp is on a node, and the state of a unit that asks for no room.
SCRATCH = "64Mi"


def template(
    unit: Unit,
    *,
    where: str,
    namespace: str,
    track: str,
    canary_zone: str | None,
    config_map: str | None,
    state: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the pod template of a unit.

    Args:
        unit: a checked unit.
        where: how it is called in messages.
        namespace: where it is, which has priorities of its own.
        track: `main` or `canary`.
        canary_zone: zone of the canary, None without one. A canary stays in it; one on every machine of the
            others stays out of it.
        config_map: name of the ConfigMap with its configuration, None without one.
        state: the volume of its state without its name; None where the workload brings it.

    Raises:
        InputError: no image, no bounds, or a check that is none of Kubernetes'.
    """
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH}}]
    if state is not None:
        volumes.append({"name": "state", **state})
    if config_map is not None:
        volumes.append({"name": "config", "configMap": {"name": config_map}})
    selector = {NAME_LABEL: unit.id, TRACK_LABEL: track}
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "priorityClassName": priority_class(namespace, unit.tier),
        "terminationGracePeriodSeconds": STOP_TIMEOUT_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(unit, where, config_map is not None)],
        "volumes": volumes,
    }
    zone = _zone(unit, track, canary_zone)
    if zone is not None:
        required = {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    spread = _spread(unit, selector)
    if spread:
        spec["topologySpreadConstraints"] = spread
    return {
        "metadata": {"labels": {**labels(unit.id, unit.tier), **selector}},
        "spec": spec,
    }


def priority_class(namespace: str, tier: int) -> str:
    """Return the name of a tier's PriorityClass, which is the whole cluster's as the namespace's name is."""
    return f"{namespace}-tier-{tier}"


def _container(unit: Unit, where: str, configured: bool) -> dict[str, Any]:
    if unit.image is None:
        refuse(where, "image", "is missing; Kubernetes runs images, each named by its digest")
    container: dict[str, Any] = {
        "name": unit.id,
        "image": unit.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(unit, unit.image),
        "resources": _resources(unit, where),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "state", "mountPath": f"{STATE}/{unit.id}"},
            *([{"name": "config", "mountPath": UNIT_CONFIG, "readOnly": True}] if configured else []),
        ],
        **probes(unit, where).fields,
    }
    if unit.format == "native":
        container["workingDir"] = TREE
    if unit.entry.command:
        # Both in `command`, so that nothing of the image's own entry point is left.
        container["command"] = program(unit, unit.entry.command)
    ports = [
        {"name": f"{proto}-{port}", "containerPort": port, "protocol": proto.upper()}
        for proto, port in sorted(outside_ports(unit))
    ]
    if ports:
        container["ports"] = ports
    return container


def _environment(unit: Unit, image: str) -> list[dict[str, str]]:
    """What a unit finds on a node as well; the release that it is of is the digest of its image."""
    values = {
        **dict(unit.entry.env),
        "KOS_UNIT": unit.id,
        "KOS_RELEASE": image.rpartition(":")[2],
        "KOS_UNIT_CONFIG": f"{UNIT_CONFIG}/{unit.id}.json",
        "STATE_DIRECTORY": f"{STATE}/{unit.id}",
    }
    return [{"name": name, "value": literal(value)} for name, value in values.items()]


def _resources(unit: Unit, where: str) -> dict[str, Any]:
    most = unit.resources
    if most.max_memory is None or most.max_cpu is None:
        missing = "memory" if most.max_memory is None else "cpu"
        refuse(
            where, f"resources.max.{missing}", "is missing; what shares a machine with others needs a bound"
        )
    cpu = f"{most.max_cpu * 10}m"
    kept = most.max_memory if most.min_memory is None else most.min_memory
    return {
        "limits": {"cpu": cpu, "memory": quantity(most.max_memory)},
        "requests": {"cpu": cpu, "memory": quantity(kept)},
    }


def _zone(unit: Unit, track: str, canary_zone: str | None) -> dict[str, Any] | None:
    if canary_zone is None:
        return None
    if track == CANARY:
        return {"key": ZONE_LABEL, "operator": "In", "values": [canary_zone]}
    if track == MAIN and unit.affinity.every_node:
        return {"key": ZONE_LABEL, "operator": "NotIn", "values": [canary_zone]}
    return None


def _spread(unit: Unit, selector: dict[str, str]) -> list[dict[str, Any]]:
    keys = {"zone": (ZONE_LABEL, NODE_LABEL), "node": (NODE_LABEL,)}.get(unit.affinity.spread or "", ())
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            # What is asked for holds; that a zone's machines share it as well is a wish.
            "whenUnsatisfiable": "DoNotSchedule" if index == 0 else "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
        }
        for index, key in enumerate(keys)
    ]
