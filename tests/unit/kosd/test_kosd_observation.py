"""What the daemon sees: systemctl's answers, verdicts on units, restarts, changes as events."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kosd_node import ROOT, UNITS, Node

from kosd import systemctl
from kosd.daemon import Daemon
from kosd.restarts import RestartHistory
from kosd.systemctl import Shown, SystemctlError
from kosd.units import Unit, read_inventory
from kosd.verdict import Status, Verdict, judge

SERVICE = Shown("kos-a.service", load="loaded", active="active", sub="running")
TIMER = Shown("kos-a.timer", load="loaded", active="active", sub="waiting")
LASTING = Unit("a", "kos-a.service")
PERIODIC = Unit("a", "kos-a.service", "kos-a.timer")


def verdict(
    unit: Unit, service: Shown, timer: Shown | None = None, *, unsettled_s: float = 99, restarts: int = 0
) -> Verdict:
    return judge(unit, service, timer, unsettled_s=unsettled_s, grace_s=20, restarts=restarts, limit=3)


@pytest.mark.parametrize(
    ("changes", "status", "detail"),
    [
        ({}, Status.OK, "active (running)"),
        ({"active": "reloading", "sub": "reload"}, Status.OK, "reloading (reload)"),
        ({"active": "inactive", "sub": "dead"}, Status.FAILING, "inactive (dead)"),
        ({"active": "activating", "sub": "start"}, Status.FAILING, "activating (start)"),
        (
            {"active": "failed", "sub": "failed", "result": "exit-code", "exit_status": 3},
            Status.FAILING,
            "failed (exit-code, status 3)",
        ),
        (
            {"active": "activating", "sub": "auto-restart", "result": "watchdog"},
            Status.FAILING,
            "ended (watchdog) and waits for its restart",
        ),
        ({"load": "not-found"}, Status.FAILING, "kos-a.service is not-found"),
    ],
)
def test_a_lasting_unit_is_well_when_it_is_active(
    changes: dict[str, Any], status: Status, detail: str
) -> None:
    assert verdict(LASTING, replace(SERVICE, **changes)) == Verdict(status, detail)


@pytest.mark.parametrize(
    ("service", "timer", "status", "detail"),
    [
        ({"started_usec": 1}, {}, Status.OK, "its last run succeeded"),
        ({}, {}, Status.OK, "waits for its first run"),
        ({"active": "activating", "sub": "start"}, {}, Status.OK, "runs now"),
        ({"active": "failed", "result": "timeout"}, {}, Status.FAILING, "its last run failed (timeout)"),
        (
            {"result": "exit-code", "exit_status": 1},
            {},
            Status.FAILING,
            "its last run failed (exit-code, status 1)",
        ),
        ({"started_usec": 1}, {"active": "inactive"}, Status.FAILING, "its timer is inactive"),
        ({"started_usec": 1}, {"load": "not-found"}, Status.FAILING, "its timer is not-found"),
    ],
)
def test_a_periodic_unit_is_well_when_its_timer_is_active_and_its_last_run_succeeded(
    service: dict[str, Any], timer: dict[str, Any], status: Status, detail: str
) -> None:
    shown = replace(Shown("kos-a.service", load="loaded"), **service)

    assert verdict(PERIODIC, shown, replace(TIMER, **timer)) == Verdict(status, detail)


def test_a_unit_may_be_starting_for_a_while_but_not_for_ever() -> None:
    starting = replace(SERVICE, active="activating", sub="start")

    assert verdict(LASTING, starting, unsettled_s=19).status is Status.DEGRADED
    assert verdict(LASTING, starting, unsettled_s=20).status is Status.FAILING


def test_a_unit_that_failed_gets_no_time_to_start() -> None:
    failed = replace(SERVICE, active="failed", sub="failed", result="signal")

    assert verdict(LASTING, failed, unsettled_s=0).status is Status.FAILING


def test_a_unit_that_restarts_again_and_again_is_flapping_though_it_is_active_now() -> None:
    assert verdict(LASTING, SERVICE, restarts=2).status is Status.OK
    flapping = verdict(LASTING, SERVICE, restarts=3)
    assert flapping.status is Status.FAILING
    assert flapping.detail.startswith("flapping: restarted 3 times")


def test_a_unit_that_the_node_added_can_only_degrade_it() -> None:
    added = replace(LASTING, origin="node")

    assert verdict(added, replace(SERVICE, active="failed")).status is Status.DEGRADED
    assert verdict(added, SERVICE, restarts=9).status is Status.DEGRADED


@given(st.lists(st.integers(0, 50), max_size=40))
def test_restarts_are_the_rises_of_the_counter_and_a_start_by_hand_begins_anew(counters: list[int]) -> None:
    history = RestartHistory(Path("/nonexistent/restarts.json"), "boot")
    rises = [history.note("a.service", counter, 1.0) for counter in counters]

    expected = [0] + [after - before if after >= before else after for before, after in pairwise(counters)]
    assert rises == expected[: len(counters)]
    resets = [index for index, (before, after) in enumerate(pairwise(counters), 1) if after < before]
    assert history.within("a.service", 10, 5.0) == min(100, sum(rises[max(resets, default=0) :]))
    assert history.within("a.service", 10, 12.0) == 0


def test_restarts_are_remembered_over_a_restart_of_the_daemon_but_not_over_a_boot(tmp_path: Path) -> None:
    path = tmp_path / "restarts.json"
    history = RestartHistory(path, "boot-1")
    history.note("kos-kosd.service", 0, 10.0)
    history.save()

    again = RestartHistory(path, "boot-1")
    assert again.note("kos-kosd.service", 1, 20.0) == 1
    again.save()

    assert RestartHistory(path, "boot-1").within("kos-kosd.service", 60, 30.0) == 1
    assert RestartHistory(path, "boot-2").within("kos-kosd.service", 60, 30.0) == 0


def fake_systemctl(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "systemctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_all_units_are_asked_for_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_systemctl(
        tmp_path,
        f"""printf '%s\\n' "$*" >>{tmp_path}/calls
