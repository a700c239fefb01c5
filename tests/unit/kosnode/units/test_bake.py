"""When a trial is baked, when it has failed, and when nobody knows yet; the clock is passed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from unit_samples import ROUNDS

from kosnode.health import Bake


def bake(**changes: float) -> Bake:
    options = {"bake_s": 10.0, "settle_s": 5.0, "started_s": 100.0, **changes}
    return Bake(failures=3, **options)


def states(subject: Bake, *samples: tuple[float, bool]) -> list[str]:
    return [subject.feed(at, good, "down").state for at, good in samples]


def test_a_release_is_baked_when_it_was_healthy_for_the_whole_bake() -> None:
    subject = bake()

    assert states(subject, (102, True), (107, True), (111.9, True), (112, True)) == [
        *["pending"] * 3,
        "healthy",
    ]
    assert subject.verdict.baked


def test_the_bake_counts_from_the_first_healthy_measurement() -> None:
    subject = bake()
    states(subject, (101, False), (104, True))

    assert subject.feed(110, True).bake_left_s == 4
    assert subject.feed(114, True).state == "healthy"


def test_nothing_counts_against_a_release_while_it_settles() -> None:
    subject = bake()

    assert states(subject, *((100 + n, False) for n in range(5))) == ["pending"] * 5
    assert subject.verdict.reason == "settling: down"


def test_a_release_that_never_gets_healthy_fails_behind_the_time_to_settle() -> None:
    subject = bake()

    assert states(subject, (104, False), (105, False), (106, False), (107, False)) == [
        *["pending"] * 3,
        "unhealthy",
    ]
    assert subject.verdict.reason == "down; 3 bad measurements in a row"


def test_single_bad_measurements_are_tolerated_and_three_in_a_row_are_not() -> None:
    subject = bake(bake_s=60.0)

    mixed = [(101, True), (103, False), (105, False), (107, True), (109, False), (111, False)]
    assert states(subject, *mixed) == ["pending"] * 6
    assert subject.feed(113, False, "down").state == "unhealthy"


def test_there_is_no_grace_after_the_first_healthy_measurement() -> None:
    subject = bake(settle_s=60.0)

    assert states(subject, (101, True), (102, False), (103, False), (104, False))[-1] == "unhealthy"


def test_a_tolerated_failure_does_not_begin_the_bake_anew() -> None:
    subject = bake()

    assert states(subject, (101, True), (105, False), (111, True))[-1] == "healthy"


def test_a_bad_measurement_is_never_the_one_that_ends_the_bake() -> None:
    subject = bake()

    assert states(subject, (101, True), (111, False))[-1] == "pending"


def test_a_restart_begins_the_bake_anew() -> None:
    subject = bake()
    states(subject, (101, True))

    assert subject.feed(105, False, "restarted once", ["a"]).state == "pending"
    assert subject.feed(112, True).state == "pending"
    assert subject.feed(122, True).state == "healthy"


def test_a_service_that_restarts_again_and_again_fails_though_it_runs_in_between() -> None:
    """With a restart every few seconds there are never three bad measurements in a row."""
    subject = bake(bake_s=60.0)
    subject.feed(101, True)
    for at in (104, 110, 116):
        subject.feed(at, False, "a: restarted once", ["a"])
        verdict = subject.feed(at + 2, True)

    assert verdict.state == "unhealthy"
    assert verdict.reason == "a: restarted once; restarts were seen 3 times"


def test_time_in_which_nobody_measured_does_not_count() -> None:
    subject = bake(longest_gap_s=8.0)

    assert states(subject, (101, True), (112, True), (119, True)) == ["pending"] * 3
    assert subject.feed(122, True).state == "healthy"


def test_a_clock_that_goes_back_begins_the_bake_anew() -> None:
    subject = bake()

    assert states(subject, (108, True), (101, True), (110, True)) == ["pending"] * 3
    assert subject.feed(111, True).state == "healthy"


def test_a_baked_release_that_gets_bad_fails_after_all() -> None:
    subject = bake()
    states(subject, (101, True), (111, True))

    assert states(subject, (113, False), (115, False), (117, False)) == ["pending", "pending", "unhealthy"]


@ROUNDS
@given(st.lists(st.tuples(st.floats(0.1, 5), st.sampled_from(["good", "bad", "flap"])), max_size=60))
def test_the_verdict_follows_from_the_rules_whatever_comes(samples: list[tuple[float, str]]) -> None:
    subject, at, history = bake(), 100.0, []
    for step, kind in samples:
        at += step
        verdict = subject.feed(at, kind == "good", "down", ["a"] if kind == "flap" else [])
        history.append((at, kind))
        if verdict.state == "healthy":
            last_flap = max((n for n, (_, k) in enumerate(history) if k == "flap"), default=-1)
            goods = [t for t, k in history[last_flap + 1 :] if k == "good"]
            assert kind == "good"
            assert at - goods[0] >= 10
        if verdict.state == "unhealthy":
            seen = [k for _, k in history]
            assert seen[-3:].count("good") == 0 or seen.count("flap") >= 3
            assert subject.feed(at + 1, True).state == "unhealthy"
            return
