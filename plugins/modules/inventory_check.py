# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.inventory_check; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_check
short_description: Inventory is sound, and which waves come of it
version_added: 1.0.0
description:
  - Fails with one message that names all that is wrong with the inventory, before any node is touched.
  - Each node has to be in exactly one group V(zone_*), and has to have mirrors.
  - Runs on the controller alone.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.info
options:
  nodes:
    description:
      - The nodes that count, in the order in which they are patched within a zone.
      - Without it variables are checked alone.
    type: list
    elements: str
  group:
    description: Group of all nodes of the fleet; whether they are in zones is checked for these.
    type: str
    default: nodes
  mirrors:
    description: Whether each node has to have a non-empty O(ignore:bootstrap_mirrors).
    type: bool
    default: false
  roles:
    description:
      - Roles of this collection. Variables of any host of the play that begin with such a name are theirs.
    type: list
    elements: str
    default: []
  prefix:
    description: Refuse variables that begin with this prefix and are not in O(variables).
    type: str
  variables:
    description: The variables that may begin with O(prefix).
    type: list
    elements: str
    default: []
  numbers:
    description:
      - Values that have to be whole numbers, 0 or more, by their names without O(prefix). Empty ones pass.
    type: dict
    default: {}
  batch:
    description: Nodes at a time in a zone, as a number or as a share such as V(25%).
    type: raw
    default: 1
  canary:
    description: V(first), V(each_zone), V(none), the name of a node, or a list of names.
    type: raw
    default: first
  zone:
    description: Only this zone.
    type: str
  zone_order:
    description: All zones, in the order in which they are patched. By name by default.
    type: list
    elements: str
  lease:
    description: Lease that a controller left behind, to take it over. It becomes RV(rollout).
    type: str
  record_dir:
    description:
      - Folder on the controller in which it notes the lease of the rollout until M(kos.fleet.wave_gate) sees
        that all nodes gave it back. What a rollout of the same nodes left that was broken off is in RV(left).
      - The task fails where another rollout of some of the nodes still runs. One of other nodes may.
    type: path
"""

EXAMPLES = r"""
- name: Inventory is sound
  kos.fleet.inventory_check:
    nodes: "{{ ansible_play_hosts_all }}"
    batch: 2
  run_once: true
  register: plan
"""

RETURN = r"""
rollout:
  description: A name for a rollout, which no other has.
  type: str
  returned: when O(nodes) is given
record:
  description: The file in which the controller noted it.
  type: str
  returned: with O(record_dir)
left:
  description: Leases that rollouts of this controller left behind, for M(kos.fleet.lease).
  type: list
  elements: str
  returned: when O(nodes) is given
group:
  description: A name for the group of the rollout's nodes, which sorts after those of earlier rollouts.
  type: str
  returned: when O(nodes) is given
holder:
  description: Who runs it, as account and host of the controller.
  type: str
  returned: when O(nodes) is given
zones:
  description: Nodes of each zone.
  type: dict
  returned: when O(nodes) is given
waves:
  description: Waves in order, each with C(name), C(zone) and C(hosts).
  type: list
  elements: dict
  returned: when O(nodes) is given
nodes:
  description: All nodes of the waves, in that order.
  type: list
  elements: str
  returned: when O(nodes) is given
"""
