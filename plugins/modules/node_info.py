# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.node_info; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_info
short_description: What a node runs, how it is, and what is wrong with it
version_added: 1.0.0
description:
  - Asks C(kosctl) on the node and returns what it says. Needs no root.
  - A host without C(kosctl) is no error; RV(installed) says so.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.info
  - kos.fleet.attributes.group
options:
  gather:
    description: What is asked for.
    type: list
    elements: str
    choices: [status, health, doctor, refusals]
    default: [status]
"""

EXAMPLES = r"""
- name: Node says how it is
  kos.fleet.node_info:
    gather: [status, doctor]
  register: node
"""

RETURN = r"""
installed:
  description: Whether C(kosctl) is on the node.
  type: bool
  returned: always
status:
  description: State, current and previous release, trial, last outcome, refusals, lease, slots and units.
  type: dict
  returned: when asked for and installed
health:
  description: Whether the node is healthy, and each check.
  type: dict
  returned: when asked for and installed
doctor:
  description: What is wrong, in plain words.
  type: dict
  returned: when asked for and installed
refusals:
  description: Releases that the node refuses, with the reason.
  type: dict
  returned: when asked for and installed
"""
