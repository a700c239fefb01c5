"""Whatever happens to a node in whatever order, it runs a good release or ends in one (S20).

A rule is something that a controller, a person, the power or systemd does. What must hold stands in the
invariants, and after each run the node is brought to rest and looked at once more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from unit.kosnode.trial.trial_node import make_node

from kosnode import boot, deadman, record, recovery, status, trial, watch
from kosnode.admission import Wish
from kosnode.errors import KosError
from kosnode.trial import Activation

ROUNDS = int(os.environ.get("KOS_ROUNDS", "12"))
MIGRATION = {"a": {"up": ["bin/up"], "down": ["bin/down"]}}
VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "2.0.0")


class NodeMachine(RuleBasedStateMachine):
    """A node, its controller and its bad luck."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="kos-machine-"))
        self.patch = pytest.MonkeyPatch()
        self.bed = make_node(self.folder / "node", self.patch)
        self.roots = {version: self._stage(version) for version in VERSIONS}
        self.activation: Activation | None = None
        self.sick: set[str] = set()
        # What a person would say that the node has to run, and the state that goes with it.
        self.good: str | None = None
        self.good_state = "none"
        self.boots = 0

    def teardown(self) -> None:
        try:
            self._rest()
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)

    def _stage(self, version: str) -> str:
        migrates = MIGRATION if version in ("1.2.0", "2.0.0") else None
        return self.bed.stage(version, migrates=migrates)

    @property
    def running_trial(self) -> record.Trial | None:
        return record.read_trial(self.bed.paths.trial)

    @property
    def state(self) -> str:
        data = self.bed.paths.state / "a/data"
        return data.read_text() if data.exists() else "none"

    @rule(version=st.sampled_from(VERSIONS), word=st.booleans())
    def activate(self, version: str, word: bool) -> None:
        """A controller switches, with or without the word for a downgrade."""
        busy = self.running_trial is not None
        before = self.bed.current
        try:
            done = trial.begin(self.bed.node, self.roots[version], Wish(allow_downgrade=word))
        except KosError:
            if busy or self.running_trial is None:
                assert self.bed.current == (before if busy else self.good)
            return
        assert not busy
        if done.trial is not None:
            self.activation = done

    @rule()
    def roll_back(self) -> None:
        """A person goes back."""
        try:
            done = trial.begin(self.bed.node, None, Wish())
        except KosError:
            return
        self.activation = done if done.trial else self.activation

    @precondition(lambda self: self.running_trial is not None)
    @rule(version=st.sampled_from(VERSIONS))
    def fall_sick(self, version: str) -> None:
        """A release turns out to be bad."""
        self.sick.add(self.roots[version])

    @precondition(lambda self: self.running_trial is not None)
    @rule(seconds=st.integers(min_value=1, max_value=10))
    def watch(self, seconds: int) -> None:
        """The watcher measures for some seconds; where the release is bad, it ends the trial."""

        class Enough(Exception):
            pass

        def stop() -> None:
            raise Enough

        def fall_back(*arguments: Any, **options: Any) -> None:
            deadman.fall_back(*arguments, **options)
            raise Enough

        running = self.running_trial
        assert running is not None
        self.bed.systemd.down = {"kos-a.service"} if running.release in self.sick else set()
        self.bed.clock.ticks[:] = [*([lambda: None] * seconds), stop]
        self.patch.setattr(deadman, "become_fallback", fall_back)
        try:
            watch.watch(self.bed.node, running.id)
        except Enough:
            pass
        finally:
            self.bed.clock.ticks.clear()
            self.bed.systemd.down.clear()

    @precondition(lambda self: self.activation is not None)
    @rule(right=st.booleans(), fresh=st.booleans())
    def confirm(self, right: bool, fresh: bool) -> None:
        """A controller confirms, perhaps with a wrong token or over an old session."""
        assert self.activation is not None
        token = self.activation.token if right else "0" * 64
        assert token is not None
        self.bed.session_started = 10**9 if fresh else 0.0
        try:
            trial.confirm(self.bed.node, token)
        except KosError:
            return
        assert right
        self.good, self.good_state = self.activation.root, self.state
        assert self.bed.current == self.good

    @rule()
    def revert(self) -> None:
        """A person ends the trial."""
        try:
            trial.revert(self.bed.node)
        except KosError:
            return

    @rule()
    def dead_man(self) -> None:
        """The deadline is over."""
        self.bed.clock.forward(61)
        deadman.fall_back(self.bed.paths, "deadline")

    @rule()
    def power_cut(self) -> None:
        """The power goes away and comes back."""
        self.boots += 1
        running = self.running_trial
        if running is not None:
            # fallback knows the real boot only, so the trial is made one of another.
            text = self.bed.paths.trial.read_text().replace(
                f"boot={running.boot}", f"boot={'1' * 8}:{self.boots}"
            )
            self.bed.paths.trial.write_text(text)
        deadman.fall_back(self.bed.paths, "reboot")
        self.bed = self.bed.with_boot(boot.boot_identity())

    @rule()
    def recover(self) -> None:
        """Any command comes by."""
        recovery.recover(self.bed.node)

    @invariant()
    def runs_what_is_good_or_on_trial(self) -> None:
        running = self.running_trial
        if running is None:
            assert self.bed.current == self.good
            if not self.bed.paths.outcome.exists():
                assert self.state == self.good_state
        else:
            assert self.bed.current == running.release
            assert running.previous == (self.good or record.NONE)

    @invariant()
    def what_is_needed_is_protected(self) -> None:
        needed = {self.good, self.bed.current} - {None}
        assert needed <= status.protected(self.bed.node)

    @invariant()
    def only_what_was_sick_is_refused(self) -> None:
        assert {one.root for one in self.bed.node.refusals.all()} <= self.sick

    def _rest(self) -> None:
        deadman.fall_back(self.bed.paths, "deadline")
        recovery.recover(self.bed.node)
        names = {path.name for path in self.bed.paths.var.iterdir()}
        assert self.bed.current == self.good
        assert self.state == self.good_state
        assert not names & {"trial", "trial.json", "trial.health", "trial.confirmed", "outcome"}
        assert list(self.bed.paths.state_before.iterdir()) == []


def test_whatever_happens_the_node_ends_in_a_good_release() -> None:
    limits = settings(
        max_examples=ROUNDS,
        stateful_step_count=15,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(NodeMachine, settings=limits)
