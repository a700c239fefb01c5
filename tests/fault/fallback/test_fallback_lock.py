"""Who holds the lock does not keep `fallback` from its work."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from fault.fallback.fallback_node import BAD, GOOD, SHELLS, FallbackNode

_HOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], "r+")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(1000)
"""


@pytest.fixture(params=SHELLS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> FallbackNode:
    node = FallbackNode(tmp_path / "node", str(request.param))
    node.write_trial()
    # Seconds are what the waiting counts, not what it tests.
    sleep = node.bin / "sleep"
    sleep.unlink(missing_ok=True)
    sleep.write_text("#!/bin/sh\nexit 0\n")
    sleep.chmod(0o755)
    return node


def _hold(node: FallbackNode, name: str, verb: str) -> subprocess.Popen[str]:
    lock = node.root / "run/kos/lock"
    lock.touch()
    argv = [sys.executable, "-c", _HOLDER, str(lock), name]
    holder = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    lock.write_text(f"{holder.pid} {verb}\n")
    return holder


def test_a_kosctl_that_hangs_is_killed(node: FallbackNode) -> None:
    holder = _hold(node, "/opt/kos/current/bin/kosctl", "activate")
    try:
        done = node.fall_back("deadline")
        assert done.returncode == 0, done.stderr
        assert f"killing process {holder.pid} (activate)" in done.stderr
        assert holder.wait(10) == -9
        assert node.current == f"releases/{GOOD}"
    finally:
        holder.kill()
        holder.wait()


def test_another_program_with_that_number_is_not_killed_and_does_not_stop_the_revert(
    node: FallbackNode,
) -> None:
    holder = _hold(node, "an-innocent-program", "activate")
    try:
        done = node.fall_back("deadline")
        assert done.returncode == 0, done.stderr
        assert holder.poll() is None
        assert node.current == f"releases/{GOOD}"
    finally:
        holder.kill()
        holder.wait()


def test_no_other_account_can_take_the_lock_that_fallback_made(node: FallbackNode) -> None:
    assert node.fall_back("deadline").returncode == 0
    assert (node.root / "run/kos/lock").stat().st_mode & 0o777 == 0o600


def test_a_trial_that_was_confirmed_while_fallback_waited_stays(node: FallbackNode) -> None:
    """Deadline against confirmation: who has the lock first decides, and the other finds nothing to do."""
    sleep = node.bin / "sleep"
    trial = node.var / "trial"
    sleep.write_text(
        f'#!/bin/sh\n[ ! -f "{trial}" ] || mv "{trial}" "{trial}.confirmed"\n: >"{node.root}/confirmed"\n'
    )
    with (node.root / "run/kos/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(node.argv("deadline"), env=node.env, stderr=subprocess.PIPE, text=True)
        while not (node.root / "confirmed").exists():
            assert waiting.poll() is None
    _, stderr = waiting.communicate()
    assert waiting.returncode == 0, stderr
    assert node.current == f"releases/{BAD}"
    assert not (node.var / "outcome").exists()


def test_a_run_directory_that_cannot_be_made_does_not_stop_the_revert(node: FallbackNode) -> None:
    run = node.root / "run"
    (run / "kos").rmdir()
    run.rmdir()
    run.write_text("")
    done = node.fall_back("deadline")
    assert done.returncode == 0, done.stderr
    assert node.current == f"releases/{GOOD}"
