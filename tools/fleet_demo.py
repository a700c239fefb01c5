"""The main job on a local fleet, step by step: publish, install, patch, fall back, roll back, lose a node.

Run by `make fleet` on machines that `tests/bed` has made. Everything is done the way an operator does it,
with the playbooks of the collection; what goes wrong on purpose is done to the machines from outside. A step
that does not end as it should ends the demo red. The second act is `fleet_demo_backup.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "runtime")]

from bed import Bed, BedError  # noqa: E402 - found through the line above
from tools.fleet_demo_backup import BackupDemo  # noqa: E402 - found through the line above
from tools.fleet_stage import DemoError, Folders, Stage, print_table  # noqa: E402 - found through the line above
from tools.release_tree import make_tree  # noqa: E402 - found through the line above

HOLDERS = ("alice", "bob", "carol")
MIRROR_PORT = 8080
POLICY = {"bake_s": 6, "deadline_s": 120, "health_interval_s": 1, "health_failures": 3, "settle_s": 10}
# A longer bake and a near deadline, so that there is a trial to disturb and not long to wait for its end.
DISTURBED = ("-e", "patch_node_bake=15", "-e", "patch_deadline=40")
SICK = {"fail_health_after_s": 2}
COLUMNS = ("node", "zone", "release", "outcome", "seconds", "bytes fetched", "downtime ms")


class Demo(Stage):
    """The first act, one method a step."""

    def run(self) -> None:
        """Tell the whole act.

        Raises:
            DemoError: a step ended in another way than it has to.
        """
        self.tell(
            (
                ("Keys, repository, and release 1.0.0, signed by two of three holders", self.publish_first),
                ("Every node installs it: fetched and verified by the node itself", self.install),
                ("The fleet goes to 1.1.0: canary, bake, then zone by zone", self.patch),
                (
                    "1.2.0 starts and then fails its health check: the canary falls back by itself",
                    self.sick_release,
                ),
                ("1.3.0: the controller is cut off in the middle of a trial", self.cut_link),
                (
                    "1.3.0 again: kosctl is killed and Python moved away in the middle of a trial",
                    self.no_python,
                ),
                ("Zone b is rolled back to 1.0.0", self.rollback),
            )
        )
        self.summary()

    def publish_first(self) -> None:
        """Make holders and their keys, the repository, and the first release."""
        self.folders.keys.mkdir(parents=True, mode=0o700)
        for name in (*HOLDERS, "online"):
            passphrase = self.folders.keys / f"{name}.passphrase"
            passphrase.touch(0o600)
            passphrase.write_text(secrets.token_urlsafe(32) + "\n")
            self.publisher(
                "key", "new", "--out", self.folders.keys / f"{name}.key", "--passphrase-file", passphrase
            )
        self.write_variables()
        self.publish("1.0.0")
        self.expect(self.repository_versions() == ["1.0.0"], "the repository has release 1.0.0 alone")

    def install(self) -> None:
        """Run `site`."""
        self.playbook("site")
        self.expect_fleet({node.name: "1.0.0" for node in self.nodes})

    def patch(self) -> None:
        """Publish 1.1.0 and run `patch`."""
        self.publish("1.1.0")
        self.playbook("patch", "-e", "patch_release=1.1.0")
        self.expect_fleet({node.name: "1.1.0" for node in self.nodes})

    def sick_release(self) -> None:
        """Publish a release that fails its health check; the playbook has to end red."""
        self.publish("1.2.0", fault=SICK)
        canary = self.nodes[0].name
        before = {node.name: self.status(node.name)["last"]["trial"] for node in self.nodes}
        self.playbook("patch", "-e", "patch_release=1.2.0", red=True)
        self.expect_fleet({node.name: "1.1.0" for node in self.nodes})
        last = self.status(canary)["last"]
        self.expect(
            (last["outcome"], last["reason"]) == ("reverted-healthy", "health"),
            f"{canary} fell back because of its health and is healthy again",
        )
        self.expect(
            [refused["version"] for refused in self.status(canary)["refused"]] == ["1.2.0"],
            f"{canary} refuses 1.2.0 from now on",
        )
        after = {node.name: self.status(node.name)["last"]["trial"] for node in self.nodes[1:]}
        self.expect(all(before[name] == trial for name, trial in after.items()), "no other node was touched")
        said = self.last_report()
        evidence = Path(said["evidence"])
        self.expect(
            (said["node"], said["outcome"]) == (canary, "reverted-healthy") and "503" in said["reason"],
            f"the playbook gave the reason: {said['reason'][:70]}…",
        )
        self.expect((evidence / "outcome.json").is_file(), f"and the evidence: {self.shown(evidence)}")

    def cut_link(self) -> None:
        """Cut the link of a node in its trial, and mend it when the node has fallen back."""
        self.publish("1.3.0")
        victim = self.nodes[-1].name
        with self.trial_under_way(victim):
            print(f"   {victim} is in its trial: its link to the controller is cut now", flush=True)
            self.bed.cut(victim)
            self.wait_for_revert(victim)
            self.expect(
                self.version_on_disk(victim) == "1.1.0", f"{victim} fell back to 1.1.0 with nobody's help"
            )
            self.bed.heal(victim)
            print(f"   the link of {victim} is mended", flush=True)
        status = self.status(victim)
        self.expect(status["last"]["reason"] == "deadline", f"{victim} says why: nobody confirmed in time")
        self.expect(not status["refused"], f"{victim} does not refuse 1.3.0 for it")

    def no_python(self) -> None:
        """Kill kosctl and move Python away in a trial; the shell has to do it alone."""
        victim = self.nodes[1].name
        with self.trial_under_way(victim):
            print(f"   {victim} is in its trial: kosctl is killed and Python moved away now", flush=True)
            self.on(
                victim,
                "mkdir /root/python && mv /usr/bin/python3* /root/python/ && pkill -KILL -f '[b]in/kosctl'",
            )
            self.wait_for_revert(victim)
            self.expect(
                self.version_on_disk(victim) == "1.1.0", f"{victim} fell back to 1.1.0 without Python"
            )
            self.on(victim, "mv /root/python/* /usr/bin/ && rmdir /root/python")
            print(f"   Python of {victim} is back", flush=True)
        self.wait(
            lambda: self.healthy(victim), 30, f"{victim} is healthy on 1.1.0, nobody having started anything"
        )
        self.expect(
            "1.3.0" not in [refused["version"] for refused in self.status(victim)["refused"]],
            f"{victim} does not refuse 1.3.0 for it",
        )

    def rollback(self) -> None:
        """Roll one zone back."""
        self.playbook("rollback", "-e", "rollback_zone=b", "-e", "rollback_release=1.0.0")
        self.expect_fleet({node.name: "1.0.0" if node.zone == "b" else "1.1.0" for node in self.nodes})

    def summary(self) -> None:
        """Print the table of all trials, the state of the fleet, and where to look."""
        self.expect(all(self.healthy(node.name) for node in self.nodes), "every node of the fleet is healthy")
        report = json.loads((self.folders.report / "report.json").read_text())
        rows = [trial for run in report["runs"] for trial in run["trials"]]
        print(f"\n━━ What happened  [{time.monotonic() - self.started:.0f} s]\n")
        print_table([COLUMNS, *(trial_cells(trial) for trial in rows)])
        python, inventory = self.shown(Path(sys.executable)), self.shown(self.inventory)
        login = f"{python} tests/bed/bed.py login --name {self.bed.name} {self.nodes[0].name}"
        print(f"""
