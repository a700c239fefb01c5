"""Builds the gems that scenario kairoschain installs: the stand-in in two versions, and one that is bad."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from . import lane

SOURCE = lane.REPOSITORY / "tests/fixtures/kairos-chain"
GEMS = lane.FOLDER / "gems"
# File to version, and what is wrong with it.
WANTED = {
    "kairos-chain-3.59.0.gem": ("3.59.0", "none"),
    "kairos-chain-3.75.0.gem": ("3.75.0", "none"),
    "damages.gem": ("3.75.0", "damages"),
}


def main() -> int:
    """Build them anew, each with a file that holds its digest."""
    GEMS.mkdir(parents=True, exist_ok=True)
    for name, (version, fault) in WANTED.items():
        path = GEMS / name
        build(path, version, fault)
        path.with_name(f"{name}.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "\n")
    return 0


def build(path: Path, version: str, fault: str) -> None:
    """Build one, the same bytes each time."""
    settings = {
        "KAIROS_CHAIN_VERSION": version,
        "KAIROS_CHAIN_FAULT": fault,
        "SOURCE_DATE_EPOCH": "1700000000",
    }
    subprocess.run(
        ["gem", "build", "--quiet", "--output", str(path), "kairos-chain.gemspec"],
        cwd=SOURCE,
        env={**os.environ, **settings},
        check=True,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    sys.exit(main())
