"""A switch is a trial until it is confirmed, and ends in the last good release otherwise (S20, C21, M17)."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.kosnode.trial.trial_node import TrialNode, make_node

from kosnode import boot, deadman, record, recovery, status, trial, watch
from kosnode.admission import Wish
from kosnode.errors import (
    BusyError,
    DamagedError,
    NotFoundError,
    RefusedError,
    RevertedError,
    RevertedUnhealthyError,
    UnhealthyError,
)
from kosnode.health import HealthReport
from kosnode.lock import Lock
from kosnode.node import measure
from kosnode.trial import Activation

WISH = Wish()


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialNode:
    return make_node(tmp_path / "node", monkeypatch)


def begin(bed: TrialNode, root: str, wish: Wish = WISH) -> Activation:
    return trial.begin(bed.node, root, wish)


def bake(bed: TrialNode, activation: Activation, *, seconds: int = 6) -> None:
    """Watch for some seconds; the watcher is then away, as after a stop."""
    until = bed.clock.boottime() + seconds

    class Enough(Exception):
        pass

    def tick() -> None:
        if bed.clock.boottime() >= until:
            raise Enough

    assert activation.trial is not None
    bed.clock.ticks[:] = [tick] * (seconds + 2)
    with pytest.raises(Enough):
        watch.watch(bed.node, activation.trial)
    bed.clock.ticks.clear()


def install(bed: TrialNode, root: str, wish: Wish = WISH) -> None:
    """Bring a release onto the node and confirm it."""
    activation = begin(bed, root, wish)
    bake(bed, activation)
    assert activation.token is not None
    trial.confirm(bed.node, activation.token)


def nothing_is_left(bed: TrialNode) -> None:
    names = {path.name for path in bed.paths.var.iterdir()}
    assert not names & {"trial", "trial.json", "trial.health", "trial.confirmed", "outcome"}
    assert list(bed.paths.state_before.iterdir()) == []
    assert not [name for name in names if name.startswith(".") and name != ".fallback"]


# The straight way.


def test_a_healthy_release_is_confirmed_over_a_new_session(bed: TrialNode) -> None:
    old, new = bed.stage("1.0.0"), bed.stage("1.1.0")
    install(bed, old)
    activation = begin(bed, new)
    assert status.status(bed.node)["state"] == "TRIAL"
    bake(bed, activation)
    assert activation.token is not None
    ending = trial.confirm(bed.node, activation.token)
    assert ending["outcome"] == "confirmed"
    assert ending["root"] == new
    assert bed.current == new
    assert bed.node.linked(bed.paths.previous) == old
    assert status.status(bed.node)["state"] == "CONFIRMED"
    nothing_is_left(bed)


def test_the_dead_man_is_armed_before_anything_is_switched(bed: TrialNode) -> None:
    root = bed.stage("1.0.0")
    bed.systemd.refuses = {"timer"}
    with pytest.raises(Exception, match="does not timer"):
        begin(bed, root)
    assert bed.current is None
    assert record.read_trial(bed.paths.trial) is None


def test_a_dead_man_that_cannot_be_armed_stops_the_switch(bed: TrialNode) -> None:
    root = bed.stage("1.0.0")
    bed.paths.fallback.unlink()
    with pytest.raises(Exception, match=r"dead-man cannot be armed: .*fallback is missing"):
        begin(bed, root)
    assert bed.current is None


def test_a_timer_that_was_made_and_does_not_run_stops_the_switch(
    bed: TrialNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bed.stage("1.0.0")
    monkeypatch.setattr(bed.systemd, "run_transient_timer", lambda name, seconds, argv: None)
    with pytest.raises(Exception, match="does not run"):
        begin(bed, root)
    assert bed.current is None


def test_the_way_back_lies_ready_before_the_switch(bed: TrialNode) -> None:
    """On a full disk `fallback` can rename what is there, and make nothing new."""
    old = bed.stage("1.0.0")
    install(bed, old)
    begin(bed, bed.stage("1.1.0"))
    assert (bed.paths.var / ".fallback/current").readlink() == Path(f"releases/{old}")


def test_the_timer_runs_the_installed_fallback_for_this_trial_alone(bed: TrialNode) -> None:
    activation = begin(bed, bed.stage("1.0.0"))
    argv = bed.systemd.timers[f"{deadman.TIMER}.timer"]
    assert argv == (str(bed.paths.fallback), "--reason", "deadline", "--trial", activation.trial)


def test_the_token_is_written_nowhere(bed: TrialNode) -> None:
    activation = begin(bed, bed.stage("1.0.0"))
    assert activation.token is not None
    assert len(activation.token) == 64
    kept = [path.read_bytes() for path in bed.paths.var.rglob("*") if path.is_file()]
    assert not any(activation.token.encode() in data for data in kept)


def test_what_is_current_already_makes_no_trial(bed: TrialNode) -> None:
    root = bed.stage("1.0.0")
    install(bed, root)
    again = begin(bed, root)
    assert (again.how, again.token, again.trial) == ("present", None, None)
    assert status.status(bed.node)["trial"] is None


def test_downtime_and_what_restarted_are_told(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0", units={"a": "1", "b": "1"}))
    activation = begin(bed, bed.stage("1.1.0", units={"a": "2", "b": "1"}))
    assert activation.restarted == ("kos-a.service",)
    assert activation.downtime_s == 0.25


# What restarts.


def test_only_what_changed_restarts_and_what_is_gone_stops(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0", units={"a": "1", "same": "1", "gone": "1"}))
    begin(bed, bed.stage("1.1.0", units={"a": "2", "same": "1", "new": "1"}))
    assert "restart kos-a.service kos-new.service" in bed.systemd.calls
    assert "stop kos-gone.service" in bed.systemd.calls
    written = record.read_trial(bed.paths.trial)
    assert written is not None
    assert written.restart == ("kos-a.service", "kos-gone.service")
    assert written.stop == ("kos-new.service",)


def test_a_unit_that_does_not_run_is_started_though_it_did_not_change(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0", units={"a": "1"}))
    bed.systemd.down.add("kos-a.service")
    assert begin(bed, bed.stage("1.1.0", units={"a": "1"}, behavioral=True)).restarted == ("kos-a.service",)


def test_the_slot_a_unit_still_runs_from_is_protected(bed: TrialNode) -> None:
    first = bed.stage("1.0.0", units={"a": "1", "same": "1"})
    install(bed, first)
    second = bed.stage("1.1.0", units={"a": "2", "same": "1"})
    install(bed, second)
    third = bed.stage("1.2.0", units={"a": "3", "same": "1"})
    install(bed, third)
    assert status.protected(bed.node) == {first, second, third}


# Refused by policy.


def test_a_downgrade_without_the_word_is_refused_and_nothing_happens(bed: TrialNode) -> None:
    low, high = bed.stage("1.0.0"), bed.stage("2.0.0")
    install(bed, high)
    with pytest.raises(RefusedError, match=r"1\.0\.0 is lower than 2\.0\.0.*--allow-downgrade"):
        begin(bed, low)
    assert bed.current == high
    assert begin(bed, low, Wish(allow_downgrade=True)).how == "switch"


def test_a_breaking_release_needs_its_word(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    with pytest.raises(RefusedError, match=r"--accept-risk: the port moves"):
        begin(bed, bed.stage("1.1.0", breaking=["the port moves"]))
    begin(bed, bed.stage("1.1.0", breaking=["the port moves"]), Wish(accept_risk=True))


@pytest.mark.parametrize(
    ("manifest", "key"),
    [
        ({"from": {"allow": [">=1.5.0 <2.0.0"]}}, "from"),
        ({"from": {"barriers": ["1.5.0"]}}, "from"),
        ({"compat": {"os": ["fedora-43"]}}, "compat.os"),
        ({"compat": {"needs": {"python": "3.12"}}}, "compat.needs.python"),
        ({"compat": {"needs": {"systemd": "300"}}}, "compat.needs.systemd"),
        ({"compat": {"conflicts": ["systemctl"]}}, "compat.conflicts"),
        ({"sync_risk": "high"}, "accept_risk"),
    ],
)
def test_what_the_manifest_asks_for_is_held(bed: TrialNode, manifest: dict[str, Any], key: str) -> None:
    install(bed, bed.stage("1.0.0"))
    with pytest.raises(RefusedError) as caught:
        begin(bed, bed.stage("2.0.0", **manifest))
    assert caught.value.key == key


def test_a_release_of_another_line_is_refused(bed: TrialNode) -> None:
    with pytest.raises(RefusedError, match="not of this node's line kos"):
        begin(bed, bed.stage("1.0.0", name="other"))


def test_a_damaged_slot_is_not_switched_to(bed: TrialNode) -> None:
    root = bed.stage("1.0.0")
    bed.slots.damaged.add(root)
    with pytest.raises(DamagedError):
        begin(bed, root)
    assert bed.current is None


def test_a_release_that_is_not_staged_is_not_found(bed: TrialNode) -> None:
    with pytest.raises(NotFoundError):
        begin(bed, "0" * 64)


def test_the_lease_of_another_stops_an_activation_and_names_the_holder(bed: TrialNode) -> None:
    root = bed.stage("1.0.0")
    bed.node.leases.take("rollout-1", "alice@controller", 600)
    with pytest.raises(RefusedError, match=r"leased to alice@controller .* for another 600 s"):
        begin(bed, root)
    assert trial.begin(bed.node, root, WISH, lease="rollout-1").how == "switch"


# One at a time.


def test_two_at_once_is_one_clear_message(bed: TrialNode) -> None:
    root = bed.stage("1.0.0")
    with Lock(bed.paths.lock).hold("stage"), pytest.raises(BusyError, match=r"process \d+ \(stage\)"):
        begin(bed, root)


def test_a_second_switch_during_a_trial_is_busy_and_says_for_how_long(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    begin(bed, bed.stage("1.1.0"))
    with pytest.raises(BusyError, match=r"ends by itself in 60 s: confirm or revert"):
        begin(bed, bed.stage("1.2.0"))


# Confirmation.


def test_a_wrong_token_confirms_nothing(bed: TrialNode) -> None:
    activation = begin(bed, bed.stage("1.0.0"))
    bake(bed, activation)
    with pytest.raises(RefusedError, match="token"):
        trial.confirm(bed.node, "0" * 64)
    assert status.status(bed.node)["state"] == "TRIAL"


def test_a_session_older_than_the_switch_confirms_nothing(bed: TrialNode) -> None:
    activation = begin(bed, bed.stage("1.0.0"))
    bake(bed, activation)
    bed.session_started = 999.0
    assert activation.token is not None
    with pytest.raises(RefusedError, match="ssh session is older than the switch") as caught:
        trial.confirm(bed.node, activation.token)
    assert caught.value.key == "session"


def test_before_the_bake_is_over_nothing_is_confirmed(bed: TrialNode) -> None:
    activation = begin(bed, bed.stage("1.0.0"))
    bake(bed, activation, seconds=2)
    assert activation.token is not None
    with pytest.raises(RefusedError, match="has to stay so") as caught:
        trial.confirm(bed.node, activation.token)
    assert caught.value.key == "bake_s"


def test_without_a_measurement_nothing_is_confirmed(bed: TrialNode) -> None:
    activation = begin(bed, bed.stage("1.0.0"))
    assert activation.token is not None
    with pytest.raises(UnhealthyError, match="nobody has measured"):
        trial.confirm(bed.node, activation.token)


def test_an_old_measurement_is_none(bed: TrialNode) -> None:
    activation = begin(bed, bed.stage("1.0.0"))
    bake(bed, activation)
    bed.clock.forward(45)
    assert activation.token is not None
    assert status.status(bed.node)["trial"]["health"] == "unknown"
    with pytest.raises(UnhealthyError):
        trial.confirm(bed.node, activation.token)


def test_past_the_deadline_nothing_is_confirmed(bed: TrialNode) -> None:
    activation = begin(bed, bed.stage("1.0.0"))
    bed.clock.forward(56)
    bake(bed, activation)
    assert activation.token is not None
    with pytest.raises(RefusedError, match="deadline is over"):
        trial.confirm(bed.node, activation.token)


def test_a_confirmation_whose_answer_was_lost_may_be_asked_again(bed: TrialNode) -> None:
    activation = begin(bed, bed.stage("1.0.0"))
    bake(bed, activation)
    assert activation.token is not None
    first = trial.confirm(bed.node, activation.token)
    again = trial.confirm(bed.node, activation.token)
    assert again == {**first, "again": True}


def test_confirming_a_trial_that_was_reverted_says_so(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    activation = begin(bed, bed.stage("1.1.0"))
    trial.revert(bed.node)
    assert activation.token is not None
    with pytest.raises(RevertedError, match="the trial is over"):
        trial.confirm(bed.node, activation.token)


# Ends by itself.


def test_an_unhealthy_release_falls_back_is_refused_and_leaves_evidence(
    bed: TrialNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = bed.stage("1.0.0"), bed.stage("1.1.0")
    install(bed, old)
    activation = begin(bed, new)
    assert activation.trial is not None

    def run_and_end(*arguments: object, **options: object) -> None:
        deadman.fall_back(*arguments, **options)  # type: ignore[arg-type]  # passed on as they came
        sys.exit(0)

    monkeypatch.setattr(deadman, "become_fallback", run_and_end)
    bed.systemd.down.add("kos-a.service")
    with pytest.raises(SystemExit):
        watch.watch(bed.node, activation.trial)
    bed.systemd.down.clear()
    ending = recovery.recover(bed.node)
    assert ending is not None
    assert (ending["outcome"], ending["reason"]) == ("reverted-healthy", "health")
    assert "kos-a" in ending["detail"] or "a: active" in ending["detail"]
    assert bed.current == old
    assert (bed.paths.evidence / activation.trial / "index.json").is_file()
    nothing_is_left(bed)
    with pytest.raises(RefusedError, match=r"1\.1\.0 is refused since"):
        begin(bed, new)


@pytest.mark.parametrize("reason", ["deadline", "operator", "interrupted"])
def test_only_bad_health_makes_a_release_refused(bed: TrialNode, reason: str) -> None:
    install(bed, bed.stage("1.0.0"))
    new = bed.stage("1.1.0")
    begin(bed, new)
    deadman.fall_back(bed.paths, reason)
    ending = recovery.recover(bed.node)
    assert ending is not None
    assert ending["reason"] == reason
    assert bed.node.refusals.all() == []
    assert begin(bed, new).how == "switch"


def test_a_revert_to_what_is_not_healthy_says_so(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    begin(bed, bed.stage("1.1.0"))
    bed.systemd.broken = {"kos-a.service"}
    bed.systemd.down.add("kos-a.service")
    with pytest.raises(RevertedUnhealthyError, match="is NOT healthy"):
        trial.revert(bed.node)
    last = status.status(bed.node)["last"]
    assert last["outcome"] == "reverted-unhealthy"


def test_health_after_a_revert_is_given_time_to_settle(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    begin(bed, bed.stage("1.1.0"))
    bed.systemd.broken = {"kos-a.service"}
    bed.systemd.down.add("kos-a.service")
    bed.clock.ticks[:] = [lambda: None, bed.systemd.down.clear]
    ending = trial.revert(bed.node)
    assert ending is not None
    assert ending["outcome"] == "reverted-healthy"


def test_what_systemd_did_not_do_for_fallback_is_done_by_recover(bed: TrialNode) -> None:
    """A restart without a reload would start the units of the release that was just left."""
    install(bed, bed.stage("1.0.0"))
    begin(bed, bed.stage("1.1.0"))
    deadman.fall_back(bed.paths, "deadline")
    bed.paths.outcome.write_text(bed.paths.outcome.read_text().replace("failed=", "failed=daemon-reload"))
    bed.systemd.calls.clear()
    recovery.recover(bed.node)
    reloaded = bed.systemd.calls.index("daemon-reload")
    assert "restart kos-a.service" in bed.systemd.calls[reloaded:]


def test_a_first_install_that_is_taken_back_leaves_no_release(bed: TrialNode) -> None:
    begin(bed, bed.stage("1.0.0"))
    with pytest.raises(RevertedUnhealthyError):
        trial.revert(bed.node)
    assert bed.current is None
    assert status.status(bed.node)["state"] == "EMPTY"
    assert status.status(bed.node)["last"]["outcome"] == "reverted-unknown"


def test_without_a_trial_there_is_nothing_to_revert(bed: TrialNode) -> None:
    assert trial.revert(bed.node) is None


def test_a_unit_that_does_not_start_leaves_the_judgement_to_the_watcher(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    bed.systemd.broken = {"kos-a.service"}
    activation = begin(bed, bed.stage("1.1.0"))
    assert activation.how == "switch"
    assert not measure(bed.node, bed.current).healthy


def test_a_systemd_that_fails_in_the_middle_takes_the_switch_back_at_once(bed: TrialNode) -> None:
    old, new = bed.stage("1.0.0"), bed.stage("1.1.0")
    install(bed, old)
    bed.systemd.refuses = {"daemon-reload"}
    with pytest.raises(RevertedError, match="systemd does not daemon-reload"):
        begin(bed, new)
    assert bed.current == old
    assert status.status(bed.node)["last"]["reason"] == "interrupted"
    nothing_is_left(bed)


# State.


MIGRATION = {"a": {"up": ["bin/up"], "down": ["bin/down"]}}


def _write_state(bed: TrialNode, text: str) -> Path:
    data = bed.paths.state / "a/data"
    data.parent.mkdir(exist_ok=True)
    data.write_text(text)
    data.chmod(0o640)
    return data


def test_a_migration_sees_the_stopped_unit_and_a_revert_brings_the_state_back(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    data = _write_state(bed, "original")
    begin(bed, bed.stage("1.1.0", migrates=MIGRATION))
    assert bed.migrate.ran == [("a", "kos", ("bin/up",))]
    assert data.read_text() == "migrated"
    stopped = bed.systemd.calls.index("stop kos-a.service")
    assert stopped < bed.systemd.calls.index("restart kos-a.service", stopped)
    trial.revert(bed.node)
    assert data.read_text() == "original"
    assert data.stat().st_mode & 0o777 == 0o640
    nothing_is_left(bed)


def test_a_migration_that_fails_is_the_releases_fault(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    data = _write_state(bed, "original")
    bed.migrate.fails = True
    new = bed.stage("1.1.0", migrates=MIGRATION)
    with pytest.raises(RevertedError, match="the migration of a failed"):
        begin(bed, new)
    assert data.read_text() == "original"
    assert [one.root for one in bed.node.refusals.all()] == [new]


def test_the_copy_of_the_state_goes_when_the_release_is_confirmed(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    data = _write_state(bed, "original")
    install(bed, bed.stage("1.1.0", migrates=MIGRATION))
    assert data.read_text() == "migrated"
    nothing_is_left(bed)


def test_a_rollback_runs_the_ways_down_of_the_release_it_leaves(bed: TrialNode) -> None:
    old = bed.stage("1.0.0")
    install(bed, old)
    install(bed, bed.stage("1.1.0", migrates=MIGRATION))
    bed.migrate.ran.clear()
    activation = trial.begin(bed.node, None, WISH)
    assert activation.root == old
    assert bed.migrate.ran == [("a", "kos", ("bin/down",))]


def test_a_migration_without_a_way_down_cannot_be_rolled_back(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    install(bed, bed.stage("1.1.0", migrates={"a": {"up": ["bin/up"]}}))
    with pytest.raises(RefusedError, match="no way down"):
        trial.begin(bed.node, None, WISH)


# Rollback.


def test_previous_needs_no_word_and_is_a_trial_like_any_other(bed: TrialNode) -> None:
    old, new = bed.stage("1.0.0"), bed.stage("1.1.0")
    install(bed, old)
    install(bed, new)
    activation = trial.begin(bed.node, None, WISH)
    assert activation.token is not None
    bake(bed, activation)
    trial.confirm(bed.node, activation.token)
    assert bed.current == old
    assert bed.node.linked(bed.paths.previous) == new


def test_an_older_release_than_previous_needs_the_word(bed: TrialNode) -> None:
    first = bed.stage("1.0.0")
    for root in (first, bed.stage("1.1.0"), bed.stage("1.2.0")):
        install(bed, root)
    with pytest.raises(RefusedError, match="--allow-downgrade"):
        trial.begin(bed.node, first, WISH)
    assert trial.begin(bed.node, first, Wish(allow_downgrade=True)).how == "switch"


def test_without_a_release_before_there_is_nothing_to_roll_back_to(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    with pytest.raises(NotFoundError, match="no release before"):
        trial.begin(bed.node, None, WISH)


def test_a_rollback_during_a_trial_is_busy_also_where_nothing_was_before(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    begin(bed, bed.stage("1.1.0"))
    with pytest.raises(BusyError, match="a trial of"):
        trial.begin(bed.node, None, WISH)


# Recovery.


def test_recover_twice_is_recover_once(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    begin(bed, bed.stage("1.1.0"))
    deadman.fall_back(bed.paths, "deadline")
    assert recovery.recover(bed.node) is not None
    count = len(bed.node.journal.entries())
    assert recovery.recover(bed.node) is None
    assert len(bed.node.journal.entries()) == count


def test_a_trial_whose_watcher_is_gone_is_left_to_its_dead_man(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    new = bed.stage("1.1.0")
    begin(bed, new)
    assert recovery.recover(bed.node) is None
    assert bed.current == new


def test_a_dead_man_that_did_not_come_is_replaced_by_the_next_command(bed: TrialNode) -> None:
    old = bed.stage("1.0.0")
    install(bed, old)
    begin(bed, bed.stage("1.1.0"))
    bed.clock.forward(60 + recovery.DEADMAN_GRACE_S + 1)
    ending = recovery.recover(bed.node)
    assert ending is not None
    assert ending["reason"] == "deadline"
    assert bed.current == old


def test_the_next_command_after_a_boot_ends_the_trial_of_the_boot_before(bed: TrialNode) -> None:
    old, new = bed.stage("1.0.0"), bed.stage("1.1.0")
    install(bed, old)
    bed.clock.identity = "11111111-2222-3333-4444-555555555555:7"
    begin(bed, new)
    booted = bed.with_boot(boot.boot_identity())
    ending = recovery.recover(booted.node)
    assert ending is not None
    assert ending["reason"] == "reboot"
    assert booted.current == old


def test_a_trial_file_that_is_damaged_stops_every_change_and_says_where(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    begin(bed, bed.stage("1.1.0"))
    bed.paths.trial.write_text("format=1\nid=\0\n")
    with pytest.raises(DamagedError, match=r"trial is damaged"):
        recovery.recover(bed.node)


def test_a_revert_that_a_full_disk_could_not_write_down_is_written_down_later(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    activation = begin(bed, bed.stage("1.1.0"))
    deadman.fall_back(bed.paths, "deadline")
    bed.paths.outcome.unlink()
    ending = recovery.recover(bed.node)
    assert ending is not None
    assert (ending["trial"], ending["reason"]) == (activation.trial, "interrupted")


def test_a_revert_on_a_full_disk_keeps_its_reason(bed: TrialNode) -> None:
    """A release that fills the disk and is unhealthy stays refused (S20)."""
    install(bed, bed.stage("1.0.0"))
    new = bed.stage("1.1.0")
    begin(bed, new)
    # A new file cannot be written there; a folder of this name is what stands for that.
    (bed.paths.var / ".outcome.new").mkdir()
    deadman.fall_back(bed.paths, "health", detail="http 500")
    ending = recovery.recover(bed.node)
    assert ending is not None
    assert (ending["reason"], ending["detail"]) == ("health", "http 500")
    assert [one.root for one in bed.node.refusals.all()] == [new]


# Deadline against confirmation: whoever has the lock first decides.


@pytest.mark.parametrize("ending", ["CONFIRMED", "REVERTED"])
def test_whoever_is_killed_at_the_end_of_a_trial_has_a_dead_man_until_nothing_is_left(
    bed: TrialNode, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Which has `kosctl recover` finish it."""
    install(bed, bed.stage("1.0.0"))
    activation = begin(bed, bed.stage("1.1.0"))
    bake(bed, activation)
    disarmed: list[str] = []

    def stop_timer(name: str) -> None:
        nothing_is_left(bed)
        disarmed.append(name)

    monkeypatch.setattr(bed.systemd, "stop_timer", stop_timer)
    assert activation.token is not None
    if ending == "CONFIRMED":
        trial.confirm(bed.node, activation.token)
    else:
        trial.revert(bed.node)
    last = bed.node.journal.last("CONFIRMED", "REVERTED")
    assert last is not None
    assert (last["state"], disarmed) == (ending, [deadman.TIMER])


