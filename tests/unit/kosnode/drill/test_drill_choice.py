"""What a drill leaves to chance, and that its seed decides all of it (M13)."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosnode.backup.config import CLASSES, SourceSpec
from kosnode.drill import choice
from kosnode.drill.choice import Chance
from kosnode.errors import InputError

tables = st.lists(st.sampled_from(CLASSES), min_size=1, max_size=20).map(
    lambda ranks: [SourceSpec(f"s{number}", rank, "tree") for number, rank in enumerate(ranks)]
)


@settings(max_examples=50, deadline=None)
@given(tables, st.text("abc", min_size=1))
def test_all_critical_sources_and_one_of_each_other_class_are_drilled(
    table: list[SourceSpec], seed: str
) -> None:
    drilled, left = choice.sources(table, None, Chance(seed, "n1"))
    ranks = [spec.rank for spec in drilled]
    assert ranks.count("critical") == sum(spec.rank == "critical" for spec in table)
    for rank in ("high", "medium", "low"):
        assert ranks.count(rank) == int(any(spec.rank == rank for spec in table))
    assert "skip" not in ranks
    names = [spec.name for spec in drilled]
    assert sorted(names + left) == sorted(spec.name for spec in table if spec.rank != "skip")
    assert choice.sources(table, None, Chance(seed, "n1")) == (drilled, left)


def test_other_seeds_and_other_nodes_draw_others() -> None:
    table = [SourceSpec(f"s{number}", "high", "tree") for number in range(50)]
    by_seed = {choice.sources(table, None, Chance(str(seed), "n1"))[0][0].name for seed in range(20)}
    by_node = {choice.sources(table, None, Chance("1", f"n{node}"))[0][0].name for node in range(20)}
    assert min(len(by_seed), len(by_node)) > 5


def test_what_is_wanted_is_drilled_and_nothing_that_is_not_backed_up() -> None:
    table = [
        SourceSpec("a", "critical", "tree"),
        SourceSpec("b", "low", "tree"),
        SourceSpec("c", "skip", "tree"),
    ]
    drilled, left = choice.sources(table, ["b"], Chance("1", "n1"))
    assert ([spec.name for spec in drilled], left) == (["b"], ["a"])
    for name in ("c", "d"):
        with pytest.raises(InputError, match=f"no source that is backed up is called {name}"):
            choice.sources(table, [name], Chance("1", "n1"))


@settings(max_examples=50, deadline=None)
@given(st.text("abc"))
def test_a_time_lies_between_the_first_point_and_before_the_last(seed: str) -> None:
    heads = {"from": "2026-01-01T00:00:00Z", "time": "2026-01-01T00:00:05Z"}
    moment = choice.moment(heads, Chance(seed, "n1"), "db")
    assert moment is not None
    first = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert 0 <= (moment - first).total_seconds() < 5


@pytest.mark.parametrize(
    "heads",
    [
        {},
        {"time": "2026-01-01T00:00:00Z"},
        {"from": "x", "time": "y"},
        {"from": 1, "time": 2},
        {"from": "2026-01-01T00:00:00Z", "time": "2026-01-01T00:00:00Z"},
    ],
)
def test_a_snapshot_with_one_point_has_no_time_before_it(heads: dict[str, object]) -> None:
    assert choice.moment(heads, Chance("1", "n1"), "db") is None
