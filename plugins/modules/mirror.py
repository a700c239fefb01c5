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
  - Sends what the publisher's public folder has and the host lacks, in an order in which a node may read it meanwhile,
    the timestamp last, each file by one durable rename.
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
    description: V(present) is a mirror, V(absent) a host without its service, its configuration and its files.
    type: str
    choices: [present, absent]
    default: present
  source:
    description: The publisher's public folder on the controller. Required for O(state=present).
    type: path
  root:
    description: Folder on the host.
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
    description: Key of O(tls_certificate) on the controller. On the host only root and the service can read it.
    type: path
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

import contextlib
import json
import os
import shutil
import tarfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kos.fleet.plugins.module_utils import _mirror

HANDED_OVER = {
    "_archive": {"type": "path"},
    "_send": {"type": "list", "elements": "str", "default": []},
    "_remove": {"type": "list", "elements": "str", "default": []},
    "_texts": {"type": "str", "default": "{}", "no_log": True},
}


def write(path: str, source, mode: int) -> None:
    """Write a file by one durable rename."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    fresh = os.path.join(os.path.dirname(path), ".kos-new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fchmod(target.fileno(), mode)
        os.fsync(target.fileno())
    os.rename(fresh, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def differing(texts: dict[str, str]) -> list[str]:
    """Return the paths whose text is another, or that are not there."""
    found = []
    for path, text in texts.items():
        try:
            with open(path, encoding="utf-8") as stream:
                same = stream.read() == text
        except FileNotFoundError:
            same = False
        if not same:
            found.append(path)
    return found


def systemctl(module: AnsibleModule, *words: str, may_fail: bool = False) -> bool:
    """Ask systemd; whether it said yes."""
    rc, _stdout, stderr = module.run_command(["systemctl", *words])
    if rc and not may_fail:
        module.fail_json(msg=f"systemctl {' '.join(words)} failed: {stderr.strip()}")
    return rc == 0


def present(module: AnsibleModule) -> list[str]:
    """Make the host a mirror; return what was done."""
    params, check = module.params, module.check_mode
    texts = json.loads(params["_texts"])
    actions = []
    if params["_send"]:
        actions.append(f"send {len(params['_send'])} files, {params['_send'][-1]} last")
        if not check:
            with tarfile.open(params["_archive"]) as archive:
                for member in archive:
                    if not member.isreg() or member.name not in params["_send"]:
                        module.fail_json(msg=f"the archive holds {member.name!r}, which nobody asked for")
                    write(os.path.join(params["root"], member.name), archive.extractfile(member), 0o644)
    for path in params["_remove"]:
        actions.append(f"remove {path}")
        if not check:
            os.unlink(os.path.join(params["root"], path))
    changed = differing(texts)
    actions += [f"write {path}" for path in changed]
    if not check:
        for path in changed:
            write_text(path, texts[path])
    return actions + service(module, changed)


def write_text(path: str, text: str) -> None:
    """Write a text; keys only for root."""
    import io

    write(path, io.BytesIO(text.encode("utf-8")), 0o600 if path.endswith(".key") else 0o644)


def service(module: AnsibleModule, changed: list[str]) -> list[str]:
    """Have the service run with what was written; return what was done."""
    active = systemctl(module, "is-active", "--quiet", _mirror.SERVICE, may_fail=True)
    enabled = systemctl(module, "is-enabled", "--quiet", _mirror.SERVICE, may_fail=True)
    actions = []
    if changed or not active:
        actions.append(f"{'restart' if active else 'start'} {_mirror.SERVICE}")
    if not enabled:
        actions.append(f"enable {_mirror.SERVICE}")
    if not module.check_mode and actions:
        systemctl(module, "daemon-reload")
        systemctl(module, "enable", "--quiet", _mirror.SERVICE)
        if changed or not active:
            systemctl(module, "restart", _mirror.SERVICE)
    return actions


def absent(module: AnsibleModule) -> list[str]:
    """Take the mirror away; return what was done."""
    unit = f"/etc/systemd/system/{_mirror.SERVICE}"
    there = [path for path in (unit, _mirror.CONFIG, module.params["root"]) if os.path.lexists(path)]
    if not module.check_mode and there:
        if os.path.lexists(unit):
            systemctl(module, "disable", "--now", "--quiet", _mirror.SERVICE, may_fail=True)
        for path in there:
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        systemctl(module, "daemon-reload")
    return [f"remove {path}" for path in there]


def main() -> None:
    """Do it and say so."""
    module = AnsibleModule(argument_spec={**_mirror.ARGUMENTS, **HANDED_OVER}, supports_check_mode=True)
    os.umask(0o022)
    try:
        actions = present(module) if module.params["state"] == "present" else absent(module)
    except (OSError, tarfile.TarError) as error:
        module.fail_json(msg=f"{error}")
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
