"""User data of a node: what cloud-init does at its first boot, without a secret, within the cloud's limit."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from kosnode import config, host
from kosnode.errors import InputError, KosError

LIMIT = 16 * 1024
"""Bytes before base64: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html"""

FOLDER = "/var/lib/kos-first-boot"
EXAMPLE_INSTANCE = "i-0123456789abcdef0"


@dataclass(frozen=True)
class Boot:
    """What a node is told at its first boot.

    Args:
        node: its node.json without its name, which is its instance's id.
        trust_root: the root of trust that it pins, as text.
        operator_keys: SSH keys of the operator.
        admin_keys: SSH keys of the image's own account, which may become root.
        bundle: `url`, `version`, `sha256` and `size` of kosctl's bundle.
        hook: `name`, `group` and `region` of the launch hook that waits for it.
        install: whether it installs the newest release of its channel by itself.
    """

    node: Mapping[str, Any]
    trust_root: str
    operator_keys: tuple[str, ...]
    admin_keys: tuple[str, ...]
    bundle: Mapping[str, Any]
    hook: Mapping[str, str]
    install: bool

    def settings(self) -> dict[str, Any]:
        """Return what `first_boot.py` reads."""
        spec = {
            "format": 1,
            "engine": self.bundle["version"],
            "node": dict(self.node),
            "trust_root": self.trust_root,
            "operator": {"keys": list(self.operator_keys)},
        }
        return {
            "bundle": dict(self.bundle),
            "spec": spec,
            "hook": dict(self.hook),
            "install": self.install,
        }


def check(boot: Boot, where: str, *, now: datetime | None = None) -> None:
    """Ask the engine whether a node could be made of this, before there is a machine.

    Args:
        boot: what the node is told.
        where: the settings that it comes from, for messages.
        now: the time; that of this machine by default.

    Raises:
        InputError: what the engine would refuse.
    """
    spec = boot.settings()["spec"]
    spec["node"]["node"] = EXAMPLE_INSTANCE
    try:
        parsed = host.parse_spec(spec)
        config.merge(parsed.node, [], where="node.json")
        host.check_root(spec["trust_root"].encode(), known=(), now=now or datetime.now(UTC), replace=False)
    except KosError as error:
        said = f"{error.key}: " if error.key and error.key not in error.message else ""
        raise InputError(f"{where}: a node refuses this: {said}{error.message}", key=error.key) from None


def render(boot: Boot) -> bytes:
    """Return the user data: a cloud-config that puts the program and its settings in place and runs it.

    It is compressed only where it is too long: other builds of zlib compress to other bytes, and user data
    that changes replaces machines.
    """
    program = resources.files(__package__).joinpath("first_boot.py").read_text("utf-8")
    settings = json.dumps(boot.settings(), sort_keys=True, separators=(",", ":"))
    paths = {f"{FOLDER}/first_boot.py": program, f"{FOLDER}/settings.json": settings}
    written = [{"path": path, "permissions": "0444", "content": content} for path, content in paths.items()]
    # JSON is YAML.
    document: dict[str, object] = {
        "write_files": written,
        "runcmd": [["/usr/bin/python3", "-IB", *paths]],
    }
    if boot.admin_keys:
        document["ssh_authorized_keys"] = list(boot.admin_keys)
    plain = f"#cloud-config\n{json.dumps(document, separators=(',', ':'))}\n".encode()
    return plain if len(plain) <= LIMIT else gzip.compress(plain, compresslevel=9, mtime=0)


def encode(boot: Boot, where: str) -> str:
    """Return the user data in base64, as a launch template wants it.

    Raises:
        InputError: it is longer than the cloud allows.
    """
    data = render(boot)
    if len(data) > LIMIT:
        raise InputError(
            f"{where}: user data has {len(data)} bytes compressed, at most {LIMIT} are allowed; "
            f"{len(boot.trust_root)} bytes of it are the trust root, and there are {len(boot.operator_keys)} "
            "operator keys",
            key=where,
        )
    return base64.b64encode(data).decode("ascii")
