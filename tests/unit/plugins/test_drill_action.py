"""A drill: one request to the operator's gate, one line of outcome, a report that is kept."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from action_world import Node, answer
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.action import backup, drill
from kosnode import operate

KEY = "recovery-key-of-node-one"
SIGNER = "ssh-ed25519 " + "A" * 68
OFFSITE = {"url": "rest:http://node2:8000/n1/", "append_only": True}
REPORT: dict[str, Any] = {
    **{"format": 1, "id": "20260131T120000Z-0123abcd", "outcome": "VERIFIED", "node": "n1", "rpo_s": 12},
    "sources": [{"name": "docs"}, {"name": "äpp"}],
    "controls": [{"outcome": "red"}, {"outcome": "red"}],
    "rto": {"total_ms": 3210},
    "findings": [],
}


def told(exit_code: int = 0, **more: Any) -> dict[str, Any]:
    """What kosctl answers."""
    report = {**REPORT, **more}
    raw = json.dumps(report, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    result = {
        **{"report": report, "sha3": hashlib.sha3_256(raw).hexdigest(), "signature": "SIGNED"},
        **{"signer": SIGNER, "files": {"report": "x", "signature": "y"}, "page": "<html>"},
    }
    return answer(exit_code, message="the drill of n1 ended otherwise", result=result)


class Place:
    """The host that is drilled on, and the controller's folder with secrets and reports."""

    def __init__(self, folder: Path, said: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.said = told() if said is None else said
        self.asked: list[tuple[str, bytes]] = []
        self.seen: list[bool] = []
        own = folder / "secrets/n1"
        own.mkdir(parents=True, exist_ok=True)
        for name, text in (("recovery.key", KEY), ("rest-server", "word-of-n1"), ("node.pub", SIGNER)):
            (own / name).write_text(f"{text}\n")
            (own / name).chmod(0o600)

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    @property
    def options(self) -> Any:
        """What was asked, through the gate itself."""
        verb, options = operate.parse(self.asked[0][1])
        assert verb == "drill"
        return options

    def run(self, *, check: bool = False, host: str = "n3", **args: Any) -> dict[str, Any]:
        wish = {
            **{"node": "n1", "seed": "7", "repositories": {"here": {"url": "/srv/b"}, "offsite": OFFSITE}},
            **{"secrets_dir": str(self.folder / "secrets"), "report_dir": str(self.reports)},
            **args,
        }
        made = Node().action(
            drill, {key: value for key, value in wish.items() if value is not None}, check=check
        )
        made._task.delegate_to = host

        def execute(command: str, in_data: bytes | None = None, **_options: Any) -> dict[str, Any]:
            self.asked.append((command, in_data or b""))
            self.seen.append(not made._play_context.no_log)
            return {"rc": self.said["exit"], "stdout": json.dumps(self.said), "stderr": ""}

        made._low_level_execute_command = execute  # type: ignore[method-assign]  # no host here
        result: dict[str, Any] = made.run(None, {"inventory_hostname": "n1"})
        return result


def test_a_drill_is_asked_of_the_gate_with_its_secrets_on_standard_input_and_in_no_log(
    tmp_path: Path,
) -> None:
    """K14, M13."""
    place = Place(tmp_path)
    lines = [{"seq": 1}]
    wish = {"picked": ["n1"], "among": ["n1", "n2"], "sources": ["docs"], "witness_lines": lines}
    result = place.run(time="2026-01-31T12:00:00+01:00", **wish)
    assert place.options == {
        **{"node": "n1", "repository": "offsite", "recovery_key": KEY, "seed": "7"},
        "environment": {"RESTIC_REST_USERNAME": "n1", "RESTIC_REST_PASSWORD": "word-of-n1"},
        **{"picked": ["n1"], "among": ["n1", "n2"], "sources": ["docs"], "lines": lines},
        "time": "2026-01-31T11:00:00Z",
    }
    ((command, _request),) = place.asked
    assert "sudo -n /opt/kos/current/bin/kosctl operate" in command
    assert place.seen == [False]
    for secret in (KEY, "word-of-n1"):
        assert secret not in command
        assert secret not in json.dumps(result)


def test_credentials_go_with_the_kind_of_repository_that_wants_them(tmp_path: Path) -> None:
    place = Place(tmp_path)
    own = {"RESTIC_REST_USERNAME": "u", "RESTIC_REST_PASSWORD": "w"}
    place.run(repositories={"o": {**OFFSITE, "environment": {**own, "AWS_PROFILE": "x"}}})
    assert place.options["environment"] == own
    for url in ("/srv/b", "sftp:backup@host:/b"):
        place.asked.clear()
        place.run(repositories={"o": {"url": url}})
        assert "environment" not in place.options


def test_a_good_drill_is_one_line_and_a_report_that_can_be_checked(tmp_path: Path) -> None:
    """M13."""
    place = Place(tmp_path)
    result = place.run()
    page = place.reports / "n1/20260131T120000Z-0123abcd.html"
    assert (result["failed"], result["changed"], result["outcome"]) == (False, True, "VERIFIED")
    assert result["msg"] == (
        "n1 on n3: VERIFIED: docs, äpp; back in 3.2 s, last record 12 s old; "
        f"2 of 2 damaged copies turned red; {page}"
    )
    assert page.read_text() == "<html>"
    kept = {path.name: path.read_bytes() for path in (place.reports / "n1").iterdir()}
    assert (
        hashlib.sha3_256(kept["20260131T120000Z-0123abcd.json"]).hexdigest() == place.said["result"]["sha3"]
    )
    assert kept["20260131T120000Z-0123abcd.json.sig"] == b"SIGNED"
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert [path.name for path in holders] == ["recovery.key"]


@pytest.mark.parametrize(
    ("outcome", "exit_code", "weight"), [("FAILED", 10, "failed"), ("COULD_NOT_TEST", 15, "untested")]
)
def test_another_outcome_is_red_says_why_and_keeps_the_report(
    tmp_path: Path, outcome: str, exit_code: int, weight: str
) -> None:
    """M13: never skipped as passed."""
    why = [{"text": "docs/plan.txt is missing", "weight": weight}, {"text": "other", "weight": weight}]
    place = Place(tmp_path, told(exit_code, outcome=outcome, findings=why))
    result = place.run()
    assert (result["failed"], result["outcome"]) == (True, outcome)
    assert f"n1 on n3: {outcome}: docs/plan.txt is missing (and 1 more)" in result["msg"]
    assert (place.reports / "n1/20260131T120000Z-0123abcd.json").is_file()


def test_the_word_makes_a_drill_that_could_not_test_no_failure_and_no_other(tmp_path: Path) -> None:
    assert not Place(tmp_path, told(15, outcome="COULD_NOT_TEST")).run(accept_untested=True)["failed"]
    assert Place(tmp_path, told(10, outcome="FAILED")).run(accept_untested=True)["failed"]


def test_a_report_is_not_believed_more_than_the_exit_code(tmp_path: Path) -> None:
    assert Place(tmp_path, told(1)).run()["failed"]


def test_a_host_that_did_not_drill_is_red_with_its_own_words(tmp_path: Path) -> None:
    place = Place(tmp_path, answer(5, message="another drill is running"))
    result = place.run()
    assert result["failed"]
    assert result["msg"] == "another drill is running."
    assert not place.reports.exists()


def test_the_next_drill_says_which_report_came_before(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run()
    place.asked.clear()
    place.run()
    assert place.options["previous"] == place.said["result"]["sha3"]
    place.asked.clear()
    place.run(host="n4")
    assert "previous" not in place.options


def test_a_report_that_is_not_what_its_hash_says_is_not_kept(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.said["result"]["report"]["outcome"] = "FAILED"
    with pytest.raises(AnsibleActionFail, match="its hash is"):
        place.run()
    assert not place.reports.exists()


@pytest.mark.parametrize(
    "broken",
    [
        {"rto": None},
        {"findings": [7], "outcome": "FAILED"},
        {"id": "../../x"},
        {"outcome": "GOOD"},
        {"node": "n2"},
    ],
)
def test_what_is_no_report_is_said_and_not_kept(tmp_path: Path, broken: dict[str, Any]) -> None:
    place = Place(tmp_path, told(**broken))
    with pytest.raises(AnsibleActionFail, match="the report of n3 cannot be kept"):
        place.run()
    assert not place.reports.exists()


def test_words_of_a_host_do_not_steer_a_terminal(tmp_path: Path) -> None:
    """K22."""
    why = [{"text": "docs\x1b[2J\nVERIFIED", "weight": "failed"}]
    said = Place(tmp_path, told(10, outcome="FAILED", findings=why)).run()["msg"]
    assert "FAILED: docs\ufffd[2J VERIFIED;" in said


def test_check_mode_says_what_would_be_drilled_and_asks_nobody(tmp_path: Path) -> None:
    place = Place(tmp_path)
    result = place.run(check=True, sources=["docs"])
    assert result["actions"] == ["drill n1 on n3: docs, from offsite, seed 7"]
    assert place.asked == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"node": "n3"}, "a drill of n3 belongs on another host"),
        ({"seed": "a b"}, "seed has to be letters"),
        ({"scratch": "/srv"}, "scratch"),
        ({"sources": ["-x"]}, "sources has to be names"),
        ({"time": "yesterday"}, "time has to be as 2026-01-31T12:00:00Z"),
        ({"repository": "ofsite"}, "n1 has no ofsite with a url; there is here, offsite"),
        ({"repositories": {}}, "with a url; there is none"),
        ({"repositories": {"s": {"url": "s3:https://h/b"}}}, "needs credentials that can only read"),
    ],
)
def test_bad_input_is_refused_before_the_host_is_asked(
    tmp_path: Path, args: dict[str, Any], words: str
) -> None:
    place = Place(tmp_path)
    with pytest.raises(AnsibleActionFail, match=words):
        place.run(**args)
    assert place.asked == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("recovery.key", r"recovery\.key is not there; role kos\.fleet\.backup makes it"),
        ("rest-server", r"rest-server is not there"),
    ],
)
def test_without_a_secret_of_the_controller_nothing_is_asked(tmp_path: Path, name: str, words: str) -> None:
    place = Place(tmp_path)
    (tmp_path / "secrets/n1" / name).unlink()
    with pytest.raises(AnsibleActionFail, match=words):
        place.run()
    assert place.asked == []


