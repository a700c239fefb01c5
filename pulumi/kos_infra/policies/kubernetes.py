"""Policies about pods, ways in and volumes of Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..recording import Registration
from .rule import Rule, child, has, is_world, mappings, texts

POD = "kubernetes:core/v1:Pod"
CRON_JOB = "kubernetes:batch/v1:CronJob"
WORKLOADS = frozenset(
    {
        POD,
        CRON_JOB,
        "kubernetes:apps/v1:DaemonSet",
        "kubernetes:apps/v1:Deployment",
        "kubernetes:apps/v1:ReplicaSet",
        "kubernetes:apps/v1:StatefulSet",
        "kubernetes:batch/v1:Job",
        "kubernetes:core/v1:ReplicationController",
    }
)
SERVICE = "kubernetes:core/v1:Service"
INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
VOLUME = "kubernetes:core/v1:PersistentVolumeClaim"
_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")


def pod_spec(one: Registration) -> Mapping[str, Any]:
    """Return the specification of the pods that a workload makes."""
    spec = child(one.inputs, "spec")
    if one.type == POD:
        return spec
    if one.type == CRON_JOB:
        spec = child(child(spec, "jobTemplate"), "spec")
    return child(child(spec, "template"), "spec")


def _containers(one: Registration) -> Iterator[tuple[str, Mapping[str, Any]]]:
    spec = pod_spec(one)
    for kind in ("initContainers", "containers"):
        for container in mappings(spec.get(kind)):
            yield str(container.get("name")), container


def _unprivileged(one: Registration) -> Iterator[str]:
    spec = pod_spec(one)
    of_pod = child(spec, "securityContext")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{key} must not be set"
    for volume in mappings(spec.get("volumes")):
        if child(volume, "hostPath"):
            yield f"volume {volume.get('name')}: hostPath is a way out of the pod"
    for name, container in _containers(one):
        context = child(container, "securityContext")
        if context.get("privileged"):
            yield f"container {name}: privileged must not be set"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"container {name}: allowPrivilegeEscalation must be false"
        if not context.get("readOnlyRootFilesystem"):
            yield f"container {name}: readOnlyRootFilesystem must be true"
        if not _said("runAsNonRoot", context, of_pod) or _said("runAsUser", context, of_pod) == 0:
            yield f"container {name}: runAsNonRoot must be true"
        capabilities = child(context, "capabilities")
        if "ALL" not in texts(capabilities.get("drop")):
            yield f"container {name}: capabilities.drop must have ALL"
        if texts(capabilities.get("add")):
            yield f"container {name}: capabilities.add must be empty"
        if any(port.get("hostPort") for port in mappings(container.get("ports"))):
            yield f"container {name}: hostPort must not be set: it is a port of the machine"
        seccomp = child(context, "seccompProfile") or child(of_pod, "seccompProfile")
        if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"container {name}: seccompProfile.type must be RuntimeDefault"


def _said(key: str, container: Mapping[str, Any], pod: Mapping[str, Any]) -> Any:
    """What a container says counts before what its pod says."""
    return container[key] if has(container, key) else pod.get(key)


def _limited(one: Registration) -> Iterator[str]:
    for name, container in _containers(one):
        resources = child(container, "resources")
        for kind, what in (("limits", "memory"), ("requests", "memory"), ("requests", "cpu")):
            if not child(resources, kind).get(what):
                yield f"container {name}: resources.{kind}.{what} is missing"


def _image_by_digest(one: Registration) -> Iterator[str]:
    for name, container in _containers(one):
        if not _DIGEST.fullmatch(str(container.get("image"))):
            yield f"container {name}: image must be named by its digest, NAME@sha256:…"


def _closed(one: Registration) -> Iterator[str]:
    spec = child(one.inputs, "spec")
    if one.type == INGRESS:
        covered = {host for entry in mappings(spec.get("tls")) for host in texts(entry.get("hosts"))}
        for rule in mappings(spec.get("rules")):
            if rule.get("host") not in covered:
                yield f"host {rule.get('host')} is not in tls: a way in is by TLS"
        return
    if spec.get("type") == "NodePort":
        yield "type NodePort opens every machine; use an Ingress"
    if texts(spec.get("externalIPs")):
        yield "externalIPs take traffic of addresses that are others'"
    if spec.get("type") == "LoadBalancer":
        allowed = texts(spec.get("loadBalancerSourceRanges"))
        if not allowed or any(map(is_world, allowed)):
            yield "loadBalancerSourceRanges must name networks, and not the world"


def _protected(one: Registration) -> Iterator[str]:
    if not one.protect:
        yield "the option protect is missing: it holds data that is nowhere else"


RULES: tuple[Rule, ...] = (
    Rule("unprivileged-pods", "A pod has no rights over its machine.", WORKLOADS, _unprivileged),
    Rule("limited-pods", "A pod says what it needs, and takes no more.", WORKLOADS, _limited),
    Rule("closed-services", "Nothing is let in from the world.", frozenset({SERVICE, INGRESS}), _closed),
    Rule(
        "protected-volumes", "A volume is deleted only by whoever means it.", frozenset({VOLUME}), _protected
    ),
    Rule("image-by-digest", "An image is named by its digest.", WORKLOADS, _image_by_digest),
)
