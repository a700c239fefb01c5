"""A node made by hand with 3.59.0 is one of 3.75.0, with its records, all in one directory (K11, K23)."""

from __future__ import annotations

from verify import kairos, lane, plays

DATA = "/srv/kairos/data"


def test_its_records_are_there_and_the_ledger_goes_on_from_them(reach: lane.Reach) -> None:
    node = reach("node2")
    found = kairos.ledger(node, DATA)
    assert found["state"] == "ok"
    assert found["length"] > 4
    for text in ("one", "two", "three"):
        assert node.run(f"grep --quiet '\"{text}\"' {DATA}/storage/blockchain.json").rc == 0


def test_the_new_version_runs_without_root_on_data_that_is_its_own(reach: lane.Reach) -> None:
    node = reach("node2")
    assert '"version":"3.75.0"' in node.check_output("curl --silent http://127.0.0.1:8080/health")
    pid = node.check_output(f"systemctl show --property MainPID --value {kairos.SERVICE}")
    assert node.check_output(f"stat --format=%U /proc/{pid}") == "kairos"
    assert node.check_output(f"find {DATA} ! -user kairos -o ! -type l -perm /077") == ""
    assert node.check_output(f"find {DATA} -name '*.lock' | wc -l") == "1"


def test_code_is_beside_the_data_and_nothing_else_is_left(reach: lane.Reach) -> None:
    node = reach("node2")
    link = node.check_output("readlink /srv/kairos/current")
    assert link.startswith("3.75.0-")
    hidden = node.check_output("ls -A /srv/kairos").split()
    assert [name for name in hidden if name.startswith(".")] == []


def test_a_second_run_changes_nothing(reach: lane.Reach) -> None:
    kairos_invocation = kairos.invocation(reach("node2"))
    again = plays.run(lane.SCENARIOS / "kairoschain/upgrade.yml")
    assert (again.rc, again.said.changed) == (0, [])
    assert kairos.invocation(reach("node2")) == kairos_invocation
