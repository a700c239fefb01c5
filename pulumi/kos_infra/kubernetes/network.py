"""Who may talk to whom: network policies, Services and Ingresses from the lists of a unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from kosnode.schema import refuse
from kosnode.unit import Egress, Unit

from .objects import NAME_LABEL, Object, labels
from .probes import outside_ports
from .settings import Expose

# Everywhere, but for the addresses at which a cloud hands out the machine's credentials.
_EVERYWHERE: list[dict[str, Any]] = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
    {"ipBlock": {"cidr": "::/0", "except": ["fd00:ec2::254/128", "fe80::/10"]}},
    {"namespaceSelector": {}},
]
_DNS: dict[str, Any] = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ],
    "ports": [{"protocol": proto, "port": 53} for proto in ("UDP", "TCP")],
}


def policy(unit: Unit) -> Object:
    """Return the network policy of a unit: what its lists name, and name resolution where it may go out."""
    egress = [_egress(one) for one in unit.egress if one.host != "localhost"]
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": unit.id, "labels": labels(unit.id, unit.tier)},
        "spec": {
            "podSelector": {"matchLabels": {NAME_LABEL: unit.id}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": list(_ingress(unit)),
            "egress": [*egress, _DNS] if egress else [],
        },
    }
    return Object(unit.id, body)


def nothing_else() -> Object:
    """Return the policy by which a pod that no other one names talks to nobody."""
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "nothing-else"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }
    return Object("nothing-else", body)


def service(unit: Unit, *, headless: bool) -> Object | None:
    """Return the Service of a unit, None where it has no port for others and needs no name of its own.

    Args:
        unit: a checked unit.
        headless: whether each replica has a name of its own, as those of a StatefulSet do.
    """
    ports = [
        {"name": f"{proto}-{port}", "port": port, "targetPort": port, "protocol": proto.upper()}
        for proto, port in sorted(outside_ports(unit))
    ]
    if not ports and not headless:
        return None
    spec: dict[str, Any] = {"type": "ClusterIP", "selector": {NAME_LABEL: unit.id}}
    if headless:
        spec["clusterIP"] = "None"
    if ports:
        spec["ports"] = ports
    metadata = {"name": unit.id, "labels": labels(unit.id, unit.tier)}
    return Object(unit.id, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


def ingress(unit: Unit, expose: Expose, where: str) -> Object:
    """Return the Ingress of a unit.

    Raises:
        InputError: the port is not one that the unit opens to anybody.
    """
    if not any(
        (one.proto, one.port) == ("tcp", expose.port) and "any" in one.sources for one in unit.ingress
    ):
        refuse(
            where,
            f"units.{unit.id}.expose.port",
            f"network.ingress of the unit does not open TCP port {expose.port} to any",
        )
    backend = {"service": {"name": unit.id, "port": {"number": expose.port}}}
    spec: dict[str, Any] = {
        "tls": [{"hosts": [expose.host], "secretName": expose.tls_secret}],
        "rules": [
            {
                "host": expose.host,
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
            }
        ],
    }
    if expose.ingress_class is not None:
        spec["ingressClassName"] = expose.ingress_class
    metadata = {"name": unit.id, "labels": labels(unit.id, unit.tier)}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}
    return Object(unit.id, body, after=(f"Service/{unit.id}",))


def _ingress(unit: Unit) -> Iterator[Mapping[str, Any]]:
    for one in unit.ingress:
        if set(one.sources) == {"localhost"}:
            continue
        rule: dict[str, Any] = {"ports": [{"protocol": one.proto.upper(), "port": one.port}]}
        if "any" not in one.sources:
            rule["from"] = _blocks(source for source in one.sources if source != "localhost")
        yield rule


def _egress(one: Egress) -> dict[str, Any]:
    rule: dict[str, Any] = {"to": _EVERYWHERE if one.host == "any" else _blocks([one.host])}
    if one.port is not None:
        rule["ports"] = [{"protocol": one.proto.upper(), "port": one.port}]
    return rule


def _blocks(networks: Iterable[str]) -> list[dict[str, Any]]:
    return [{"ipBlock": {"cidr": str(ip_network(one))}} for one in networks]
