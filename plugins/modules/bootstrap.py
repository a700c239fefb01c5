# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module that unpacks kosctl on a host and has it make the host a node; run through the action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bootstrap
short_description: Make a host a node, in one transaction
version_added: 1.0.0
description:
  - Looks in one probe at what the host has, and fails with one message that names all that is missing.
  - Transfers the bundle of C(kosctl) only where its bytes are not on the host yet, and unpacks it durably.
  - C(kosctl) then makes accounts, folders, configuration, trust root, boot units, sudoers and the switch
    to the new engine, after all of it was validated.
  - Needs root. Nothing is changed while a trial is running.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - On a clean host the bundle is unpacked to a temporary folder and asked what it would do.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) is a node as described.
      - V(absent) is a host on which nothing of kOS is left, its units stopped, its accounts removed.
    type: str
    choices: [present, absent]
    default: present
  fleet:
    description: Name of the fleet. Required for O(state=present).
    type: str
  node:
    description: Name of the node. Its inventory name by default.
    type: str
  zone:
    description: Zone of the node. By default that of the one group V(zone_*) it is in.
    type: str
  node_class:
    description: Class of the node.
    type: str
  release_name:
    description: Release line that the node follows.
    type: str
    default: kos
  channel:
    description: Channel that the node follows.
    type: str
    default: stable
  mirrors:
    description: Addresses to fetch from, in order. None of them is trusted. Required for O(state=present).
    type: list
    elements: str
  mirror_ca:
    description:
      - The authorities that may certify https mirrors, in PEM form, as a path on the controller or as text.
      - Without it those of the node's system may.
    type: str
  policy:
    description: How careful the node is, as C(policy) of C(node.json).
    type: dict
    default: {}
  governance_id:
    description: Optional; reported as unset where it is absent.
    type: str
  tribe:
    description: Optional; reported as unset where it is absent.
    type: str
  unit_settings:
    description: Settings of units by name, each with C(config) and C(resources).
    type: dict
    default: {}
  conf:
    description:
      - Layers of configuration by file name, such as V(10-site.json).
      - Files that an earlier run wrote and that are not named any more go away; files of others stay.
    type: dict
  trust_root:
    description:
      - The root of trust that is pinned, as a path on the controller, as text, or as a dictionary.
      - Required for O(state=present).
    type: raw
  replace_trust_root:
    description: The word for pinning the root of another fleet than the node belongs to.
    type: bool
    default: false
  operator_keys:
    description: Public SSH keys that may log in as the operator account C(kosops).
    type: list
    elements: str
    default: []
  service_accounts:
    description: System accounts to make for units that name a user of their own; none that the host has.
    type: list
    elements: str
    default: []
  bundle:
    description: Another bundle than that of the collection, as a path on the controller or an address.
    type: str
  bundle_sha256:
    description: SHA-256 of O(bundle). Required where that is an address.
    type: str
  prepared:
    description: What the action plugin made of the other options. Not for playbooks, which cannot set it.
    type: dict
    suboptions:
      archive:
        description: Path of the bundle on the host.
        type: path
        required: true
      sha256:
        description: Its SHA-256.
        type: str
        required: true
      version:
        description: Its version.
        type: str
        required: true
      spec:
        description: What C(kosctl host apply) reads, as JSON.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Host is a node of fleet demo
  kos.fleet.bootstrap:
    fleet: demo
    mirrors:
      - https://mirror-a.example.org/
      - https://mirror-b.example.org/
    trust_root: files/root.json
    operator_keys:
      - "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
  become: true

- name: Nothing of kOS is left on the host
  kos.fleet.bootstrap:
    state: absent
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
engine:
  description: Version of C(kosctl) that the node uses.
  type: str
  returned: success
previous_engine:
  description: Version that it used before, which is kept.
  type: str
  returned: success
unset:
  description: Optional settings without a value.
  type: list
  elements: str
  returned: success
arch:
  description: Architecture of the host's userland.
  type: str
  returned: success
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl
from ansible_collections.kos.fleet.plugins.module_utils._bootstrap import ARGUMENTS

ENGINES = Path("/opt/kos")
MARK = ".sha256"
PREPARED = {
    "type": "dict",
    "options": {
        "archive": {"type": "path", "required": True},
        "sha256": {"type": "str", "required": True},
        "version": {"type": "str", "required": True},
        "spec": {"type": "str", "required": True, "no_log": True},
    },
}