The fleet is up and healthy: zone a runs 1.1.0, zone b runs 1.0.0.

  report      {self.folders.report / "index.html"}
  evidence    {self.shown(self.folders.evidence)}
  log in      {login}   (then: kosctl status)
  ask all     .venv/bin/ansible-playbook kos.fleet.status -i {inventory}
  remove      make fleet-down
""")

    def last_report(self) -> dict[str, Any]:
        """Return what the newest run's report says of the one node it moved."""
        newest = json.loads((self.folders.report / "report.json").read_text())["runs"][-1]
        self.expect(len(newest["trials"]) == 1, "the report tells of one trial", quiet=True)
        trial: dict[str, Any] = newest["trials"][0]
        return trial

    def write_variables(self) -> None:
        """Write the group variables of the fleet beside the inventory that the bed made."""
        private = self.inventory / ".ssh/id_ed25519"
        login = subprocess.run(
            ["ssh-keygen", "-y", "-f", private], check=True, capture_output=True, text=True
        ).stdout
        keys = self.folders.keys
        variables: dict[str, Any] = {
            "bootstrap_fleet": "local",
            "bootstrap_class": "griot",
            "bootstrap_mirrors": [f"http://{mirror.address}:{MIRROR_PORT}/" for mirror in self.mirrors],
            "bootstrap_trust_root": str(self.folders.repository / "public/metadata/1.root.json"),
            "bootstrap_operator_keys": [login.strip()],
            "bootstrap_policy": POLICY,
            "mirror_source": str(self.folders.repository / "public"),
            "mirror_port": MIRROR_PORT,
            "patch_bake": 2,
            "patch_batch": "100%",
            "patch_evidence_dir": str(self.folders.evidence),
            "patch_pause_file": str(self.folders.root / "PAUSE"),
            "rollback_bake": 1,
            "rollback_batch": "100%",
            "rollback_evidence_dir": str(self.folders.evidence),
            "rollback_pause_file": str(self.folders.root / "PAUSE"),
            "runtime_evidence_dir": str(self.folders.evidence),
            "publish_repository": str(self.folders.repository),
            "publish_root_keys": [str(keys / f"{name}.pub") for name in HOLDERS],
            "publish_root_threshold": 2,
            "publish_releases_keys": [str(keys / f"{name}.pub") for name in HOLDERS],
            "publish_releases_threshold": 2,
            "publish_online_key": str(keys / "online.key"),
            "publish_online_passphrase_file": str(keys / "online.passphrase"),
            "publish_sign_with": [
                {"key": str(keys / f"{name}.key"), "passphrase_file": str(keys / f"{name}.passphrase")}
                for name in HOLDERS[:2]
            ],
        }
        folder = self.inventory / "group_vars/all"
        folder.mkdir(parents=True, exist_ok=True)
        text = "# Written by make fleet, which makes it anew.\n" + yaml.safe_dump(variables, sort_keys=True)
        (folder / "fleet.yml").write_text(text, encoding="utf-8")

    def publish(self, version: str, fault: dict[str, int] | None = None) -> None:
        """Assemble a release of the reference runtime and run `publish`."""
        tree = make_tree(self.folders.root / f"trees/{version}", version, fault=fault)
        self.playbook("publish", "-e", f"publish_tree={tree}", "-e", f"publish_version={version}")

    def trial_under_way(self, node: str) -> TrialUnderWay:
        """Patch one node to 1.3.0 beside the story: entered in its trial, left when the playbook is red."""
        return TrialUnderWay(
            self, node, self.command("patch", "-e", "patch_release=1.3.0", *DISTURBED, "--limit", node)
        )

    def wait_for_revert(self, node: str) -> None:
        self.wait(lambda: not self.has_trial(node), 60, f"the trial of {node} is over")

    def has_trial(self, node: str) -> bool:
        return self.bed.exec(node, ["test", "-e", "/var/lib/kos/trial"], check=False).returncode == 0

    def is_measured(self, node: str) -> bool:
        """Whether a trial runs with its health measured already, so that the controller has the token."""
        command = ["test", "-e", "/var/lib/kos/trial", "-a", "-e", "/var/lib/kos/trial.health"]
        return self.bed.exec(node, command, check=False).returncode == 0

    def publisher(self, *arguments: str | Path) -> dict[str, Any]:
        """Run `kosctl repo` on the controller and return its result."""
        command = [sys.executable, "-m", "kosnode.publish", *map(str, arguments), "--json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise DemoError(f"kosctl repo {arguments[0]} failed: {done.stdout or done.stderr}")
        result: dict[str, Any] = json.loads(done.stdout)["result"]
        return result

    def repository_versions(self) -> list[str]:
        listed = self.publisher("list", self.folders.repository)["releases"]
        return [release["version"] for release in listed]


class TrialUnderWay:
    """A patch of one node in the background, in the middle of its trial while the block runs."""

    def __init__(self, demo: Demo, node: str, command: Sequence[str]) -> None:
        self.demo, self.node, self.command = demo, node, command

    def __enter__(self) -> None:
        self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.demo.environment())
        try:
            self.demo.wait(lambda: self.demo.is_measured(self.node), 90, f"{self.node} is in its trial")
        except DemoError:
            self.process.terminate()
            self.process.wait()
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.process.terminate()
            self.process.wait()
        else:
            self.demo.expect(self.process.wait(120) != 0, "the playbook patch ended red")
            said = self.demo.last_report()
            self.demo.expect(
                said["outcome"].startswith("reverted-") and said["reason"].startswith("deadline"),
                f"it says that {self.node} fell back at the deadline",
            )


