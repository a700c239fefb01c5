# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module that puts a mirror's files and its web server in place; run through the action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror
short_description: Host serves a repository of releases
version_added: 1.0.0
description:
  - Sends what the publisher's public folder has and the host lacks, in an order in which a node may read
    it meanwhile, the timestamp last, each file by one durable rename.
  - Serves it by an nginx of its own that runs without root, as service C(kos-mirror).
  - A mirror is not trusted, nodes verify what it gives. Any other web server with these files is as good.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  state:
    description: V(present) is a mirror, V(absent) a host without its service, its configuration and its
      files.
    type: str
    choices: [present, absent]
    default: present
  source:
    description: The publisher's public folder on the controller. Required for O(state=present).
    type: path
  root:
    description: Folder on the host, with nothing else in it.
    type: path
    default: /srv/kos-mirror
  port:
    description: TCP port.
    type: int
    default: 8080
  address:
    description: Address to listen on. All by default.
    type: str
    default: ""
  server_name:
    description: Name of the server.
    type: str
    default: _
  tls_certificate:
    description: Certificate chain on the controller; with O(tls_key) the mirror speaks HTTPS.
    type: path
  tls_key:
    description: Key of O(tls_certificate) on the controller. On the host only root and the service read it.
    type: path
  prepared:
    description: What the action plugin made of the other options. Not for playbooks, which cannot set it.
    type: dict
    suboptions:
      archive:
        description: Path on the host of an archive with the files to send.
        type: path
      send:
        description: Files to put in place, in order.
        type: list
        elements: str
        required: true
      remove:
        description: Files to remove afterwards.
        type: list
        elements: str
        required: true
      texts:
        description: Configuration and service by path, as JSON.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Host serves the repository
  kos.fleet.mirror:
    source: build/repository/public
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
files:
  description: How many files the mirror has.
  type: int
  returned: success, with O(state=present)
sent:
  description: How many of them were sent.
  type: int
  returned: success, with O(state=present)
"""

import io
import json
import os
import shutil
import tarfile
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kos.fleet.plugins.module_utils import _mirror

UNIT = Path("/etc/systemd/system") / _mirror.SERVICE
PREPARED = {
    "type": "dict",
    "options": {
        "archive": {"type": "path"},
        "send": {"type": "list", "elements": "str", "required": True},
        "remove": {"type": "list", "elements": "str", "required": True},
        "texts": {"type": "str", "required": True, "no_log": True},
    },
}


def write(path: Path, source: t.IO[bytes], mode: int) -> None:
    """Write a file by one durable rename."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.parent / ".kos-new"
    with fresh.open("wb") as target:
        os.fchmod(target.fileno(), 0o600)
        shutil.copyfileobj(source, target)
        target.flush()
        os.fchmod(target.fileno(), mode)
        os.fsync(target.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def differing(texts: dict[str, str]) -> list[str]:
    """Return the paths whose text is another, or that are not there."""
    return [
        path
        for path, text in texts.items()
        if not Path(path).is_file() or Path(path).read_text(encoding="utf-8") != text
    ]


def systemctl(module: AnsibleModule, *words: str, may_fail: bool = False) -> bool:
    """Ask systemd; whether it said yes."""
    rc, _stdout, stderr = module.run_command(["systemctl", *words])
    if rc and not may_fail:
        module.fail_json(msg=f"systemctl {' '.join(words)} failed: {stderr.strip()}")
    return bool(rc == 0)


def receive(module: AnsibleModule) -> None:
    """Put the files of the archive in place, in its order."""
    with tarfile.open(module.params["prepared"]["archive"]) as archive:
        for member in archive:
            source = archive.extractfile(member) if member.isreg() else None
            if source is None or member.name not in module.params["prepared"]["send"]:
                module.fail_json(msg=f"the archive holds {member.name!r}, which nobody asked for")
            write(Path(module.params["root"]) / member.name, source, 0o644)


def present(module: AnsibleModule) -> list[str]:
    """Make the host a mirror; return what was done."""
    prepared = module.params["prepared"]
    if prepared is None:
        module.fail_json(msg="this module runs through its action plugin alone")
    send, remove, texts = prepared["send"], prepared["remove"], json.loads(prepared["texts"])
    changed = differing(texts)
    actions = [f"send {len(send)} files, {send[-1]} last"] if send else []
    actions += [f"remove {path}" for path in remove] + [f"write {path}" for path in changed]
    if not module.check_mode:
        if send:
            receive(module)
        for path in remove:
            (Path(module.params["root"]) / path).unlink()
        for path in changed:
            write(
                Path(path), io.BytesIO(texts[path].encode("utf-8")), 0o600 if path.endswith(".key") else 0o644
            )
    return actions + service(module, bool(changed))


def service(module: AnsibleModule, changed: bool) -> list[str]:
    """Have the service run with what was written; return what was done."""
    active = systemctl(module, "is-active", "--quiet", _mirror.SERVICE, may_fail=True)
    enabled = systemctl(module, "is-enabled", "--quiet", _mirror.SERVICE, may_fail=True)
    actions = []
    if changed or not active:
        actions.append(f"{'restart' if active else 'start'} {_mirror.SERVICE}")
    if not enabled:
        actions.append(f"enable {_mirror.SERVICE}")
    if actions and not module.check_mode:
        systemctl(module, "daemon-reload")
        systemctl(module, "enable", "--quiet", _mirror.SERVICE)
        if changed or not active:
            systemctl(module, "restart", _mirror.SERVICE)
    return actions


def absent(module: AnsibleModule) -> list[str]:
    """Take the mirror away; return what was done."""
    places = (UNIT, Path(_mirror.CONFIG), Path(module.params["root"]))
    there = [path for path in places if path.exists()]
    if there and not module.check_mode:
        if UNIT.exists():
            systemctl(module, "disable", "--now", "--quiet", _mirror.SERVICE)
        for path in there:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        systemctl(module, "daemon-reload")
        # One that failed would be listed for ever.
        systemctl(module, "reset-failed", "--quiet", _mirror.SERVICE, may_fail=True)
    return [f"remove {path}" for path in there]


def main() -> None:
    """Do it and say so."""
    module = AnsibleModule(
        argument_spec={**_mirror.ARGUMENTS, "prepared": PREPARED}, supports_check_mode=True
    )
    os.umask(0o022)
    try:
        actions = present(module) if module.params["state"] == "present" else absent(module)
    except (OSError, tarfile.TarError) as error:
        module.fail_json(msg=f"{error}")
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
