"""kosctl killed at any call, in every state, loses nothing that was good (D02, S20, C16)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fault.crash import KINDS, Course, Place, course, kill
from fault.fault_fleet import FaultFleet
from fault.fault_node import Answer, FaultNode
from fault.rows import ROUNDS, Row

OLD, NEW, SICK = "1.0.0", "1.1.0", "1.2.0"


@dataclass(frozen=True)
class Case:
    """A verb that is killed.

    Attributes:
        words: of the command line.
        prepare: puts a node into the state in which the verb is run; returns standard input.
        again: runs it again until it has done what it was asked; returns the version that runs then.
        alone: the versions of which one runs well where nobody does anything, once the deadline is over; none
            where it is always run again.
        kinds: of calls that this verb is killed at in each run; over all verbs, each kind there is.
    """

    words: tuple[str, ...]
    prepare: Callable[[FaultNode], bytes | None]
    again: Callable[[FaultNode, bytes | None], str]
    alone: tuple[str, ...]
    kinds: tuple[str, ...]


def _staged(node: FaultNode) -> None:
    node.staged(NEW)


def _patched(node: FaultNode) -> None:
    node.patched(NEW)


def _on_trial(node: FaultNode) -> bytes:
    node.staged(NEW)
    token = str(node.activate(NEW).result["token"])
    node.wait(lambda: bool((node.status()["trial"] or {}).get("baked")), "the trial is baked")
    return token.encode()


def _fallen_back(node: FaultNode) -> None:
    """After `fallback`, which found no kosctl that could measure and write down the end."""
    node.staged(NEW)
    node.activate(NEW)
    node.sh(
        "chmod -x /opt/kos/current/bin/kosctl && /opt/kos/fallback --reason operator; "
        "chmod +x /opt/kos/current/bin/kosctl"
    )


def _damaged(node: FaultNode) -> None:
    node.patched(NEW)
    for version in (OLD, NEW):
        node.flip(version, "share/version")


def _crowded(node: FaultNode) -> None:
    node.prepared("crowded", lambda: (node.must("stage", NEW), node.must("stage", SICK)))


def _stage_again(node: FaultNode, _: bytes | None) -> str:
    node.must("stage", NEW)
    assert node.releases[NEW].root in node.look().whole
    states = [entry["state"] for entry in node.journal() if entry["release"] == node.releases[NEW].root]
    assert states == ["FETCHED", "VERIFIED"], states
    return OLD


def _activate_again(node: FaultNode, _: bytes | None) -> str:
    return _until_confirmed(node, lambda: node.kosctl("activate", NEW))


def _roll_back_again(node: FaultNode, _: bytes | None) -> str:
    return _until_confirmed(node, lambda: node.kosctl("rollback"))


def _until_confirmed(node: FaultNode, begin: Callable[[], Answer]) -> str:
    """Begin a trial and confirm it; one that runs on without anybody who has its token ends first."""
    answer = begin()
    if answer.exit == 5:
        node.deadline_passes()
        node.wait(lambda: not node.has("/var/lib/kos/trial"), "the trial that was left has ended")
        answer = begin()
    assert answer.exit == 0, answer
    done = node.confirm(str(answer.result["token"]))
    assert done.exit == 0, done
    return str(done.result["version"])


def _confirm_again(node: FaultNode, token: bytes | None) -> str:
    assert token is not None
    answer = node.confirm(token.decode())
    assert answer.exit == 0, answer
    return NEW


def _revert_again(node: FaultNode, _: bytes | None) -> str:
    node.must("revert")
    return OLD


def _recover_again(node: FaultNode, _: bytes | None) -> str:
    node.must("recover")
    assert node.status()["last"]["outcome"] == "reverted-healthy"
    return OLD


def _scrub_again(node: FaultNode, _: bytes | None) -> str:
    node.must("scrub")
    return NEW


def _gc_again(node: FaultNode, _: bytes | None) -> str:
    node.must("gc", SICK)
    assert node.releases[SICK].root not in node.look().whole
    return OLD


CASES = {
    "stage": Case(("stage", NEW), FaultNode.reset, _stage_again, (OLD,), ("link", "mkdir", "chmod", "start")),
    "activate": Case(("activate", NEW), _staged, _activate_again, (OLD,), ("symlink", "rename", "sync")),
    "confirm": Case(("confirm", "--token-file", "-"), _on_trial, _confirm_again, (OLD, NEW), ("remove",)),
    "revert": Case(("revert",), _on_trial, _revert_again, (OLD,), ("start", "lock")),
    "recover": Case(("recover",), _fallen_back, _recover_again, (OLD,), ("write in place",)),
    "rollback": Case(("rollback",), _patched, _roll_back_again, (NEW,), ("chown",)),
    "scrub": Case(("scrub",), _damaged, _scrub_again, (), ("sync",)),
    "gc": Case(("gc", SICK), _crowded, _gc_again, (OLD,), ("resize",)),
}
assert {kind for case in CASES.values() for kind in case.kinds} == KINDS.keys(), "each kind is tried"
STATES = {"stage": ("FETCHED", "VERIFIED"), "activate": ("TRIAL",), "confirm": ("CONFIRMED",)}
STATES |= {"recover": ("REVERTED",), "rollback": ("TRIAL",)}


@pytest.fixture(scope="module")
def courses(fleet: FaultFleet) -> Callable[[str], Course]:
    """Gives the course of a verb, which is run once for it."""
    known: dict[str, Course] = {}

    def give(verb: str) -> Course:
        if verb not in known:
            case, node = CASES[verb], fleet.nodes[0]
            known[verb] = course(node, case.words, case.prepare(node))
        return known[verb]

    return give


@pytest.mark.parametrize("verb", CASES)
def test_kosctl_is_killed_at_any_call(
    fleet: FaultFleet, courses: Callable[[str], Course], verb: str, chance: random.Random, row: Row
) -> None:
    case, untried = CASES[verb], courses(verb).mixed(chance)
    print(f"{verb}: {len(untried)} places")
    any_kind = [None] * 3 * (ROUNDS - 1)
    tries = kills = 0
    for kind in (*case.kinds, *any_kind):
        # How often kosctl polls is not always the same, so it may not come to a place: then another is taken.
        for place in [place for place in untried if kind in (None, place.kind)]:
            untried.remove(place)
            again = chance.random() < 0.5 or not case.alone
            tries += 1
            if _kill_and_get_over_it(fleet.nodes[0], verb, place, again, row):
                kills += 1
                break
        else:
            assert kind is None, f"kosctl {verb} came to no call of the kind {kind!r}"
    assert kills >= tries / 2, f"{kills} of {tries} runs were killed"
    fleet.nodes[0].assert_good()


@pytest.mark.parametrize(
    ("verb", "index"), [(verb, index) for verb, states in STATES.items() for index in range(len(states))]
)
def test_kosctl_is_killed_in_every_state_of_the_journal(
    fleet: FaultFleet,
    courses: Callable[[str], Course],
    verb: str,
    index: int,
    chance: random.Random,
    row: Row,
) -> None:
    """The entry is durable, and nothing that follows it has happened."""
    places = courses(verb).states
    assert len(places) == len(STATES[verb]), places
    for again in chance.sample((True, False), min(ROUNDS, 2)):
        _kill_and_get_over_it(fleet.nodes[0], verb, places[index], again, row, state=STATES[verb][index])


def _kill_and_get_over_it(
    node: FaultNode, verb: str, place: Place, again: bool, row: Row, state: str | None = None
) -> bool:
    """Return whether it was killed there."""
    case = CASES[verb]
    where = f"kosctl {verb} killed at {place}, {'run again' if again else 'left alone'}"
    print(where, flush=True)
    stdin = case.prepare(node)
    killed_at = time.monotonic()
    killed = kill(node, case.words, place, stdin)
    if state is not None:
        assert killed, where
        assert node.journal()[-1]["state"] == state, where
    _assert_nothing_good_is_lost(node, where)
    expected = case.alone if killed else (OLD, NEW)
    if again and killed:
        expected = (case.again(node, stdin),)
    else:
        node.deadline_passes()
    version, seconds = node.wait_well(killed_at)
    assert version in expected, f"{where}: {version} runs"
    if killed:
        row.count(seconds)
    return killed


def _assert_nothing_good_is_lost(node: FaultNode, where: str) -> None:
    """At every moment: current and previous are whole releases, whatever is half made beside them."""
    look = node.look()
    whole = set(look.whole) | (set(look.broken) if "scrub" in where else set())
    assert look.current in whole, f"{where}: {look}"
    assert look.previous in whole | {""}, f"{where}: {look}"
