# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.lease; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Hold the lease of a rollout on a node
version_added: 1.0.0
description:
  - A rollout takes a lease on each of its nodes before it touches any, so that two controllers collide at
    the first node with one clear message.
  - A lease ends by itself after O(ttl) seconds, so a controller that died holds nothing up for ever.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - Taking a lease again renews its time, which does not count as a change.
options:
  id:
    description: Name of the rollout, the same on all nodes.
    type: str
    required: true
  state:
    description: V(present) takes or renews the lease, V(absent) gives it back.
    type: str
    choices: [present, absent]
    default: present
  holder:
    description: Who runs the rollout, for the message that others get.
    type: str
  ttl:
    description: Seconds after which the lease ends by itself.
    type: int
    default: 3600
  takeover:
    description: Name of the variable that sets O(id), for the message that tells how to take over a lease
      whose controller is gone.
    type: str
  left:
    description: Leases that rollouts of this controller left behind; one of them that holds the node is given
      back first.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: This rollout holds the node
  kos.fleet.lease:
    id: patch-20261121
    holder: ada@controller
    ttl: 1800
"""

RETURN = r"""
actions:
  description: What was done.
  type: list
  elements: str
  returned: always
lease:
  description: The lease that holds the node now, with C(id), C(holder) and C(expires_in_s).
  type: dict
  returned: when there is one
"""
