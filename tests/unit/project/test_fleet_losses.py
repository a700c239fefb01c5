"""What the demo says of a lost node: to the record, and never less than was lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.fleet_losses import Acknowledged, LossError, of_store, read


def taken(count: int, *, store: str = "sqlite", begins: int = 1) -> list[Acknowledged]:
    """Records of a writer that had an answer each second."""
    return [Acknowledged(store, number, 100.0 + number) for number in range(begins, begins + count)]


def test_what_was_acknowledged_and_did_not_come_back_is_lost() -> None:
    loss = of_store("sqlite", taken(10), range(1, 8))
    assert (loss.acknowledged, loss.kept, loss.lost, loss.seconds) == (10, 7, 3, 3.0)


def test_nothing_is_lost_where_all_came_back() -> None:
    loss = of_store("sqlite", taken(10), range(1, 11))
    assert (loss.lost, loss.seconds) == (0, 0.0)


def test_all_is_lost_where_nothing_came_back() -> None:
    loss = of_store("sqlite", taken(10), [])
    assert (loss.acknowledged, loss.kept, loss.lost, loss.seconds) == (10, 0, 10, 9.0)


def test_a_record_whose_acknowledgement_was_lost_on_the_way_counts_as_kept() -> None:
    loss = of_store("sqlite", taken(3), range(1, 5))
    assert (loss.acknowledged, loss.kept, loss.lost) == (4, 4, 0)


def test_records_of_an_earlier_load_count_without_its_acknowledgements() -> None:
    loss = of_store("sqlite", taken(4, begins=11), range(1, 13))
    assert (loss.acknowledged, loss.kept, loss.lost, loss.seconds) == (14, 12, 2, 2.0)


def test_other_stores_do_not_count() -> None:
    assert of_store("sqlite", [*taken(9, store="ledger"), *taken(2)], [1, 2]).acknowledged == 2


@pytest.mark.parametrize("kept", [[1, 3], [2, 3], [1, 2, 2], [2, 1], [0]])
def test_a_hole_a_double_and_a_stranger_are_no_loss_but_an_error(kept: list[int]) -> None:
    with pytest.raises(LossError, match="sqlite holds record"):
        of_store("sqlite", taken(3), kept)


@given(count=st.integers(0, 50), kept=st.integers(0, 60))
def test_acknowledged_is_kept_and_lost_together(count: int, kept: int) -> None:
    loss = of_store("sqlite", taken(count), range(1, kept + 1))
    assert loss.acknowledged == loss.kept + loss.lost


def test_a_line_that_was_torn_by_the_end_of_the_node_is_no_acknowledgement() -> None:
    lines = ['{"store": "ledger", "n": 1, "time": 5.5}\n', '{"store": "ledger", "n": 2, "ti']
    assert read(lines) == [Acknowledged("ledger", 1, 5.5)]