class UnpackError(Exception):
    """The bundle cannot be unpacked; the message says why."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def unpack(archive: Path, sha256: str, folder: Path) -> None:
    """Unpack a bundle into a new folder: plain files only, every byte on the disk, the mark last."""
    found = digest(archive)
    if found != sha256:
        raise UnpackError(f"the bundle arrived with the digest {found}, not {sha256}")
    with tarfile.open(archive, "r:gz") as stream:
        for member in stream:
            parts = member.name.split("/")
            source = stream.extractfile(member) if member.isreg() else None
            if source is None or {"..", ""} & set(parts):
                raise UnpackError(
                    f"the bundle holds {member.name!r}, which is not a plain file in its folder"
                )
            path = folder.joinpath(*parts)
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with path.open("xb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fchmod(target.fileno(), 0o755 if member.mode & 0o100 else 0o644)
                os.fsync(target.fileno())
    with (folder / MARK).open("x", encoding="ascii") as mark:
        mark.write(f"{sha256}\n")
        mark.flush()
        os.fsync(mark.fileno())
    folder.chmod(0o755)
    for parent, _folders, _files in os.walk(folder):
        sync_folder(Path(parent))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(fresh: Path, version: str) -> Path:
    """Give an unpacked engine its name; what had that name (and was damaged) goes away."""
    wanted = ENGINES / version
    if wanted.exists():
        stale = fresh.with_name(f"{fresh.name}.old")
        wanted.rename(stale)
        fresh.rename(wanted)
        shutil.rmtree(stale)
    else:
        fresh.rename(wanted)
    sync_folder(ENGINES)
    return wanted


def ask_host(module: AnsibleModule, engine: Path, *, check_only: bool) -> _kosctl.Answer:
    """Have the engine make the host so, or only say what it would do."""
    check = ["--check"] if check_only else []
    # As its first line says, and not by that: a check unpacks into /tmp, where a host may let nothing run.
    command = ["/usr/bin/python3", "-IB", str(engine / "bin/kosctl"), "host", "apply", "--json", *check]
    rc, stdout, stderr = module.run_command(command, data=module.params["prepared"]["spec"])
    return _kosctl.parse("host", rc, stdout, stderr)


def in_temporary_folder(module: AnsibleModule) -> _kosctl.Answer:
    """Ask the engine what it would do, without installing it."""
    prepared = module.params["prepared"]
    with tempfile.TemporaryDirectory(prefix="kosctl-") as folder:
        engine = Path(folder) / "engine"
        engine.mkdir()
        unpack(Path(prepared["archive"]), prepared["sha256"], engine)
        return ask_host(module, engine, check_only=True)


def installed(module: AnsibleModule) -> _kosctl.Answer:
    """Install the engine beside those that are there, and have it make the host so.

    The engine looks at the specification before it gets its place: what is refused leaves nothing behind.
    """
    prepared = module.params["prepared"]
    first = not ENGINES.exists()
    ENGINES.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".kosctl-", dir=ENGINES))
    engine = None
    try:
        unpack(Path(prepared["archive"]), prepared["sha256"], fresh)
        told = ask_host(module, fresh, check_only=True)
        if not told.ok:
            return told
        engine = put_in_place(fresh, prepared["version"])
    finally:
        if engine is None:
            shutil.rmtree(fresh, ignore_errors=True)
            if first:
                ENGINES.rmdir()
    return ask_host(module, engine, check_only=False)


def main() -> None:
    """Unpack, ask, answer."""
    module = AnsibleModule(argument_spec={**ARGUMENTS, "prepared": PREPARED}, supports_check_mode=True)
    prepared = module.params["prepared"]
    if prepared is None:
        module.fail_json(msg="this module runs through its action plugin alone")
    os.umask(0o022)
    try:
        answer = in_temporary_folder(module) if module.check_mode else installed(module)
    except (UnpackError, _kosctl.AnswerError, OSError, tarfile.TarError) as error:
        module.fail_json(msg=f"{error}")
    if not answer.ok:
        failure = _kosctl.failure(answer)
        failure.pop("failed")
        module.fail_json(**failure)
    result = _kosctl.host_result(answer)
    result.update(changed=True, actions=[f"unpack kosctl {prepared['version']}", *answer.actions])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
