"""Program aws_fleet under the real engine: what an operator sees it do, from the first `up` to `destroy`."""

from __future__ import annotations

from infra.engine.harness import Stack


def test_a_second_up_changes_nothing(fleet: Stack) -> None:
    assert fleet.up().changes() == {}
