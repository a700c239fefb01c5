"""Units that are images, and what the same file says to nodes and to Kubernetes (C11, A04)."""

from __future__ import annotations

from typing import Any

import pytest
from unit_samples import FULL, entry, small

from kosnode import unit
from kosnode.errors import InputError

IMAGE = f"registry.example/team/beacon@sha256:{'0a' * 32}"


def oci(**changes: Any) -> dict[str, Any]:
    return {**small(format="oci", image=IMAGE, entry={"env": {"A": "b"}}), **changes}


def refusal(document: dict[str, Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        unit.parse(document, "unit.yml")
    return caught.value


def test_an_image_is_a_unit_that_a_node_refuses_by_its_format() -> None:
    found = unit.parse(oci(), "unit.yml")

    assert (found.format, found.image, found.entry.command) == ("oci", IMAGE, ())
    assert found.entry.env == (("A", "b"),)
    with pytest.raises(InputError, match="format oci is not supported by this version; native is") as caught:
        unit.validate(oci(), "unit.yml")
    assert caught.value.key == "format"


def test_a_node_reads_a_native_unit_that_names_an_image_and_says_the_same_of_it_as_kubernetes() -> None:
    document = {**FULL, "image": IMAGE, "max_replicas": 3, "state": {"size": "2G"}}

    assert unit.validate(document, "unit.yml") == unit.parse(document, "unit.yml")


def test_a_node_refuses_affinity_that_kubernetes_obeys() -> None:
    document = small(affinity={"spread": "zone"})

    assert unit.parse(document, "unit.yml").affinity == unit.Affinity(spread="zone")
    with pytest.raises(InputError, match="affinity is not supported yet"):
        unit.validate(document, "unit.yml")


@pytest.mark.parametrize(
    ("changes", "replicas"),
    [
        ({}, None),
        ({"state": {"migrated": True}}, None),
        ({"state": {"size": "1G"}}, 1),
        ({"state": {"size": "1G"}, "max_replicas": 3}, 3),
        ({"max_replicas": 1}, 1),
    ],
)
def test_a_unit_with_state_of_a_size_may_run_once_where_it_does_not_say_more(
    changes: dict[str, Any], replicas: int | None
) -> None:
    assert unit.parse(oci(**changes), "unit.yml").max_replicas == replicas


@pytest.mark.parametrize(
    "image",
    [
        "registry.example/beacon",
        "registry.example/beacon:1.0",
        f"registry.example/beacon:1.0@sha256:{'0a' * 32}",
        f"registry.example/beacon@sha256:{'0A' * 32}",
        f"registry.example/beacon@sha256:{'0a' * 31}",
        f"beacon@sha256:{'0a' * 32}",
        f"https://registry.example/beacon@sha256:{'0a' * 32}",
        f"registry.example//beacon@sha256:{'0a' * 32}",
        f"registry.example/../beacon@sha256:{'0a' * 32}",
        f"registry.example/beacon@sha256:{'0a' * 32}\n",
    ],
)
def test_an_image_that_is_not_pinned_by_its_digest_is_refused(image: str) -> None:
    error = refusal(oci(image=image))

    assert error.key == "image"
    assert "an image by digest" in error.message


@pytest.mark.parametrize(
    ("document", "key", "rule"),
    [
        (small(format="oci"), "image", "is missing"),
        (entry(comand=["x"]), "entry.comand", "did you mean command?"),
        ({**small(), "entry": {}}, "entry.command", "is missing"),
        (oci(entry={"command": ["bin/a"]}), "entry.command[0]", "must be an absolute path in the image"),
        (oci(entry={"command": []}), "entry.command", "must not be empty"),
        (oci(max_replicas=0), "max_replicas", "must be 1 or more"),
        (oci(state={"size": "0G"}), "state.size", "must be an amount of memory"),
        (oci(affinity={"spread": "rack"}), "affinity.spread", "must be one of zone, node"),
        (oci(affinity={"near": "kosd"}), "affinity.near", "unknown key"),
        (small(format="wasm"), "format", "native and oci are"),
        (small(format="podman"), "format", "must be one of"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_its_key(document: dict[str, Any], key: str, rule: str) -> None:
    error = refusal(document)

    assert error.key == key
    assert rule in error.message
