"""A bed: one or more mirrors and a number of nodes in zones, and what a test may do to them."""

from __future__ import annotations

import io
import json
import re
import socket
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

from . import cgroup, image, inotify, inventory, network
from .command import BedError, run

BOOT_SECONDS = 120
_DISKS = Path("/run/kos-bed")
_STATE_DIRECTORY = "/var/lib/kos"


@dataclass(frozen=True)
class Plan:
    """What a bed is made of.

    Attributes:
        inventory: Folder that gets the keys and the Ansible inventory.
        nodes: Number of nodes; they are named node1, node2, and so on.
        mirrors: Number of mirrors, named mirror1, mirror2, and so on.
        zones: Zones that the nodes are spread over, the first ones in the first zone.
        suite: Debian release of every node that `suites` does not name.
        suites: Debian release by node name.
        small_disks: Size of the file system under /var/lib/kos by node name, as `mount -o size=` takes it.
    """

    inventory: Path
    nodes: int = 4
    mirrors: int = 1
    zones: tuple[str, ...] = ("a", "b")
    suite: str = "trixie"
    suites: Mapping[str, str] = field(default_factory=dict)
    small_disks: Mapping[str, str] = field(default_factory=dict)

    def zone_of(self) -> dict[str, str | None]:
        """Return the zone of every machine by name; a mirror has none."""
        machines: dict[str, str | None] = {f"mirror{index + 1}": None for index in range(self.mirrors)}
        for index in range(self.nodes):
            machines[f"node{index + 1}"] = self.zones[index * len(self.zones) // self.nodes]
        return machines


@dataclass(frozen=True)
class Node:
    """A machine of a bed that exists."""

    name: str
    address: str
    zone: str | None
    suite: str
    state: str
    inventory: Path


class Bed:
    """A bed by its name; several can exist side by side.

    Args:
        name: Part of every name that belongs to this bed, lower-case letters and digits.
        say: Called with each line of progress.
    """

    def __init__(self, name: str, say: Callable[[str], None] = print) -> None:
        if not re.fullmatch("[a-z0-9]{1,24}", name):
            raise BedError(f"bed name {name!r} must be up to 24 lower-case letters and digits")
        self.name = name
        self._say = say

    def up(self, plan: Plan) -> list[Node]:
        """Make the bed anew and wait until every machine of it has booted and answers over SSH.

        Raises:
            BedError: The plan names machines that are not in it, or more than this host carries, or a machine
                did not come up.
        """
        zones = plan.zone_of()
        for unknown in (plan.suites.keys() | plan.small_disks.keys()) - zones.keys():
            raise BedError(f"{unknown!r} is not a machine of this bed: {', '.join(zones)}")
        inotify.check(len(zones) - len(self.nodes()))
        started = time.monotonic()
        suites = {name: plan.suites.get(name, plan.suite) for name in zones}
        images = {suite: image.ensure(suite, self._say) for suite in sorted(set(suites.values()))}
        self.down()
        addresses = network.create(self.name, list(zones))
        login = inventory.make_key(f"kos bed {self.name}")
        host_keys = {name: inventory.make_key(name) for name in zones}
        hosts = [inventory.Host(name, addresses[name], zone) for name, zone in zones.items()]
        folder = plan.inventory.resolve()
        inventory.write(folder, self.name, login, host_keys, hosts)

        def bring_up(host: inventory.Host) -> None:
            node = Node(host.name, host.address, host.zone, suites[host.name], "", folder)
            disk = self._make_disk(host.name, plan.small_disks.get(host.name))
            files = _identity(host.name, login.public, host_keys[host.name], addresses)
            self._make(node, images[node.suite], files, disk)
            self._say(f"{host.name} is up at {host.address} after {time.monotonic() - started:.1f} s")

        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(bring_up, hosts))
        return self.nodes()

    def replace(self, name: str) -> Node:
        """Destroy a machine, its disk with it, and make a new one of the same name and address.

        The new one has a host key of its own, which the inventory knows from then on.

        Raises:
            BedError: The bed has no such machine, it has a small disk, or the new one did not come up.
        """
        old = self.node(name)
        if (_DISKS / self.name / name).exists():
            raise BedError(f"{name} has a small disk, which only `up` makes anew")
        addresses = {node.name: node.address for node in self.nodes()}
        host_key = inventory.make_key(name)
        self._podman("rm", "--force", "--time", "0", "--volumes", self._container(name))
        inventory.renew_host_key(old.inventory, name, old.address, host_key)
        files = _identity(name, inventory.login_key(old.inventory), host_key, addresses)
        self._make(old, image.ensure(old.suite, self._say), files, None)
        return self.node(name)

    def down(self) -> None:
        """Remove the bed's containers, networks, cgroups and disks; the image and the inventory stay."""
        nodes = self.nodes()
        if nodes:
            self._podman("rm", "--force", "--time", "0", *(self._container(node.name) for node in nodes))
        cgroup.remove(self._container(""))
        network.remove(self.name)
        disks = _DISKS / self.name
        for disk in sorted(disks.glob("*")):
            run(["umount", str(disk)])
        run(["rm", "--recursive", "--force", "--one-file-system", str(disks)])

    def nodes(self) -> list[Node]:
        """Return the machines of the bed, mirrors first."""
        listed = self._podman(
            "ps", "--all", "--format", "json", "--filter", f"label=kos.bed={self.name}"
        ).stdout
        return sorted(
            (_node(entry) for entry in json.loads(listed or "[]")), key=lambda node: _order(node.name)
        )

    def node(self, name: str) -> Node:
        """Return one machine of the bed.

        Raises:
            BedError: The bed has no machine of that name.
        """
        nodes = {node.name: node for node in self.nodes()}
        if name not in nodes:
            raise BedError(f"bed {self.name!r} has no machine {name!r}; it has {', '.join(nodes) or 'none'}")
        return nodes[name]

    def start(self, name: str) -> str:
        """Start a machine, wait until it has booted and return what systemd calls it: running or degraded.

        Raises:
            BedError: It did not boot in time.
        """
        self._podman("start", self._container(name))
        return self.wait(name)

    def kill(self, name: str) -> None:
        """End every process of a machine at once, as if its power had gone; its files stay."""
        self._podman("kill", "--signal", "KILL", self._container(name))
        self._podman("wait", self._container(name))

    def restart_hard(self, name: str) -> str:
        """Kill a machine, start it again, wait until it has booted and return what systemd calls it."""
        self.kill(name)
        return self.start(name)

    def wait(self, name: str, seconds: float = BOOT_SECONDS) -> str:
        """Wait until a machine answers over SSH and systemd has finished its boot.

        Returns:
            What systemd calls the machine: running, or degraded where a unit failed.

        Raises:
            BedError: It took longer than `seconds`.
        """
        return self._booted(self.node(name), seconds)

    def _booted(self, node: Node, seconds: float = BOOT_SECONDS) -> str:
        deadline = time.monotonic() + seconds
        while not _ssh_answers(node.address):
            if time.monotonic() > deadline:
                raise BedError(f"{node.name} does not answer over SSH {seconds:.0f} s after its start")
            time.sleep(0.1)
        command = ["systemctl", "is-system-running", "--wait"]
        return self.exec(node.name, command, check=False, timeout=seconds).stdout.strip()

    def cut(self, name: str, other: str = network.CONTROLLER) -> None:
        """Cut the link between a machine and the controller, or another machine; both go on running."""
        self._check_ends(name, other)
        network.cut(self.name, name, other)

    def heal(self, name: str, other: str = network.CONTROLLER) -> None:
        """Mend a link that was cut; one that was not stays as it is."""
        self._check_ends(name, other)
        network.heal(self.name, name, other)

    def cuts(self) -> set[frozenset[str]]:
        """Return the pairs of machines whose link is cut."""
        return network.cuts(self.name)

    def exec(
        self,
        name: str,
        command: Sequence[str],
        *,
        stdin: bytes | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> CompletedProcess[str]:
        """Run a command on a machine as root, past its network.

        Raises:
            BedError: The command failed while `check` was set, or took longer than `timeout` seconds.
        """
        options = [] if stdin is None else ["--interactive"]
        return run([*self.exec_command(name, options), *command], stdin=stdin, check=check, timeout=timeout)

    def exec_command(self, name: str, options: Sequence[str] = ()) -> list[str]:
        """Return the command that runs another on a machine, for a caller that wants the terminal."""
        return ["podman", *cgroup.podman_runtime(), "exec", *options, self._container(name)]

    def ssh_command(self, name: str, user: str = "root") -> list[str]:
        """Return the command that logs in to a machine over its network, as its inventory does."""
        node = self.node(name)
        folder = inventory.ssh_folder(node.inventory)
        return [
            "ssh",
            *("-i", str(folder / "id_ed25519")),
            *("-o", f'UserKnownHostsFile="{folder / "known_hosts"}"'),
            *("-o", "GlobalKnownHostsFile=/dev/null"),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", "IdentitiesOnly=yes"),
            f"{user}@{node.address}",
        ]

    def _failed_units(self, name: str) -> str:
        return self.exec(name, ["systemctl", "--failed", "--plain", "--no-legend"]).stdout

    def _make(self, node: Node, image_tag: str, files: bytes, disk: Path | None) -> None:
        """Make the container of a machine, give it its identity and boot it."""
        labels = {
            "kos.bed": self.name,
            "kos.node": node.name,
            "kos.address": node.address,
            "kos.zone": node.zone or "",
            "kos.suite": node.suite,
            "kos.inventory": str(node.inventory),
        }
        self._podman(
            "create",
            *("--name", self._container(node.name)),
            *("--hostname", node.name),
            *("--network", f"ns:{network.namespace(self.name, node.name)}"),
            *("--no-hosts", "--dns", "none"),
            *(f"--label={key}={value}" for key, value in labels.items()),
            *([f"--volume={disk}:{_STATE_DIRECTORY}:rw"] if disk else []),
            *cgroup.podman_options(self._container(node.name)),
            image_tag,
            "/sbin/init",
        )
        self._podman("cp", "-", f"{self._container(node.name)}:/", stdin=files)
        self._podman("start", self._container(node.name))
        if self._booted(node) != "running":
            raise BedError(f"{node.name} has booted with failed units:\n{self._failed_units(node.name)}")

    def _make_disk(self, name: str, size: str | None) -> Path | None:
        # Mounted outside of the container, so that what is on it outlives a hard restart of the node.
        if size is None:
            return None
        disk = _DISKS / self.name / name
        run(["mkdir", "--parents", str(disk)])
        run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "kos-bed", str(disk)])
        return disk

    def _check_ends(self, *names: str) -> None:
        for name in names:
            if name != network.CONTROLLER:
                self.node(name)

    def _container(self, name: str) -> str:
        return f"kos-{self.name}-{name}"

    def _podman(
        self, *arguments: str, stdin: bytes | None = None, check: bool = True, timeout: float | None = None
    ) -> CompletedProcess[str]:
        return run(
            ["podman", *cgroup.podman_runtime(), *arguments], stdin=stdin, check=check, timeout=timeout
        )


