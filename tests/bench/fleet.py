"""A fleet of real systemd nodes for the benchmarks, under kos.fleet or under stock modules."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from bed import Bed, Node, Plan

from . import process
from .figures import BUILD, ROOT
from .process import Cost
from .publisher import Publisher

NAME = "bench"
MIRROR_PORT = 8080
NODES = 3
KOSCTL = "/opt/kos/current/bin/kosctl"
STOCK_PLAYBOOK = Path(__file__).with_name("stock") / "site.yml"
POLICY = {"bake_s": 10, "deadline_s": 120, "health_interval_s": 2, "health_failures": 3, "settle_s": 15}
# Long enough for what each reaches of its life: healthy at first, and then no more.
SICK = {"fail_health_after_s": 6}

_RECAP = re.compile(r"^(\S+)\s*: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


class FleetError(Exception):
    """The fleet did not do what a benchmark needs before it can measure; the text says what."""


@dataclass(frozen=True)
class Run:
    """A playbook that ended well.

    Attributes:
        cost: What it took on the controller.
        changed: How many tasks changed something, over all hosts.
        said: What it printed.
    """

    cost: Cost
    changed: int
    said: str


@dataclass(frozen=True)
class Seen:
    """What a poller on a node saw while a command ran there; times in seconds of the node's monotonic clock.

    Attributes:
        gaps: Begin and end of each time without a healthy answer that was between two healthy ones.
        begun: When the command began.
        stdout: What the command printed.
    """

    gaps: tuple[tuple[float, float], ...]
    begun: float
    stdout: str


class Fleet:
    """The machines of a bed, with the releases 1.0.0, 1.1.0 and 1.2.0 (which turns sick) on their mirror.

    Args:
        bed: The bed, which is up.
        work: A folder for what is made on the controller.
        inventory: Folder of its inventory.
    """

    def __init__(self, bed: Bed, work: Path, inventory: Path) -> None:
        self.bed = bed
        self.inventory = inventory
        self._work = work
        self._mirror = f"http://{bed.node('mirror1').address}:{MIRROR_PORT}/"
        self._bundle = _make_bundle(work / "bundle")
        self._publisher = Publisher(work / "publisher", level=3)
        for version, fault in (("1.0.0", None), ("1.1.0", None), ("1.2.0", SICK)):
            self._publisher.build(release_tree(work / f"tree-{version}", version, fault), version)

    @property
    def node(self) -> Node:
        """The node that is patched."""
        return self.bed.node("node1")

    def install(self) -> None:
        """Make the machines a mirror and nodes, by kos.fleet.site."""
        self._write_variables({})
        self._playbook("kos.fleet.site", "all")

    def change_to_stock(self) -> None:
        """Take kOS off the nodes, and make them what they were by the playbook of stock modules."""
        variables = self._stock_variables()
        self._playbook("kos.fleet.remove", "nodes", "--extra-vars", f"remove_fleet={NAME}")
        self._write_variables(variables)
        self.stock()

    def site(self) -> Run:
        """Run kos.fleet.site on the nodes."""
        return self._playbook("kos.fleet.site", "nodes")

    def stock(self, strategy: Sequence[tuple[str, str]] = ()) -> Run:
        """Run the playbook of stock modules on the nodes; `strategy` is added to Ansible's environment."""
        return self._playbook(str(STOCK_PLAYBOOK), "nodes", environment=dict(strategy))

    def kosctl(self, *arguments: str) -> dict[str, Any]:
        """Run kosctl on the node and return its result."""
        done = self.bed.exec(self.node.name, [KOSCTL, *arguments, "--json"], check=False)
        if done.returncode != 0:
            raise FleetError(
                f"kosctl {' '.join(arguments)} ended with {done.returncode}: {done.stdout} {done.stderr}"
            )
        result: dict[str, Any] = json.loads(done.stdout)["result"]
        return result

    def watched(self, command: Sequence[str], *, gaps: int = 1) -> Seen:
        """Run a command on the node while /health is asked for, until the node is healthy again.

        Args:
            command: What to run.
            gaps: How many times the node is expected to stop being healthy.

        Raises:
            FleetError: The command failed, or the node was not healthy again in time.
        """
        settings = {"command": list(command), "steady_s": 2, "gaps": gaps, "timeout_s": 90}
        script = Path(__file__).with_name("poll.py").read_bytes()
        done = self.bed.exec(self.node.name, ["python3", "-", json.dumps(settings)], stdin=script)
        seen = json.loads(done.stdout)
        if seen["exit_code"] != 0:
            raise FleetError(
                f"{' '.join(command)} ended with {seen['exit_code']}: {seen['stdout']} {seen['stderr']}"
            )
        found = tuple(gaps_in(seen["changes"]))
        if len(found) < gaps:
            raise FleetError(f"{self.node.name} was not healthy again after {' '.join(command)}: {seen}")
        return Seen(found, seen["begun"], seen["stdout"])

    def _playbook(
        self, playbook: str, limit: str, *options: str, environment: Mapping[str, str] | None = None
    ) -> Run:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, playbook, "--inventory", str(self.inventory), "--limit", limit, *options]
        done = process.run(command, env={**self._environment, **(environment or {})})
        recap = _RECAP.findall(done.stdout)
        if not recap or any(int(unreachable) or int(failed) for *_, unreachable, failed in recap):
            raise FleetError(f"{playbook} did not reach every host: {done.stdout[-3000:]}")
        return Run(done.cost, sum(int(changed) for _, _, changed, _, _ in recap), done.stdout)

    @cached_property
    def _environment(self) -> dict[str, str]:
        # The connections that Ansible keeps end soon after it, so that what they took is counted as well.
        sockets = self._work / "ssh"
        sockets.mkdir()
        return {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=5s",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets),
            "ANSIBLE_NOCOLOR": "1",
            "KOS_REPORT_DIR": str(self._work / "report"),
        }

    def _write_variables(self, stock: dict[str, Any]) -> None:
        """Write the variables of both playbooks; kos.fleet knows none that begin with node_ or release_."""
        key = self.inventory / ".ssh/id_ed25519"
        login = subprocess.run(["ssh-keygen", "-y", "-f", key], check=True, capture_output=True, text=True)
        operators, root = [login.stdout.strip()], self._publisher.mirror / "metadata/1.root.json"
        variables = {
            "bootstrap_fleet": NAME,
            "bootstrap_mirrors": [self._mirror],
            "bootstrap_trust_root": str(root),
            "bootstrap_operator_keys": operators,
            "bootstrap_policy": POLICY,
            "bootstrap_bundle": str(self._bundle),
            "bootstrap_bundle_sha256": hashlib.sha256(self._bundle.read_bytes()).hexdigest(),
            "bootstrap_conf": {"10-organisation.json": _organisation()},
            "mirror_source": str(self._publisher.mirror),
            "mirror_port": MIRROR_PORT,
            "runtime_release": "1.0.0",
            "runtime_evidence_dir": str(self._work / "evidence"),
            "node_mirror": self._mirror,
            "node_trust_root": str(root),
            "node_operator_keys": operators,
            "node_policy": POLICY,
            **stock,
        }
        folder = self.inventory / "group_vars"
        folder.mkdir(exist_ok=True)
        (folder / "all.yml").write_text(yaml.safe_dump(variables), "utf-8")

    def _stock_variables(self) -> dict[str, Any]:
        """Put the release as one archive beside the others on the mirror, and return what names it."""
        root = self.kosctl("status")["current"]["root"]
        pack = ["tar", "-C", f"/var/lib/kos/releases/{root}", "-cz", "release.json", "units.json", "tree"]
        archive = subprocess.run(
            [*self.bed.exec_command(self.node.name), *pack], check=True, capture_output=True
        ).stdout
        write = f"umask 022; cat > /srv/kos-mirror/releases/{root}.tar.gz"
        self.bed.exec("mirror1", ["sh", "-c", write], stdin=archive)
        return {
            "node_bundle": str(self._bundle),
            "node_bundle_version": json.loads((self._bundle.parent / "kosctl.json").read_text("utf-8"))[
                "version"
            ],
            "release_version": "1.0.0",
            "release_root": root,
            "release_sha256": hashlib.sha256(archive).hexdigest(),
        }


