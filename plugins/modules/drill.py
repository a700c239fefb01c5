# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.drill; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drill
short_description: Backups of a node are restored on another host, and proven
version_added: 1.0.0
description:
  - Runs on the host that is to restore, with the recovery key of O(node) and what role C(kos.fleet.backup)
    wrote there of it (C(/etc/kos/drill.json)). A node that is not in that file is refused.
    The newest state and an earlier one are restored into a folder of their own and verified without network.
    Then the same verification has to turn red on copies that are damaged on purpose.
  - Fails unless the outcome is V(VERIFIED). The report is kept on the controller in each case.
  - Needs no root. Connects as the operator account, which can name neither a path, an address nor a command.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.group
attributes:
  check_mode:
    support: full
    details:
      - Checks what the controller can, says what would be drilled, and asks no host.
  diff_mode:
    support: none
  idempotent:
    support: none
    details:
      - Each run is a drill.
options:
  node:
    description: Whose backups, by its name in the inventory.
    type: str
    required: true
  seed:
    description: Decides what is left to chance, such as sources and points in time.
    type: str
    required: true
  repositories:
    description: What C(backup_repositories) says of O(node); which there are, and which want credentials.
    type: dict
    required: true
  repository:
    description: From which one. By default the first that is not a directory.
    type: str
  environment:
    description:
      - Credentials that can only read, for a repository of S3. A rest-server and a directory are read through
        a proxy that lets nothing be written, and SFTP with the SSH keys that root has there.
      - Names are C(AWS_ACCESS_KEY_ID), C(AWS_SECRET_ACCESS_KEY), C(AWS_SESSION_TOKEN), C(AWS_DEFAULT_REGION),
        C(RESTIC_REST_USERNAME) and C(RESTIC_REST_PASSWORD).
    type: dict
    default: {}
  sources:
    description: Names of sources. By default all critical ones, and one of each other class.
    type: list
    elements: str
    default: []
  time:
    description: The earlier state, such as C(2026-01-31T12:00:00Z). By default one that the seed chooses.
    type: str
  picked:
    description: Names of the nodes that were chosen together with this one, for the report.
    type: list
    elements: str
    default: []
  among:
    description: Names of the nodes among which O(picked) were chosen, for the report.
    type: list
    elements: str
    default: []
  witness_lines:
    description: What M(kos.fleet.backup) said of O(node) on its witness, where that is reached over SSH.
    type: list
    elements: dict
  secrets_dir:
    description: Folder on the controller with the recovery keys.
    type: path
    default: secrets/backup
  report_dir:
    description: Folder on the controller for the reports, in a folder for each node.
    type: path
    default: build/report/drills
  accept_untested:
    description: The word for an outcome of V(COULD_NOT_TEST) to be no failure.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Backups of node1 come back on node3
  kos.fleet.drill:
    node: node1
    seed: "7"
    repositories: "{{ hostvars['node1'].backup_repositories }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
msg:
  description: The outcome in one sentence.
  type: str
  returned: without check mode
outcome:
  description: V(VERIFIED), V(FAILED) or V(COULD_NOT_TEST).
  type: str
  returned: where there was a drill
report:
  description: The report, as schemas/drill.schema.json says.
  type: dict
  returned: where there was a drill
kept:
  description: Where C(report), C(signature), C(signer) and C(page) are on the controller.
  type: dict
  returned: where there was a drill
"""
