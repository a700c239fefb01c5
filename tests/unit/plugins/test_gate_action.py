"""The gate between waves and the check of the inventory, as tasks on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from action_world import Node
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.action import inventory_check, wave_gate

WAVES = [
    {"name": "canary", "zone": "a", "hosts": ["n1"]},
    {"name": "zone a", "zone": "a", "hosts": ["n2"]},
    {"name": "zone b", "zone": "b", "hosts": ["n3"]},
]
GOOD = {"changed": True, "outcome": "confirmed"}
BAD = {"failed": True, "msg": "went back"}
DEAD = {"unreachable": True, "msg": "timed out"}


def gate(results: dict[str, Any], upcoming: list[str] | None, **args: Any) -> dict[str, Any]:
    hostvars: dict[str, dict[str, Any]] = {node: {} for node in ("n1", "n2", "n3")}
    for node, result in results.items():
        hostvars[node].update(result if "gate" in result else {"done": result})
    given = {"waves": WAVES, "next": upcoming, "register": ["done"], "gate": "gate", **args}
    return Node().run(wave_gate, given, hostvars=hostvars)


def test_the_first_wave_may_begin() -> None:
    assert gate({}, ["n1"])["stop"] is False


def test_the_next_wave_begins_after_a_good_one() -> None:
    assert gate({"n1": GOOD}, ["n2"])["stop"] is False


@pytest.mark.parametrize("bad", [BAD, DEAD, {}])
def test_a_node_that_failed_or_said_nothing_stops_the_next_wave(bad: dict[str, Any]) -> None:
    assert gate({"n1": bad}, ["n2"])["stop"] is True


def test_a_stop_holds_for_all_waves_after_it() -> None:
    stopped = {"gate": {"stop": True, "reason": "paused: build/PAUSE exists"}}
    told = gate({"n1": GOOD, "n2": stopped}, ["n3"])
    assert told["stop"] is True
    assert told["reason"] == "paused: build/PAUSE exists"


def test_the_end_tells_who_failed_and_who_was_never_touched() -> None:
    stopped = {"gate": {"stop": True, "reason": "n1: went back"}}
    told = gate({"n1": BAD, "n2": stopped, "n3": stopped}, None)
    assert told["failed_nodes"] == {"n1": "went back"}
    assert "0 of 3 nodes are as wanted. Not touched: n2, n3." in told["msg"]


def test_a_whole_rollout_is_told_as_such() -> None:
    told = gate({"n1": GOOD, "n2": GOOD, "n3": GOOD}, None)
    assert (told["stop"], told["msg"]) == (False, "3 of 3 nodes are as wanted.")


def test_failures_within_the_budget_are_told_at_the_end() -> None:
    told = gate({"n1": GOOD, "n2": BAD, "n3": GOOD}, None, failures=1)
    assert told["stop"] is False
    assert told["failed_nodes"] == {"n2": "went back"}
    assert "within its failure budget: n2: went back" in told["msg"]


def test_every_registered_result_counts_so_a_refused_lease_is_a_failure() -> None:
    hostvars = {"n1": {"lease": BAD, "done": {"skipped": True}}, "n2": {}, "n3": {}}
    args = {"waves": WAVES, "next": ["n2"], "register": ["lease", "done"]}
    assert Node().run(wave_gate, args, hostvars=hostvars)["failed_nodes"] == {"n1": "went back"}


def test_a_pause_file_stops_the_next_wave_but_not_the_end(tmp_path: Path) -> None:
    pause = tmp_path / "PAUSE"
    pause.touch()
    assert "PAUSE exists" in gate({"n1": GOOD}, ["n2"], pause_file=str(pause))["reason"]
    all_good = {"n1": GOOD, "n2": GOOD, "n3": GOOD}
    assert gate(all_good, None, pause_file=str(pause))["stop"] is False


def test_it_waits_after_a_wave_that_changed_something_only(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    gate({"n1": GOOD}, ["n2"], bake=7)
    gate({"n1": {"changed": False, "outcome": "present"}}, ["n2"], bake=7)
    gate({"n1": BAD}, ["n2"], bake=7)
    assert slept == [7]


GROUPS = {"nodes": ["n1", "n2"], "zone_a": ["n1"], "zone_b": ["n2"]}


def check(args: dict[str, Any], **variables: Any) -> dict[str, Any]:
    return Node().run(inventory_check, {"nodes": ["n1", "n2"], **args}, **{"groups": GROUPS, **variables})


def test_a_sound_inventory_gives_zones_and_waves() -> None:
    told = check({"batch": 2})
    assert told["zones"] == {"a": ["n1"], "b": ["n2"]}
    assert [wave["name"] for wave in told["waves"]] == ["canary", "zone b"]


def test_one_zone_can_be_asked_for_with_or_without_the_prefix() -> None:
    assert check({"zone": "b"})["nodes"] == check({"zone": "zone_b"})["nodes"] == ["n2"]
    with pytest.raises(AnsibleActionFail, match="zone 'c' has no nodes here; zones are a, b"):
        check({"zone": "c"})


def test_a_limit_leaves_the_rest_out_but_the_whole_inventory_has_to_be_sound() -> None:
    assert check({"nodes": ["n2"]})["nodes"] == ["n2"]
    with pytest.raises(AnsibleActionFail, match="n2 in no zone"):
        check({"nodes": ["n1"]}, groups={**GROUPS, "zone_b": []})


def test_nodes_without_mirrors_are_named_in_one_message() -> None:
    hostvars = {"n1": {"bootstrap_mirrors": ["http://m/"]}, "n2": {"bootstrap_mirrors": []}}
    with pytest.raises(AnsibleActionFail, match="bootstrap_mirrors is empty for n2"):
        check({"mirrors": True}, hostvars=hostvars)


def test_a_misspelt_variable_of_any_host_is_refused_by_name_before_anything_is_touched() -> None:
    hostvars = {"n1": {"bootstrap_mirrors": [], "other": 1}, "n2": {"mirror_adress": ""}}
    with pytest.raises(AnsibleActionFail, match=r"mirror_adress .* did you mean mirror_address[?] [(]n2[)]"):
        check({"roles": ["bootstrap", "mirror"]}, hostvars=hostvars, ansible_play_hosts_all=["n1", "n2"])


def test_a_misspelt_variable_of_a_playbook_is_refused_by_name() -> None:
    with pytest.raises(
        AnsibleActionFail, match="patch_relaese is not a variable of patch; did you mean patch_release"
    ):
        check({"prefix": "patch_", "variables": ["patch_release"]}, patch_relaese="1")
