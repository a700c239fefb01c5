# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.health; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health
short_description: Node is healthy
version_added: 1.0.0
description:
  - Has the node measure its health now, and fails where it is not healthy, or nobody could tell.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.info
  - kos.fleet.attributes.group
options: {}
"""

EXAMPLES = r"""
- name: Node is healthy
  kos.fleet.health:
"""

RETURN = r"""
healthy:
  description: Whether every check passed.
  type: bool
  returned: always
health:
  description: What was measured, each check with its result.
  type: dict
  returned: when the node answered
"""
