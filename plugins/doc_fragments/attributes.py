# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules of the collection say about check mode, diff and idempotence."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of modules; a module says for each how far it goes."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing) in C(check_mode), when in
      diff mode.
  idempotent:
    description: Changes nothing when run again with the same options, as long as nothing else changed the
      node.
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module never changes anything.
  diff_mode:
    support: N/A
  idempotent:
    support: full
    details:
      - This module never changes anything.
"""

    GROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/kos.fleet.kosctl) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - kos.fleet.kosctl
"""
