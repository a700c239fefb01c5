# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.backup_host; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_host
short_description: Host is backed up, takes backups, or is their witness
version_added: 1.0.0
description:
  - What role C(kos.fleet.backup) is made of, in four steps, since a witness has to know a node's key before
    the node opens its repositories, and who drills a node has to know the key that it got by then.
  - Passwords and recovery keys are made once on the controller, one file each, and never shown.
  - Needs root, and C(kosctl) on the host (role C(bootstrap)).
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Secrets are not shown.
  idempotent:
    support: full
options:
  state:
    description:
      - V(absent) takes timers, server, table and secrets away. Repositories, witness' lines and keys stay.
    type: str
    choices: [present, absent]
    default: present
  step:
    description:
      - V(files) writes table, secrets, key and timers, and has a target serve. V(witness) takes O(node_keys).
        V(repositories) takes O(known_hosts) and opens the repositories with a recovery key each.
        V(drills) writes down what playbook C(kos.fleet.drill) may have drilled here without root, with the
        public keys that the controller knows of each node.
    type: str
    choices: [files, witness, repositories, drills]
    default: files
  repositories:
    description: Repositories by name, with C(url), C(append_only), C(ca), and secret C(environment).
    type: dict
    default: {}
  sources:
    description: What is backed up, by name.
    type: dict
    default: {}
  witness_url:
    description: Address of the witness.
    type: str
    default: ""
  settings:
    description: Further keys of the table.
    type: dict
    default: {}
  drilled:
    description: Names of nodes whose backups are drilled on this host, which says when one is overdue.
    type: list
    elements: str
    default: []
  drills:
    description: Nodes that are drilled on this host, as P(kos.fleet.drill_tables#filter) makes them.
    type: dict
    default: {}
  drill_scratch:
    description: Directory on this host in which each drill makes and removes one of its own.
    type: str
  calendar:
    description: When C(run), C(check) and C(forget) happen, as calendar events of systemd.
    type: dict
    default: {}
  secrets_dir:
    description: Folder on the controller with the passwords and recovery keys.
    type: path
    default: secrets/backup
  server:
    description: Whether the host takes the backups of others.
    type: bool
    default: false
  server_root:
    description: Folder of the repositories it takes.
    type: str
    default: /srv/kos-backup
  server_address:
    description: Address that it listens on. All by default.
    type: str
    default: ""
  server_port:
    description: TCP port.
    type: int
    default: 8100
  server_nodes:
    description: Whose backups it takes.
    type: list
    elements: str
    default: []
  server_tls_certificate:
    description: Certificate chain on the controller. With O(server_tls_key) it speaks HTTPS.
    type: path
  server_tls_key:
    description: Key of O(server_tls_certificate) on the controller.
    type: path
  node_keys:
    description: Public keys of nodes by name.
    type: dict
    default: {}
  known_hosts:
    description: Public keys of the witness' SSH server, as in a file C(known_hosts).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Host takes the backups of two nodes
  kos.fleet.backup_host:
    server: true
    server_nodes: [node1, node2]
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
node_key:
  description: Public key that the node signs with.
  type: str
  returned: success, with O(state=present), once there is one
host_key:
  description: Public key of the host's SSH server.
  type: str
  returned: success, with O(state=present), where it has one
unopened:
  description: Repositories that were never opened from here.
  type: list
  elements: str
  returned: success, with O(state=present)
repositories:
  description: Each repository with its id, and whether it was made.
  type: list
  elements: dict
  returned: success, with O(step=repositories)
"""
