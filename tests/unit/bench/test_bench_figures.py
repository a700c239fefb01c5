"""What the benchmarks report: goals that can be missed, percentiles, rows that stay, pages made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import figures, fleet, page, plot
from bench.figures import Figure, Goal


@pytest.mark.parametrize(
    ("goal", "value", "peer_value", "met"),
    [
        ("at most 0.5 % of the peer", 5, 1000, True),
        ("at most 0.5 % of the peer", 6, 1000, False),
        ("at most 1.3 x of the peer", 130, 100, True),
        ("at most 1.3 x of the peer", 131, 100, False),
        ("at least 0.8 x of the peer", 80, 100, True),
        ("at least 0.8 x of the peer", 79, 100, False),
        ("at most 256 MB", 256, 1000, True),
        ("at most 256 MB", 257, 1000, False),
        ("at most 12 s", 12.1, None, False),
    ],
)
def test_a_figure_meets_its_goal_or_misses_it(
    goal: str, value: float, peer_value: float | None, met: bool
) -> None:
    assert Figure("name", value, "unit", "peer", peer_value, goal).met is met


def test_a_figure_without_a_goal_is_neither_met_nor_missed() -> None:
    assert Figure("name", 1, "s").met is None


@pytest.mark.parametrize("text", ["", "below 5 s", "at most many s", "at most 5"])
def test_words_that_are_no_goal_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a goal"):
        Goal(text)


def test_a_goal_of_a_ratio_without_a_peer_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a peer"):
        _ = Figure("name", 1, "s", goal="at most 1.3 x of the peer").met


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert figures.percentile(values, 50) == 50
    assert figures.percentile(values, 99) == 99
    assert figures.percentile([7.0], 99) == 7.0


def test_a_benchmark_replaces_its_own_rows_and_keeps_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    figures.write([Figure("a", 1, "s"), Figure("b", 2, "s")], "bench --only one", path)
    figures.write([Figure("c", 3, "s")], "bench --only two", path)
    figures.write([Figure("a", 4, "s")], "bench --only one", path)
    assert [(row["name"], row["value"]) for row in figures.read(path)] == [("c", 3), ("a", 4)]


def test_a_row_has_the_keys_that_are_promised(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    figures.write([Figure("a", 1.23456, "s", "peer", 2, "at most 0.8 x of the peer")], "make bench", path)
    assert json.loads(path.read_text()) == [
        {
            "name": "a",
            "value": 1.235,
            "unit": "s",
            "peer": "peer",
            "peer_value": 2,
            "ratio": 0.6173,
            "goal": "at most 0.8 x of the peer",
            "met": True,
            "command": "make bench",
        }
    ]


def test_a_missed_goal_is_seen_in_the_line_and_in_the_picture() -> None:
    missed = Figure("a", 9, "s", "peer", 2, "at most 5 s").row("bench --only switch")
    assert "MISSED" in page.sentence(missed)
    assert plot.MISSED in plot.chart([missed])
    assert plot.MISSED not in plot.chart([Figure("a", 1, "s", "peer", 2, "at most 5 s").row("")])


def test_the_figures_of_the_readme_are_replaced_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Name\n\ntext\n\n## Figures\n\nold\n\n## Last\n\nmore\n")
    for name, value in {
        "README": readme,
        "DOCUMENT": tmp_path / "benchmarks.md",
        "IMAGES": tmp_path,
    }.items():
        monkeypatch.setattr(page, name, value)
    rows = [
        Figure("the switch", 1, "ms", "peer", 2, "at most 5 ms").row("bench.py --only switch"),
        Figure("the other", 1, "ms", "peer", 2).row("bench.py --only switch"),
    ]
    page.write_document(rows)
    once = readme.read_text()
    assert once.startswith("# Name\n\ntext\n\n## Figures\n")
    assert once.endswith("## Last\n\nmore\n")
    assert "old" not in once
    assert "| the switch |" in once
    assert "| the other |" not in once
    assert "| the other |" in (tmp_path / "benchmarks.md").read_text()
    page.write_document(rows)
    assert readme.read_text() == once


def test_a_gap_is_from_the_first_answer_that_is_not_good_to_the_next_that_is() -> None:
    changes = [(0.0, "good"), (1.0, "down"), (2.0, "bad"), (3.5, "good"), (5.0, "bad"), (6.0, "good")]
    assert list(fleet.gaps_in(changes)) == [(1.0, 3.5), (5.0, 6.0)]
    assert list(fleet.gaps_in([(0.0, "good"), (1.0, "down")])) == []
