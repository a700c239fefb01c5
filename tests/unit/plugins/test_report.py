"""The report of a run: every trial a row, every wave a band, one page that needs nothing else."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.kos.fleet.plugins.callback import fleet_report
from ansible_collections.kos.fleet.plugins.plugin_utils import _report


def a_run() -> _report.Run:
    run = _report.Run("patch", 100.0, 160.0)
    run.waves = [{"name": "canary", "hosts": ["n1"]}, {"name": "zone b", "hosts": ["n2"]}]
    run.zones = {"n1": "a", "n2": "b"}
    run.begin("n1", 101.0)
    run.end(
        "n1",
        {"outcome": "confirmed", "release": "1.1.0", "seconds": 20.5, "bytes": 603, "downtime_s": 0.4},
        121.0,
    )
    run.begin("n2", 130.0)
    run.end(
        "n2", {"failed": True, "msg": "<b>500</b>", "outcome": "reverted-healthy", "evidence": "e/n2"}, 150.0
    )
    return run


def test_every_trial_is_a_row_with_its_wave_and_zone() -> None:
    first, second = a_run().as_dict()["trials"]
    assert (first["node"], first["zone"], first["wave"], first["bytes"]) == ("n1", "a", "canary", 603)
    assert (second["outcome"], second["reason"], second["started"]) == (
        "reverted-healthy",
        "<b>500</b>",
        130.0,
    )


def test_a_node_that_said_nothing_is_not_shown_as_a_success() -> None:
    run = _report.Run("patch", 0.0, 1.0)
    run.end("n1", {"unreachable": True}, 1.0)
    run.end("n2", {"failed": True}, 1.0)
    run.end("n3", {}, 1.0)
    assert [trial["outcome"] for trial in run.trials] == ["unreachable", "failed", "unknown"]
    assert 'class="good"' not in _report.html([run.as_dict()]).split("</h2>", 2)[2]


def test_the_page_needs_no_other_file_and_no_script() -> None:
    page = _report.html([a_run().as_dict()])
    assert not re.search(r"<script|<link|src=|url\(|https?:", page)
    assert "prefers-color-scheme: dark" in page


def test_what_a_node_said_cannot_become_markup() -> None:
    page = _report.html([a_run().as_dict()])
    assert "<b>" not in page
    assert "&lt;b&gt;500" in page


def test_the_picture_is_sound_and_has_a_bar_for_each_trial_and_a_band_for_each_wave() -> None:
    page = _report.html([a_run().as_dict()])
    picture = ElementTree.fromstring(re.search(r"<svg.*?</svg>", page, re.S).group())  # type: ignore[union-attr]  # it is there
    classes = [shape.get("class") for shape in picture.iter("rect")]
    assert sorted(classes, key=str) == ["bad", "good", "wave", "wave"]


def test_the_columns_are_those_that_people_ask_for() -> None:
    page = _report.html([a_run().as_dict()])
    assert tuple(re.findall(r"<th>(\w+)</th>", page)) == _report.COLUMNS


def test_other_pages_beside_it_are_linked_by_name() -> None:
    page = _report.html([], ['back"up.html'])
    assert '<a href="back%22up.html">back&quot;up.html</a>' in page
    assert "<a " not in _report.html([])


def test_no_run_is_a_page_too() -> None:
    assert "No run yet" in _report.html([])


def test_a_run_that_found_everything_as_wanted_is_no_news() -> None:
    run = _report.Run("site", 0.0, 1.0)
    run.end("n1", {"outcome": "present"}, 1.0)
    assert not run.eventful
    run.end("n2", {"unreachable": True}, 1.0)
    assert run.eventful


def test_a_run_that_was_killed_while_it_wrote_spoils_no_later_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(release: str) -> None:
        callback = fleet_report.CallbackModule()
        callback.get_option = lambda _name: str(tmp_path)
        callback._display = SimpleNamespace(display=lambda _line: None)
        callback.v2_playbook_on_start(SimpleNamespace(_file_name="patch.yml"))
        callback._run.end("n1", {"outcome": "confirmed", "release": release}, 1.0)
        callback.v2_playbook_on_stats(None)

    end("1.0.0")
    with monkeypatch.context() as killed:

        def half(descriptor: int, _mode: str) -> None:
            os.write(descriptor, b'{"trials": [')
            os.close(descriptor)
            raise KeyboardInterrupt

        killed.setattr(os, "fdopen", half)
        with pytest.raises(KeyboardInterrupt):
            end("1.1.0")
    end("1.2.0")
    runs = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert [run["trials"][0]["release"] for run in runs] == ["1.0.0", "1.2.0"]
