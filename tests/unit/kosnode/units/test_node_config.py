"""The layers of a node's configuration: what wins, what is locked, and what is said about a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit_samples import ROUNDS

from kosnode import config, schema
from kosnode.config import Config, Policy
from kosnode.errors import InputError
from kosnode.paths import NodePaths

NODE: dict[str, Any] = {
    "format": 1,
    "node": "n1",
    "fleet": "demo",
    "zone": "a",
    "class": "griot",
    "release": "kos",
    "channel": "stable",
    "mirrors": ["http://mirror/"],
}


@pytest.fixture(name="node")
def fixture_node(tmp_path: Path) -> NodePaths:
    paths = NodePaths(tmp_path)
    paths.conf_d.mkdir(parents=True)
    return paths


def write(node: NodePaths, /, **changes: Any) -> None:
    node.node_json.write_text(json.dumps({**NODE, **changes}))


def layer(node: NodePaths, name: str, kind: str, values: dict[str, Any], *locked: str) -> Path:
    path = node.conf_d / name
    path.write_text(json.dumps({"layer": kind, "values": values, "locked": list(locked)}))
    return path


def refusal(node: NodePaths) -> InputError:
    with pytest.raises(InputError) as caught:
        config.load(node)
    return caught.value


def test_a_short_node_json_is_completed_by_the_defaults(node: NodePaths) -> None:
    write(node)

    assert config.load(node) == Config(
        node="n1",
        fleet="demo",
        zone="a",
        node_class="griot",
        release="kos",
        channel="stable",
        mirrors=("http://mirror/",),
        sources=dict.fromkeys(NODE, str(node.node_json)),
    )


def test_the_defaults_of_the_schema_are_those_of_the_engine() -> None:
    rules = schema.load("node")["properties"]["policy"]["properties"]

    assert {name: rule["default"] for name, rule in rules.items()} == vars(Policy())


def test_all_thirteen_classes_are_known_and_no_other(node: NodePaths) -> None:
    classes = "griot tohunga ronin musa hakim skald oracle junzi yachay sachem archon amauta mzee".split()
    for name in classes:
        write(node, **{"class": name})
        assert config.load(node).node_class == name

    write(node, **{"class": "governance"})
    assert refusal(node).key == "class"


def test_what_is_optional_is_reported_as_unset(node: NodePaths) -> None:
    """S16"""
    write(node)
    assert config.load(node).unset == ("governance_id", "tribe", "secrets")

    write(node, governance_id="gov-1", tribe="north", zone=None)
    assert config.load(node).unset == ("zone", "secrets")


def test_later_layers_win_key_by_key(node: NodePaths) -> None:
    layer(node, "10-base.json", "system", {"policy": {"bake_s": 11, "settle_s": 12, "keep": 2}})
    layer(node, "05-org.json", "organisation", {"policy": {"bake_s": 13, "keep": 3}, "tribe": "north"})
    layer(node, "50-here.json", "node", {"policy": {"keep": 5}, "mirrors": ["http://near/"]})
    layer(node, "20-unit.json", "unit", {"units": {"kosd": {"config": {"log": {"level": "debug"}}}}})
    write(
        node,
        policy={"keep": 4, "deadline_s": 99},
        units={"kosd": {"config": {"log": {"level": "info"}, "listen": {}}}},
    )

    found = config.load(node)

    assert found.policy == Policy(deadline_s=99, bake_s=13, settle_s=12, keep=5)
    assert found.mirrors == ("http://near/",)
    assert found.tribe == "north"
    assert found.units == {"kosd": {"config": {"log": {"level": "debug"}, "listen": {}}}}
    assert found.sources["policy.bake_s"].endswith("05-org.json")


def test_files_of_one_layer_are_merged_in_the_order_of_their_names(node: NodePaths) -> None:
    layer(node, "20-b.json", "system", {"policy": {"bake_s": 12}})
    layer(node, "10-a.json", "system", {"policy": {"bake_s": 11}})
    write(node)

    assert config.load(node).policy.bake_s == 12


@pytest.mark.parametrize("locked", ["policy.bake_s", "policy"])
def test_a_locked_key_cannot_be_overridden(node: NodePaths, locked: str) -> None:
    """S03"""
    locker = layer(node, "10-base.json", "system", {"policy": {"bake_s": 30}}, locked)
    write(node, policy={"bake_s": 5})

    error = refusal(node)

    assert error.key == "policy.bake_s"
    assert str(node.node_json) in error.message
    assert str(locker) in error.message


def test_saying_the_same_as_a_locked_key_is_not_an_override(node: NodePaths) -> None:
    layer(node, "10-base.json", "system", {"policy": {"bake_s": 30}}, "policy.bake_s")
    write(node, policy={"bake_s": 30})

    assert config.load(node).policy.bake_s == 30


def test_a_default_can_be_locked(node: NodePaths) -> None:
    layer(node, "10-base.json", "system", {}, "policy.patches")
    write(node, policy={"patches": False})

    assert refusal(node).key == "policy.patches"

    write(node, policy={"patches": True})
    assert config.load(node).policy.patches


def test_the_first_that_locked_a_key_is_the_one_to_ask(node: NodePaths) -> None:
    first = layer(node, "20-base.json", "system", {}, "policy.bake_s")
    layer(node, "10-org.json", "organisation", {}, "policy.bake_s")
    write(node, policy={"bake_s": 5})

    assert f"is locked by {first} " in refusal(node).message


def test_a_lock_holds_for_what_is_below_and_above_its_key(node: NodePaths) -> None:
    layer(node, "10-base.json", "system", {"units": {"kosd": {"config": {"port": 1}}}}, "units.kosd.config")
    write(node)
    layer(node, "20-unit.json", "unit", {"units": {"kosd": {"config": {"other": 1}}}})
    assert refusal(node).key == "units.kosd.config.other"

    layer(node, "20-unit.json", "unit", {"units": {"kosd": {}}})
    assert refusal(node).key == "units.kosd"


def test_a_lower_layer_is_not_bound_by_a_lock_above_it(node: NodePaths) -> None:
    layer(node, "50-node.json", "node", {}, "policy.bake_s")
    write(node, policy={"bake_s": 21})

    assert config.load(node).policy.bake_s == 21


@ROUNDS
@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "organisation", "node"]), st.integers(1, 40), st.booleans()),
        max_size=6,
    )
)
def test_a_lock_that_is_obeyed_is_the_last_word(parts: list[tuple[str, int, bool]]) -> None:
    layers = [
        config.Layer(f"{n}", kind, {"policy": {"bake_s": value}}, ("policy.bake_s",) if locks else ())
        for n, (kind, value, locks) in enumerate(parts)
    ]
    order = {"system": 0, "organisation": 1, "node": 3}
    ranked = sorted(layers, key=lambda one: order[one.layer])
    locker = next((n for n, one in enumerate(ranked) if one.locked), len(ranked))
    values = [one.values["policy"]["bake_s"] for one in ranked]
    broken = any(value != values[locker] for value in values[locker:])

    if broken:
        with pytest.raises(InputError, match="is locked by"):
            config.merge(NODE, layers)
    else:
        assert config.merge(NODE, layers).policy.bake_s == (values[-1] if values else 20)


MISTAKES = [
    ({"mirors": []}, "mirors", "unknown key; did you mean mirrors?"),
    ({"policy": {"bake": 1}}, "policy.bake", "unknown key; did you mean bake_s?"),
    ({"policy": {"bake_s": -1}}, "policy.bake_s", "must be 1 or more; it is -1"),
    ({"policy": {"health_interval_s": 0}}, "policy.health_interval_s", "must be 1 or more; it is 0"),
    ({"policy": {"bake_s": True}}, "policy.bake_s", "must be an integer; it is true"),
    ({"policy": {"deadline_s": 46}}, "policy.deadline_s", "which is 46 seconds; it is 46"),
    ({"mirrors": []}, "mirrors", "must not be empty"),
    ({"mirrors": ["ftp://x/"]}, "mirrors[0]", "begins with http://, https:// or file://"),
    ({"mirrors": ["http://user:hush@x/"]}, "mirrors[0]", "must not hold a user or a password"),
    ({"mirrors": ["http:///x"]}, "mirrors[0]", "names no host"),
    ({"mirrors": ["file://host/x"]}, "mirrors[0]", "absolute path"),
    ({"mirrors": ["http://x/?a=b"]}, "mirrors[0]", "query"),
    ({"node": "-x"}, "node", "a host name"),
    ({"format": 2}, "format", "must be 1; it is 2"),
    ({"secrets": {"vault": "x"}}, "secrets", "not supported yet"),
    ({"units": {"Kosd": {}}}, "units", "the name 'Kosd' is not allowed"),
    (
        {"units": {"kosd": {"resources": {"max": {"memory": "lots"}}}}},
        "units.kosd.resources.max.memory",
        "128M",
    ),
]


@pytest.mark.parametrize(
    ("change", "key", "rule"), MISTAKES, ids=[f"{n}-{row[1]}" for n, row in enumerate(MISTAKES)]
)
def test_a_mistake_gets_one_message_with_file_key_and_rule(
    node: NodePaths, change: dict[str, Any], key: str, rule: str
) -> None:
    write(node, **change)

    error = refusal(node)

    assert error.key == key
    assert error.message.startswith(f"{node.node_json}: {key}: ")
    assert rule in error.message
    assert "hush" not in error.message


def test_the_file_that_made_the_deadline_too_short_is_named(node: NodePaths) -> None:
    write(node)
    path = layer(node, "10-base.json", "system", {"policy": {"deadline_s": 20}})

    assert refusal(node).message.startswith(f"{path}: policy.deadline_s: must be longer than")


LAYER_MISTAKES = [
    ({"layer": "site"}, "layer", "must be one of system, organisation, node, unit; it is 'site'"),
    ({"layer": "system", "value": {}}, "value", "did you mean values?"),
    ({"layer": "system", "values": {"zoone": "a"}}, "values.zoone", "did you mean zone?"),
    ({"layer": "system", "values": {"format": 1}}, "values.format", "belongs into node.json"),
    ({"layer": "unit", "values": {"zone": "b"}}, "values.zone", "units only"),
    ({"layer": "system", "locked": ["policy.bake"]}, "locked[0]", "did you mean bake_s?"),
    ({"layer": "system", "locked": ["zone.x"]}, "locked[0]", "nothing below it"),
    ({}, "layer", "is missing"),
]


@pytest.mark.parametrize(("document", "key", "rule"), LAYER_MISTAKES, ids=[row[1] for row in LAYER_MISTAKES])
def test_a_mistake_in_a_layer_is_named_with_its_file(
    node: NodePaths, document: dict[str, Any], key: str, rule: str
) -> None:
    write(node)
    path = node.conf_d / "10-base.json"
    path.write_text(json.dumps(document))

    error = refusal(node)

    assert error.key == key
    assert error.message.startswith(f"{path}: {key}: ")
    assert rule in error.message


@pytest.mark.parametrize("name", ["base.json", "10-base.yml", "10-base.json~"])
def test_a_file_that_would_not_be_read_is_refused_and_not_passed_over(node: NodePaths, name: str) -> None:
    write(node)
    (node.conf_d / name).write_text("{}")

    assert "must be NN-name.json" in refusal(node).message


def test_a_node_without_its_file_is_told_what_writes_it(node: NodePaths) -> None:
    assert "is missing; bootstrap writes it" in refusal(node).message


def test_the_effective_configuration_is_a_node_json_again(node: NodePaths) -> None:
    write(node, units={"kosd": {"config": {"a": [1]}, "resources": {"max": {"tasks": 5}}}})
    found = config.load(node)

    again = config.merge(found.effective(), [])

    assert again.effective() == found.effective()


def test_a_file_that_the_disk_does_not_give_is_bad_configuration(node: NodePaths) -> None:
    """Then a trial is ended all the same."""
    node.node_json.mkdir(parents=True)
    assert "cannot be read: Is a directory" in refusal(node).message
