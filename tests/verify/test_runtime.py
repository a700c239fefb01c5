"""What role runtime makes of a node: a confirmed release, its services, and an agent of the node's own."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import yaml
from testinfra.host import Host

from bed import Bed
from verify import lane, plays, record, snapshot
from verify import node as kos

SERVICES = {"kos-heartbeat.service", "kos-kosd.service", "kos-scribe.service"}


def test_the_second_check_finds_nothing_to_change(last_check: record.Run) -> None:
    assert last_check.changed == []
    assert [one.result["outcome"] for one in last_check.of("kos.fleet.release")] == ["present", "present"]


def test_the_release_was_tried_and_then_confirmed(node: Host, converged: record.Run) -> None:
    status = kos.ask(node, "status")
    assert (status["state"], status["current"]["version"], status["trial"]) == ("CONFIRMED", "1.0.0", None)
    assert status["current"]["root"] == lane.publish(print).releases()["1.0.0"].root
    assert [entry["state"] for entry in kos.journal(node)] == ["FETCHED", "VERIFIED", "TRIAL", "CONFIRMED"]
    (said,) = converged.of("kos.fleet.release", node.check_output("hostname"))
    assert said.result["outcome"] == "confirmed"


def test_nothing_is_left_of_the_trial(node: Host) -> None:
    left = node.run("ls -d /var/lib/kos/trial* /var/lib/kos/outcome /var/lib/kos/state-before/*")
    assert left.stdout == ""
    assert not node.service("kos-deadman.timer").is_running
    assert not node.service("kos-watch.service").is_running


def test_services_run_from_the_slot_by_the_generator(node: Host) -> None:
    assert set(kos.units(node)) >= SERVICES
    path = node.check_output("systemctl show --property FragmentPath --value kos-kosd.service")
    assert path.startswith("/run/systemd/generator")
    assert node.run(f"{kos.KOSCTL} verify --json").rc == 0


def test_the_slot_is_read_only_to_all(node: Host) -> None:
    """C18."""
    root = kos.ask(node, "status")["current"]["root"]
    tree = f"/var/lib/kos/releases/{root}/tree"
    modes = node.check_output(f"find {tree} -type f -printf '%m %U:%G\\n' | sort -u").splitlines()
    assert modes == ["444 0:0", "555 0:0"]
    assert node.check_output(f"find {tree} -type d ! -perm 555") == ""


def test_no_service_has_root_or_a_capability(node: Host) -> None:
    """S22."""
    for service in sorted(SERVICES):
        pid = node.check_output(f"systemctl show --property MainPID --value {service}")
        status = node.file(f"/proc/{pid}/status").content_string
        found = dict(re.findall(r"^(Uid|CapEff|CapAmb|CapBnd|NoNewPrivs):\s*(\S+)", status, re.MULTILINE))
        assert found.pop("Uid") == str(node.user("kos").uid)
        assert found == {**dict.fromkeys(("CapEff", "CapAmb", "CapBnd"), "0" * 16), "NoNewPrivs": "1"}


def test_a_service_writes_to_its_own_state_and_nowhere_else(node: Host) -> None:
    shown = node.check_output(
        "systemctl show --property ReadWritePaths,ProtectSystem,StateDirectory kos-kosd"
    )
    assert "ProtectSystem=strict" in shown
    assert "StateDirectory=kos/state/kosd" in shown
    attempt = "touch /var/lib/kos/state/scribe/x /var/lib/kos/x /etc/kos/x"
    assert node.run(f"runuser -u kos -- sh -c '{attempt}'").rc != 0


def test_the_node_answers_on_loopback_alone(node: Host) -> None:
    health = json.loads(node.check_output("curl --silent --fail http://127.0.0.1:8000/health"))
    assert health["status"] == "ok"
    assert node.socket("tcp://127.0.0.1:8000").is_listening
    assert not node.socket("tcp://0.0.0.0:8000").is_listening


def test_the_nodes_own_agent_runs_and_is_observed(node: Host) -> None:
    """S15."""
    assert node.file("/var/lib/kos/state/scribe/written").exists
    assert "scribe" in node.check_output("curl --silent http://127.0.0.1:8000/v1/units")
    names = {one["unit"] for one in kos.ask(node, "health")["checks"]}
    assert names >= {"kosd", "heartbeat", "sysinfo", "scribe"}


def test_another_agent_touches_no_other(reach: lane.Reach) -> None:
    """S15."""
    before = kos.invocations(reach("node1"))
    agent = {
        **{"id": "second", "version": "1.0.0", "tier": 3},
        "entry": {"command": ["/usr/bin/sleep", "infinity"]},
    }
    scribe = yaml.safe_load((lane.SCENARIOS / "runtime/converge.yml").read_text())[0]["vars"]["runtime_units"]
    folder = lane.SCENARIOS / "runtime"
    scribe[0]["unit"] = str(folder / scribe[0]["unit"])
    scribe[0]["files"][0]["src"] = str(folder / "files/scribe/scribe")
    added = plays.run(
        folder / "converge.yml",
        limit="node1",
        variables={"runtime_units": [*scribe, {"name": "second", "unit": agent}]},
    )
    assert added.rc == 0, added.text
    after = kos.invocations(reach("node1"))
    assert after.pop("kos-second.service")
    assert after == before


def test_two_hosts_of_the_same_inputs_have_equal_manifests(reach: lane.Reach) -> None:
    """S04."""
    hashes = []
    for name in ("node1", "node5"):
        host = reach(name)
        root = kos.ask(host, "status")["current"]["root"]
        listed = "cd /var/lib/kos/releases/{0} && find release.json tree -type f | sort | xargs sha256sum"
        hashes.append((root, host.check_output(listed.format(root))))
    assert hashes[0] == hashes[1]


def test_a_hard_restart_comes_back_by_itself(bed: Bed, reach: lane.Reach) -> None:
    names = ["node1", "node5"]
    with ThreadPoolExecutor() as at_once:
        assert list(at_once.map(bed.restart_hard, names)) == ["running", "running"]
    for host in map(reach, names):
        assert set(kos.units(host)) >= SERVICES
        assert kos.ask(host, "status")["state"] == "CONFIRMED"


def test_no_other_machine_was_touched(bed: Bed) -> None:
    others = ["node2", "node3", "node4"]
    assert (
        snapshot.differences(
            {name: lines for name, lines in lane.as_new().items() if name in others},
            snapshot.take(bed, others),
        )
        == []
    )