def test_a_witness_is_asked_through_the_gate_for_one_node() -> None:
    made = Node().action(backup, {"verb": "witness", "node": "n1"})
    asked = []

    def execute(command: str, in_data: bytes = b"", **_options: Any) -> dict[str, Any]:
        asked.append(operate.parse(in_data))
        # A line is signed: what a terminal should not have is still in it.
        said = answer(changed=False, result={"lines": [{"seq": 1, "node": "n\u00a01"}]})
        return {"rc": 0, "stdout": json.dumps(said), "stderr": ""}

    made._low_level_execute_command = execute  # type: ignore[method-assign]  # no host here
    result = made.run(None, {"inventory_hostname": "n1"})
    assert (result["changed"], result["lines"]) == (False, [{"seq": 1, "node": "n\u00a01"}])
    assert asked == [("witness read", {"node": "n1"})]


@pytest.mark.parametrize("args", [{"verb": "witness"}, {"verb": "witness", "node": "$(id)"}, {"node": "n1"}])
def test_a_witness_is_asked_for_a_node_and_nothing_else(args: dict[str, str]) -> None:
    with pytest.raises(AnsibleActionFail, match="node"):
        Node().run(backup, args)


def test_secrets_are_read_and_not_made(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run()
    modes = {
        stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").rglob("*") if path.is_file()
    }
    assert modes == {0o600}
    assert len(list((tmp_path / "secrets/n1").iterdir())) == 3
