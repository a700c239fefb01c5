"""Units and settings that the tests of Kubernetes start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kos_infra import settings as stack_settings
from kos_infra.kubernetes.objects import Object
from kos_infra.kubernetes.rendering import Rendered, render
from kos_infra.kubernetes.settings import UnitsSettings
from kosnode import unit

IMAGE = f"registry.example/team/web@sha256:{'0a' * 32}"
WHERE = "kos-kubernetes:settings"
FILE = "units/web/unit.yml"


def document(**changes: Any) -> dict[str, Any]:
    """Return a unit that Kubernetes runs, with top-level keys replaced."""
    return {
        "id": "web",
        "version": "1.0.0",
        "tier": 2,
        "format": "oci",
        "image": IMAGE,
        "entry": {},
        "resources": {"max": {"memory": "128M", "cpu": "50%"}},
        "network": {"ingress": [{"port": 8080}]},
        **changes,
    }


def settings(canary: Mapping[str, Any] | None = None, **units: Mapping[str, Any]) -> UnitsSettings:
    """Return a stack's settings; by default of the one unit `web`."""
    said = {
        "fleet": "demo",
        "context": "test",
        "namespace": "kos",
        "units": units or {"web": {}},
        **({"canary": canary} if canary else {}),
    }
    return stack_settings.read(UnitsSettings, json.dumps(said), WHERE)


def rendered(
    *documents: Mapping[str, Any], canary: Mapping[str, Any] | None = None, **units: Any
) -> Rendered:
    """Render units, by default `document()`, with the settings of each by its id."""
    found = [unit.parse(one, f"units/{one['id']}/unit.yml") for one in documents or [document()]]
    said = {one.id: units.get(one.id, {}) for one in found}
    return render({f"units/{one.id}/unit.yml": one for one in found}, settings(canary, **said), WHERE)


def one(stack: Rendered, key: str) -> Object:
    """Return the object of that `KIND/NAME`."""
    (found,) = [each for each in stack.objects if each.key == key]
    return found


def pod(stack: Rendered, key: str = "Deployment/web") -> dict[str, Any]:
    """Return the pod of a workload."""
    spec: dict[str, Any] = one(stack, key).body["spec"]["template"]["spec"]
    return spec


def container(stack: Rendered, key: str = "Deployment/web") -> dict[str, Any]:
    """Return the container of a workload."""
    (found,) = pod(stack, key)["containers"]
    return dict(found)
