"""Probes from health checks: a kubelet asks one question, from outside the pod."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kosnode.schema import refuse
from kosnode.unit import Check, CommandCheck, FileAgeCheck, HttpCheck, TcpCheck, Unit

from .objects import literal

# As a node's policy has it by default, but for the interval: a kubelet asks for every pod of a machine.
PERIOD_S = 5
FAILURES = 3
# Where an image of a native unit has the tree of its release.
TREE = "/opt/kos/tree"

_OWN = ("localhost", "127.0.0.1", "::1")
_HEALTHY = range(200, 400)


@dataclass(frozen=True)
class Probes:
    """The probes of a container by their key, and a sentence for each thing that a node asks beyond them."""

    fields: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def probes(unit: Unit, where: str) -> Probes:
    """Return the probes of a unit: its one check starts it, puts it into service, and restarts it.

    Args:
        unit: a checked unit. Without checks its one TCP port has to accept a connection.
        where: how it is called in messages.

    Raises:
        InputError: a check that a kubelet cannot ask, or several that one question cannot stand for.
    """
    asked = _independent(unit, where)
    if asked is None:
        return Probes()
    action = {**_action(asked, unit, where), "periodSeconds": PERIOD_S, "timeoutSeconds": asked.timeout_s}
    lasting = {**action, "failureThreshold": FAILURES}
    starting = {**action, "failureThreshold": math.ceil(unit.entry.timeout_s / PERIOD_S)}
    fields = {"startupProbe": starting, "readinessProbe": lasting, "livenessProbe": lasting}
    return Probes(fields, tuple(_weaker(asked, where)))


def outside_ports(unit: Unit) -> set[tuple[str, int]]:
    """Return protocol and number of the ports that are open to more than localhost."""
    return {(one.proto, one.port) for one in unit.ingress if set(one.sources) != {"localhost"}}


def program(unit: Unit, argv: tuple[str, ...]) -> list[str]:
    """Return a command as a container runs it: what is relative on a node is in the image's tree."""
    first, *rest = argv
    if first != "python3" and not first.startswith("/"):
        first = f"{TREE}/{first}"
    return [literal(word) for word in (first, *rest)]


def _independent(unit: Unit, where: str) -> Check | None:
    """The one check that stands for all: a port that answers HTTP accepts connections as well."""
    checks = list(unit.health)
    if not checks:
        ports = sorted(port for proto, port in outside_ports(unit) if proto == "tcp")
        if len(ports) > 1:
            refuse(
                where, "health", f"is missing; of {len(ports)} TCP ports Kubernetes can ask one: say which"
            )
        return TcpCheck(ports[0]) if ports else None
    web = {(parts.port or _default_port(parts.scheme)) for parts in _addresses(checks)}
    checks = [
        one for one in checks if not (isinstance(one, TcpCheck) and one.host in _OWN and one.port in web)
    ]
    if len(checks) > 1:
        said = ", ".join(one.label for one in checks)
        refuse(where, "health", f"has {len(checks)} checks ({said}); Kubernetes asks a pod one question")
    return checks[0]


def _action(check: Check, unit: Unit, where: str) -> dict[str, Any]:
    if isinstance(check, FileAgeCheck):
        refuse(where, "health", f"{check.label}: the age of a file is nothing that Kubernetes can ask for")
    if isinstance(check, CommandCheck):
        return {"exec": {"command": program(unit, check.argv)}}
    if isinstance(check, TcpCheck):
        _check_port(check.host, check.port, check, unit, where)
        return {"tcpSocket": {"port": check.port}}
    parts = urlsplit(check.url)
    port = parts.port or _default_port(parts.scheme)
    _check_port(parts.hostname or "", port, check, unit, where)
    if not any(status in _HEALTHY for status in check.status):
        refuse(
            where, "health", f"{check.label}: Kubernetes takes statuses from 200 to 399 for healthy, alone"
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return {"httpGet": {"path": path, "port": port, "scheme": parts.scheme.upper()}}


def _check_port(host: str, port: int, check: Check, unit: Unit, where: str) -> None:
    if host not in _OWN:
        refuse(where, "health", f"{check.label}: Kubernetes asks the unit itself; say localhost")
    if ("tcp", port) not in outside_ports(unit):
        refuse(
            where,
            "health",
            f"{check.label}: Kubernetes asks from outside the pod, and network.ingress opens TCP port {port} "
            "to nobody but localhost",
        )


def _weaker(check: Check, where: str) -> list[str]:
    if not isinstance(check, HttpCheck) or not check.json:
        return []
    return [f"{where}: health: {check.label}: Kubernetes does not look at what the answer says"]


def _addresses(checks: list[Check]) -> list[Any]:
    return [urlsplit(one.url) for one in checks if isinstance(one, HttpCheck)]


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
