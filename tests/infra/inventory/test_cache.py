"""A cache answers without a stack and without a cloud, and only for what it was made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleParserError
from moto import mock_aws

from .conftest import Read, launch


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, Any]:
    """The options of a cache."""
    return {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(tmp_path / "cache"),
    }


@pytest.fixture
def filled(
    contract: dict[str, Any], read: Read, kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """A cache of two hosts; the cloud that they were in cannot be reached any more."""
    with mock_aws(), monkeypatch.context() as while_there:
        while_there.setenv("AWS_ACCESS_KEY_ID", "testing")
        while_there.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        launched = launch(contract, "rest", 2)
        assert sorted(read(**kept).hosts) == launched
    return launched


def test_a_cached_inventory_is_the_same_without_its_stack_and_its_cloud(
    read: Read, kept: dict[str, Any], filled: list[str], tmp_path: Path
) -> None:
    (tmp_path / "contract.json").unlink()

    inventory = read(**kept)

    assert sorted(inventory.get_groups_dict()["zone_eu_central_1b"]) == filled
    assert inventory.groups["stack_demo_dev"].vars["bootstrap_fleet"] == "demo"


def test_flushing_the_cache_asks_the_cloud_again(read: Read, kept: dict[str, Any], filled: list[str]) -> None:
    with pytest.raises(AnsibleParserError, match="no credentials"):
        read(flush=True, **kept)


def test_another_source_is_never_answered_from_the_cache_of_the_first(
    read: Read, kept: dict[str, Any], filled: list[str], tmp_path: Path, contract: dict[str, Any]
) -> None:
    (tmp_path / "other.json").write_text(json.dumps(contract))

    with pytest.raises(AnsibleParserError, match="no credentials"):
        read(file="other.json", **kept)


def test_regions_hold_for_what_is_cached_as_well(read: Read, kept: dict[str, Any], filled: list[str]) -> None:
    with pytest.raises(AnsibleParserError, match="outside the regions"):
        read(regions=["eu-west-1"], **kept)


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {},
        {"contract": {}, "instances": None},
        {"contract": {}, "instances": [1]},
        {"contract": {}, "instances": [{"id": "i-1"}]},
    ],
)
def test_a_cache_of_another_form_is_none(
    read: Read, kept: dict[str, Any], filled: list[str], tmp_path: Path, found: object
) -> None:
    (file,) = (tmp_path / "cache").iterdir()
    held = json.loads(file.read_text())
    file.write_text(
        json.dumps({**held, "__payload__": json.dumps(found)} if "__payload__" in held else found)
    )

    with pytest.raises(AnsibleParserError, match="no credentials"):
        read(**kept)


def test_a_cache_holds_the_contract_and_the_instances_and_nothing_else(
    filled: list[str], tmp_path: Path, contract: dict[str, Any]
) -> None:
    (file,) = (tmp_path / "cache").iterdir()

    held = json.loads(file.read_text())
    held = json.loads(held["__payload__"]) if "__payload__" in held else held
    assert set(held) == {"contract", "instances"}
