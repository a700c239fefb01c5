#!/usr/bin/env python3
"""Makes the node bundle: kosctl's code and its pinned pure-Python wheels, the same bytes every time.

    python tools/bundle.py [--output roles/bootstrap/files] [--wheels build/wheels]

The archive is what role bootstrap unpacks to /opt/kos/VERSION. Its version is that of kosnode and a short
hash of what is in it, so an engine that changed is another directory on a node. Beside it stands
`kosctl.json` with the version, the name of the file and its SHA-256.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

REPOSITORY = Path(__file__).resolve().parents[1]
COMPILED_SUFFIXES = (".so", ".pyd", ".dylib", ".dll", ".a", ".o", ".pyc", ".pyo")
COMPILED_MAGIC = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
NODE_PYTHON = "3.10"
SHORT_HASH = 8

LAUNCHER = b'''#!/usr/bin/python3 -IB
"""Starts kosctl from the library beside it, whatever else is installed on the host."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib"))

from kosnode.cli import main

sys.exit(main())
'''


class BundleError(Exception):
    """The bundle cannot be made; the message says why."""


@dataclass(frozen=True, order=True)
class Entry:
    """A file of the bundle.

    Args:
        path: where it is below /opt/kos/VERSION.
        data: its bytes.
        executable: whether its mode is 0555, else 0444.
    """

    path: str
    data: bytes
    executable: bool = False

    @property
    def mode(self) -> int:
        return 0o555 if self.executable else 0o444


def engine(package: Path) -> Iterator[Entry]:
    """Yield the files of the engine: `lib/kosnode` without publisher and tests, `shell/`, `bin/kosctl`.

    Args:
        package: the folder `runtime/kosnode`.
    """
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        if not path.is_file() or {"__pycache__", "publish", "tests"} & set(inside.parts):
            continue
        if inside.parts[0] == "shell":
            yield Entry(str(PurePosixPath("shell", *inside.parts[1:])), path.read_bytes(), executable=True)
        else:
            yield Entry(str(PurePosixPath("lib/kosnode", *inside.parts)), path.read_bytes())
    yield Entry("bin/kosctl", LAUNCHER, executable=True)


def wheel(path: Path) -> Iterator[Entry]:
    """Yield the files of a wheel as they stand in `lib/`.

    Raises:
        BundleError: the wheel is not pure Python.
    """
    if not path.name.endswith("-none-any.whl"):
        raise BundleError(f"{path.name} is not a pure-Python wheel (its name does not end in -none-any.whl)")
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith("/") or name.endswith((".dist-info/RECORD", ".dist-info/INSTALLER")):
                continue
            if ".data/" in name:
                raise BundleError(f"{path.name} wants to install {name} outside of the library")
            yield Entry(f"lib/{name}", archive.read(name))


def check(entries: list[Entry]) -> list[Entry]:
    """Return the entries sorted; refuse compiled files and names that stand twice.

    Raises:
        BundleError: naming the file.
    """
    seen: set[str] = set()
    for entry in entries:
        if entry.path.endswith(COMPILED_SUFFIXES) or entry.data.startswith(COMPILED_MAGIC):
            raise BundleError(f"{entry.path} is compiled; a bundle runs on every architecture and holds none")
        if entry.path in seen:
            raise BundleError(f"{entry.path} would come from two places")
        seen.add(entry.path)
    return sorted(entries)


def content_hash(entries: list[Entry]) -> str:
    """Return a hash of paths, modes and bytes of sorted entries, hex."""
    digest = hashlib.sha3_256()
    for entry in entries:
        inner = hashlib.sha3_256(entry.data).hexdigest()
        digest.update(f"{entry.mode:04o} {inner} {entry.path}\n".encode())
    return digest.hexdigest()


def archive(entries: list[Entry]) -> bytes:
    """Return the entries as a tar.gz that they alone determine: no times, no owners, one order."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as stream:
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.size, member.mode, member.mtime = len(entry.data), entry.mode, 0
            stream.addfile(member, io.BytesIO(entry.data))
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=0)


def download(requirements: Path, wheels: Path) -> list[Path]:
    """Return the pinned wheels in `wheels`; where one is missing, they are fetched by hash, pure Python only.

    Raises:
        BundleError: a wheel cannot be had, or its hash differs.
    """
    text = requirements.read_text()
    wanted = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", text))
    wheels.mkdir(parents=True, exist_ok=True)

    def kept() -> list[Path]:
        files = sorted(wheels.glob("*.whl"))
        return [path for path in files if hashlib.sha256(path.read_bytes()).hexdigest() in hashes]

    if {path.name.split("-")[0].replace("_", "-") for path in kept()} == wanted:
        return kept()
    # Each comes to its place whole, since lanes make bundles at the same time.
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=wheels) as folder:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--require-hashes", "--only-binary", ":all:"),
            *("--implementation", "py", "--abi", "none", "--platform", "any"),
            *("--python-version", NODE_PYTHON, "--dest", folder, "--requirement", str(requirements)),
        ]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        if fetched.returncode != 0:
            raise BundleError(f"pip cannot get the wheels of {requirements}: {fetched.stderr.strip()}")
        for path in Path(folder).iterdir():
            path.replace(wheels / path.name)
    return kept()


def engine_version(package: Path) -> str:
    """Return `__version__` of the engine without importing it.

    Raises:
        BundleError: there is none.
    """
    for statement in ast.parse((package / "__init__.py").read_text()).body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)):
            continue
        if any(isinstance(name, ast.Name) and name.id == "__version__" for name in statement.targets):
            return str(statement.value.value)
    raise BundleError(f"{package}/__init__.py has no __version__")


def make(package: Path, wheels: list[Path], output: Path) -> dict[str, str]:
    """Write the bundle and `kosctl.json`; remove bundles of earlier versions.

    Args:
        package: the folder `runtime/kosnode`.
        wheels: pure-Python wheels.
        output: the folder to write to.

    Returns:
        What stands in `kosctl.json`: `version`, `file`, `sha256`.

    Raises:
        BundleError: a file is compiled, or stands twice.
    """
    entries = check([*engine(package), *(entry for path in wheels for entry in wheel(path))])
    version = f"{engine_version(package)}-{content_hash(entries)[:SHORT_HASH]}"
    data = archive(check([*entries, Entry("VERSION", f"{version}\n".encode())]))
    description = {
        "version": version,
        "file": f"kosctl-{version}.tar.gz",
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    output.mkdir(parents=True, exist_ok=True)
    for stale in output.glob("kosctl-*.tar.gz"):
        if stale.name != description["file"]:
            stale.unlink()
    (output / description["file"]).write_bytes(data)
    (output / "kosctl.json").write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")
    return description


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the node bundle, reproducibly.")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "roles/bootstrap/files")
    parser.add_argument(
        "--wheels", type=Path, default=REPOSITORY / "build/wheels", help="where wheels are kept"
    )
    options = parser.parse_args(arguments)
    try:
        wheels = download(REPOSITORY / "requirements/node.txt", options.wheels)
        description = make(REPOSITORY / "runtime/kosnode", wheels, options.output)
    except BundleError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    print(f"{options.output / description['file']} sha256:{description['sha256']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
