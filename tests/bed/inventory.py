"""Writes what a controller needs to reach the nodes: keys, known hosts, and an Ansible inventory."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .command import BedError

_HEADER = (
    "# Written by tests/bed for the bed {bed!r}, and again whenever that bed is made. Changes are lost.\n"
)


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key as OpenSSH writes it."""

    private: str
    public: str


@dataclass(frozen=True)
class Host:
    """A node as the inventory shows it; a node without a zone is a mirror."""

    name: str
    address: str
    zone: str | None


def make_key(comment: str) -> KeyPair:
    """Make an Ed25519 key without a passphrase.

    Raises:
        BedError: ssh-keygen is missing or failed.
    """
    with tempfile.TemporaryDirectory(prefix="kos-key-") as folder:
        path = Path(folder) / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BedError(f"no key for {comment}: {error}") from error
        return KeyPair(private=path.read_text(), public=path.with_suffix(".pub").read_text().strip())


def login_key(inventory: Path) -> str:
    """Return the public key that machines of a bed let in.

    Raises:
        BedError: the folder has no login key.
    """
    command = ["ssh-keygen", "-y", "-P", "", "-f", str(ssh_folder(inventory) / "id_ed25519")]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise BedError(f"no login key in {inventory}: {error}") from error


def renew_host_key(inventory: Path, name: str, address: str, host_key: KeyPair) -> None:
    """Have the inventory know a machine that was made anew by its new host key."""
    path = ssh_folder(inventory) / "known_hosts"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(f"{name},")]
    lines = [*kept, f"{name},{address} {host_key.public}"]
    _replace(path, "".join(f"{line}\n" for line in lines), mode=0o644)


def ssh_folder(inventory: Path) -> Path:
    """Return the folder of login key and known hosts; Ansible takes nothing hidden for an inventory."""
    return inventory / ".ssh"


def write(
    folder: Path, bed: str, login: KeyPair, host_keys: Mapping[str, KeyPair], hosts: Iterable[Host]
) -> None:
    """Write the login key, the known hosts and hosts.yml of a bed into a folder.

    Other files in the folder, such as group_vars, are left alone.
    """
    secrets = ssh_folder(folder)
    secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    hosts = list(hosts)
    known = "".join(f"{host.name},{host.address} {host_keys[host.name].public}\n" for host in hosts)
    _replace(secrets / "id_ed25519", login.private, mode=0o600)
    _replace(secrets / "known_hosts", known, mode=0o644)
    _replace(folder / "hosts.yml", _HEADER.format(bed=bed) + _hosts_yml(hosts), mode=0o644)


def _hosts_yml(hosts: list[Host]) -> str:
    zones = sorted({host.zone for host in hosts if host.zone is not None})
    variables = {
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": "{{ inventory_dir }}/.ssh/id_ed25519",
        "ansible_ssh_common_args": (
            "-o 'UserKnownHostsFile=\"{{ inventory_dir }}/.ssh/known_hosts\"' "
            "-o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
        ),
    }
    lines = ["all:", "  vars:", *(f"    {name}: {json.dumps(value)}" for name, value in variables.items())]
    lines += ["  children:", "    mirrors:", "      hosts:", *_host_lines(hosts, None, 8)]
    lines += ["    nodes:", "      children:"]
    for zone in zones:
        lines += [f"        zone_{zone}:", "          vars:", f"            kos_zone: {json.dumps(zone)}"]
        lines += ["          hosts:", *_host_lines(hosts, zone, 12)]
    return "\n".join(lines) + "\n"


def _host_lines(hosts: list[Host], zone: str | None, indent: int) -> list[str]:
    lines = []
    for host in hosts:
        if host.zone == zone:
            lines += [f"{' ' * indent}{host.name}:", f"{' ' * (indent + 2)}ansible_host: {host.address}"]
    return lines


def _replace(path: Path, text: str, *, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    temporary.replace(path)
