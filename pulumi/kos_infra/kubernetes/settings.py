"""What a stack of units on Kubernetes is configured with."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from ..settings import Name, Settings

UnitName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,43}[a-z0-9])?$")]
"""The id of a unit, as far as it can be the name of a Service, which begins with a letter.

A StatefulSet labels its pods with its name and eleven characters more, a canary's name has seven more, and a
label has room for 63.
"""

_Host = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$")]
_ObjectName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=63, min_length=1)
]


class Expose(Settings):
    """How a port of a unit is reached from outside the cluster; always by TLS.

    Args:
        host: name that is asked for.
        port: one that the unit's ingress opens to anybody.
        tls_secret: Secret of the namespace with the certificate; whoever runs the cluster makes it.
        ingress_class: which controller serves it; None takes the cluster's default.
    """

    host: _Host
    port: int = Field(ge=1024, le=65535)
    tls_secret: _ObjectName
    ingress_class: _ObjectName | None = None


class UnitSettings(Settings):
    """What a stack says of one unit; all else is in its unit.yml.

    Args:
        replicas: how many; None is one, or one on every machine where the unit wants that.
        config: what the unit reads as its configuration; never a secret.
        resources: in the place of the unit's own, as in a node's configuration.
        expose: None keeps it inside the cluster.
        storage_class: of the volume of its state; None takes the cluster's default.
    """

    replicas: int | None = Field(default=None, ge=1, le=1000)
    config: dict[str, Any] = Field(default_factory=dict)
    resources: dict[str, Any] = Field(default_factory=dict)
    expose: Expose | None = None
    storage_class: _ObjectName | None = None


class Canary(Settings):
    """Which zone proves a change before the others get it.

    Args:
        zone: value of the label topology.kubernetes.io/zone.
        bake_s: how long its replicas have to be ready, in seconds.
    """

    zone: _ObjectName
    bake_s: int = Field(default=60, ge=1, le=3600)


class UnitsSettings(Settings):
    """All settings of a stack.

    Args:
        fleet: name of the fleet.
        context: of the kubeconfig, so that the cluster is never a chance.
        namespace: that the stack makes and owns.
        units_dir: folder with NAME/unit.yml, from the program's own folder.
        units: by the unit's id.
        canary: None changes all replicas of a unit at once, as its workload does.
    """

    fleet: Name
    context: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    namespace: Name
    units_dir: str = "units"
    units: dict[UnitName, UnitSettings] = Field(min_length=1)
    canary: Canary | None = None
