"""Whole playbooks against nodes that are files: waves stop, leases hold, only what is good is green."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kos.fleet.plugins.plugin_utils import _lease_record

REPOSITORY = Path(__file__).resolve().parents[3]
NODES = {"n1": "a", "n2": "a", "n3": "b", "n4": "b"}


class Fleet:
    """Four nodes in two zones on 1.0.0.

    Args:
        folder: for their files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = folder / "report"
        for node in NODES:
            self.tell(node)
        zones: dict[str, Any] = {
            f"zone_{zone}": {"hosts": {node: None for node, its in NODES.items() if its == zone}}
            for zone in "ab"
        }
        self.inventory: dict[str, Any] = {"all": {"children": {"nodes": {"children": zones}}}}

    def tell(self, node: str, **how: Any) -> None:
        (self.folder / f"{node}.json").write_text(json.dumps({"current": "1.0.0", **how}))

    def now(self, node: str, key: str = "current") -> Any:
        return json.loads((self.folder / f"{node}.json").read_text()).get(key)

    @property
    def releases(self) -> list[str]:
        return [self.now(node) for node in NODES]

    def asked(self, verb: str) -> list[str]:
        """The nodes that were asked for something, in order."""
        log = (self.folder / "log").read_text().splitlines() if (self.folder / "log").exists() else []
        return [line.split()[0] for line in log if line.split()[1] == verb]

    def play(self, playbook: str, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        (self.folder / "hosts.json").write_text(json.dumps(self.inventory))
        given = {
            "ansible_connection": "told",
            "kos_operator_user": "kosops",
            **{f"{playbook}_{name}": value for name, value in variables.items()},
        }
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build"),
            "ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "connection"),
            "ANSIBLE_CALLBACKS_ENABLED": "kos.fleet.fleet_report",
            "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_HOME": str(self.folder / ".ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "KOS_REPORT_DIR": str(self.report),
            "KOS_TOLD_DIR": str(self.folder),
        }
        name = playbook if playbook.endswith(".yml") else f"kos.fleet.{playbook}"
        command = [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.json", name]
        return subprocess.run(
            [*command, *words, "-e", json.dumps(given)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def patch(self, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        return self.play("patch", *words, **{"bake": 0, "batch": 1, "timeout": 0, **variables})


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_patch_goes_canary_first_then_zone_by_zone_and_gives_the_leases_back(fleet: Fleet) -> None:
    """C20, M09."""
    done = fleet.patch(release="1.1.0")

    assert done.returncode == 0, done.stdout
    assert fleet.asked("activate") == ["n1", "n2", "n3", "n4"]
    assert fleet.releases == ["1.1.0"] * 4
    assert [fleet.now(node, "lease") for node in NODES] == [None] * 4
    (run,) = json.loads((fleet.report / "report.json").read_text())["runs"]
    assert [(trial["node"], trial["wave"], trial["outcome"]) for trial in run["trials"]][:2] == [
        ("n1", "canary", "confirmed"),
        ("n2", "zone a", "confirmed"),
    ]
    assert "index.html" in done.stdout
    assert "t0ken" not in done.stdout


@pytest.mark.parametrize("wrong", [{"failures": -1}, {"bake": "ten"}, {"deadline": "-5"}, {"timeout": 1.5}])
def test_a_number_that_is_none_is_named_before_a_node_is_asked(fleet: Fleet, wrong: dict[str, Any]) -> None:
    done = fleet.patch(release="1.1.0", **wrong)

    assert done.returncode != 0
    (name,) = wrong
    assert f"patch_{name} must be a whole number, 0 or more; it is" in " ".join(done.stdout.split())
    assert not (fleet.folder / "log").exists()


def test_a_canary_that_falls_back_stops_the_rest_and_the_end_is_red(fleet: Fleet) -> None:
    fleet.tell("n1", unhealthy=True)
    done = fleet.patch(release="1.1.0")

    assert done.returncode != 0
    assert fleet.asked("activate") == ["n1"]
    assert fleet.releases == ["1.0.0"] * 4
    assert "is healthy again (reverted-healthy)" in done.stdout
    assert "Not touched: n2, n3, n4" in done.stdout
    assert (fleet.folder / "build/evidence/n1/t1/health.json").is_file()
    assert [fleet.now(node, "lease") for node in NODES] == [None] * 4


def test_a_node_that_takes_the_question_and_never_answers_stops_the_rest(fleet: Fleet) -> None:
    """Its link stands and its disk hangs, or it means no good: no data is not success (C20)."""
    fleet.tell("n1", silent="activate")
    done = fleet.patch(release="1.1.0", lease_ttl=15)

    assert done.returncode != 0
    assert fleet.asked("activate") == ["n1"]
    assert "Not touched: n2, n3, n4" in done.stdout
    assert [fleet.now(node, "lease") for node in NODES] == [None] * 4


def test_a_node_of_the_last_wave_that_would_refuse_stops_it_before_the_first(fleet: Fleet) -> None:
    """Too little disk, or no release for its architecture: known by its plan (C20, D06)."""
    fleet.tell("n4", full=True)
    done = fleet.patch(release="1.1.0")

    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert (
        "n4: 5 bytes of disk are missing for kos 1.1.0; the node runs kos 1.0.0, confirmed. Nothing was"
        in said
    )
    assert sorted(fleet.asked("plan")) == list(NODES)
    assert fleet.asked("stage") == fleet.asked("activate") == []
    assert [fleet.now(node, "lease") for node in NODES] == [None] * 4
    (run,) = json.loads((fleet.report / "report.json").read_text())["runs"]
    assert [(trial["node"], trial["outcome"]) for trial in run["trials"]] == [("n4", "failed")]

    # A failure budget puts up with it, as with one that fails in its wave.
    assert fleet.patch(release="1.1.0", failures=1).returncode != 0
    assert fleet.releases == ["1.1.0", "1.1.0", "1.1.0", "1.0.0"]


@pytest.mark.parametrize("how", [{"dead": True}, {"dies": True}])
def test_a_node_that_cannot_be_reached_stops_the_rest(fleet: Fleet, how: dict[str, bool]) -> None:
    """No data is not success: neither max_fail_percentage nor any_errors_fatal does this."""
    fleet.tell("n2", **how)
    done = fleet.patch(release="1.1.0")

    assert done.returncode != 0
    assert "n2" in done.stdout
    assert "cannot be reached" in done.stdout
    assert set(fleet.asked("activate")) <= {"n1", "n2"}
    assert fleet.releases[2:] == ["1.0.0", "1.0.0"]
    assert [fleet.now(node, "lease") for node in ("n1", "n3", "n4")] == [None] * 3


def test_a_failure_budget_puts_up_with_as_many_and_the_end_is_red_all_the_same(fleet: Fleet) -> None:
    fleet.tell("n2", unhealthy=True)
    done = fleet.patch(release="1.1.0", failures=1)

    assert done.returncode != 0
    assert fleet.releases == ["1.1.0", "1.0.0", "1.1.0", "1.1.0"]
    assert "within its failure budget" in done.stdout


def test_run_again_it_skips_what_is_confirmed(fleet: Fleet) -> None:
    fleet.tell("n3", unhealthy=True)
    assert fleet.patch(release="1.1.0").returncode != 0
    assert fleet.releases == ["1.1.0", "1.1.0", "1.0.0", "1.0.0"]
    fleet.tell("n3")
    (fleet.folder / "log").unlink()

    assert fleet.patch(release="1.1.0").returncode == 0
    assert fleet.asked("confirm") == ["n3", "n4"]


def test_a_pause_file_stops_before_the_next_wave_and_the_rest_is_done_later(fleet: Fleet) -> None:
    pause = fleet.folder / "build/PAUSE"
    pause.parent.mkdir()
    pause.touch()
    done = fleet.patch(release="1.1.0")

    assert done.returncode != 0
    assert "Remove it and run the same command again" in done.stdout
    assert fleet.asked("activate") == []
    pause.unlink()
    assert fleet.patch(release="1.1.0").returncode == 0


def test_another_rollout_that_holds_a_node_stops_this_one_before_it_begins(fleet: Fleet) -> None:
    fleet.tell("n4", lease={"id": "other", "holder": "ada@elsewhere"})
    done = fleet.patch(release="1.1.0")

    assert done.returncode != 0
    assert "the node is leased to ada@elsewhere (lease other)" in done.stdout
    assert "-e patch_lease=other" in done.stdout
    assert fleet.asked("stage") == []
    assert [fleet.now(node, "lease") for node in ("n1", "n2", "n3")] == [None] * 3
    assert fleet.now("n4", "lease")["id"] == "other"


def test_a_lease_that_a_dead_controller_left_can_be_taken_over_by_its_id(fleet: Fleet) -> None:
    for node in NODES:
        fleet.tell(node, lease={"id": "left", "holder": "ada@dead"})
    assert fleet.patch(release="1.1.0", lease="left").returncode == 0
    assert fleet.releases == ["1.1.0"] * 4


def test_the_same_command_takes_up_a_rollout_that_left_a_lease_behind(fleet: Fleet) -> None:
    """A lease that could not be given back does not lock its own controller out."""
    fleet.tell("n3", dies=True)
    assert fleet.patch(release="1.1.0").returncode != 0
    left = fleet.now("n3", "lease")
    assert left is not None
    fleet.tell("n3", lease=left)

    # A rollout of other nodes in between does not forget it.
    assert fleet.patch("--limit", "n1", release="1.1.0").returncode == 0
    again = fleet.patch(release="1.1.0")
    assert again.returncode == 0, again.stdout
    assert fleet.releases == ["1.1.0"] * 4
    assert [fleet.now(node, "lease") for node in NODES] == [None] * 4
    assert not list((fleet.folder / "build").glob("rollout-*"))


def test_a_rollout_of_other_nodes_may_run_at_the_same_time(fleet: Fleet) -> None:
    """M09: two collide only where they share a node."""
    sources = [str(fleet.folder / "hosts.json")]
    _lease_record.begin(fleet.folder / "build", sources, "other", ["n1", "n2"], os.getpid(), write=True)
    done = fleet.patch(release="1.1.0", zone="b")
    assert done.returncode == 0, done.stdout
    assert fleet.releases == ["1.0.0", "1.0.0", "1.1.0", "1.1.0"]

    done = fleet.patch(release="1.1.0")
    assert done.returncode != 0
    assert "a rollout of this controller still runs on n1, n2" in " ".join(done.stdout.split())


def test_check_mode_is_red_where_another_holds_a_node(fleet: Fleet) -> None:
    fleet.tell("n4", lease={"id": "other", "holder": "ada@elsewhere"})
    done = fleet.patch("--check", release="1.1.0")
    assert done.returncode != 0
    assert "leased to ada@elsewhere (lease other)" in done.stdout
    assert "-e patch_lease=other" in done.stdout


def test_two_rollouts_in_one_playbook_are_two(fleet: Fleet) -> None:
    """The second one, of one zone, has its own waves and no node of the first."""
    both = [
        {"import_playbook": "kos.fleet.patch", "vars": {"patch_release": "1.1.0", "patch_bake": 0}},
        {"import_playbook": "kos.fleet.rollback", "vars": {"rollback_zone": "b", "rollback_bake": 0}},
    ]
    (fleet.folder / "both.yml").write_text(json.dumps(both))
    done = fleet.play("both.yml")
    assert done.returncode == 0, done.stdout
    assert fleet.releases == ["1.1.0", "1.1.0", "1.0.0", "1.0.0"]


def test_a_downgrade_without_the_word_is_refused_loudly(fleet: Fleet) -> None:
    for node in NODES:
        fleet.tell(node, current="1.1.0")
    done = fleet.patch(release="1.0.0")
    assert done.returncode != 0
    assert "say allow_downgrade" in done.stdout
    assert fleet.releases == ["1.1.0"] * 4
    assert fleet.patch(release="1.0.0", allow_downgrade=True).returncode == 0


def test_one_zone_is_rolled_back_and_the_other_left(fleet: Fleet) -> None:
    for node in NODES:
        fleet.tell(node, current="1.1.0", previous="1.0.0")
    done = fleet.play("rollback", zone="b", bake=0)
    assert done.returncode == 0, done.stdout
    assert fleet.releases == ["1.1.0", "1.1.0", "1.0.0", "1.0.0"]


def test_a_rollback_run_twice_does_not_lead_forward_again(fleet: Fleet) -> None:
    """One that stopped halfway is finished by the same command."""
    for node in NODES:
        fleet.tell(node, current="1.1.0", previous="1.0.0")
    fleet.tell("n3", current="1.1.0", previous="1.0.0", unhealthy=True)
    assert fleet.play("rollback", bake=0, batch=1, timeout=0).returncode != 0
    assert fleet.releases == ["1.0.0", "1.0.0", "1.1.0", "1.1.0"]
    fleet.tell("n3", current="1.1.0", previous="1.0.0")

    assert fleet.play("rollback", bake=0, batch=1).returncode == 0
    assert fleet.releases == ["1.0.0"] * 4
    (fleet.folder / "log").unlink()
    again = fleet.play("rollback", bake=0)
    assert again.returncode == 0, again.stdout
    assert fleet.releases == ["1.0.0"] * 4
    assert fleet.asked("activate") == fleet.asked("stage") == []


def test_a_limit_is_a_rollout_of_its_own(fleet: Fleet) -> None:
    """D06."""
    assert fleet.patch("--limit", "n3", release="1.1.0").returncode == 0
    assert fleet.releases == ["1.0.0", "1.0.0", "1.1.0", "1.0.0"]
    assert set(fleet.asked("lease")) == {"n3"}


def test_check_mode_shows_the_plan_and_touches_nothing(fleet: Fleet) -> None:
    """D06."""
    done = fleet.patch("--check", "--diff", release="1.1.0")
    assert done.returncode == 0, done.stdout
    assert "+kos 1.1.0" in done.stdout
    assert fleet.asked("stage") == fleet.asked("activate") == []
    assert [fleet.now(node, "lease") for node in NODES] == [None] * 4


def test_a_misspelt_variable_is_refused_before_any_node_is_asked(fleet: Fleet) -> None:
    done = fleet.patch(relaese="1.1.0")
    assert done.returncode != 0
    assert "did you mean patch_release?" in done.stdout
    assert not (fleet.folder / "log").exists()


@pytest.mark.parametrize(
    ("playbook", "variable", "words"),
    [
        ("publish", "tere", "did you mean publish_tree?"),
        ("remove", "flet", "did you mean remove_fleet?"),
        ("status", "zone", "status_zone is not a variable of status; known are status_timeout"),
    ],
)
def test_every_playbook_refuses_a_misspelt_variable_of_its_own(
    fleet: Fleet, playbook: str, variable: str, words: str
) -> None:
    done = fleet.play(playbook, **{variable: "x"})
    assert done.returncode != 0
    assert words in done.stdout
    assert not (fleet.folder / "log").exists()


@pytest.mark.parametrize("playbook", ["patch", "site"])
def test_an_inventory_without_zones_is_refused_before_any_node_is_asked(fleet: Fleet, playbook: str) -> None:
    fleet.inventory = {"all": {"children": {"nodes": {"hosts": dict.fromkeys(NODES)}}}}
    done = fleet.play(playbook)
    assert done.returncode != 0
    assert "the inventory has no zones" in done.stdout
    assert not (fleet.folder / "log").exists()


def test_the_status_of_a_fleet_is_a_table_and_a_silent_node_makes_it_red(fleet: Fleet) -> None:
    good = fleet.play("status")
    assert good.returncode == 0, good.stdout
    assert "CONFIRMED" in good.stdout
    fleet.tell("n2", dead=True)
    done = fleet.play("status")
    assert done.returncode != 0
    assert "UNREACHABLE" in done.stdout
    assert "n2 gave no answer" in done.stdout


@pytest.mark.parametrize("silent", ["status", "doctor"])
def test_the_status_of_a_node_that_never_answers_is_not_waited_for(fleet: Fleet, silent: str) -> None:
    """Its link stands and its disk hangs: the others are shown, and the end is red (C20)."""
    fleet.tell("n2", silent=silent)
    done = fleet.play("status", timeout=15)

    assert done.returncode != 0
    table = [line.split() for line in done.stdout.splitlines() if line.lstrip().startswith("- n")]
    states = {node: state for _dash, node, _zone, state, *_more in table}
    assert states == {"n1": "CONFIRMED", "n2": "NO", "n3": "CONFIRMED", "n4": "CONFIRMED"}
    said = " ".join(done.stdout.split())
    assert "n2 gave no answer: it takes connections, and kosctl said nothing for 15 s (status_" in said
    assert not [node for node in NODES if node != "n2" and f"{node} gave no answer" in said]


@pytest.mark.parametrize("wrong", ["ten", -1, 1.5])
def test_a_time_for_answers_that_is_none_is_named_before_a_node_is_asked(fleet: Fleet, wrong: object) -> None:
    done = fleet.play("status", timeout=wrong)
    assert done.returncode != 0
    assert "status_timeout must be a whole number, 0 or more; it is" in " ".join(done.stdout.split())
    assert not (fleet.folder / "log").exists()


WORD = "Name the fleet to say that you mean it"


@pytest.mark.parametrize(
    ("of_the_nodes", "word"), [({}, ""), ({}, "demo"), ({"bootstrap_fleet": "demo"}, "")]
)
def test_nothing_is_removed_without_the_word(fleet: Fleet, of_the_nodes: dict[str, str], word: str) -> None:
    """Neither where the inventory does not name the fleet, nor from a mirror that is no node."""
    fleet.inventory["all"]["children"]["nodes"]["vars"] = of_the_nodes
    fleet.inventory["all"]["children"]["mirrors"] = {"hosts": {"m1": None}}
    fleet.tell("m1")
    for words in ([], ["--limit", "m1"]):
        done = fleet.play("remove", *words, fleet=word)
        assert done.returncode != 0
        assert WORD in " ".join(done.stdout.split())
        assert not (fleet.folder / "log").exists()


def test_the_word_removes_a_mirror_that_does_not_know_the_fleet(fleet: Fleet) -> None:
    fleet.inventory["all"]["children"]["nodes"]["vars"] = {"bootstrap_fleet": "demo"}
    fleet.inventory["all"]["children"]["mirrors"] = {"hosts": {"m1": None}}
    fleet.tell("m1")
    done = fleet.play("remove", "--tags", "nothing", fleet="demo")
    assert done.returncode == 0, done.stdout
    assert "m1" in done.stdout
    assert fleet.play("remove", "--tags", "nothing", fleet="other").returncode != 0
