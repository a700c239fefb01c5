"""Policies about pods: what they may be, what they may take, and where their images come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..recording import Registration
from .rule import Rule, child, mappings, texts

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
    }
)
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
        if not (context.get("runAsNonRoot") or of_pod.get("runAsNonRoot")) or context.get("runAsUser") == 0:
            yield f"container {name}: runAsNonRoot must be true"
        capabilities = child(context, "capabilities")
        if "ALL" not in texts(capabilities.get("drop")):
            yield f"container {name}: capabilities.drop must have ALL"
        if texts(capabilities.get("add")):
            yield f"container {name}: capabilities.add must be empty"
        seccomp = child(context, "seccompProfile") or child(of_pod, "seccompProfile")
        if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"container {name}: seccompProfile.type must be RuntimeDefault"


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


RULES: tuple[Rule, ...] = (
    Rule("unprivileged-pods", "A pod has no rights over its machine.", WORKLOADS, _unprivileged),
    Rule("limited-pods", "A pod says what it needs, and takes no more.", WORKLOADS, _limited),
    Rule("image-by-digest", "An image is named by its digest.", WORKLOADS, _image_by_digest),
)
