"""Gives a bed a network of its own, in which the link between any two of its machines can be cut.

One network namespace is the switch: it holds a bridge and nothing else. Each node has a namespace that is
plugged into it, and so has this machine, the controller. The nodes' namespaces outlive their containers, so
a node that is killed and started again has the same address. Nothing is routed: nodes reach the controller
and each other, and nothing else. As the bridge is in its own namespace, no firewall of this machine sees
what nodes say to each other, and no rule is added to one.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from pathlib import Path

from .command import BedError, one_at_a_time, run

CONTROLLER = "controller"
_NAMESPACES = Path("/run/netns")
_POOL = ipaddress.IPv4Network("10.213.0.0/16")

# Address resolution goes on, as it would in the router in between: what is sent is lost without a word,
# which is harder on both ends than an error that comes back.
_CUT_TABLE = """
table bridge kos {
    set cut { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ether type != arp iifname . oifname @cut drop
    }
}
"""


def namespace(bed: str, node: str) -> Path:
    """Return the path of a node's network namespace, as podman takes it."""
    return _NAMESPACES / _namespace(bed, node)


def create(bed: str, hosts: list[str]) -> Mapping[str, str]:
    """Make the switch of a bed and plug in its nodes and the controller.

    Args:
        bed: The bed's name.
        hosts: Names of its nodes; the nth gets the nth address.

    Returns:
        The address of each node, by name.

    Raises:
        BedError: No subnet is free, or a command failed.
    """
    port = _controller_port(bed)
    with one_at_a_time(Path(__file__)):
        subnet = _free_subnet(bed)
        addresses = {host: str(subnet[10 + index]) for index, host in enumerate(hosts)}
        setup = [
            f"netns add {_switch(bed)}",
            f"link add {port} type veth peer name {CONTROLLER} netns {_switch(bed)}",
            f"address add {subnet[1]}/{subnet.prefixlen} dev {port}",
            f"link set {port} up",
        ]
        setup += [f"netns add {_namespace(bed, host)}" for host in hosts]
        _ip(setup)
    _ip(
        ["link add bridge type bridge", "link set bridge up", f"link set {CONTROLLER} master bridge up"]
        + [f"link add {host} type veth peer name eth0 netns {_namespace(bed, host)}" for host in hosts]
        + [f"link set {host} master bridge up" for host in hosts],
        _switch(bed),
    )
    for host, address in addresses.items():
        _ip(
            ["link set lo up", f"address add {address}/{subnet.prefixlen} dev eth0", "link set eth0 up"],
            _namespace(bed, host),
        )
    _nft(bed, _CUT_TABLE)
    return addresses


def remove(bed: str) -> None:
    """Remove the bed's namespaces, and with them every interface and rule in them."""
    listed = json.loads(run(["ip", "-json", "netns", "list"]).stdout or "[]")
    ours = [entry["name"] for entry in listed if entry["name"].startswith(f"{_switch(bed)}.")]
    ours += [entry["name"] for entry in listed if entry["name"] == _switch(bed)]
    if ours:
        _ip([f"netns delete {name}" for name in ours])
    # A namespace lives on while the kernel still closes sockets in it; the controller's end need not wait.
    run(["ip", "link", "delete", _controller_port(bed)], check=False)


def cut(bed: str, one: str, other: str) -> None:
    """Lose everything that two machines of the bed send each other, without a word to either."""
    _nft(bed, f"add element bridge kos cut {{ {one} . {other}, {other} . {one} }}")


def heal(bed: str, one: str, other: str) -> None:
    """Let two machines of the bed hear each other again."""
    _nft(
        bed,
        f"add element bridge kos cut {{ {one} . {other}, {other} . {one} }}\n"
        f"delete element bridge kos cut {{ {one} . {other}, {other} . {one} }}",
    )


def cuts(bed: str) -> set[frozenset[str]]:
    """Return the pairs of machines whose link is cut."""
    listed = run(["ip", "netns", "exec", _switch(bed), "nft", "-j", "list", "set", "bridge", "kos", "cut"])
    elements = next(
        item["set"].get("elem", []) for item in json.loads(listed.stdout)["nftables"] if "set" in item
    )
    return {frozenset(element["concat"]) for element in elements}


def _switch(bed: str) -> str:
    return f"kos-{bed}"


def _namespace(bed: str, node: str) -> str:
    return f"{_switch(bed)}.{node}"


def _controller_port(bed: str) -> str:
    # The kernel takes names of up to 15 characters.
    return f"kos-{hashlib.sha256(bed.encode()).hexdigest()[:8]}"


def _ip(commands: list[str], inside: str | None = None) -> None:
    where = ["-netns", inside] if inside else []
    run(["ip", *where, "-batch", "-"], stdin="\n".join(commands).encode())


def _nft(bed: str, commands: str) -> None:
    run(["ip", "netns", "exec", _switch(bed), "nft", "-f", "-"], stdin=commands.encode())


def _free_subnet(bed: str) -> ipaddress.IPv4Network:
    """Return the first subnet that no route of this machine touches, from where the bed's name says."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout or "[]")
    taken = [
        ipaddress.ip_network(route["dst"], strict=False) for route in routes if route["dst"] != "default"
    ]
    subnets = list(_POOL.subnets(new_prefix=24))
    start = hashlib.sha256(bed.encode()).digest()[0]
    for subnet in subnets[start:] + subnets[:start]:
        if not any(subnet.overlaps(network) for network in taken):
            return subnet
    raise BedError(f"every subnet of {_POOL} overlaps with a route of this machine")
