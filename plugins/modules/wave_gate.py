# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.wave_gate; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wave_gate
short_description: Whether a rollout goes on to its next wave
version_added: 1.0.0
description:
  - Judges what the nodes of the waves so far have said, looks for the pause file, and waits out the time
    between waves.
  - No data from a node is not success. A node that could not be reached, whose task failed, or whose task
    did not run counts as failed.
  - Runs on the controller alone, and never fails, so that what comes after can tidy up before the play
    ends red.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.info
options:
  waves:
    description: Waves of the rollout, as M(kos.fleet.inventory_check) returns them.
    type: list
    elements: dict
    required: true
  next:
    description: Hosts of the wave that is about to begin. Absent at the end, when all waves are judged.
    type: list
    elements: str
  register:
    description: Names of the variables in which the nodes' results were registered, each of which has to
      be there.
    type: list
    elements: str
    required: true
  gate:
    description: Name of the variable in which the gates before earlier waves were registered.
    type: str
  failures:
    description: How many failed nodes are put up with.
    type: int
    default: 0
  bake:
    description: Seconds to wait after a wave that changed something, before the next one begins.
    type: int
    default: 0
  pause_file:
    description: File on the controller that stops the rollout before its next wave.
    type: path
  record:
    description: Where M(kos.fleet.inventory_check) noted the lease; it goes when all nodes gave it back.
    type: path
  rollout:
    description: The lease that is noted there. Required with O(record).
    type: str
  returned:
    description: Name of the variable in which giving the lease back was registered. Required with O(record).
    type: str
"""

EXAMPLES = r"""
- name: Rollout may go on
  kos.fleet.wave_gate:
    waves: "{{ waves }}"
    next: "{{ ansible_play_batch }}"
    register: [patched]
    gate: gate
    bake: 30
  run_once: true
  register: gate
"""

RETURN = r"""
stop:
  description: Whether the rollout stops here.
  type: bool
  returned: always
reason:
  description: Why it stops. Empty where it goes on.
  type: str
  returned: always
failed_nodes:
  description: Nodes that failed, each with one sentence.
  type: dict
  returned: always
msg:
  description: The whole story, for the end.
  type: str
  returned: always
waves:
  description: All waves, each with C(name) and C(hosts).
  type: list
  elements: dict
  returned: always
wave:
  description: Name of the wave that is about to begin.
  type: str
  returned: when there is one
"""
