"""`fallback` killed at any change it makes, and run again, ends in the same good state."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fault.fallback import killer
from fault.fallback.fallback_node import BAD, GOOD, SHELLS, TRIAL, FallbackNode
from fault.rows import ROUNDS, SEED, Row

Prepare = Callable[[FallbackNode], None]


def _plain(node: FallbackNode) -> None:
    node.write_trial()


def _first(node: FallbackNode) -> None:
    node.write_trial(previous="none")


def _migrated(node: FallbackNode) -> None:
    node.write_trial(migrates=("db", "fresh"))
    node.write_state("db", "migrated", before="original")
    node.write_state("fresh", "made by the migration", before=None)


def _rebooted(node: FallbackNode) -> None:
    node.write_trial(boot="11111111-1111-1111-1111-111111111111:5", migrates=("db",))
    node.write_state("db", "migrated", before="original")


CASES = {"plain": (_plain, "health"), "first": (_first, "health"), "migrated": (_migrated, "health")}
CASES["rebooted"] = (_rebooted, "reboot")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("case", sorted(CASES))
def test_killed_at_any_change_and_run_again_it_ends_the_trial(
    tmp_path: Path, shell: str, case: str, row: Row
) -> None:
    prepare, reason = CASES[case]
    counted = _kill(tmp_path / "whole", shell, prepare, reason, at=0)
    assert counted.status == 0
    choose = random.Random(f"{SEED}-{shell}-{case}")
    places = range(1, counted.changes + 1)
    for at in sorted(choose.sample(places, min(3 * ROUNDS, len(places)))):
        where = f"KOS_SEED={SEED} {shell} {case}, killed at change {at} of {counted.changes}"
        root = tmp_path / str(at)
        killed = _kill(root, shell, prepare, reason, at=at)
        assert killed.status is None, where
        node = _reopen(root, shell)
        _assert_nothing_is_half(node, where)
        again = node.fall_back("deadline")
        assert again.returncode == 0, f"{where}: {again.stderr}"
        _assert_ended(node, case, reason, where)
        row.count()


def _kill(root: Path, shell: str, prepare: Prepare, reason: str, *, at: int) -> killer.Run:
    node = FallbackNode(root, shell)
    prepare(node)
    return killer.run(node.argv(reason), node.env, at=at, log=root / "output")


def _reopen(root: Path, shell: str) -> FallbackNode:
    node = FallbackNode.__new__(FallbackNode)
    node.root, node.shell, node.extra = root, shell, {}
    return node


def _assert_nothing_is_half(node: FallbackNode, where: str) -> None:
    """At every moment `current` is a whole release or (first install) none, and no state is lost."""
    assert node.current in (f"releases/{GOOD}", f"releases/{BAD}", None), where
    outcome = node.var / "outcome"
    if outcome.exists():
        assert node.outcome["id"] == TRIAL, where
    if not (node.var / "trial").exists():
        assert node.outcome["complete"] == "yes", where


def _assert_ended(node: FallbackNode, case: str, reason: str, where: str) -> None:
    assert node.current == (None if case == "first" else f"releases/{GOOD}"), where
    assert not (node.var / "trial").exists(), where
    assert node.outcome["complete"] == "yes", where
    # The reason stays the first one, unless the kill came before anything was written down.
    assert node.outcome["reason"] in (reason, "deadline"), where
    if case in ("migrated", "rebooted"):
        assert node.state("db") == "original", where
        kept = sorted((node.var / "evidence" / TRIAL).glob("state-db*/deep/data"))
        assert [path.read_text() for path in kept] == ["migrated"], where
    if case == "migrated":
        assert node.state("fresh") is None, where


@pytest.mark.parametrize("shell", SHELLS)
def test_the_reason_is_written_down_before_anything_is_done(tmp_path: Path, shell: str) -> None:
    """Killed while it waits for systemd, with all of its children."""
    node = FallbackNode(tmp_path / "node", shell)
    node.write_trial()
    node.extra["FAKE_HANG"] = "stop"
    hanging = subprocess.Popen(
        node.argv("health", "--detail", "http 500"),
        env=node.env,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not node.calls:
        assert hanging.poll() is None
    os.killpg(hanging.pid, signal.SIGKILL)
    hanging.wait()
    node.extra.clear()
    assert node.fall_back("deadline").returncode == 0
    assert (node.outcome["reason"], node.outcome["detail"]) == ("health", "http 500")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_reason_of_the_first_call_stays(tmp_path: Path, shell: str) -> None:
    """A release that was unhealthy stays refused when the deadline has to finish what a killed call began."""
    node = FallbackNode(tmp_path / "node", shell)
    node.write_trial()
    (node.var / "outcome").write_text(f"format=1\nid={TRIAL}\nreason=health\ndetail=http 500\ncomplete=no\n")
    assert node.fall_back("deadline").returncode == 0
    assert (node.outcome["reason"], node.outcome["detail"]) == ("health", "http 500")
