# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what a failed trial left on a node to the controller; names from a node are not trusted."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

_TRIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")


def store(folder: Path, trial: str, files: Mapping[str, t.Any]) -> Path:
    """Write each text below `folder/trial`, which only its owner may read; names that leave it are left out.

    Raises:
        ValueError: the node gave something that is no id of a trial.
        OSError: a file cannot be written.
    """
    if not _TRIAL.fullmatch(trial):
        raise ValueError(f"{trial!r} is no id of a trial")
    own = folder / trial
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in sorted(files.items()):
        inside = PurePosixPath(str(name))
        if inside.is_absolute() or ".." in inside.parts or not inside.parts or "\0" in str(name):
            continue
        path = own.joinpath(*inside.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text), encoding="utf-8")
    return own
