# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds variables of roles and playbooks that nobody knows: a misspelt one must not pass in silence. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

import yaml


def role_variables(role: Path) -> set[str]:
    """Return the names of all options of all entry points in a role's `meta/argument_specs.yml`."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))[
        "argument_specs"
    ]
    return {name for entry in specs.values() for name in entry.get("options") or {}}


def unknown(names: Iterable[str], prefix: str, known: Iterable[str]) -> list[str]:
    """Return a sentence for each name that begins with the prefix and is not known.

    Args:
        names: the names of all variables of a host.
        prefix: `bootstrap_`; names that begin with `_` are private and never looked at.
        known: the names that may be used.
    """
    allowed = sorted(known)
    told = []
    for name in sorted({str(name) for name in names}):
        if name.startswith(prefix) and name not in allowed:
            rest = {other.removeprefix(prefix): other for other in allowed}
            near = difflib.get_close_matches(name.removeprefix(prefix), rest, n=1)
            hint = f"did you mean {rest[near[0]]}?" if near else f"known are {', '.join(allowed) or 'none'}"
            told.append(f"{name} is not a variable of {prefix.rstrip('_')}; {hint}")
    return told
