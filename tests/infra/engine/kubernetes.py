"""The fake provider `kubernetes`: objects with names in namespaces, and fields that the API never changes.

Sources: the Kubernetes API reference for immutable fields, and the provider's documentation of which changes
it answers by a replacement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.engine.behaviour import Behaviour, Package, RefusedError, Request
from infra.engine.cloud import Json
from infra.engine.shapes import Shape

_REPLACES = {
    "ConfigMap": {"data", "binaryData"},
    "DaemonSet": {"spec.selector"},
    "Deployment": {"spec.selector"},
    "PersistentVolumeClaim": {"spec.accessModes", "spec.storageClassName", "spec.selector"},
    "PriorityClass": {"value", "preemptionPolicy"},
    "Service": {"spec.clusterIP"},
    "StatefulSet": {
        "spec.selector",
        "spec.serviceName",
        "spec.podManagementPolicy",
        "spec.volumeClaimTemplates",
    },
}


def behaviour(kind: str, definition: Shape) -> Behaviour:
    """Return how a kind of object behaves."""
    own = _REPLACES.get(kind.rpartition(":")[2], set())
    return Behaviour(
        named="metadata.name",
        scope="metadata.namespace",
        replaces=frozenset({"metadata.name", "metadata.namespace", *own}),
        outputs=_object,
        settled=frozenset({"metadata.namespace", "metadata.uid"}),
    )


def common(request: Request, outputs: Shape) -> Json:
    """Return a status that says that the object is ready."""
    return {"status": {}} if "status" in outputs else {}


def invoke(settings: Mapping[str, Any], function: str, arguments: Json) -> Json:
    """Refuse every function: our programs read nothing from a cluster."""
    raise RefusedError(f"the fake kubernetes does not answer {function}")


def configure(settings: Mapping[str, Any]) -> None:
    """Refuse a configuration that names no cluster: the real provider would take whichever is current."""
    if not (settings.get("kubeconfig") or settings.get("context")):
        raise RefusedError("configured Kubernetes cluster is unreachable: neither kubeconfig nor context")


def _object(request: Request) -> Json:
    metadata = request.inputs.get("metadata") or {}
    namespace = metadata.get("namespace") or request.settings.get("namespace") or "default"
    return {"metadata": {**metadata, "namespace": namespace, "uid": f"uid-{request.id}"}}


PACKAGE = Package("kubernetes", behaviour, common, invoke, configure)
