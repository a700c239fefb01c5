# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.node_units; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_units
short_description: Agents that a node adds to its release
version_added: 1.0.0
description:
  - Puts units of the node's own beside those of its release, and starts, restarts or stops just those that
    changed.
  - All of them are validated before anything is written. Units of the release are never touched.
  - Needs root, and a node that was bootstrapped. Nothing is changed while a trial is running.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - On a host without C(kosctl) the plan is what the controller knows, and says so in RV(plan_by).
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  units:
    description: All units that the node adds. One that an earlier run added and that is not named any more
      goes away.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the unit, also the C(id) in its description.
        type: str
        required: true
      unit:
        description: The unit's description, as a dictionary or as the path of its C(unit.yml) on the
          controller.
        type: raw
        required: true
      files:
        description: Files in the unit's folder.
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: Path in the unit's folder.
            type: str
            required: true
          src:
            description: The file on the controller. Either this or O(units[].files[].content).
            type: path
          content:
            description: The text itself.
            type: str
          mode:
            description: V("0555") for a program, else V("0444").
            type: str
            choices: ["0444", "0555"]
            default: "0444"
"""

EXAMPLES = r"""
- name: Node runs an agent of its own
  kos.fleet.node_units:
    units:
      - name: scribe
        unit:
          id: scribe
          version: 1.0.0
          tier: 2
          entry:
            command: [bin/scribe]
        files:
          - path: bin/scribe
            src: files/scribe
            mode: "0555"
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
plan_by:
  description: V(controller) where C(kosctl) is not on the host yet.
  type: str
  returned: in check mode, without C(kosctl)
"""
