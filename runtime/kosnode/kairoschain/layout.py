"""Where things are in a data directory; what each is worth to a backup stands in backup/kairoschain.py."""

from __future__ import annotations

from pathlib import Path

META = ".kairos_meta.yml"
CONFIG = "skills/config.yml"
LEDGER = "storage/blockchain.json"
TOKENS = "storage/tokens.json"
ACTION_LOG = "skills/action_log.jsonl"


def ledger(data: Path) -> Path:
    """Return the ledger of a data directory."""
    return data / LEDGER


def is_data(folder: Path) -> bool:
    """Whether a folder is a data directory: where there is none, a start of the application makes one."""
    return (folder / META).is_file()
