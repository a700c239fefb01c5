"""/health is judged from what was seen, never constant (S06)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from kosd_node import Client, Node

from kosd.daemon import Daemon
from kosd.documents import DocumentError

Look = Callable[[Daemon], None]


def test_a_node_whose_units_all_run_is_well(client: Client) -> None:
    answer = client.get("/health")

    assert answer.status_code == 200
    document = answer.json()
    assert (document["status"], document["reason"], document["version"]) == ("ok", None, "1.1.0")
    assert {check["status"] for check in document["checks"].values()} == {"ok"}


def test_a_failed_unit_of_the_release_turns_the_answer_to_503_and_back(
    node: Node, daemon: Daemon, client: Client, look: Look
) -> None:
    node.systemd.set(
        "kos-heartbeat.service", active="failed", sub="failed", result="exit-code", exit_status=7
    )
    look(daemon)

    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "unit:heartbeat: failed (exit-code, status 7)"

    node.systemd.set("kos-heartbeat.service", active="active", sub="running", result="success")
    look(daemon)
    assert client.get("/health").status_code == 200


def test_a_timer_that_does_not_run_is_failing(node: Node, daemon: Daemon, client: Client, look: Look) -> None:
    node.systemd.set("kos-sysinfo.timer", active="inactive", sub="dead")
    node.systemd.set("kos-sysinfo.service", result="signal")
    look(daemon)

    assert client.get("/health").json()["checks"]["unit:sysinfo"] == {
        "status": "failing",
        "detail": "its timer is inactive",
    }


def test_a_failed_unit_that_the_node_added_degrades_it_only(
    node: Node, daemon: Daemon, client: Client, look: Look
) -> None:
    node.node_units.write_text(json.dumps({"units": {"camera": {"service": "kos-camera.service"}}}))
    node.systemd.set("kos-camera.service", active="failed", sub="failed", result="oom-kill")
    look(daemon)

    answer = client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["reason"] == "unit:camera: failed (oom-kill)"


def test_three_restarts_within_the_window_are_failing_until_the_window_has_passed(
    node: Node, daemon: Daemon, client: Client, look: Look
) -> None:
    for restarts in (1, 2, 3):
        node.pass_time(5)
        node.systemd.set("kos-heartbeat.service", restarts=restarts)
        look(daemon)
    assert client.get("/health").status_code == 503
    assert "flapping" in client.get("/health").json()["reason"]

    node.pass_time(300)
    look(daemon)
    assert client.get("/health").status_code == 200


def test_a_revert_that_starts_a_flapping_unit_anew_ends_its_bad_name(
    node: Node, daemon: Daemon, client: Client, look: Look
) -> None:
    node.systemd.set("kos-heartbeat.service", restarts=4)
    look(daemon)
    assert client.get("/health").status_code == 503

    node.systemd.set("kos-heartbeat.service", restarts=0)
    again = node.daemon()
    look(again)
    assert Client(again).get("/health").status_code == 200


def test_an_old_sample_is_no_data_and_no_data_is_failing(node: Node, client: Client) -> None:
    node.pass_time(31)

    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "observer: last sample is 31.0 s old, more than 30 s"


def test_before_the_first_sample_the_node_is_failing(node: Node) -> None:
    assert Client(node.daemon()).get("/health").status_code == 503


def test_a_systemd_that_does_not_answer_degrades_at_once_and_fails_when_the_sample_is_old(
    node: Node, daemon: Daemon, client: Client, look: Look
) -> None:
    node.systemd.error = "systemctl gave no answer within 4 s"
    look(daemon)
    assert client.get("/health").json()["checks"]["observer"]["status"] == "degraded"

    node.pass_time(31)
    look(daemon)
    assert "systemctl gave no answer" in client.get("/health").json()["reason"]


@pytest.mark.parametrize(
    "content", [None, "{", '{"units": {}}', '{"units": {"UPPER": {"service": "a.service"}}}']
)
def test_a_release_whose_units_are_not_known_is_failing(
    node: Node, daemon: Daemon, client: Client, look: Look, content: str | None
) -> None:
    path = node.current / "units.json"
    path.unlink() if content is None else path.write_text(content)
    look(daemon)

    assert client.get("/health").json()["checks"]["units"]["status"] == "failing"


def test_a_state_directory_that_takes_no_writes_is_failing(
    node: Node, daemon: Daemon, client: Client, look: Look
) -> None:
    gone = node.state.rename(node.base / "moved")
    node.pass_time(31)
    look(daemon)
    assert client.get("/health").json()["checks"]["state"] == {
        "status": "failing",
        "detail": f"{node.state}: takes no writes: No such file or directory",
    }

    gone.rename(node.state)
    look(daemon)
    assert client.get("/health").json()["checks"]["state"]["status"] == "ok"


def test_the_probe_of_the_state_directory_leaves_nothing_behind(
    node: Node, daemon: Daemon, look: Look
) -> None:
    look(daemon)

    assert not [path for path in node.state.iterdir() if path.name.startswith(".")]


def test_a_wrong_configuration_degrades_names_the_key_and_keeps_the_old_one(
    node: Node, daemon: Daemon, client: Client
) -> None:
    known = daemon.events.last_id
    node.write_config({"observe": {"evry_s": 1}})
    daemon.reload()

    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["checks"]["config"] == {
        "status": "degraded",
        "detail": "the last good configuration is in force; "
        f"{node.config_path}: observe.evry_s: unknown key; did you mean every_s?",
    }
    assert daemon.observer.config.every_s == 5
    assert [event.kind for event in daemon.events.since(known)] == ["config.refused"]

    node.write_config({"observe": {"every_s": 1}})
    daemon.reload()
    assert daemon.observer.config.every_s == 1
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/metrics").text.count('kosd_config_reloads_total{result="refused"} 1.0') == 1


def test_a_broken_link_to_the_release_is_told(node: Node, daemon: Daemon, client: Client, look: Look) -> None:
    node.current.unlink()
    look(daemon)

    assert "is no link to a slot" in client.get("/health").json()["checks"]["release"]["detail"]


def test_a_demo_release_fails_after_the_seconds_that_it_asks_for_and_says_why(node: Node, look: Look) -> None:
    (node.tree / "share/kosd/fault.json").write_text('{"fail_health_after_s": 3}')
    daemon = node.daemon()
    look(daemon)
    client = Client(daemon)

    node.pass_time(2.9)
    assert client.get("/health").status_code == 200
    node.pass_time(0.1)
    answer = client.get("/health")
    assert answer.status_code == 503
    assert (
        answer.json()["reason"]
        == "fault: fault injection of a demo release: failing since 3 s after the start"
    )


def test_a_misspelt_fault_is_refused_at_the_start(node: Node) -> None:
    (node.tree / "share/kosd/fault.json").write_text('{"fail_helth_after_s": 3}')

    with pytest.raises(DocumentError, match=r"fault\.json: "):
        node.daemon()
