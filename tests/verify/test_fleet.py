"""The story of a fleet: patched in waves, stopped, resumed, fallen back, rolled back.

Each test goes on where the one before it ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from bed import Bed
from verify import lane, plays, record
from verify import node as kos

NODES = lane.FLEET
# Short for a test; what is looked at is the order of things.
QUICK = {
    "patch_bake": 1,
    "patch_batch": "100%",
    "patch_pause_file": str(lane.CONTROLLER / "PAUSE"),
    "patch_evidence_dir": str(lane.CONTROLLER / "evidence"),
    "patch_timeout": 60,
}


# As if it came from another controller: its own note of what it does is elsewhere.
ELSEWHERE = {"patch_evidence_dir": str(lane.CONTROLLER / "elsewhere/evidence")}


def patch(**variables: Any) -> plays.Started:
    """Start kos.fleet.patch on the fleet."""
    return plays.start("kos.fleet.patch", limit="fleet", variables={**QUICK, **variables})


def ends_red(ended: plays.Outcome, *told: str) -> None:
    """See that a run is red and says why."""
    assert ended.rc != 0, ended.text
    assert [one for one in told if one not in ended.words] == [], ended.words[-3000:]


def versions(reach: lane.Reach) -> dict[str, str]:
    """Return which confirmed release each node runs."""
    found = {}
    for name in NODES:
        status = kos.ask(reach(name), "status")
        assert status["trial"] is None
        found[name] = status["current"]["version"]
    return found


def runs_of_services(reach: lane.Reach) -> dict[str, dict[str, str]]:
    """Return what tells a restart of any service on any node."""
    return {name: kos.invocations(reach(name)) for name in NODES}


def until(what: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.3)


def moved(run: record.Run, host: str | None = None) -> list[record.Said]:
    """Return what the task that moves nodes said; the one that asks for plans before is another."""
    return [one for one in run.of("kos.fleet.release", host) if one.task == "Node runs the release"]


def outcomes(run: record.Run) -> dict[str, str]:
    """Return what became of each node."""
    return {one.host: one.result.get("outcome", one.status) for one in moved(run)}


def reached(node: Host, version: str) -> tuple[float, float]:
    """Return when a node began and confirmed its latest trial of a version, in seconds of the one clock."""
    entries = [entry for entry in kos.journal(node) if entry["version"] == version]
    began = [entry["boottime"] for entry in entries if entry["state"] == "TRIAL"]
    ended = [entry["boottime"] for entry in entries if entry["state"] == "CONFIRMED"]
    return began[-1], ended[-1]


@pytest.fixture
def pause() -> Iterator[Path]:
    """The file that holds rollouts back while it is there."""
    path = Path(str(QUICK["patch_pause_file"]))
    path.touch()
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def cut(bed: Bed) -> Iterator[Callable[[str], None]]:
    """Cuts the controller off a node until the test has ended."""
    apart: list[str] = []

    def one(name: str) -> None:
        bed.cut(name)
        apart.append(name)

    yield one
    for name in apart:
        bed.heal(name)


@pytest.fixture
def ends() -> Iterator[Callable[[plays.Started], plays.Started]]:
    """Sees to it that a run which was started ends with the test."""
    started: list[plays.Started] = []

    def one(run: plays.Started) -> plays.Started:
        started.append(run)
        return run

    yield one
    for run in started:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait()


def test_a_second_run_of_site_changed_nothing(last_check: record.Run) -> None:
    """D02."""
    assert last_check.changed == []


def test_all_nodes_run_the_first_release_and_have_the_same_bytes(reach: lane.Reach) -> None:
    """S04."""
    assert versions(reach) == dict.fromkeys(NODES, "1.0.0")
    listed = "cd /var/lib/kos/current/ && find release.json tree -type f | sort | xargs sha256sum | sha256sum"
    assert len({reach(name).check_output(listed) for name in NODES}) == 1


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"patch_relase": "1.1.0"}, "patch_relase is not a variable of patch; did you mean patch_release?"),
        ({"patch_zone": "z"}, "zone 'z' has no nodes here; zones are a, b"),
        ({"patch_canary": "node9"}, "canary 'node9' is not one of the nodes"),
        ({"patch_batch": "0"}, "batch '0' is not a number of nodes above zero"),
        ({"patch_release": "9.9.9"}, "release kos 9.9.9 does not exist"),
        ({"patch_release": "1.3.0"}, "release kos 1.3.0 is outside the channel stable (it is in: beta)"),
        ({"patch_release": "1.4.0"}, "release kos 1.4.0 is for"),
    ],
)
def test_a_bad_wish_ends_red_with_one_message_and_touches_nothing(
    reach: lane.Reach, variables: dict[str, str], told: str
) -> None:
    before = runs_of_services(reach)
    ended = patch(**variables).wait()
    ends_red(ended, told)
    assert runs_of_services(reach) == before
    assert kos.ask(reach("node2"), "status")["lease"] is None


def test_an_inventory_without_zones_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("nodes: {hosts: {node1: {}, node2: {}}}\n")
    for playbook in ("kos.fleet.site", "kos.fleet.patch"):
        ended = plays.run(playbook, inventories=[tmp_path])
        ends_red(ended, "the inventory has no zones")


def test_a_plan_of_a_patch_says_what_it_would_fetch_and_restart(reach: lane.Reach) -> None:
    """D06: check and diff."""
    before = runs_of_services(reach)
    planned = plays.run(
        "kos.fleet.patch", limit="fleet", check=True, variables={**QUICK, "patch_release": "1.1.0"}
    )
    assert planned.rc == 0, planned.text
    (said,) = moved(planned.said, "node1")
    assert (said.status, said.result["outcome"], said.result["how"]) == ("changed", "planned", "patch")
    assert 0 < said.result["bytes"] < 100_000
    assert "restart kos-kosd.service" in said.result["diff"]["after"]
    assert runs_of_services(reach) == before
    assert versions(reach) == dict.fromkeys(NODES, "1.0.0")


@pytest.fixture
def crowded(bed: Bed) -> Iterator[str]:
    """A node of the last wave that has to keep more disk free than it has."""
    layer = {"layer": "node", "values": {"policy": {"reserve_bytes": 1 << 40}}}
    path = "/etc/kos/conf.d/90-crowded.json"
    bed.exec("node4", ["sh", "-c", f"cat > {path}"], stdin=json.dumps(layer).encode())
    yield "node4"
    bed.exec("node4", ["rm", path])


def test_a_release_that_does_not_fit_on_a_node_of_the_last_wave_reaches_no_node(
    reach: lane.Reach, crowded: str
) -> None:
    """C20: it is known by the plans of all nodes before the first wave."""
    before = runs_of_services(reach)
    ended = patch(patch_release="1.1.0").wait()
    ends_red(ended, f"{crowded}: ", "bytes of disk are missing for kos 1.1.0", "Nothing was touched")
    assert outcomes(ended.said) == {}
    assert runs_of_services(reach) == before
    assert [kos.ask(reach(name), "status")["lease"] for name in NODES] == [None] * 4


def test_a_node_that_cannot_be_reached_at_the_start_lets_nothing_begin(
    reach: lane.Reach, cut: Callable[[str], None]
) -> None:
    cut("node3")
    ended = patch(patch_release="1.1.0").wait()
    ends_red(ended, "node3: cannot be reached")
    assert outcomes(ended.said) == {}


def test_while_a_rollout_is_held_by_its_pause_file_no_wave_begins(reach: lane.Reach, pause: Path) -> None:
    ended = patch(patch_release="1.1.0").wait()
    ends_red(ended, f"paused: {pause} exists")
    assert versions(reach) == dict.fromkeys(NODES, "1.0.0")


def test_two_rollouts_collide_and_an_unreachable_node_in_a_wave_stops_the_rest(
    reach: lane.Reach, cut: Callable[[str], None], ends: Callable[[plays.Started], plays.Started]
) -> None:
    """M09, C20."""
    first = ends(patch(patch_release="1.1.0", patch_bake=25))
    until(lambda: kos.ask(reach("node1"), "status")["state"] == "TRIAL")

    here = patch(patch_release="1.1.0").wait()
    ends_red(here, "a rollout of this controller still runs")
    elsewhere = patch(patch_release="1.0.0", patch_allow_downgrade=True, **ELSEWHERE).wait()
    ends_red(elsewhere, "Nothing was touched", "lease")
    assert outcomes(elsewhere.said) == {}

    until(lambda: kos.ask(reach("node1"), "status")["state"] == "CONFIRMED")
    cut("node2")
    ended = first.wait()
    ends_red(ended, "node2: cannot be reached", "Not touched: node3, node4")
    assert outcomes(ended.said) == {"node1": "confirmed", "node2": "unreachable"} | dict.fromkeys(
        ("node3", "node4"), "skipped"
    )


def test_the_same_command_again_goes_on_where_it_stopped(reach: lane.Reach) -> None:
    until(lambda: kos.ask(reach("node2"), "status")["trial"] is None)
    before = kos.invocations(reach("node1"))
    ended = patch(patch_release="1.1.0").wait()
    assert ended.rc == 0, ended.text
    assert outcomes(ended.said) == {"node1": "present"} | dict.fromkeys(NODES[1:], "confirmed")
    assert kos.invocations(reach("node1")) == before
    assert versions(reach) == dict.fromkeys(NODES, "1.1.0")


def test_the_canary_came_first_then_one_zone_and_then_the_other(reach: lane.Reach) -> None:
    """C20."""
    times = {name: reached(reach(name), "1.1.0") for name in NODES}
    assert times["node1"][1] < times["node2"][0]
    assert times["node2"][1] < min(times["node3"][0], times["node4"][0])


def test_a_patch_that_is_done_changes_nothing_more(reach: lane.Reach) -> None:
    """D02."""
    before = runs_of_services(reach)
    ended = patch(patch_release="1.1.0").wait()
    assert ended.rc == 0, ended.text
    assert ended.said.changed == []
    assert runs_of_services(reach) == before


def test_an_unhealthy_release_goes_back_on_the_canary_and_touches_nobody_else(reach: lane.Reach) -> None:
    """M09, C20, S20."""
    before = runs_of_services(reach)
    ended = patch(patch_release="1.2.0").wait()
    assert outcomes(ended.said) == {"node1": "reverted-healthy"} | dict.fromkeys(NODES[1:], "skipped")
    evidence = moved(ended.said, "node1")[0].result["evidence"]
    assert Path(evidence).is_dir()
    ends_red(ended, "went back to 1.1.0 and is healthy again", evidence)

    assert versions(reach) == dict.fromkeys(NODES, "1.1.0")
    status = kos.ask(reach("node1"), "status")
    assert (status["state"], [one["version"] for one in status["refused"]]) == ("REVERTED", ["1.2.0"])
    after = runs_of_services(reach)
    assert {name: after[name] for name in NODES[1:]} == {name: before[name] for name in NODES[1:]}
    assert reach("node1").check_output("curl --silent --fail http://127.0.0.1:8000/health")


def test_what_was_unhealthy_is_not_tried_again(reach: lane.Reach) -> None:
    before = runs_of_services(reach)
    ended = patch(patch_release="1.2.0").wait()
    ends_red(ended, "refused")
    assert runs_of_services(reach) == before


def test_a_downgrade_without_the_word_for_it_is_refused(reach: lane.Reach) -> None:
    before = runs_of_services(reach)
    ended = patch(patch_release="1.0.0").wait()
    ends_red(ended, "downgrade")
    assert runs_of_services(reach) == before


def test_one_zone_goes_back_and_the_other_stays(reach: lane.Reach) -> None:
    """D02."""
    before = runs_of_services(reach)
    ended = plays.run(
        "kos.fleet.rollback",
        limit="fleet",
        variables={
            **{name.replace("patch_", "rollback_"): value for name, value in QUICK.items()},
            **{"rollback_zone": "b", "rollback_release": "1.0.0"},
        },
    )
    assert ended.rc == 0, ended.text
    assert versions(reach) == {"node1": "1.1.0", "node2": "1.1.0", "node3": "1.0.0", "node4": "1.0.0"}
    after = runs_of_services(reach)
    assert {name: after[name] for name in NODES[:2]} == {name: before[name] for name in NODES[:2]}


def test_site_leaves_the_release_alone(reach: lane.Reach) -> None:
    before = runs_of_services(reach)
    ended = plays.run("kos.fleet.site", limit="fleet:mirrors", variables={"runtime_release": "1.1.0"})
    assert ended.rc == 0, ended.text
    assert ended.said.changed == []
    assert runs_of_services(reach) == before


@pytest.mark.parametrize("limit", ["node1", "node1:node2:node3"])
def test_the_same_play_takes_one_host_or_many_and_is_done(reach: lane.Reach, limit: str) -> None:
    """S01: converging is the scenario's; D06: limit."""
    ended = plays.run("kos.fleet.site", limit=limit)
    assert ended.rc == 0, ended.text
    assert ended.said.changed == []
    assert {one.host for one in ended.said.of("kos.fleet.release")} == set(limit.split(":"))


