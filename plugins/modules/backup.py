# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.backup; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Sources of a node are backed up, and their backups looked after
version_added: 1.0.0
description:
  - Has C(kosctl) on the node work by the table of role C(kos.fleet.backup). A snapshot that lacks
    something is a
    failure, whose result tells what there is.
  - O(verb=run), O(verb=list) and O(verb=check) need the operator account alone; O(verb=forget),
    O(verb=unlock) and O(verb=witness) need root.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.group
attributes:
  check_mode:
    support: partial
    details:
      - O(verb=run) says whether it could run and what it would do, O(verb=forget) what would go.
        O(verb=check) and
        O(verb=unlock) do nothing.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - Each O(verb=run) makes a snapshot of each source in each repository.
options:
  verb:
    description:
      - V(run) makes snapshots, V(list) tells which there are, V(check) checks the repositories and reads
        the next part
        of their data, V(forget) removes what the retention does not keep, V(unlock) takes stale locks away.
      - V(witness) asks a host that is a witness for what it keeps of O(node).
    type: str
    choices: [run, list, check, forget, unlock, witness]
    default: run
  sources:
    description:
      - Names of sources; all by default. For O(verb=list) one at most, for V(run) as many as there are.
    type: list
    elements: str
    default: []
  node:
    description: For O(verb=witness) alone, the node that the host is a witness of.
    type: str
"""

EXAMPLES = r"""
- name: Everything is backed up
  kos.fleet.backup:

- name: The database has a snapshot from before the change
  kos.fleet.backup:
    sources: [app-database]

- name: Which snapshots are there
  kos.fleet.backup:
    verb: list
  register: backups
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
run:
  description: Id of the run; none in check mode.
  type: str
  returned: for O(verb=run)
sources:
  description: Each source with its snapshots, files, bytes, seconds and heads.
  type: list
  elements: dict
  returned: for O(verb=run), also where it failed
runs:
  description: Each run with its time, and its sources with their snapshots.
  type: list
  elements: dict
  returned: for O(verb=list)
repositories:
  description: Each repository, whether it is whole, and which part of its data was read.
  type: list
  elements: dict
  returned: for O(verb=check)
findings:
  description: What is damaged.
  type: list
  elements: dict
  returned: for O(verb=check)
removed:
  description: Snapshots that were removed, or would be.
  type: list
  elements: dict
  returned: for O(verb=forget)
kept:
  description: Snapshots that stay.
  type: list
  elements: dict
  returned: for O(verb=forget)
unlocked:
  description: Locks that were taken away.
  type: list
  elements: dict
  returned: for O(verb=unlock)
left:
  description: Locks of those that may live.
  type: list
  elements: dict
  returned: for O(verb=unlock)
"""
