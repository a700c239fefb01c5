"""The page of the demo's second act says what was lost, also when the act ends early."""

from __future__ import annotations

from tools.fleet_losses import Loss
from tools.fleet_page import Told, html


def told() -> Told:
    return Told("node1", {"backup": 4.0, "restore": 8.0}, [Loss("ledger", 30, 19, 11, 2.5)])


def test_every_loss_is_a_row_with_its_number_and_time() -> None:
    assert "<td>ledger</td><td>30</td><td>19</td><td>11</td><td>2.5 s</td>" in html(told())


def test_the_longest_phase_has_the_longest_bar() -> None:
    assert html(told()).index('width:50%"') < html(told()).index('width:100%"')


def test_an_act_that_ended_early_does_not_look_like_one_that_was_drilled() -> None:
    assert "ended before its drill" in html(Told("node1"))
    assert "VERIFIED" not in html(told())


def test_what_a_drill_found_cannot_become_markup() -> None:
    done = told()
    done.drill = {
        "outcome": "FAILED",
        "controls": [{"name": "cut-ledger", "source": "<b>", "outcome": "green", "found": "<script>"}],
    }
    done.drill_page = 'drills/"x".html'
    page = html(done)
    assert "Drill: FAILED" in page
    assert "<script>" not in page
    assert "<b>" not in page
    assert 'href="drills/&quot;x&quot;.html"' in page


def test_a_page_needs_no_other_file_and_no_script() -> None:
    assert not any(word in html(told()) for word in ("<script", "src=", "http:", "https:", "<link"))
