"""Waves and the gate between them: canary first, zone by zone, and no data is not success (C20, M09)."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kos.fleet.plugins.filter.waves import waves as waves_filter
from ansible_collections.kos.fleet.plugins.plugin_utils._rollout import PlanError, judge, waves, zones

FLEET = {"a": ["n1", "n2", "n3"], "b": ["n4", "n5"]}


def named(plan: list[object]) -> list[tuple[str, list[str]]]:
    return [(wave.name, list(wave.hosts)) for wave in plan]  # type: ignore[attr-defined]  # they are waves


def test_the_canary_is_alone_then_come_the_zones_in_batches() -> None:
    assert named(waves(FLEET, batch=1)) == [
        ("canary", ["n1"]),
        ("zone a 1/2", ["n2"]),
        ("zone a 2/2", ["n3"]),
        ("zone b 1/2", ["n4"]),
        ("zone b 2/2", ["n5"]),
    ]


def test_no_wave_but_the_canary_reaches_over_a_zone() -> None:
    for wave in waves(FLEET, batch=9, canary="each_zone")[1:]:
        assert set(wave.hosts) <= set(FLEET[str(wave.zone)])


@pytest.mark.parametrize(
    ("canary", "first"),
    [("first", ["n1"]), ("each_zone", ["n1", "n4"]), ("n5", ["n5"]), (["n2", "n4"], ["n2", "n4"])],
)
def test_the_canary_is_whom_one_names(canary: object, first: list[str]) -> None:
    assert list(waves(FLEET, canary=canary)[0].hosts) == first


def test_without_a_canary_the_first_zone_begins() -> None:
    assert named(waves(FLEET, batch=9, canary="none")) == [("zone a", FLEET["a"]), ("zone b", FLEET["b"])]


def test_a_share_is_of_the_zone_and_at_least_one_node() -> None:
    sizes = [len(wave.hosts) for wave in waves({"a": [f"n{i}" for i in range(9)]}, batch="25%")]
    assert sizes == [1, 2, 2, 2, 2]
    assert [len(wave.hosts) for wave in waves({"a": ["n1", "n2"]}, batch="10%")] == [1, 1]


def test_zones_come_in_the_order_that_one_names() -> None:
    assert [wave.zone for wave in waves(FLEET, batch=9, canary="none", zone_order=["b", "a"])] == ["b", "a"]


def test_an_order_that_leaves_a_zone_out_is_refused_rather_than_half_the_fleet() -> None:
    with pytest.raises(PlanError, match="zone_order leaves out b"):
        waves(FLEET, zone_order=["a"])


def test_who_is_named_twice_is_in_one_wave_once() -> None:
    plan = waves(FLEET, batch=9, canary=["n2", "n2"], zone_order=["b", "a", "b"])
    assert named(plan) == [("canary", ["n2"]), ("zone b", FLEET["b"]), ("zone a", ["n1", "n3"])]


@pytest.mark.parametrize("batch", [0, -1, "x", "0%", "1.5", "", None])
def test_a_batch_that_is_no_number_of_nodes_is_refused(batch: object) -> None:
    with pytest.raises(PlanError, match="batch"):
        waves(FLEET, batch=batch)  # type: ignore[arg-type]  # that is the point


def test_an_unknown_canary_or_zone_is_refused_by_name() -> None:
    with pytest.raises(PlanError, match="canary 'n9'"):
        waves(FLEET, canary="n9")
    with pytest.raises(PlanError, match="zone 'c'"):
        waves(FLEET, zone_order=["c"])


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 7), min_size=1),
    st.one_of(st.integers(1, 9), st.integers(1, 100).map(lambda share: f"{share}%")),
    st.sampled_from(["first", "each_zone", "none"]),
)
def test_every_node_is_in_exactly_one_wave(sizes: dict[str, int], batch: int | str, canary: str) -> None:
    fleet = {zone: [f"{zone}{i}" for i in range(size)] for zone, size in sizes.items()}
    found = [host for wave in waves(fleet, batch=batch, canary=canary) for host in wave.hosts]
    assert sorted(found) == sorted(host for hosts in fleet.values() for host in hosts)


def test_the_filter_returns_plain_dictionaries_and_ansibles_error() -> None:
    assert waves_filter({"a": ["n1"]}) == [{"name": "canary", "zone": "a", "hosts": ["n1"]}]
    with pytest.raises(AnsibleFilterError, match="dictionary"):
        waves_filter(["n1"])
    with pytest.raises(AnsibleFilterError, match="canary"):
        waves_filter({"a": ["n1"]}, canary="n9")


def test_zones_are_the_groups_of_that_prefix_with_nodes_in_inventory_order() -> None:
    groups = {"all": ["n2", "n1"], "zone_b": ["n2"], "zone_a": ["n1", "n3"], "zonefree": ["n9"]}
    assert zones(groups, ["n3", "n2", "n1"]) == {"a": ["n3", "n1"], "b": ["n2"]}


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"nodes": ["n1"]}, "no zones"),
        ({"zone_a": ["n1"]}, "n2 in no zone"),
        ({"zone_a": ["n1", "n2"], "zone_b": ["n2"]}, "n2 is in a and b"),
    ],
)
def test_an_inventory_without_clear_zones_gets_one_message(groups: dict[str, list[str]], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        zones(groups, ["n1", "n2"])


def test_an_inventory_without_nodes_is_refused() -> None:
    with pytest.raises(PlanError, match="no nodes"):
        zones({"zone_a": []}, [])


GOOD = {"changed": True, "outcome": "confirmed"}


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "no data"),
        ({}, "no data"),
        ({"unreachable": True, "msg": "timed out"}, "cannot be reached: timed out"),
        ({"failed": True, "msg": "went back."}, "went back"),
        ({"skipped": True}, "no data"),
        ({"outcome": "reverted-healthy"}, "reverted-healthy"),
    ],
)
def test_a_node_that_did_not_say_that_it_succeeded_stops_the_rollout(
    result: dict[str, object] | None, words: str
) -> None:
    verdict = judge({"n1": GOOD, "n2": result})
    assert verdict.stop
    assert words in verdict.reason
    assert list(verdict.failed) == ["n2"]


def test_the_failure_budget_is_how_many_nodes_may_fail() -> None:
    one = {"n1": GOOD, "n2": None}
    assert not judge(one, budget=1).stop
    assert judge({**one, "n3": None}, budget=1).stop


def test_nodes_that_fail_for_the_same_reason_get_one_sentence() -> None:
    bad = {"failed": True, "msg": "there is no release 9.9.9"}
    verdict = judge({"n1": bad, "n2": {"failed": True, "msg": "n2 went back"}, "n3": bad})
    assert verdict.reason == "n1, n3: there is no release 9.9.9; n2 went back"


def test_nodes_that_run_it_already_are_as_wanted() -> None:
    assert not judge({"n1": {"changed": False, "outcome": "present"}}).stop


def test_a_pause_file_stops_and_says_how_to_go_on() -> None:
    verdict = judge({"n1": GOOD}, paused="build/PAUSE")
    assert verdict.stop
    assert "build/PAUSE exists. Remove it and run the same command again" in verdict.reason