def test_a_tag_takes_only_its_part(reach: lane.Reach) -> None:
    """D06."""
    ended = plays.run("kos.fleet.site", limit="node1", more=["--tags", "bootstrap"])
    assert ended.rc == 0, ended.text
    assert ended.said.of("kos.fleet.bootstrap")
    assert ended.said.of("kos.fleet.release") == []
    assert {one.host for one in ended.said.said} == {"node1"}


def test_status_tells_what_each_node_runs_without_root(reach: lane.Reach) -> None:
    """D02."""
    ended = plays.run("kos.fleet.status", limit="fleet")
    assert ended.rc == 0, ended.text
    assert ended.said.changed == []
    for name in NODES:
        assert name in ended.text
    assert {one.result["status"]["current"]["version"] for one in ended.said.of("kos.fleet.node_info")} == {
        "1.0.0",
        "1.1.0",
    }


def test_status_without_an_answer_is_not_green(cut: Callable[[str], None]) -> None:
    cut("node4")
    ended = plays.run("kos.fleet.status", limit="node3:node4")
    ends_red(ended, "node4 gave no answer")


def test_every_move_is_in_the_audit_log_with_who_asked(reach: lane.Reach) -> None:
    said = reach("node2").file("/var/log/kos/audit.jsonl").content_string
    entries = [json.loads(line) for line in said.splitlines()]
    activated = [entry["who"] for entry in entries if entry["what"]["verb"] == "activate"]
    asked = [who for who in activated if who.get("sudo_user") == "kosops"]
    assert asked
    assert all(ip_address(who["from"]) for who in asked)
