# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of a trial: poll over a fresh connection, confirm, or say how it ended.

Knows nothing of Ansible: how a node is asked and how a connection is made anew is handed in.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl

POLL_S = 2.0
# No deadline of kosctl is later; a node that says so must not hold a rollout up.
LONGEST_S = 86_400.0
FIRST_WAIT_S = 10.0
CONFIRM_TRIES = 3
# What a reason of the journal means, where the journal says no more.
WORDS = {
    "deadline": "it was not confirmed in time",
    "reboot": "the node started anew in the middle of the trial",
    "operator": "somebody ended the trial",
    "interrupted": "the switch did not come to its end",
}


class Unreachable(Exception):
    """The node cannot be reached, or kosctl does not answer there; the message says which."""


class Ask(t.Protocol):
    """Asks the node one thing; raises Unreachable."""

    def __call__(
        self, verb: str, options: Mapping[str, t.Any] | None = None, *, secret: bool = False
    ) -> _kosctl.Answer: ...


@dataclass(frozen=True)
class Ending:
    """How a trial ended.

    Args:
        outcome: `confirmed`, `reverted-healthy`, `reverted-unhealthy`, `reverted-unknown`, or `unreachable`.
        reason: why it was not confirmed; empty if it was.
        last: what the node's journal says of the trial; empty if it could not be asked.
        status: the node's state now; None if it could not be asked.
    """

    outcome: str
    reason: str = ""
    last: Mapping[str, t.Any] = field(default_factory=dict)
    status: Mapping[str, t.Any] | None = None


class Trial:
    """A trial that was just begun.

    Args:
        activated: what `activate` answered: `trial`, `token`, `deadline_in_s`.
        ask: asks the node.
        fresh: drops the connection, so that the next question makes a new one.
        lease: of the rollout.
        patience: seconds past the deadline for which a node that cannot be reached is still called.
        say: shows progress.
        clock, sleep: those of the machine by default; others in tests.
    """

    def __init__(
        self,
        activated: Mapping[str, t.Any],
        ask: Ask,
        fresh: Callable[[], None],
        *,
        lease: str | None,
        patience: float,
        say: Callable[[str], None],
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._id = str(activated["trial"])
        self._token = str(activated["token"])
        self._version = activated.get("version")
        self._lease = lease
        self._ask, self._fresh, self._say = ask, fresh, say
        self._clock, self._sleep = clock or time.monotonic, sleep or time.sleep
        self._end = self._clock() + min(float(activated["deadline_in_s"]), LONGEST_S) + patience
        self._refusals: list[str] = []
        self._said = ""

    def finish(self) -> Ending:
        """Bring the trial to its end; takes until the deadline and some patience at most."""
        self._fresh()
        limbo_since: float | None = None
        lost = ""
        while self._clock() < self._end:
            try:
                answer = self._ask("status")
                lost = ""
            except Unreachable as error:
                lost = str(error)
                self._tell("cannot be reached; it falls back by itself unless the link comes back in time")
                self._sleep(POLL_S)
                self._fresh()
                continue
            status = answer.status or answer.result
            ending = self._ended(status)
            if ending:
                return ending
            trial = status.get("trial") or {}
            if trial.get("id") == self._id:
                limbo_since = None
                ending = self._step(trial)
                if ending:
                    return ending
                continue
            # The trial is over, and the node has not yet measured and written down how.
            limbo_since = self._clock() if limbo_since is None else limbo_since
            if self._clock() - limbo_since > FIRST_WAIT_S:
                self._quietly("recover")
                limbo_since = self._clock()
            self._sleep(POLL_S)
        return Ending(
            "unreachable", f"the node could not be asked until well past the deadline: {lost or 'no ending'}"
        )

    def _step(self, trial: Mapping[str, t.Any]) -> Ending | None:
        if not trial.get("baked") or trial.get("health") != "healthy":
            left = float(trial.get("bake_left_s") or 0)
            self._tell(f"trial of {self._version}: {trial.get('health')}, {left:.0f} s to bake")
            self._sleep(min(max(left, POLL_S), 5.0))
            return None
        try:
            answer = self._ask("confirm", {"token": self._token, "lease": self._lease}, secret=True)
        except Unreachable:
            self._fresh()
            return None
        if answer.ok:
            return Ending("confirmed", last=answer.result, status=answer.status)
        if answer.exit == _kosctl.REFUSED:
            self._refusals.append(answer.message)
            if len(self._refusals) >= CONFIRM_TRIES:
                self._quietly("revert", {"lease": self._lease})
        self._sleep(POLL_S)
        self._fresh()
        return None

    def _ended(self, status: Mapping[str, t.Any]) -> Ending | None:
        last = status.get("last") or {}
        if last.get("trial") != self._id or not last.get("outcome"):
            return None
        if last["outcome"] == "confirmed":
            return Ending("confirmed", last=last, status=status)
        reason = str(last.get("reason") or "")
        words = [word for word in (reason, str(last.get("detail") or WORDS.get(reason, ""))) if word]
        if self._refusals:
            words.append(f"the confirmation was refused: {self._refusals[-1]}")
        return Ending(str(last["outcome"]), ": ".join(words), last, status)

    def _quietly(self, verb: str, options: Mapping[str, t.Any] | None = None) -> None:
        try:
            self._ask(verb, options)
        except Unreachable:
            self._fresh()

    def _tell(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._say(line)
