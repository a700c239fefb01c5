"""What a task of kos.fleet.release does on a node, and what it says when that fails (S17, S19, S20)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from action_world import ROOTS, Cut, Node, answer, release
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.action import release as module
from ansible_collections.kos.fleet.plugins.plugin_utils._node import KEEPALIVE

OLD = {"state": "CONFIRMED", "current": release("1.0.0"), "trial": None, "last": None}
STAGED = answer(
    result={
        **release("1.1.0"),
        "bytes": {"metadata": 5, "manifest": 6, "archive": 7, "total": 18},
        "how": "patch",
        "mirror": "http://m/",
        "mirrors": [],
    },
    actions=["fetch kos 1.1.0"],
    status=OLD,
)
ACTIVATED = answer(
    result={
        **{
            "trial": "t1",
            "token": "s3cret",
            "deadline_in_s": 60,
            "downtime_s": 1,
            "restarted": ["kos-kosd.service"],
        },
        **{"version": "1.1.0", "root": ROOTS["1.1.0"], "how": "patch"},
    },
    actions=["switch to kos 1.1.0"],
)
BAKED = {"state": "TRIAL", "trial": {"id": "t1", "baked": True, "health": "healthy", "bake_left_s": 0}}
CONFIRMED = answer(result={"outcome": "confirmed", "trial": "t1", "downtime_s": 1}, status={**OLD})
REVERTED = {
    **OLD,
    "state": "REVERTED",
    "last": {"trial": "t1", "outcome": "reverted-healthy", "reason": "health", "detail": "kosd answers 500"},
}


def healthy(**more: Any) -> Node:
    return Node(
        **{
            "stage": STAGED,
            "activate": ACTIVATED,
            "status": answer(result=BAKED),
            "confirm": CONFIRMED,
            **more,
        }
    )


@pytest.fixture
def evidence(tmp_path: Path) -> dict[str, str]:
    return {"evidence_dir": str(tmp_path / "evidence")}


@pytest.mark.usefixtures("instant")
def test_a_release_is_staged_activated_looked_at_and_confirmed(evidence: dict[str, str]) -> None:
    node = healthy()
    result = node.run(module, {"release": "1.1.0", "bake": 5, "lease": "r1", **evidence})

    assert node.verbs == ["stage", "activate", "status", "confirm"]
    assert node.asked[0][1]["lease"] == "r1"
    assert node.asked[1][1] == {"release": ROOTS["1.1.0"], "bake_s": 5, "lease": "r1"}
    assert (result["changed"], result["outcome"], result["release"], result["bytes"]) == (
        True,
        "confirmed",
        "1.1.0",
        18,
    )
    assert result["actions"] == ["fetch kos 1.1.0", "switch to kos 1.1.0", "confirm 1.1.0"]
    assert "restart kos-kosd.service" in result["diff"]["after"]


@pytest.mark.usefixtures("instant")
def test_the_confirmation_comes_over_a_connection_that_was_made_after_the_switch(
    evidence: dict[str, str],
) -> None:
    node = healthy()
    node.run(module, {"release": "1.1.0", **evidence})
    at = dict(node.fresh_at)
    assert at["confirm"] > at["activate"] > at["stage"]
    assert node.connection.options["ssh_extra_args"] == KEEPALIVE


@pytest.mark.usefixtures("instant")
def test_the_token_is_in_no_result_and_in_no_log(evidence: dict[str, str]) -> None:
    node = healthy()
    result = node.run(module, {"release": "1.1.0", **evidence})
    assert "s3cret" not in json.dumps([result, node.said])
    assert node.censored == {"stage": False, "activate": True, "status": False, "confirm": True}


def test_a_node_that_runs_it_already_is_left_as_it_is(evidence: dict[str, str]) -> None:
    here = answer(result={**release("1.0.0"), "how": "present"}, changed=False, status=OLD)
    node = Node(stage=here, activate=answer(result={"how": "present"}, changed=False))
    result = node.run(module, {"release": "1.0.0", **evidence})
    assert (result["changed"], result["outcome"]) == (False, "present")
    assert node.connection.fresh == 0


@pytest.mark.usefixtures("instant")
def test_a_trial_that_reverted_fails_with_reason_evidence_and_what_the_node_runs_now(
    evidence: dict[str, str],
) -> None:
    left = answer(result={"files": {"health.json": "{}", "../../escape": "x", "/etc/x": "x"}})
    node = healthy(
        status=[answer(result=BAKED | {"trial": {"id": "t1"}}), answer(result=REVERTED)], evidence=left
    )
    result = node.run(module, {"release": "1.1.0", **evidence})

    folder = Path(evidence["evidence_dir"]) / "n1/t1"
    assert result["failed"]
    assert (result["outcome"], result["evidence"]) == ("reverted-healthy", str(folder))
    assert result["msg"] == (
        "n1 was not confirmed on 1.1.0: health: kosd answers 500. It went back to 1.0.0 and is healthy again "
        f"(reverted-healthy). Evidence: {folder}."
    )
    assert [path.name for path in Path(evidence["evidence_dir"]).rglob("*") if path.is_file()] == [
        "health.json"
    ]


@pytest.mark.usefixtures("instant")
def test_evidence_that_cannot_be_fetched_does_not_hide_the_failure(evidence: dict[str, str]) -> None:
    result = healthy(status=answer(result=REVERTED), evidence=Cut).run(
        module, {"release": "1.1.0", **evidence}
    )
    assert result["failed"]
    assert "Evidence t1 stays on the node" in result["msg"]


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("trial", ["../../escape", "/ABSOLUTE", ".ssh", ""])
def test_a_node_that_lies_about_its_trial_writes_no_file_of_the_controller(
    trial: str, tmp_path: Path, evidence: dict[str, str]
) -> None:
    said = trial.replace("/ABSOLUTE", str(tmp_path / "escape"))
    activated = {**ACTIVATED, "result": {**ACTIVATED["result"], "trial": said}}
    reverted = {**REVERTED, "last": {**REVERTED["last"], "trial": said}}
    left = answer(result={"files": {"authorized_keys": "ssh-ed25519 AAAA mallory"}})
    node = healthy(activate=activated, status=answer(result=reverted), evidence=left)

    result = node.run(module, {"release": "1.1.0", **evidence})

    assert result["failed"]
    assert "is no id of a trial" in result["msg"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("instant")
def test_evidence_that_cannot_be_kept_does_not_hide_the_failure(evidence: dict[str, str]) -> None:
    left = answer(result={"files": {"a": "x", "a/b": "x", "\ud800": "\ud800"}})
    result = healthy(status=answer(result=REVERTED), evidence=left).run(
        module, {"release": "1.1.0", **evidence}
    )
    assert "kosd answers 500" in result["msg"]
    assert "Its evidence could not be kept here" in result["msg"]


@pytest.mark.usefixtures("instant")
def test_what_a_node_says_does_not_steer_the_terminal(evidence: dict[str, str]) -> None:
    worded = {**REVERTED, "last": {**REVERTED["last"], "detail": "\x1b[2Jall is\rwell\u202e"}}
    result = healthy(status=answer(result=worded), evidence=Cut).run(module, {"release": "1.1.0", **evidence})
    assert "all is\ufffdwell" in result["msg"]
    assert result["msg"].isprintable()
    refused = answer(3, message="no\x1b]0;title\x07")
    assert "\x1b" not in healthy(stage=refused).run(module, {"release": "1.1.0", **evidence})["msg"]


@pytest.mark.usefixtures("instant")
def test_a_node_that_names_a_deadline_in_a_thousand_years_holds_nobody_up(evidence: dict[str, str]) -> None:
    activated = {**ACTIVATED, "result": {**ACTIVATED["result"], "deadline_in_s": 1e300}}
    node = healthy(activate=activated, status=answer(result={**BAKED, "trial": {"id": "t1", "baked": False}}))
    assert node.run(module, {"release": "1.1.0", **evidence})["outcome"] == "unreachable"


@pytest.mark.usefixtures("instant")
def test_a_cut_link_ends_as_unreachable_when_it_stays_cut(evidence: dict[str, str]) -> None:
    node = healthy(status=Cut)
    result = node.run(module, {"release": "1.1.0", "timeout": 10, **evidence})
    assert result["unreachable"]
    assert result["outcome"] == "unreachable"
    assert "falls back by itself" in result["msg"]
    assert "confirm" not in node.verbs


@pytest.mark.usefixtures("instant")
def test_a_node_whose_python_is_gone_is_asked_until_fallback_has_brought_it_back(
    evidence: dict[str, str],
) -> None:
    gone = "sh: 1: /opt/kos/current/bin/kosctl: not found"
    node = healthy(status=[gone, gone, answer(result=REVERTED)], evidence=answer())
    assert node.run(module, {"release": "1.1.0", **evidence})["outcome"] == "reverted-healthy"


@pytest.mark.parametrize("verb", ["stage", "activate"])
def test_a_refusal_is_the_nodes_own_words_and_says_what_it_runs(verb: str, evidence: dict[str, str]) -> None:
    refused = answer(3, message="1.0.0 is older than 1.1.0; say allow_downgrade", key="release", status=OLD)
    node = healthy(**{verb: refused})
    result = node.run(module, {"release": "1.1.0", **evidence})
    assert result["failed"]
    assert "say allow_downgrade; the node runs kos 1.0.0, confirmed." in result["msg"]
    assert result["exit"] == 3


def test_the_words_for_a_downgrade_and_for_risk_are_handed_on(evidence: dict[str, str]) -> None:
    node = healthy(stage=answer(3, message="no"))
    node.run(module, {"release": "1.0.0", "allow_downgrade": True, "accept_risk": True, **evidence})
    assert node.asked[0][1] == {"release": "1.0.0", "allow_downgrade": True, "accept_risk": True}


def test_check_mode_is_the_nodes_own_plan_and_touches_nothing() -> None:
    plan = {
        **release("1.1.0"),
        "steps": ["fetch", "switch"],
        "restart": ["kos-kosd.service"],
        "bytes": {"total": 9},
    }
    node = Node(plan=answer(result=plan, status=OLD))
    result = node.run(module, {"release": "1.1.0"}, check=True)
    assert node.verbs == ["plan"]
    assert (result["changed"], result["plan_by"], result["bytes"]) == (True, "node", 9)
    assert result["actions"] == ["fetch", "switch"]


def test_check_mode_on_a_clean_host_is_what_the_controller_knows_and_says_so() -> None:
    node = Node(plan={"ok": False, "exit": 127})
    node.answers["plan"] = lambda _options: {"exit": 127}
    absent = node.action(module, {"release": "1.1.0"}, check=True)
    absent._low_level_execute_command = lambda *_a, **_k: {"rc": 127, "stdout": "", "stderr": ""}  # type: ignore[method-assign]  # no kosctl
    result = absent.run(None, {"inventory_hostname": "n1"})
    assert (result["changed"], result["plan_by"]) == (True, "controller")
    assert "no kosctl yet" in result["actions"][0]


def test_present_leaves_a_confirmed_node_alone_whatever_it_runs() -> None:
    node = Node(status=answer(result=OLD, changed=False))
    result = node.run(module, {"state": "present", "release": "1.1.0"})
    assert node.verbs == ["status"]
    assert (result["changed"], result["outcome"], result["release"]) == (False, "present", "1.0.0")


@pytest.mark.usefixtures("instant")
def test_present_installs_where_nothing_runs(evidence: dict[str, str]) -> None:
    empty = answer(result={"state": "EMPTY", "current": None, "trial": None}, changed=False)
    node = healthy(status=[empty, answer(result=BAKED)])
    assert node.run(module, {"state": "present", **evidence})["outcome"] == "confirmed"


@pytest.mark.parametrize("key", ["bake", "deadline", "timeout"])
def test_a_negative_time_is_refused_by_name_before_anything_is_asked(key: str) -> None:
    node = Node()
    with pytest.raises(AnsibleActionFail, match=f"{key} must not be negative"):
        node.run(module, {"release": "1.1.0", key: -1})
    assert node.asked == []


def test_a_misspelt_option_is_refused_by_name() -> None:
    with pytest.raises(AnsibleActionFail, match="relaese"):
        Node().run(module, {"relaese": "1.1.0"})


@pytest.mark.parametrize("check", [False, True])
def test_previous_does_not_lead_forward_on_a_node_that_was_rolled_back(check: bool) -> None:
    status = answer(result={**OLD, "previous": release("1.1.0")}, changed=False)
    node = Node(status=status)
    result = node.run(module, {"release": "previous", "allow_downgrade": True}, check=check)
    assert node.verbs == ["status"]
    assert (result["changed"], result["outcome"], result["release"]) == (False, "present", "1.0.0")
    assert "already rolled back to 1.0.0 from 1.1.0; name a version to go elsewhere" in result["msg"]


def test_previous_of_a_prerelease_is_known_by_precedence_not_by_letters() -> None:
    def named(version: str) -> dict[str, str]:
        return {"name": "kos", "version": version}

    assert module._is_older(named("1.9.0"), named("1.10.0"))
    assert module._is_older(named("1.1.0-rc.1"), named("1.1.0"))
    assert not module._is_older(named("1.1.0"), named("1.0.0"))
    assert not module._is_older(named("1.0.0"), {})
    assert not module._is_older(named("1.0.0"), {"name": "other", "version": "2.0.0"})


def test_check_mode_of_a_removal_does_not_hide_that_the_node_could_not_say() -> None:
    node = Node(status=answer(1, message="journal is damaged"))
    result = node.run(module, {"state": "absent", "release": "1.0.0"}, check=True)
    assert result["failed"]
    assert "journal is damaged" in result["msg"]
