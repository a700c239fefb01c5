"""The page of a report: whole, readable, and harmless whatever names are in it."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from unit.kosnode.drill.sample_report import NASTY, report

from kosnode import schema
from kosnode.drill import page, words


class Words(HTMLParser):
    """What a page says, without its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.said = ""
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.said += data


def test_what_is_shown_is_text_whatever_it_holds_and_nothing_is_loaded() -> None:
    schema.check(report(), "drill", where="the report")
    text = page.render(report())
    assert "<script" not in text
    assert "src=" not in text.replace("default-src", "").replace("style-src", "")
    assert "href" not in text
    assert NASTY in Words(text).said


@pytest.mark.parametrize("outcome", ["VERIFIED", "FAILED", "COULD_NOT_TEST"])
def test_the_outcome_is_said_in_words_and_not_in_colour_alone(outcome: str) -> None:
    assert outcome.replace("_", " ") in Words(page.render(report(outcome=outcome))).said


def test_a_drill_that_tested_nothing_has_a_page() -> None:
    assert "Nothing was brought back" in page.render(report(sources=[], controls=[], findings=[], trend=[]))


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (None, "unknown"),
        (0, "0 s"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (60_000, "1 min"),
        (3_661_000, "1 h 1 min"),
        (86_400_000, "1 d"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_times_are_told_in_their_two_largest_units(ms: int | None, said: str) -> None:
    assert words.duration(ms) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 50, "1024.0 TiB")]
)
def test_sizes_are_told_in_the_largest_unit(count: int, said: str) -> None:
    assert words.size(count) == said