def test_after_the_confirmation_the_dead_man_finds_nothing(bed: TrialNode) -> None:
    new = bed.stage("1.0.0")
    activation = begin(bed, new)
    bake(bed, activation)
    assert activation.token is not None
    trial.confirm(bed.node, activation.token)
    deadman.fall_back(bed.paths, "deadline", trial=activation.trial or "")
    assert bed.current == new
    assert not bed.paths.outcome.exists()


def test_after_the_dead_man_the_confirmation_finds_a_revert(bed: TrialNode) -> None:
    old = bed.stage("1.0.0")
    install(bed, old)
    activation = begin(bed, bed.stage("1.1.0"))
    bake(bed, activation)
    deadman.fall_back(bed.paths, "deadline", trial=activation.trial or "")
    assert activation.token is not None
    with pytest.raises(RevertedError):
        trial.confirm(bed.node, activation.token)
    assert bed.current == old


# Status and plan.


def test_a_plan_changes_nothing_and_tells_all(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0", units={"a": "1", "gone": "1"}))
    _write_state(bed, "original")
    new = bed.stage("1.1.0", units={"a": "2"}, migrates=MIGRATION, breaking=["the port moves"])
    before = sorted(bed.paths.var.rglob("*"))
    told = trial.plan(bed.node, new, Wish(accept_risk=True))
    assert told.restart == ("kos-a.service",)
    assert told.stop == ("kos-gone.service",)
    assert told.breaking == ("the port moves",)
    assert told.disk["needed"] == len("original")
    assert told.steps == (
        "keep a copy of the state of a",
        f"switch to kos 1.1.0 ({new[:12]}) on trial",
        "stop kos-gone.service",
        "migrate the state of a",
        "restart kos-a.service",
    )
    assert sorted(bed.paths.var.rglob("*")) == before


def test_status_of_a_trial(bed: TrialNode) -> None:
    install(bed, bed.stage("1.0.0"))
    activation = begin(bed, bed.stage("1.1.0"))
    bake(bed, activation)
    shown = status.status(bed.node)["trial"]
    assert shown["id"] == activation.trial
    assert shown["version"] == "1.1.0"
    assert shown["baked"] is True
    assert shown["health"] == "healthy"
    assert 0 < shown["deadline_in_s"] < 60


def test_a_policy_whose_deadline_leaves_no_time_is_refused_with_its_sum(bed: TrialNode) -> None:
    with pytest.raises(Exception, match="deadline_s"):
        trial.begin(bed.node, bed.stage("1.0.0"), WISH, deadline_s=5)


def test_a_report_without_checks_of_the_release_is_measured_all_the_same(bed: TrialNode) -> None:
    root = bed.stage("1.0.0")
    install(bed, root)
    bed.systemd.down.add("kos-a.service")
    report = measure(bed.node, root)
    assert isinstance(report, HealthReport)
    assert not report.healthy


def test_the_watcher_of_an_older_trial_ends_by_itself(bed: TrialNode) -> None:
    begin(bed, bed.stage("1.0.0"))
    assert watch.watch(bed.node, "20200101T000000Z-00000000") == "over"


def test_bytes_fetched_are_told_to_the_end(bed: TrialNode) -> None:
    root = bed.stage("1.0.0")
    bed.node.journal.append("FETCHED", release=root, name="kos", version="1.0.0", bytes=1322)
    install(bed, root)
    assert status.status(bed.node)["last"]["bytes"] == 1322


def test_no_node_is_needed_to_see_that_policy_counts(bed: TrialNode) -> None:
    node = replace(bed.node, policy=replace(bed.node.policy, bake_s=7))
    assert trial.begin(node, bed.stage("1.0.0"), WISH).bake_s == 7


@pytest.mark.parametrize("lock", ["policy", "policy.bake_s"])
def test_a_locked_time_cannot_be_asked_for_otherwise(bed: TrialNode, lock: str) -> None:
    """S03: what the site locked holds for whoever may switch."""
    root = bed.stage("1.0.0")
    locked = replace(bed.node, locks={lock: "/etc/kos/conf.d/10-site.json"})
    with pytest.raises(RefusedError, match=r"policy\.bake_s is locked at 4 by .*10-site\.json") as refused:
        trial.begin(locked, root, WISH, bake_s=0)
    assert refused.value.key == "policy.bake_s"
    assert bed.current is None
    with pytest.raises(RefusedError) if lock == "policy" else contextlib.nullcontext():
        trial.begin(locked, root, WISH, bake_s=4, deadline_s=90)


def test_a_locked_time_may_be_asked_for_as_it_is(bed: TrialNode) -> None:
    locked = replace(bed.node, locks={"policy.bake_s": "10-site.json", "policy.deadline_s": "10-site.json"})
    assert trial.begin(locked, bed.stage("1.0.0"), WISH, bake_s=4, deadline_s=60).bake_s == 4


def test_a_release_that_fills_the_disk_is_found_unhealthy_all_the_same(
    bed: TrialNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(bed, bed.stage("1.0.0"))
    activation = begin(bed, bed.stage("1.1.0"))
    assert activation.trial is not None
    ends: list[str] = []

    def note(*arguments: object, **options: object) -> None:
        ends.append(str(arguments[1]))
        sys.exit(0)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(deadman, "become_fallback", note)
    monkeypatch.setattr(watch, "_write_health", full)
    bed.systemd.down.add("kos-a.service")
    with pytest.raises(SystemExit):
        watch.watch(bed.node, activation.trial)
    assert ends == ["health"]