@contextmanager
def fleet(work: Path) -> Iterator[Fleet]:
    """Make the machines, install kOS on them, and remove the machines when the block ends."""
    inventory = work / "inventory"
    bed = Bed(NAME, say=lambda line: print(f"  {line}", flush=True))
    try:
        bed.up(Plan(inventory=inventory, nodes=NODES))
        made = Fleet(bed, work, inventory)
        made.install()
        yield made
    finally:
        bed.down()


def release_tree(out: Path, version: str, fault: dict[str, int] | None) -> Path:
    """Return the tree of a release of the reference runtime."""
    sys.path.append(str(ROOT))
    from tools.release_tree import make_tree

    return make_tree(out, version, fault=fault)


def mitogen() -> list[tuple[str, str]]:
    """Return the environment that lets Ansible use Mitogen, fetched by hash."""
    folder = BUILD / "mitogen"
    if not folder.exists():
        requirements = Path(__file__).with_name("requirements") / "mitogen.txt"
        partial = folder.with_suffix(".partial")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--require-hashes", "--no-deps", "--upgrade", "--target", str(partial)]
        subprocess.run([*command, "--requirement", str(requirements)], check=True)
        partial.rename(folder)
    return [
        ("PYTHONPATH", str(folder)),
        ("ANSIBLE_STRATEGY_PLUGINS", str(folder / "ansible_mitogen/plugins/strategy")),
        ("ANSIBLE_STRATEGY", "mitogen_linear"),
    ]


def _make_bundle(folder: Path) -> Path:
    """Return a bundle of kosctl as it is now, in a folder where nobody else makes another meanwhile."""
    command = [sys.executable, str(ROOT / "tools/bundle.py"), "--output", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.tar.gz"))


def _organisation() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (STOCK_PLAYBOOK.parent / "files/10-organisation.json").read_text("utf-8")
    )
    return found


def gaps_in(changes: Sequence[tuple[float, str]]) -> Iterator[tuple[float, float]]:
    """Yield begin and end of each time that was not good and ended; `changes` as poll.py prints them."""
    begin = None
    for moment, state in changes:
        if state == "good":
            if begin is not None:
                yield begin, moment
            begin = None
        elif begin is None:
            begin = moment
