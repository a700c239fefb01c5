"""Assembles the tree of a release of the reference runtime, with its pinned wheels."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements/kosd.txt"


def make_tree(out: Path, version: str, *, fault: dict[str, int] | None = None) -> Path:
    """Make the tree of one version anew.

    Args:
        out: folder to make.
        version: version that the release says it is.
        fault: fault that the release carries on purpose, as docs/reference/kosd.md describes it.

    Returns:
        `out`.

    Raises:
        subprocess.CalledProcessError: the wheels could not be had or the tree not be made; it has said why.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "runtime/release/tree.py"), "--version", version]
    command += ["--wheels", str(wheels()), "--out", str(out)]
    if fault:
        command += ["--fault", json.dumps(fault)]
    subprocess.run(command, check=True)
    return out


def wheels() -> Path:
    """Return the folder with the wheels of kosd, fetched once for each state of the requirement file."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    folder = ROOT / f"build/wheels/kosd-{digest}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--require-hashes", "--only-binary", ":all:", "--python-version", "3.10"]
        command += ["--implementation", "py", "--abi", "none", "--platform", "any"]
        subprocess.run([*command, "--dest", str(partial), "--requirement", str(REQUIREMENTS)], check=True)
        partial.replace(folder)
    return folder
