"""The second act of the demo: data is backed up while it is written, its node is lost, a new one has it back.

A KairosChain node (with the stand-in gem of tests/fixtures), a PostgreSQL cluster and a SQLite database take
writes whose acknowledgements are kept here, on the controller. So it is known to the record what was lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "runtime")]

from verify import gems  # noqa: E402 - found through the line above

from tools import fleet_losses, fleet_page  # noqa: E402 - found through the line above
from tools.fleet_losses import LossError  # noqa: E402 - found through the line above
from tools.fleet_stage import DemoError, Stage, print_table  # noqa: E402 - found through the line above

STORES = ("ledger", "postgres", "sqlite")
VERSION = "3.75.0"
DATA = "/var/lib/kairos/data"
LEDGER = f"{DATA}/storage/blockchain.json"
SOURCES = {
    "ledger": {
        "class": "critical",
        "method": "kairoschain",
        "path": DATA,
        "service": "kairos-chain.service",
    },
    "postgres": {"class": "critical", "method": "postgres", "cluster": "17/main"},
    "sqlite": {"class": "critical", "method": "sqlite", "path": "/srv/orders/orders.db"},
}
POSTGRES = "postgresql@17-main.service"
KOSCTL = "/opt/kos/current/bin/kosctl"
LOAD = ROOT / "tools/fleet_load.py"
LOAD_UNIT = "demo-load"
SERVER_PORT = 8100
REPOSITORY = "offsite"
# Asks the target as the node does; its password is no argument.
ASK = (
    f". /etc/kos/backup.secrets/{REPOSITORY}.env; "
    """printf 'user = "%s:%s"' "$RESTIC_REST_USERNAME" "$RESTIC_REST_PASSWORD" | """
    "curl --silent --output /dev/null --write-out '%{http_code} ' --config - "
)
NODES = 4
# How many records of each store are to be written before the backup, and again after it.
RECORDS = 6


class BackupDemo(Stage):
    """The second act, one method a step, on the fleet of the first."""

    def run(self) -> None:
        """Tell the whole act.

        Raises:
            DemoError: a step ended in another way than it has to.
        """
        names = [node.name for node in self.nodes]
        if len(names) < NODES:
            raise DemoError(f"the second act needs {NODES} nodes, and bed {self.bed.name} has {len(names)}")
        # The node that is lost and the one that drills are of one zone, target and witness of the other.
        self.lost, self.drills, self.witness, self.target = names[0], names[1], names[-2], names[-1]
        self.release = self.version_on_disk(self.lost)
        self.told = fleet_page.Told(self.lost)
        self.load: subprocess.Popen[bytes] | None = None
        self.page = self.folders.report / "backup.html"
        self.write_page()
        folder = self.folders.backup
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.acknowledged = folder / "acknowledged.jsonl"
        print("\n━━━━ Act two: a node is lost, and its data comes back ━━━━")
        try:
            self.play()
        finally:
            self.stop_load()
        self.close()

    def play(self) -> None:
        """Do all steps."""
        self.tell(
            (
                (f"{self.lost} keeps a ledger, a PostgreSQL and a SQLite database", self.make_stores),
                (
                    f"It is backed up to {self.target}, which only adds, with {self.witness} as the witness",
                    self.back_up,
                ),
                (f"{self.lost} is destroyed while it takes writes: container and volume", self.lose),
                (f"A new {self.lost} takes its place", self.replace),
                ("It has its data back, each source verified before it counts", self.restore),
                ("It goes on where it was: its application, its ledger, its backups", self.go_on),
                (
                    f"A drill on {self.drills}: restored with the recovery key alone, and damaged copies",
                    self.drill,
                ),
            )
        )

    def make_stores(self) -> None:
        """Make the node one of KairosChain, with a cluster of PostgreSQL beside it."""
        print("   the KairosChain of this demo is a stand-in (tests/fixtures/kairos-chain), not the real gem")
        gem = self.folders.backup / f"kairos-chain-{VERSION}.gem"
        gems.build(gem, VERSION, "none")
        self.write_inventory(gem)
        with self.cluster_in_the_making():
            self.owner("ledger")

    def back_up(self) -> None:
        """Set backups up, begin to write, and back up while writes go on."""
        with self.phase("backups set up"):
            self.owner("backup")
            # PostgreSQL archives its WAL from its next start on.
            self.on(self.lost, f"systemctl restart {POSTGRES}")
        self.start_load()
        self.wait_for_records(RECORDS)
        self.promised = {store: self.known(store)[-1] for store in STORES}
        with self.phase("backup, while writes go on"):
            self.playbook("backup")
        lines = self.witnessed()
        self.expect(
            sorted(line["source"] for line in lines[-len(SOURCES) :]) == sorted(SOURCES),
            f"{self.witness} has a signed line for each of {len(SOURCES)} snapshots",
        )
        self.expect(self.is_append_only(), f"{self.target} lets {self.lost} remove nothing of it")

    def lose(self) -> None:
        """Destroy the node, when it has taken more writes."""
        self.wait_for_records(RECORDS)
        self.bed.kill(self.lost)
        print(f"   {self.lost} is off in the middle of a write; nothing of it is kept", flush=True)

    def replace(self) -> None:
        """Make the machine anew and have it be a node, as a machine that was bought would."""
        with self.phase("a new machine"):
            self.bed.replace(self.lost)
        self.stop_load()
        exists = self.bed.exec(self.lost, ["test", "-e", "/var/lib/kos"], check=False)
        self.expect(exists.returncode != 0, f"the new {self.lost} knows nothing of the old one")
        with self.phase("site: the node and its release"), self.cluster_in_the_making():
            self.playbook("site", "-e", f"runtime_release={self.release}", "--limit", self.lost)
        self.expect_fleet({self.lost: self.release})
        # The password of its repository is lost with it. The recovery key is on paper in a safe.
        (self.folders.backup / f"secrets/{self.lost}/{REPOSITORY}.password").unlink(missing_ok=True)
        with self.phase("backups set up again, with the recovery key"):
            self.owner("backup")

    def restore(self) -> None:
        """Restore each source, then look at what is there, before anything writes again."""
        for source in SOURCES:
            with self.phase(f"restore of {source}, verified and swapped"):
                self.playbook("restore", *self.restore_words(source))
        found = json.loads(self.kosctl("ledger", "head", LEDGER))["result"]["head"]
        self.told.head = self.witnessed_head()
        self.expect(
            found == self.told.head,
            f"the ledger ends with block {found['index']}, {found['hash'][:12]}…, as the witness says",
        )
        held = json.loads(self.load_script("count"))
        with self.acknowledged.open(encoding="utf-8") as lines:
            acknowledged = fleet_losses.read(lines)
        for store in STORES:
            try:
                loss = fleet_losses.of_store(store, acknowledged, held[store])
            except LossError as error:
                raise DemoError(str(error)) from None
            self.told.losses.append(loss)
            self.expect(
                loss.kept >= self.promised[store],
                f"{store}: {loss.kept} records without a hole, all from before the backup with them; "
                f"{loss.lost} lost",
            )

    def go_on(self) -> None:
        """Let the node be what the old one was, and be backed up again."""
        with self.phase("the KairosChain node on its restored ledger"):
            self.owner("ledger")
        self.start_load()
        self.wait_for_records(2)
        self.stop_load()
        with self.phase("backup of the new node"):
            self.playbook("backup")
        for source in SOURCES:
            # The playbook restore does the same, with -e restore_confirm=ID.
            self.kosctl("restore", "--confirm", self.restored(source))
        assert self.told.head is not None
        anchor = f"{self.told.head['index']}:{self.told.head['hash']}"
        compared = json.loads(self.kosctl("ledger", "compare", LEDGER, anchor))
        self.expect(
            compared["result"]["relation"] == "grown", "the ledger goes on from where it was backed up"
        )

    def drill(self) -> None:
        """Have another node restore what is at the target, with the recovery key alone, and damage copies."""
        folder = self.folders.report / "drills"
        with self.phase("drill, with its damaged copies"):
            self.playbook("drill", "-e", f"drill_report_dir={folder}", "--limit", self.lost)
        newest = max((folder / self.lost).glob("*.json"))
        report = json.loads(newest.read_text(encoding="utf-8"))
        self.told.drill = report
        self.told.drill_page = str(newest.with_suffix(".html").relative_to(self.folders.report))
        drilled = [source["name"] for source in report["sources"]]
        self.expect(report["outcome"] == "VERIFIED", f"the backup is VERIFIED: {', '.join(drilled)}")
        self.expect(set(SOURCES) <= set(drilled), "each critical source was restored", quiet=True)
        controls = report["controls"]
        self.expect(
            len(controls) >= 4 and all(one["outcome"] == "red" for one in controls),
            f"each of {len(controls)} copies that were damaged on purpose turned red",
        )

    def close(self) -> None:
        """Print what was lost, how long each phase took, what the drill found, and where to look."""
        assert self.told.head is not None
        print(f"\n━━ What was lost  [{time.monotonic() - self.started:.0f} s]\n")
        print_table([fleet_page.LOSS_COLUMNS, *fleet_page.loss_rows(self.told)])
        print()
        print_table([("phase", "seconds"), *fleet_page.phase_rows(self.told)])
        print()
        controls = [[cell[:60] for cell in row] for row in fleet_page.control_rows(self.told)]
        print_table([fleet_page.CONTROL_COLUMNS, *controls])
        self.write_page()
        print(f"""
