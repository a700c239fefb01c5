"""The controller's half of a trial: confirmed over a fresh connection, or an honest story of how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.kos.fleet.plugins.module_utils._kosctl import Answer
from ansible_collections.kos.fleet.plugins.plugin_utils._trial import Trial, Unreachable

ACTIVATED = {"trial": "t1", "token": "secret", "version": "1.1.0", "deadline_in_s": 60}
BAKED = {"id": "t1", "baked": True, "health": "healthy", "bake_left_s": 0}
REVERTED = {"trial": "t1", "outcome": "reverted-healthy", "reason": "health", "detail": "kosd answers 500"}


class Node:
    """A node whose trial goes as told: each entry of `story` is the status at one question, or a cut link."""

    def __init__(self, *story: Any) -> None:
        self.story = list(story)
        self.now = 0.0
        self.log: list[str] = []
        self.said: list[str] = []
        self.confirms: list[Answer] = []

    def ask(self, verb: str, options: Mapping[str, Any] | None = None, *, secret: bool = False) -> Answer:
        self.log.append(verb)
        if verb == "confirm":
            assert secret
            assert options == {"token": "secret", "lease": "r1"}
            if self.confirms:
                return self.confirms.pop(0)
            return Answer("confirm", True, 0, True, result={"outcome": "confirmed", "downtime_s": 0})
        if verb == "revert":
            assert options == {"lease": "r1"}
        if verb != "status":
            return Answer(verb, True, 0)
        step = self.story.pop(0) if len(self.story) > 1 else self.story[0]
        if step is Unreachable:
            raise Unreachable("no connection: timed out")
        return Answer("status", True, 0, result=step)

    def fresh(self) -> None:
        self.log.append("fresh")

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def trial(self, patience: float = 30) -> Trial:
        return Trial(
            ACTIVATED,
            self.ask,
            self.fresh,
            lease="r1",
            patience=patience,
            say=self.said.append,
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def running(**more: Any) -> dict[str, Any]:
    return {"state": "TRIAL", "trial": {**BAKED, **more}, "last": None}


def test_a_healthy_trial_is_confirmed_over_a_connection_made_after_the_switch() -> None:
    node = Node(running(baked=False, bake_left_s=4), running())
    ending = node.trial().finish()
    assert ending.outcome == "confirmed"
    assert node.log == ["fresh", "status", "status", "confirm"]
    assert node.now >= 4


def test_a_trial_is_not_confirmed_before_it_has_baked_or_while_it_is_not_healthy() -> None:
    node = Node(
        running(baked=False, bake_left_s=9),
        running(health="unhealthy"),
        running(health="unknown"),
        {"trial": None, "last": REVERTED},
    )
    assert node.trial().finish().outcome == "reverted-healthy"
    assert "confirm" not in node.log


def test_a_revert_is_told_with_its_reason() -> None:
    ending = Node({"trial": None, "last": REVERTED}).trial().finish()
    assert (ending.outcome, ending.reason) == ("reverted-healthy", "health: kosd answers 500")


def test_a_link_that_comes_back_in_time_still_confirms() -> None:
    node = Node(Unreachable, Unreachable, running())
    assert node.trial().finish().outcome == "confirmed"
    assert node.log.count("fresh") == 3
    assert any("falls back by itself" in line for line in node.said)


def test_a_link_that_comes_back_too_late_reports_what_the_node_did_by_itself() -> None:
    late = {"trial": "t1", "outcome": "reverted-healthy", "reason": "deadline", "detail": None}
    node = Node(*[Unreachable] * 33, {"trial": None, "last": late})
    ending = node.trial().finish()
    assert (ending.outcome, ending.reason) == ("reverted-healthy", "deadline: it was not confirmed in time")
    assert node.now > ACTIVATED["deadline_in_s"]  # type: ignore[operator]  # it is a number


def test_a_link_that_stays_cut_is_unreachable_not_success() -> None:
    node = Node(Unreachable)
    ending = node.trial(patience=20).finish()
    assert ending.outcome == "unreachable"
    assert "timed out" in ending.reason
    assert 80 <= node.now < 90


def test_a_confirmation_whose_answer_was_lost_is_found_in_the_journal() -> None:
    node = Node({"trial": None, "last": {"trial": "t1", "outcome": "confirmed"}})
    assert node.trial().finish().outcome == "confirmed"


def test_the_last_trial_of_another_time_says_nothing_about_this_one() -> None:
    old = {"trial": "t0", "outcome": "confirmed"}
    node = Node(*[{"trial": None, "last": old}] * 8, {"trial": None, "last": REVERTED})
    assert node.trial().finish().outcome == "reverted-healthy"
    assert "recover" in node.log


def test_a_confirmation_that_is_refused_again_and_again_ends_the_trial_and_says_why() -> None:
    node = Node(
        running(),
        running(),
        running(),
        {"trial": None, "last": {"trial": "t1", "outcome": "reverted-healthy", "reason": "operator"}},
    )
    refusal = {"kind": "refused", "message": "the session is older than the switch", "key": None}
    node.confirms = [Answer("confirm", False, 3, error=refusal)] * 3
    ending = node.trial().finish()
    assert ending.outcome == "reverted-healthy"
    assert "session is older" in ending.reason
    assert node.log.count("revert") == 1


@pytest.mark.parametrize("code", [5, 11])
def test_a_node_that_is_busy_or_not_healthy_just_now_is_asked_again(code: int) -> None:
    node = Node(running())
    node.confirms = [Answer("confirm", False, code, error={"message": "not now"})]
    assert node.trial().finish().outcome == "confirmed"
    assert "revert" not in node.log
