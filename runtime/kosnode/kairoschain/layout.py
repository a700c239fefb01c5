"""Where things are in a KairosChain data directory, and what each of them is worth (K05).

Backup, restore and role read this one table. What is not in it is new to us, and kept as if it were `high`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

META = ".kairos_meta.yml"
CONFIG = "skills/config.yml"
LEDGER = "storage/blockchain.json"
TOKENS = "storage/tokens.json"
ACTION_LOG = "skills/action_log.jsonl"

# The first prefix that fits counts. `skip` is made again by the application, or means nothing elsewhere.
CLASSES: tuple[tuple[str, str], ...] = (
    ("storage/blockchain.json", "critical"),
    ("storage/blockchain.json.lock", "skip"),
    ("storage/embeddings", "skip"),
    ("storage/export", "low"),
    ("storage/snapshots", "medium"),
    ("storage/tokens.json", "high"),
    ("storage/tls", "high"),
    ("storage", "high"),
    ("skills", "high"),
    ("knowledge", "high"),
    ("skillsets", "high"),
    ("config", "high"),
    (".kairos_meta.yml", "high"),
    ("context", "medium"),
)


def class_of(path: str) -> str:
    """Return the class of a path in the data directory: critical, high, medium, low or skip.

    Args:
        path: relative to the data directory.
    """
    parts = PurePosixPath(path).parts
    for prefix, rank in CLASSES:
        wanted = PurePosixPath(prefix).parts
        if parts[: len(wanted)] == wanted:
            return rank
    return "high"


def ledger(data: Path) -> Path:
    """Return the ledger of a data directory."""
    return data / LEDGER


def is_data(folder: Path) -> bool:
    """Whether a folder is a data directory: where there is none, a start of the application makes one."""
    return (folder / META).is_file()