The act took {time.monotonic() - self.started:.0f} s.
The ledger ended with block {self.told.head["index"]} after the restore, as the witness says:
{self.told.head["hash"]}

  this act    {self.page}
  drill       {self.folders.report / self.told.drill_page}
  all runs    {self.folders.report / "index.html"}
""")

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase."""
        began = time.monotonic()
        yield
        self.told.seconds[name] = time.monotonic() - began
        self.write_page()

    def write_page(self) -> None:
        """Write the page as far as the act is; the report of all runs links what is beside it."""
        self.page.parent.mkdir(parents=True, exist_ok=True)
        self.page.write_text(fleet_page.html(self.told), encoding="utf-8")

    # The fleet's owner

    def write_inventory(self, gem: Path) -> None:
        """Write who keeps data, who takes backups and who is the witness, beside what act one wrote."""
        everywhere = {"backup_secrets_dir": str(self.folders.backup / "secrets")}
        address = self.bed.node(self.target).address
        groups: dict[str, dict[str, Any]] = {
            "demo_data": {
                "kairoschain_version": VERSION,
                "kairoschain_gem": str(gem),
                "kairoschain_gem_sha256": hashlib.sha256(gem.read_bytes()).hexdigest(),
                "kairoschain_anchor_dir": str(self.folders.backup / "anchors"),
                "backup_repositories": {
                    REPOSITORY: {
                        "url": f"rest:http://{address}:{SERVER_PORT}/{self.lost}/",
                        "append_only": True,
                    }
                },
                "backup_sources": SOURCES,
                "backup_witness_host": self.witness,
                "backup_drill_host": self.drills,
            },
            "demo_target": {
                "backup_server": True,
                "backup_server_port": SERVER_PORT,
                "backup_server_nodes": [self.lost],
            },
            "demo_witness": {},
            "demo_drills": {},
        }
        hosts = dict(zip(groups, (self.lost, self.target, self.witness, self.drills), strict=True))
        children = {
            group: {"hosts": {hosts[group]: {}}, "vars": variables} for group, variables in groups.items()
        }
        text = "# Written by make fleet, which makes it anew.\n" + yaml.safe_dump(
            {"all": {"vars": everywhere, "children": children}}
        )
        (self.inventory / "backup.yml").write_text(text, encoding="utf-8")

    def owner(self, name: str) -> None:
        """Run a playbook of the fleet's owner, its output in view."""
        self.playbook(str(ROOT / f"tools/fleet_demo_{name}.yml"))

    @contextlib.contextmanager
    def cluster_in_the_making(self) -> Iterator[None]:
        """Make the cluster of PostgreSQL beside the block, at whose end it is there."""
        with ThreadPoolExecutor() as beside:
            made = beside.submit(self.make_cluster)
            yield
            made.result()

    def make_cluster(self) -> None:
        """Make the cluster that the package of PostgreSQL makes when it is installed, and start it."""
        cluster = "[ -d /etc/postgresql/17/main ] || pg_createcluster 17 main -- --no-sync >/dev/null"
        self.on(self.lost, f"{cluster}; systemctl start {POSTGRES}")

    def restore_words(self, source: str) -> list[str]:
        words = ["-e", f"restore_node={self.lost}", "-e", f"restore_source={source}"]
        # The new cluster runs, empty.
        return [*words, "-e", "restore_stop=true"] if source == "postgres" else words

    def restored(self, source: str) -> str:
        """Return the id of the last restore of a source."""
        lines = self.on(self.lost, "cat /var/lib/kos/backup/runs.jsonl").splitlines()
        known = [json.loads(line) for line in lines]
        return str([one["id"] for one in known if one["kind"] == "restore" and one["source"] == source][-1])

    # The load

    def start_load(self) -> None:
        """Let records be written until the machine is gone; what is acknowledged is kept here."""
        # One that an earlier demo left, when it was killed.
        self.bed.exec(self.lost, ["systemctl", "stop", LOAD_UNIT], check=False, timeout=30)
        words = ["systemd-run", "--quiet", "--collect", "--pipe", f"--unit={LOAD_UNIT}", "python3", "-"]
        command = [*self.bed.exec_command(self.lost, ["--interactive"]), *words, "write"]
        with self.acknowledged.open("w") as told, LOAD.open() as script:
            self.load = subprocess.Popen(command, stdin=script, stdout=told)

    def stop_load(self) -> None:
        """End the load, where it runs and wherever its node is by now."""
        if self.load is not None:
            self.bed.exec(self.lost, ["systemctl", "stop", LOAD_UNIT], check=False, timeout=30)
            self.load.wait(30)
            self.load = None

    def load_script(self, verb: str) -> str:
        return self.bed.exec(self.lost, ["python3", "-", verb], stdin=LOAD.read_bytes()).stdout

    def known(self, store: str) -> list[int]:
        """Return the numbers of the records that a store acknowledged since the load began."""
        with self.acknowledged.open(encoding="utf-8") as lines:
            return [one.number for one in fleet_losses.read(lines) if one.store == store]

    def wait_for_records(self, more: int) -> None:
        wanted = {store: len(self.known(store)) + more for store in STORES}

        def there() -> bool:
            if self.load is None or self.load.poll() is not None:
                raise DemoError("the load ended by itself; what it said is above")
            return all(len(self.known(store)) >= count for store, count in wanted.items())

        self.wait(there, 60, f"{more} more records of each store are written and acknowledged")

    # What is looked at

    def kosctl(self, *words: str) -> str:
        return self.bed.exec(self.lost, [KOSCTL, *words, "--json"]).stdout

    def witnessed(self) -> list[dict[str, Any]]:
        """Return the lines that the witness has of the node."""
        text = self.on(self.witness, f"cat /var/lib/kos/witness/{self.lost}.jsonl")
        return [json.loads(line) for line in text.splitlines()]

    def witnessed_head(self) -> dict[str, Any]:
        """Return the head of the ledger as the witness has it."""
        heads: dict[str, Any] = [one for one in self.witnessed() if one["source"] == "ledger"][-1]["heads"]
        return heads

    def is_append_only(self) -> bool:
        """Whether the target refuses the node, with its own password, to remove a snapshot."""
        snapshot = self.witnessed()[-1]["snapshot"]
        url = f"http://{self.bed.node(self.target).address}:{SERVER_PORT}/{self.lost}/snapshots/{snapshot}"
        return self.on(self.lost, f"{ASK}--head {url}; {ASK}--request DELETE {url}").split() == ["200", "403"]
