"""How long Ansible takes to list the hosts of a large fleet that Pulumi made, from the inventory's cache."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from . import process
from .figures import ROOT, Figure, median

NODES = 1000
ROUNDS = 5
_ENVIRONMENT = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build"), "PYTHONPATH": str(ROOT / "tests")}
ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")


def listed(folder: Path) -> list[Figure]:
    """Measure `ansible-inventory --list` over a thousand nodes, beside a file of the same hosts.

    Args:
        folder: an empty folder.
    """
    ours, plain = folder / "fleet.pulumi.yml", folder / "plain.yml"
    (folder / "contract.json").write_text(json.dumps(_contract()), "utf-8")
    settings = {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(folder / "cache"),
    }
    ours.write_text(
        yaml.safe_dump({"plugin": "kos.fleet.pulumi", "file": "contract.json", **settings}), "utf-8"
    )
    process.run([sys.executable, "-m", "bench.inventory", str(ours)], env=_ENVIRONMENT)
    hosts = json.loads(_list(ours)[0])["_meta"]["hostvars"]
    if len(hosts) != NODES:
        raise RuntimeError(f"the inventory lists {len(hosts)} hosts, not {NODES}")
    plain.write_text(yaml.safe_dump(_by_hand(), sort_keys=False), "utf-8")
    seconds = median(lambda: _list(ours)[1], ROUNDS)
    peer = median(lambda: _list(plain)[1], ROUNDS)
    return [
        Figure(
            f"inventory of {NODES} nodes from cache",
            seconds,
            "s",
            "a YAML file of the hosts with an address each",
            peer,
            "at most 2 s",
        )
    ]


def _list(inventory: Path) -> tuple[str, float]:
    program = Path(sys.executable).with_name("ansible-inventory")
    done = process.run([str(program), "--list", "--inventory", str(inventory)], env=_ENVIRONMENT)
    return done.stdout, done.cost.seconds


def _by_hand() -> dict[str, object]:
    """The same hosts as somebody would write them down: an address for each, in the group of its zone."""
    zones: dict[str, dict[str, dict[str, object]]] = {f"zone_{zone}": {"hosts": {}} for zone in ZONES}
    for one in _instances():
        zones[f"zone_{one['availability_zone']}"]["hosts"][str(one["id"])] = {
            "ansible_host": one["private_ip"]
        }
    return {"nodes": {"children": zones, "vars": {"bootstrap_fleet": "bench"}}}


def _contract() -> dict[str, object]:
    return {
        "format": 1,
        "fleet": "bench",
        "stack": "bench",
        "provider": "aws",
        "account": "123456789012",
        "region": "eu-central-1",
        "zones": list(ZONES),
        "groups": [
            {
                "name": zone,
                "zone": zone,
                "class": "griot",
                "arch": "aarch64",
                "wave": wave,
                "autoscaling_group": f"bench-{zone}",
            }
            for wave, zone in enumerate(ZONES)
        ],
        "instances": {"tags": {"kos:stack": "bench"}},
        "connection": {"kind": "ssm"},
        "mirror": {"url": "https://mirror.bench.example/", "bucket": "bench-mirror"},
        "backup": {"bucket": "bench-backup", "region": "eu-central-1", "kms_key": "arn:aws:kms:::key/1"},
        "dns_zone": "bench.internal",
    }


def _instances() -> list[dict[str, object]]:
    return [
        {
            "id": f"i-{number:017x}",
            "type": "m7g.large",
            "availability_zone": ZONES[number % len(ZONES)],
            "private_ip": f"10.0.{number // 250}.{number % 250 + 1}",
            "image": "ami-0123456789abcdef0",
            "launched": "2026-11-21T12:00:00+00:00",
            "autoscaling_group": f"bench-{ZONES[number % len(ZONES)]}",
            "tags": {"kos:stack": "bench", "kos:fleet": "bench", "Name": f"node-{number}"},
        }
        for number in range(NODES)
    ]


def _fill(path: str) -> None:
    """Have the plugin fill its cache, from a cloud that answers with made-up instances."""
    from ansible.inventory.data import InventoryData
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader, inventory_loader

    # Ansible is not typed throughout.
    init_plugin_loader([str(ROOT / "build")])  # type: ignore[no-untyped-call]
    from ansible_collections.kos.fleet.plugins.plugin_utils import _cloud

    _cloud.running_instances = lambda *_: _instances()
    loader: Any = DataLoader()  # type: ignore[no-untyped-call]
    plugin: Any = inventory_loader.get("kos.fleet.pulumi")  # type: ignore[no-untyped-call]
    plugin.parse(InventoryData(), loader, path, cache=False)
    plugin.update_cache_if_changed()


if __name__ == "__main__":
    _fill(sys.argv[1])
