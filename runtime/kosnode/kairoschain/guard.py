"""What each start of the server goes through: none without a whole ledger; and a note of what it reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .. import files, ledger
from ..errors import NotFoundError
from . import layout, tokens


def guard(data: Path, code: Path, started: Path, unit: Path) -> ledger.Head:
    """Allow a start, and note what the server reads at its start and never again.

    Args:
        data: data directory.
        code: folder of the gem's versions.
        started: where the note goes, in a folder that goes away with the server.
        unit: unit of the server.

    Raises:
        NotFoundError: there is no data directory, or no ledger in it: the server would begin new ones.
        DamagedError, InputError: the ledger is damaged, or cannot be read.
    """
    if not layout.is_data(data):
        raise NotFoundError(f"{data} is no data directory of KairosChain; a start would make a new one there")
    path = layout.ledger(data)
    with ledger.shared(path):
        head = ledger.head(path)
    files.write_durable(started, files.canonical(start_note(data, code, unit)))
    return head


def start_note(data: Path, code: Path, unit: Path) -> dict[str, Any]:
    """Return what a server that is started now would be started with."""
    return {
        "code": str((code / "current").resolve()),
        "config": _sha256(data / layout.CONFIG),
        "tokens": sorted(tokens.known(data)),
        "unit": _sha256(unit),
    }


def is_outdated(started: Path, data: Path, code: Path, unit: Path) -> bool:
    """Whether a server that runs was started with something else than what is there now."""
    try:
        return bool(json.loads(started.read_bytes()) != start_note(data, code, unit))
    except (FileNotFoundError, ValueError):
        return True


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