def _node(entry: Mapping[str, object]) -> Node:
    labels = entry["Labels"]
    assert isinstance(labels, dict)
    return Node(
        name=labels["kos.node"],
        address=labels["kos.address"],
        zone=labels["kos.zone"] or None,
        suite=labels["kos.suite"],
        state=str(entry["State"]),
        inventory=Path(labels["kos.inventory"]),
    )


def _order(name: str) -> tuple[str, int]:
    kind = name.rstrip("0123456789")
    return kind, int(name[len(kind) :])


def _ssh_answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _identity(name: str, login: str, host_key: inventory.KeyPair, addresses: Mapping[str, str]) -> bytes:
    """Return a tar archive of the files that make an image's copy this node and no other."""
    hosts = "127.0.0.1 localhost\n" + "".join(f"{address} {host}\n" for host, address in addresses.items())
    files = {
        "etc/hostname": (name + "\n", 0o644),
        "etc/hosts": (hosts, 0o644),
        "etc/ssh/ssh_host_ed25519_key": (host_key.private, 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": (host_key.public + "\n", 0o644),
        "root/.ssh": (None, 0o700),
        "root/.ssh/authorized_keys": (login + "\n", 0o600),
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, (text, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.mode = mode
            entry.mtime = int(time.time())
            if text is None:
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                content = text.encode()
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()