def trial_cells(trial: dict[str, Any]) -> tuple[str, ...]:
    """Return one row of the closing table."""

    def shown(value: object, form: str) -> str:
        return "-" if value is None else form.format(value)

    fetched = trial["bytes"]["total"] if isinstance(trial["bytes"], dict) else trial["bytes"]
    downtime = None if trial["downtime_s"] is None else trial["downtime_s"] * 1000
    outcome = (
        trial["outcome"]
        if trial["outcome"] in ("confirmed", "present")
        else f"{trial['outcome']} ({trial['reason']})"
    )
    return (
        trial["node"],
        trial["zone"] or "-",
        trial["release"] or "-",
        outcome[:60],
        shown(trial["seconds"], "{:.1f}"),
        shown(fetched, "{:,}"),
        shown(downtime, "{:.0f}"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bed", default="local", help="name of the bed that is up")
    parser.add_argument("--inventory", type=Path, default=ROOT / "inventories/local")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build/fleet", help="made anew by the first act"
    )
    parser.add_argument(
        "--act", choices=("patch", "backup"), help="only this one; backup needs what patch left"
    )
    options = parser.parse_args()
    bed = Bed(options.bed)
    if not bed.nodes():
        print(f"fleet: bed {options.bed!r} is not up; `make fleet` makes it", file=sys.stderr)
        return 1
    if options.act != "backup":
        shutil.rmtree(options.folder, ignore_errors=True)
    given = (bed, options.inventory.resolve(), Folders(options.folder.resolve()))
    try:
        if options.act != "backup":
            Demo(*given).run()
        if options.act != "patch":
            BackupDemo(*given).run()
    except (DemoError, BedError, subprocess.SubprocessError) as error:
        print(f"\nfleet: FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