printf 'Id=a.service\\nLoadState=loaded\\nActiveState=active\\nNRestarts=2\\n'
printf 'MemoryCurrent=18446744073709551615\\n\\n'
printf 'Id=b.timer\\nLoadState=loaded\\nActiveState=active\\nMemoryCurrent=[not set]\\n'""",
        monkeypatch,
    )

    shown = asyncio.run(systemctl.show(["a.service", "b.timer"], 5))

    assert (shown["a.service"].active, shown["a.service"].restarts) == ("active", 2)
    assert shown["a.service"].memory_bytes is None
    assert shown["b.timer"].memory_bytes is None
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.endswith("-- a.service b.timer")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exec sleep 30", "systemctl gave no answer within 0.3 s"),
        ("echo 'Failed to connect to bus' >&2; exit 1", "systemctl ended with 1: Failed to connect to bus"),
        ("echo Id=b.service", "systemctl said nothing of a.service"),
    ],
)
def test_a_systemctl_that_does_not_answer_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    fake_systemctl(tmp_path, script, monkeypatch)

    with pytest.raises(SystemctlError) as caught:
        asyncio.run(systemctl.show(["a.service"], 0.3))

    assert str(caught.value) == message


@given(st.text(max_size=300))
def test_no_output_of_systemctl_breaks_the_parser(text: str) -> None:
    assert all(shown.id == name for name, shown in systemctl.parse(f"Id=a\n{text}").items())


def test_the_node_adds_units_but_cannot_replace_those_of_the_release(node: Node) -> None:
    node.node_units.write_text(
        json.dumps(
            {"units": {"camera": {"service": "kos-camera.service"}, "kosd": {"service": "kos-evil.service"}}}
        )
    )

    inventory = read_inventory(node.current, node.node_units)

    assert inventory.units["camera"].origin == "node"
    assert inventory.units["kosd"].service == "kos-kosd.service"
    assert inventory.problems == (f"{node.node_units}: unit kosd is in the release already",)


def test_a_list_cannot_smuggle_an_option_into_the_call_of_systemctl(node: Node) -> None:
    node.node_units.write_text('{"units": {"a": {"service": "--host=elsewhere.service"}}}')

    (problem,) = read_inventory(node.current, node.node_units).problems

    assert "units.a.service: must match pattern" in problem


def test_a_change_of_state_is_an_event_and_no_change_is_none(
    node: Node, daemon: Daemon, look: Callable[[Daemon], None]
) -> None:
    known = daemon.events.last_id
    look(daemon)
    assert daemon.events.since(known) == []

    node.systemd.set("kos-heartbeat.service", active="failed", sub="failed", result="watchdog")
    look(daemon)

    assert [(event.kind, event.unit, event.message) for event in daemon.events.since(known)] == [
        ("unit.state", "heartbeat", "failed (watchdog), was: active (running)"),
        ("health.changed", None, "node is failing: unit:heartbeat: failed (watchdog)"),
    ]


def test_a_switch_of_the_release_is_seen_with_the_units_it_adds_and_removes(
    node: Node, daemon: Daemon, look: Callable[[Daemon], None]
) -> None:
    known = daemon.events.last_id
    units = {name: unit for name, unit in UNITS.items() if name != "heartbeat"}
    node.switch("ab" * 32, "1.2.0", units | {"vault": {"service": "kos-vault.service"}})
    look(daemon)

    assert daemon.release.version == "1.2.0"
    kinds = {(event.kind, event.unit) for event in daemon.events.since(known)}
    assert {("release.changed", None), ("unit.added", "vault"), ("unit.removed", "heartbeat")} <= kinds
    (changed,) = (event for event in daemon.events.since(known) if event.kind == "release.changed")
    assert changed.message == f"release is kos-runtime 1.2.0 ({'ab' * 32}), was {ROOT}"


def test_a_restart_by_systemd_is_told_with_its_number(
    node: Node, daemon: Daemon, look: Callable[[Daemon], None]
) -> None:
    known = daemon.events.last_id
    node.systemd.set("kos-heartbeat.service", restarts=2)
    look(daemon)

    assert [event.message for event in daemon.events.since(known)] == [
        "systemd restarted kos-heartbeat.service 2 times"
    ]


def test_a_unit_that_does_not_start_is_given_its_time_and_no_more(
    node: Node, daemon: Daemon, look: Callable[[Daemon], None]
) -> None:
    node.systemd.set("kos-heartbeat.service", active="activating", sub="start")
    look(daemon)
    assert daemon.health().status is Status.DEGRADED

    node.pass_time(20)
    look(daemon)
    assert daemon.health().status is Status.FAILING


def test_the_ring_forgets_the_oldest_and_ids_grow_over_a_restart(node: Node) -> None:
    node.write_config({"events": {"keep": 10}})
    first = node.daemon()
    ids = [first.events.add("test", str(number)).id for number in range(25)]
    assert [event.id for event in first.events.since(0)] == ids[-10:]

    node.pass_time(1)
    assert node.daemon().events.add("test", "later").id > ids[-1]
