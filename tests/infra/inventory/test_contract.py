"""A contract that is not understood is refused with its key, before a cloud is asked (A74, D07)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleParserError

from .conftest import ROOT, Read

# There are no credentials here: what asks a cloud fails for that reason.


def test_the_collection_carries_the_schema_that_the_programs_are_held_to() -> None:
    published = ROOT / "pulumi/kos_infra/schemas/contract.schema.json"
    carried = ROOT / "plugins/plugin_utils/contract.schema.json"

    assert carried.read_bytes() == published.read_bytes()


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *parents, last = path.split(".")

    def changed(contract: dict[str, Any]) -> None:
        here: Any = contract
        for name in parents:
            here = here[int(name)] if name.isdigit() else here[name]
        if value is None:
            del here[last]
        else:
            here[last] = value

    return changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (change("format", 2), "kos_fleet.format: is 2; this version of kos.fleet knows format 1 alone"),
        (change("format", "1"), "kos_fleet.format: is '1'; this version"),
        (change("format", True), "kos_fleet.format: is True; this version"),
        (change("region", None), "kos_fleet.region: is missing"),
        (change("account", 123456789012), "kos_fleet.account: must be the twelve digits of an AWS account"),
        (change("account", "1234"), "kos_fleet.account: must be the twelve digits of an AWS account"),
        (change("zones", []), "kos_fleet.zones: must contain at least 1 items"),
        (change("groups.1.arch", "arm64"), r"kos_fleet.groups\[1\].arch: must be one of"),
        (change("groups.0.wave", -1), r"kos_fleet.groups\[0\].wave: must be bigger than or equal to 0"),
        (change("groups.0.zone", "eu-central-1c"), r"groups\[0\].zone: eu-central-1c is none of the zones"),
        (
            change("groups.1.autoscaling_group", "demo-canary"),
            r"groups\[1\].autoscaling_group: .* stands twice",
        ),
        (change("instances.tags", {}), "kos_fleet.instances.tags: must contain at least 1 properties"),
        (change("connection.kind", "ssh"), "kos_fleet.connection.kind: must be one of"),
        (change("provider", "gcp"), "kos_fleet.provider: must be one of"),
    ],
)
def test_a_contract_that_breaks_a_rule_is_refused_by_its_key(
    contract: dict[str, Any],
    read: Read,
    tmp_path: Path,
    changed: Callable[[dict[str, Any]], None],
    said: str,
) -> None:
    changed(contract)
    (tmp_path / "contract.json").write_text(json.dumps({"kos_fleet": contract}))

    with pytest.raises(AnsibleParserError, match=said):
        read()


@pytest.mark.parametrize("value", [None, 1, [], "text"])
def test_an_output_that_is_no_mapping_is_refused(read: Read, tmp_path: Path, value: Any) -> None:
    (tmp_path / "contract.json").write_text(json.dumps({"kos_fleet": value}))

    with pytest.raises(AnsibleParserError, match="kos_fleet: must be a mapping"):
        read()


def test_a_cluster_outside_the_regions_of_its_fleet_is_refused(read: Read) -> None:
    with pytest.raises(
        AnsibleParserError,
        match=r"kos_fleet.region: eu-central-1 is outside the regions of this fleet, which are eu-west-1",
    ):
        read(regions=["eu-west-1"])
