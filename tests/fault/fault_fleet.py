"""The fleet of the fault lane: a mirror and two nodes, each with release 1.0.0 confirmed.

A node is made once: the engine's bundle is unpacked, `kosctl host apply` makes it a node, and the release is
installed as on any other.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

from fault.fault_node import POLICY, FaultNode
from fault.small_release import make

from bed import Bed, Plan
from bed.command import one_at_a_time
from tools import bundle

ROOT = Path(__file__).resolve().parents[2]

_NGINX = """
server { listen 80; root /srv/mirror; }
# The same, where a large file stays under way for half a minute once half of it has come.
server {
    listen 81;
    root /srv/mirror;
    location ~ \\.tar\\.zst$ { limit_rate_after 2m; limit_rate 64k; }
}
"""


class FaultFleet:
    """The machines and what is published.

    Args:
        bed: a bed that is not up.
        folder: for the inventory.
    """

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed = bed
        self.inventory = folder / "inventory"
        # Other workers of pytest make the same, into the same folders.
        with one_at_a_time(Path(__file__)):
            self.world, self.releases = make(ROOT / "build")
            version, engine = _engine(folder / "bundle")
        plan = Plan(inventory=self.inventory, nodes=2, zones=("a",), small_disks={"node2": "48M"})
        machines = {machine.name: machine for machine in bed.up(plan)}
        self.controller = machines["mirror1"].address.rpartition(".")[0] + ".1"
        self._serve()
        self.nodes = [FaultNode(name, bed, self.releases) for name in ("node1", "node2")]
        for node in self.nodes:
            self._make_node(node, version, engine)

    @property
    def mirror(self) -> str:
        return "http://mirror1/"

    @property
    def slow_mirror(self) -> str:
        return "http://mirror1:81/"

    def _serve(self) -> None:
        self.bed.exec("mirror1", ["tar", "-x", "-C", "/srv"], stdin=_packed(self.world.public, "mirror"))
        self.bed.exec("mirror1", ["tee", "/etc/nginx/conf.d/mirror.conf"], stdin=_NGINX.encode())
        self.bed.exec("mirror1", ["systemctl", "enable", "--now", "nginx"])

    def _make_node(self, node: FaultNode, version: str, engine: bytes) -> None:
        node.sh(
            f"mkdir -p /opt/kos/{version} /root/expected && tar -xz -C /opt/kos/{version} -f -", stdin=engine
        )
        for release in self.releases.values():
            sums = "".join(f"{digest}  {path}\n" for path, digest in release.files.items())
            node.sh(f"cat >/root/expected/{release.root}.sums", stdin=sums.encode())
            node.sh(f"echo {release.count} >/root/expected/{release.root}.count")
        done = node.run(
            f"/opt/kos/{version}/bin/kosctl", "host", "apply", "--json", stdin=self._spec(node, version)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        node.must("stage", "1.0.0")
        token = node.must("activate", "1.0.0").result["token"]
        assert node.confirm(token).exit == 0
        node.keep("installed")

    def _spec(self, node: FaultNode, version: str) -> bytes:
        spec = {
            "format": 1,
            "engine": version,
            "node": {
                "format": 1,
                "node": node.name,
                "fleet": "fault",
                "zone": "a",
                "release": "kos",
                "channel": "stable",
                "mirrors": [self.mirror],
                "policy": POLICY,
            },
            "trust_root": json.loads(self.world.trust_root.read_text()),
            "operator": {"keys": [_public(self.inventory / ".ssh/id_ed25519")]},
        }
        return json.dumps(spec).encode()


def _engine(folder: Path) -> tuple[str, bytes]:
    """Make the node's bundle; return its version and bytes."""
    wheels = bundle.download(ROOT / "requirements/node.txt", ROOT / "build/wheels")
    made = bundle.make(ROOT / "runtime/kosnode", wheels, folder)
    return made["version"], (folder / made["file"]).read_bytes()


def _packed(folder: Path, name: str) -> bytes:
    """Return a tar archive of a folder under another name."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(folder, name)
    return data.getvalue()


def _public(private: Path) -> str:
    command = ["ssh-keygen", "-y", "-f", str(private)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
