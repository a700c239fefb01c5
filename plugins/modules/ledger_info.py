# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.ledger_info; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ledger_info
short_description: Whether a KairosChain ledger is whole, and what its last block is
version_added: 1.0.0
description:
  - Has C(kosctl) verify a ledger from its file alone. The application's own check sees neither a changed hash
    of a block nor a tail that is gone, and calls an absent ledger nothing to verify.
  - A ledger that is not whole is no failure of this module, RV(state) says so. Needs root.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.info
options:
  path:
    description: The ledger on the host.
    type: path
    default: /var/lib/kairos/data/storage/blockchain.json
  anchor:
    description: INDEX:HASH of a block that was seen before. RV(relation) tells what became of it.
    type: str
"""

EXAMPLES = r"""
- name: Ledger is looked at
  kos.fleet.ledger_info:
    anchor: "{{ lookup('ansible.builtin.file', 'build/anchors/' ~ inventory_hostname ~ '.anchor') }}"
  become: true
  register: ledger

- name: Ledger is whole and goes on from what was seen before
  ansible.builtin.assert:
    that: ledger.state == 'ok' and ledger.relation in ['same', 'grown']
"""

RETURN = r"""
state:
  description: V(ok), V(damaged), V(absent) or V(unreadable).
  type: str
  returned: always
length:
  description: Number of blocks.
  type: int
  returned: always
head:
  description: Length, index and hash of the last block.
  type: dict
  returned: unless the last block is damaged, or there is none
first_bad:
  description: Index of the first block that is damaged or missing.
  type: int
  returned: where there is one
ranges:
  description: Where damage is, as first block, last block and reason.
  type: list
  elements: list
  returned: always
relation:
  description: V(same), V(grown), V(cut) or V(forked), compared with O(anchor).
  type: str
  returned: with O(anchor), if the ledger is whole
"""
