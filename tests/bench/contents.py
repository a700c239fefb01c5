"""What the releases of the benchmarks contain: published trees of ansible-core, and a large made-up tree."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from .figures import BUILD

PAIRS = (("2.19.13", "2.19.14"), ("2.18.6", "2.19.0"))
MEBIBYTE = 1024 * 1024
# A little over 500 MB.
LARGE_MEBIBYTES = 480

# A release has at least one unit; the account is one that every machine has.
_UNIT = """\
id: payload
version: 1.0.0
tier: 3
entry: {command: [/usr/bin/true], type: oneshot, user: nobody}
"""


def ansible_core(version: str) -> Path:
    """Return the unpacked wheel of a version of ansible-core, dist-info included, as a tree for a release."""
    tree = BUILD / f"ansible-core-{version}"
    if tree.exists():
        return tree
    wheels = BUILD / "wheels"
    requirement = Path(__file__).with_name("requirements") / f"ansible-core-{version}.txt"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(requirement)]
    subprocess.run([*command, "--dest", str(wheels)], check=True)
    partial = _anew(tree.with_suffix(".partial"))
    with zipfile.ZipFile(next(wheels.glob(f"ansible_core-{version}-*.whl"))) as wheel:
        wheel.extractall(partial)
    _add_unit(partial)
    return partial.rename(tree)


def large(mebibytes: int, changed: bool) -> Path:
    """Return a made-up tree of files of 4 MiB, each a quarter of its size when compressed.

    Args:
        mebibytes: Size of the tree.
        changed: Whether it is the second of two trees, where one file in twenty is another and one in ten
            has another page of bytes.
    """
    tree = BUILD / f"large-{mebibytes}-{'new' if changed else 'old'}"
    if tree.exists():
        return tree
    partial = _anew(tree.with_suffix(".partial"))
    (partial / "data").mkdir()
    for index in range(mebibytes // 4):
        replaced = changed and index % 20 == 0
        block = random.Random(f"{index} {replaced}").randbytes(MEBIBYTE)
        data = bytearray(block * 4)
        if changed and index % 10 == 5:
            data[MEBIBYTE : MEBIBYTE + 4096] = random.Random(f"{index} edited").randbytes(4096)
        (partial / f"data/{index:04d}.bin").write_bytes(data)
    _add_unit(partial)
    return partial.rename(tree)


def _anew(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _add_unit(tree: Path) -> None:
    folder = tree / "units/payload"
    folder.mkdir(parents=True)
    (folder / "unit.yml").write_text(_UNIT, "utf-8")
