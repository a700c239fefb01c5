# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of kos.fleet.bootstrap, as its action plugin and its module check them."""

from __future__ import annotations

import typing as t

ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "fleet": {"type": "str"},
    "node": {"type": "str"},
    "zone": {"type": "str"},
    "node_class": {"type": "str"},
    "release_name": {"type": "str", "default": "kos"},
    "channel": {"type": "str", "default": "stable"},
    "mirrors": {"type": "list", "elements": "str"},
    "mirror_ca": {"type": "str"},
    "policy": {"type": "dict", "default": {}},
    "governance_id": {"type": "str"},
    "tribe": {"type": "str"},
    "unit_settings": {"type": "dict", "default": {}},
    "conf": {"type": "dict"},
    "trust_root": {"type": "raw"},
    "replace_trust_root": {"type": "bool", "default": False},
    "operator_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "service_accounts": {"type": "list", "elements": "str", "default": []},
    "bundle": {"type": "str"},
    "bundle_sha256": {"type": "str"},
}
