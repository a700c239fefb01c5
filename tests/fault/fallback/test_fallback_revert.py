"""What `fallback` makes of a trial, under each shell it has to work with (S20, C21)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from fault.fallback.fallback_node import BAD, GOOD, SHELLS, TRIAL, FallbackNode, point

from kosnode.record import read_outcome


@pytest.fixture(params=SHELLS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> FallbackNode:
    return FallbackNode(tmp_path / "node", str(request.param))


def test_a_trial_ends_in_the_release_before_it(node: FallbackNode) -> None:
    node.write_trial()
    done = node.fall_back("health", "--detail", "kos-a.service is not active; $(reboot)")
    assert done.returncode == 0, done.stderr
    assert node.current == f"releases/{GOOD}"
    assert not (node.var / "trial").exists()
    assert node.outcome["reason"] == "health"
    assert node.outcome["detail"] == "kos-a.service is not active reboot"
    assert node.outcome["complete"] == "yes"
    assert node.outcome["failed"] == ""


def test_units_stop_before_the_reload_and_restart_after_it(node: FallbackNode) -> None:
    node.write_trial()
    node.fall_back("deadline")
    assert node.calls[:4] == [
        "systemctl stop kos-new.service",
        "systemctl daemon-reload",
        "systemctl reset-failed kos-a.service kos-db.service",
        "systemctl restart kos-a.service kos-db.service",
    ]


def test_kosctl_measures_afterwards_without_being_waited_for(node: FallbackNode) -> None:
    node.write_trial()
    node.fall_back("deadline")
    assert node.calls[-1].startswith("systemd-run --quiet --no-block")
    assert node.calls[-1].endswith("recover")


def test_the_timer_stays_until_kosctl_has_measured(node: FallbackNode) -> None:
    """A fallback that is killed at its very end has left a timer that starts kosctl once more."""
    node.write_trial()
    node.fall_back("operator")
    assert not any("kos-deadman" in call for call in node.calls)
    (node.root / "calls").unlink()
    assert node.fall_back("deadline", "--trial", TRIAL).returncode == 0
    assert [call.split()[-1] for call in node.calls] == ["recover"]


def test_it_works_where_kosctl_and_python_are_gone(node: FallbackNode) -> None:
    shutil.rmtree(node.root / "opt")
    node.write_trial()
    assert node.fall_back("deadline").returncode == 0
    assert node.current == f"releases/{GOOD}"


def test_migrated_state_comes_back_and_the_new_state_is_kept_as_evidence(node: FallbackNode) -> None:
    node.write_trial(migrates=("db", "fresh"))
    node.write_state("db", "migrated", before="original")
    node.write_state("fresh", "made by the migration", before=None)
    assert node.fall_back("health").returncode == 0
    assert node.state("db") == "original"
    assert node.state("fresh") is None
    kept = node.var / "evidence" / TRIAL
    assert (kept / "state-db/deep/data").read_text() == "migrated"
    assert (kept / "state-fresh/deep/data").read_text() == "made by the migration"
    reload = node.calls.index("systemctl daemon-reload")
    stopped = {word for call in node.calls[:reload] for word in call.split()}
    assert {"kos-db.service", "kos-db.timer", "kos-migrate-db.service"} <= stopped


def test_state_that_a_service_made_anew_in_between_is_kept_too(node: FallbackNode) -> None:
    node.write_trial(migrates=("db",))
    node.write_state("db", "made anew", before="original")
    aside = node.var / "evidence" / TRIAL / "state-db/deep"
    aside.mkdir(parents=True)
    (aside / "data").write_text("migrated")
    assert node.fall_back("health").returncode == 0
    assert node.state("db") == "original"
    assert (aside / "data").read_text() == "migrated"
    assert (node.var / "evidence" / TRIAL / "state-db-again/deep/data").read_text() == "made anew"


def test_a_first_install_that_fails_leaves_no_release(node: FallbackNode) -> None:
    node.write_trial(previous="none")
    assert node.fall_back("health").returncode == 0
    assert node.current is None
    assert "systemctl stop kos-new.service" in node.calls
    assert not any("restart" in call for call in node.calls)


def test_without_a_trial_nothing_changes(node: FallbackNode) -> None:
    point(node.var / "current", f"releases/{BAD}")
    assert node.fall_back("deadline").returncode == 0
    assert node.current == f"releases/{BAD}"
    assert node.calls == []
    assert not (node.var / "outcome").exists()


def test_a_timer_of_an_older_trial_does_not_end_this_one(node: FallbackNode) -> None:
    node.write_trial()
    assert node.fall_back("deadline", "--trial", "20251121T120000Z-ffffffff").returncode == 0
    assert node.current == f"releases/{BAD}"
    assert node.fall_back("deadline", "--trial", TRIAL).returncode == 0
    assert node.current == f"releases/{GOOD}"


def test_a_boot_unit_that_is_started_by_hand_does_not_end_a_trial_of_this_boot(node: FallbackNode) -> None:
    node.write_trial()
    assert node.fall_back("reboot").returncode == 0
    assert node.current == f"releases/{BAD}"
    assert (node.var / "trial").exists()


def test_a_boot_ends_the_trial_of_the_boot_before_and_waits_for_no_unit(node: FallbackNode) -> None:
    node.write_trial(boot="11111111-1111-1111-1111-111111111111:5")
    assert node.fall_back("reboot").returncode == 0
    assert node.current == f"releases/{GOOD}"
    assert node.outcome["reason"] == "reboot"
    assert "systemctl --no-block start kos-a.service kos-db.service" in node.calls
    assert not any(call.startswith(("systemctl restart", "systemctl stop")) for call in node.calls)


def test_a_boot_that_is_made_up_for_later_stops_what_runs_before_its_state_is_moved(
    node: FallbackNode,
) -> None:
    """kos-boot.service may fail and be tried again, or kosctl may find the trial, when units run already."""
    node.extra["FAKE_ACTIVE"] = "yes"
    node.write_trial(boot="11111111-1111-1111-1111-111111111111:5", migrates=("db",))
    node.write_state("db", "migrated", before="original")
    assert node.fall_back("reboot").returncode == 0
    assert node.current == f"releases/{GOOD}"
    assert node.state("db") == "original"
    reload = node.calls.index("systemctl daemon-reload")
    assert "systemctl stop kos-new.service kos-db.service" in node.calls[:reload]
    # Their start may be ordered after this very boot unit, so it is not waited for.
    assert "systemctl --no-block restart kos-a.service kos-db.service" in node.calls[reload:]


def test_units_that_run_are_stopped_even_where_the_target_is_not_reached(node: FallbackNode) -> None:
    node.write_trial(boot="11111111-1111-1111-1111-111111111111:5")
    node.fall_back("reboot")
    assert "systemctl is-active --quiet kos.target kos-a.service kos-db.service kos-new.service" in node.calls


def test_a_systemd_that_fails_everything_is_written_down_and_stops_nothing(node: FallbackNode) -> None:
    node.extra["FAKE_FAIL"] = "stop daemon-reload restart reset-failed kill"
    node.write_trial()
    assert node.fall_back("health").returncode == 0
    assert node.current == f"releases/{GOOD}"
    assert node.outcome["failed"] == "stop daemon-reload restart"


@pytest.mark.parametrize(
    "line",
    [
        "previous=../../etc",
        "previous=",
        f"release={BAD[:-1]}",
        "id=../x",
        "restart=-f kos-a.service",
        "restart=kos-a.service;reboot",
        "stop=/bin/sh",
        "migrates=../x",
        "format=2",
    ],
)
def test_a_damaged_trial_is_refused_and_nothing_is_touched(node: FallbackNode, line: str) -> None:
    node.write_trial()
    with (node.var / "trial").open("a") as stream:
        stream.write(line)
    done = node.fall_back("deadline")
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert node.current == f"releases/{BAD}"
    assert node.calls == []


def test_the_trial_is_read_and_never_run(node: FallbackNode) -> None:
    node.write_trial()
    planted = node.root / "planted"
    with (node.var / "trial").open("a") as stream:
        stream.write(f"x=$(touch {planted})\n`touch {planted}`\n")
    assert node.fall_back("deadline").returncode == 1
    assert not planted.exists()


def test_a_slot_that_is_gone_is_never_pointed_to(node: FallbackNode) -> None:
    node.write_trial()
    shutil.rmtree(node.var / "releases" / GOOD)
    done = node.fall_back("deadline")
    assert done.returncode == 1
    assert node.current == f"releases/{BAD}"
    assert (node.var / "trial").exists()


@pytest.mark.parametrize("arguments", [["--reason", "bored"], ["--reason"], ["--what", "x"]])
def test_a_wrong_call_says_so(node: FallbackNode, arguments: list[str]) -> None:
    node.write_trial()
    argv = [*node.argv("health")[:-2], *arguments]
    done = subprocess.run(argv, env=node.env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert node.current == f"releases/{BAD}"


def test_the_link_is_switched_where_no_new_name_can_be_made(node: FallbackNode) -> None:
    """On a full disk only what is there can be renamed: the trial has laid the link ready."""
    node.write_trial()
    ready = node.var / ".fallback/current"
    ready.parent.mkdir()
    point(ready, f"releases/{GOOD}")
    for name in ("ln", "mkdir"):
        replace_program(node, name, "exit 1")
    assert node.fall_back("deadline").returncode == 0
    assert node.current == f"releases/{GOOD}"


def test_a_unit_that_cannot_end_a_trial_tries_again_ever_more_rarely(node: FallbackNode) -> None:
    """And without the lock: who has mended the cause need not wait."""
    node.extra["INVOCATION_ID"] = "of a unit"
    replace_program(
        node, "sleep", 'exec 8<>"$KOS_ROOT/run/kos/lock"; flock -n 8 && echo "sleep $1" >>"$FAKE_LOG"'
    )
    node.write_trial()
    away = (node.var / "releases" / GOOD).rename(node.root / "away")
    said = [node.fall_back("deadline").stderr for _ in range(9)]
    assert node.calls == [f"sleep {pause}" for pause in (0, 5, 15, 35, 75, 155, 240, 240, 240)]
    assert all("is gone" in told for told in said)
    assert "trying again in 80 s" in said[4]
    away.rename(node.var / "releases" / GOOD)
    assert node.fall_back("operator").returncode == 0
    assert node.current == f"releases/{GOOD}"


def test_another_trial_that_cannot_be_ended_is_tried_again_at_once(node: FallbackNode) -> None:
    node.extra["INVOCATION_ID"] = "of a unit"
    replace_program(node, "sleep", 'echo "sleep $1" >>"$FAKE_LOG"')
    node.write_trial()
    shutil.rmtree(node.var / "releases" / GOOD)
    node.fall_back("deadline")
    trial = node.var / "trial"
    trial.write_text(trial.read_text().replace(TRIAL, "20261121T130000Z-4567abcd"))
    node.fall_back("deadline")
    assert node.calls == ["sleep 0", "sleep 0"]


def test_a_person_who_cannot_end_a_trial_is_told_at_once(node: FallbackNode) -> None:
    replace_program(node, "sleep", "exec false")
    node.write_trial()
    shutil.rmtree(node.var / "releases" / GOOD)
    done = node.fall_back("operator")
    assert (done.returncode, node.calls) == (1, [])
    assert "trying again" not in done.stderr


@pytest.mark.parametrize("laid", [True, False], ids=["laid ready", "written before"])
def test_on_a_full_disk_the_reason_is_written_over_what_is_there(node: FallbackNode, laid: bool) -> None:
    """A release that was unhealthy has to stay refused."""
    node.write_trial()
    (node.var / ".fallback").mkdir()
    ready = node.var / (".fallback/outcome" if laid else "outcome")
    ready.write_text(
        "x" * 1000 + "\n" if laid else f"id={TRIAL}\nreason=health\ndetail=http 500\n" + "x" * 700
    )
    # A new file cannot be written there; a folder of this name is what stands for that.
    (node.var / ".outcome.new").mkdir()
    before = ready.stat().st_ino
    done = node.fall_back("health" if laid else "deadline", "--detail", "http 500")
    assert done.returncode == 0, done.stderr
    assert (node.var / "outcome").stat().st_ino == before
    outcome = read_outcome(node.var / "outcome")
    assert outcome is not None
    assert (outcome.id, outcome.reason, outcome.detail, outcome.complete) == (
        TRIAL,
        "health",
        "http 500",
        True,
    )
    assert outcome.failed == ()


def replace_program(node: FallbackNode, name: str, script: str) -> None:
    """Have `fallback` run this in place of a program."""
    (node.bin / name).unlink(missing_ok=True)
    (node.bin / name).write_text(f"#!/bin/sh\n{script}\n")
    (node.bin / name).chmod(0o755)
