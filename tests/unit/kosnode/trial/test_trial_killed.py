"""kosctl killed at every change it makes to the disk, in every state: the node ends in a whole, good release.

The process under test is a fork of this one, so that the kill is real: no handler and no `finally` runs. It
is killed by an audit hook at its Nth change of a name (rename, link, removal, new file or folder). What comes
next is one of: the next command, the dead-man, or a boot (D02, S20).
"""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.kosnode.trial.trial_node import TrialNode, make_node

from kosnode import boot, deadman, recovery, status, trial, watch
from kosnode.admission import Wish
from kosnode.errors import KosError
from kosnode.trial import Activation

ROUNDS = int(os.environ.get("KOS_ROUNDS", "3"))
SEED = int(os.environ.get("KOS_SEED", str(random.SystemRandom().randrange(2**32))))
OTHER_BOOT = "11111111-2222-3333-4444-555555555555:7"
MIGRATION = {"a": {"up": ["bin/up"], "down": ["bin/down"]}}
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.symlink", "os.mkdir", "os.truncate"}


def killed_at(place: int, work: Callable[[], None]) -> tuple[bool, int]:
    """Run `work` in a fork that is killed at change number `place`; returns whether it was, and the count.

    A `place` of 0 only counts.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            makes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if event not in _CHANGES and not makes:
                return
            count += 1
            if count == place:
                os.kill(os.getpid(), signal.SIGKILL)

        status_code = 0
        try:
            sys.addaudithook(hook)
            work()
        except KosError:
            status_code = 0
        except BaseException:
            traceback.print_exc()
            status_code = 1
        os.write(writer, str(count).encode())
        os._exit(status_code)
    os.close(writer)
    said = os.read(reader, 64)
    os.close(reader)
    _, ended = os.waitpid(pid, 0)
    if os.WIFSIGNALED(ended):
        assert os.WTERMSIG(ended) == signal.SIGKILL
        return True, place
    assert os.WEXITSTATUS(ended) == 0, "the process under test failed by itself"
    return False, int(said)


def bake(bed: TrialNode, activation: Activation) -> None:
    class Enough(Exception):
        pass

    def stop() -> None:
        raise Enough

    assert activation.trial is not None
    bed.clock.ticks[:] = [*([lambda: None] * 5), stop]
    with pytest.raises(Enough):
        watch.watch(bed.node, activation.trial)
    bed.clock.ticks.clear()


def install(bed: TrialNode, root: str) -> None:
    activation = trial.begin(bed.node, root, Wish())
    bake(bed, activation)
    assert activation.token is not None
    trial.confirm(bed.node, activation.token)


class Scene:
    """A node with 1.0.0 confirmed, state in its unit, and 1.1.0, which migrates it, staged."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *, first: bool, other_boot: bool) -> None:
        self.bed = make_node(root, monkeypatch)
        self.first = first
        self.old: str | None = None
        if not first:
            self.old = self.bed.stage("1.0.0")
            install(self.bed, self.old)
        self.data = self.bed.paths.state / "a/data"
        self.data.parent.mkdir()
        self.data.write_text("original")
        self.new = self.bed.stage("1.1.0", migrates=MIGRATION)
        if other_boot:
            self.bed.clock.identity = OTHER_BOOT

    def activate(self) -> None:
        trial.begin(self.bed.node, self.new, Wish())

    def prepare_confirmation(self) -> Callable[[], None]:
        activation = trial.begin(self.bed.node, self.new, Wish())
        bake(self.bed, activation)
        assert activation.token is not None
        token = activation.token
        return lambda: void(trial.confirm(self.bed.node, token))

    def prepare_recovery(self) -> Callable[[], None]:
        trial.begin(self.bed.node, self.new, Wish())
        deadman.fall_back(self.bed.paths, "health", detail="http 500")
        return lambda: void(recovery.recover(self.bed.node))


def void(value: object) -> None:
    del value


STATES = ("activate", "confirm", "recover")
NEXT = ("command", "dead-man", "boot")


@pytest.mark.parametrize("first", [False, True], ids=["update", "first install"])
@pytest.mark.parametrize("after", NEXT)
@pytest.mark.parametrize("state", STATES)
def test_killed_in_a_state_the_node_ends_in_a_whole_good_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, after: str, first: bool
) -> None:
    def scene(place: int) -> tuple[Scene, Callable[[], None]]:
        made = Scene(tmp_path / str(place), monkeypatch, first=first, other_boot=after == "boot")
        if state == "activate":
            return made, made.activate
        return made, made.prepare_confirmation() if state == "confirm" else made.prepare_recovery()

    _, work = scene(0)
    _, changes = killed_at(0, work)
    choose = random.Random(f"{SEED}-{state}-{after}-{first}")
    for place in sorted(choose.sample(range(1, changes + 1), min(ROUNDS, changes))):
        where = f"KOS_SEED={SEED}: {state} killed at change {place} of {changes}, then {after}"
        made, work = scene(place)
        killed, _ = killed_at(place, work)
        assert killed, where
        bed = continue_after(made, after)
        assert_whole(made, bed, state, where)


def continue_after(made: Scene, after: str) -> TrialNode:
    """Let happen what happens next, and after it the next command."""
    bed = made.bed
    if after == "dead-man":
        deadman.fall_back(bed.paths, "deadline")
    elif after == "boot":
        bed = bed.with_boot(boot.boot_identity())
        deadman.fall_back(bed.paths, "reboot")
    recovery.recover(bed.node)
    return bed


def assert_whole(made: Scene, bed: TrialNode, state: str, where: str) -> None:
    shown = status.status(bed.node)
    names = {path.name for path in bed.paths.var.iterdir()}
    confirmed = bed.node.journal.last("CONFIRMED", "REVERTED")
    ended = None if confirmed is None else (confirmed["state"], confirmed["release"])
    if shown["trial"] is not None:
        # Whole, and journalled: it is left to its dead-man, which ends it as any other.
        assert state == "confirm" or bed.node.journal.last("TRIAL") is not None, where
        assert bed.current == made.new, where
        deadman.fall_back(bed.paths, "deadline")
        recovery.recover(bed.node)
        assert_whole(made, bed, state, where)
        return
    stays = ended == ("CONFIRMED", made.new)
    assert bed.current == (made.new if stays else made.old), where
    assert made.data.read_text() == ("migrated" if stays else "original"), where
    assert not names & {"trial", "trial.json", "trial.health", "trial.confirmed", "outcome"}, where
    assert list(bed.paths.state_before.iterdir()) == [], where
    assert not [name for name in names if name.startswith(".") and name != ".fallback"], where
    # Refused is what was unhealthy, and nothing else.
    refused = [one.root for one in bed.node.refusals.all()]
    assert refused == ([made.new] if state == "recover" else []), where
    # The node takes the next change.
    if not refused and not stays:
        assert trial.begin(bed.node, made.new, Wish()).how == "switch", where


def test_a_kill_before_the_first_change_leaves_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Scene(tmp_path / "node", monkeypatch, first=False, other_boot=False)
    assert killed_at(1, made.activate)[0]
    assert recovery.recover(made.bed.node) is None
    assert made.bed.current == made.old
