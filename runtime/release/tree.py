"""Assembles the tree of a release of the reference runtime: the same inputs give the same bytes.

Run as `python runtime/release/tree.py --version 1.1.0 --wheels DIR --out DIR`. The wheels are those of
requirements/kosd.txt, fetched and checked against their hashes by the caller.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fastjsonschema
import yaml

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "kosd"
READ_ONLY, PROGRAM = 0o444, 0o555
# The version in a unit's source that stands for the release's own.
PLACEHOLDER = "0.0.0"
VERSION = re.compile(r"[0-9]+[.][0-9]+[.][0-9]+(-[0-9A-Za-z.-]+)?")
COMPILED = (".so", ".pyd", ".dylib", ".dll", ".a", ".o", ".pyc", ".pyo")
# Written by installers or listing what is not there any more: noise that would differ between equal trees.
NOISE = frozenset({"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json"})


class TreeError(Exception):
    """The tree cannot be assembled from these inputs; the text says which and why."""


class Tree:
    """Files by path, each with its bytes and mode; a path can be given once."""

    def __init__(self) -> None:
        self._files: dict[PurePosixPath, tuple[bytes, int]] = {}

    def add(self, path: PurePosixPath, content: bytes, mode: int = READ_ONLY) -> None:
        """Adds a file; raises TreeError for a path out of the tree, one that is there, or machine code."""
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise TreeError(f"{path}: leads out of the tree")
        if path.suffix in COMPILED or content[:4] == b"\x7fELF":
            raise TreeError(f"{path}: is compiled; a release of the reference runtime is pure Python")
        if path in self._files:
            raise TreeError(f"{path}: comes from two sources")
        self._files[path] = (content, mode)

    def write(self, out: Path) -> int:
        """Writes the files below `out`, which must be empty or not there; returns how many."""
        if out.exists() and any(out.iterdir()):
            raise TreeError(f"{out}: is not empty")
        for path, (content, mode) in sorted(self._files.items()):
            target = out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(mode)
        return len(self._files)


def assemble(version: str, wheels: Path, fault: str | None = None, settings: Iterable[str] = ()) -> Tree:
    """Returns the release's tree; raises TreeError.

    `fault` is the JSON text of the fault-injection switch, `settings` are `UNIT.KEY=VALUE` changes to units.
    """
    if not VERSION.fullmatch(version):
        raise TreeError(f"--version: must be MAJOR.MINOR.PATCH with an optional -SUFFIX; it is {version!r}")
    tree = Tree()
    for source in _sources(HERE / "bin"):
        tree.add(PurePosixPath("bin", source.name), source.read_bytes(), PROGRAM)
    for source in _sources(HERE / "agents"):
        tree.add(PurePosixPath("agents", source.name), source.read_bytes(), PROGRAM)
    for source in _sources(PACKAGE):
        tree.add(PurePosixPath("lib/kosd", source.relative_to(PACKAGE).as_posix()), source.read_bytes())
    _add_wheels(tree, wheels)
    tree.add(PurePosixPath("share/kosd/version"), f"{version}\n".encode())
    if fault is not None:
        tree.add(PurePosixPath("share/kosd/fault.json"), _fault(fault))
    for name, text in _units(version, settings).items():
        tree.add(PurePosixPath("units", name, "unit.yml"), text.encode())
    return tree


def _sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            yield path


def _add_wheels(tree: Tree, folder: Path) -> None:
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise TreeError(f"--wheels: there is no wheel in {folder}")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                path = PurePosixPath(info.filename)
                if info.is_dir() or (path.parts[0].endswith(".dist-info") and path.name in NOISE):
                    continue
                if path.parts[0].endswith(".data"):
                    raise TreeError(
                        f"{wheel.name}: {path}: holds files for elsewhere than the library folder"
                    )
                if path.parts[0] == "kosd":
                    raise TreeError(f"{wheel.name}: {path}: would lie within the daemon's own package")
                tree.add(PurePosixPath("lib") / path, archive.read(info))


def _fault(text: str) -> bytes:
    try:
        document = json.loads(text)
        fastjsonschema.validate(json.loads((PACKAGE / "fault.schema.json").read_text("utf-8")), document)
    except ValueError as error:
        raise TreeError(f"--fault: {error}") from None
    return (json.dumps(document, sort_keys=True) + "\n").encode()


def _units(version: str, settings: Iterable[str]) -> dict[str, str]:
    """Returns the text of each unit file with the version and the settings in it."""
    texts = {path.parent.name: path.read_text("utf-8") for path in sorted(HERE.glob("units/*/unit.yml"))}
    texts = {
        name: text.replace(f'version: "{PLACEHOLDER}"', f'version: "{version}"')
        for name, text in texts.items()
    }
    for setting in settings:
        address, equals, value = setting.partition("=")
        name, *keys = address.split(".")
        if not equals or not keys or not all(keys):
            raise TreeError(
                f"--set: must be UNIT.KEY=VALUE, with more keys parted by dots; it is {setting!r}"
            )
        if name not in texts:
            raise TreeError(f"--set: there is no unit {name!r}; known are {', '.join(sorted(texts))}")
        texts[name] = _with(texts[name], keys, _value(value), setting)
    return texts


def _with(text: str, keys: list[str], value: Any, setting: str) -> str:
    document = yaml.safe_load(text)
    holder = document
    for key in keys[:-1]:
        holder = holder.setdefault(key, {})
        if not isinstance(holder, dict):
            raise TreeError(f"--set: {key!r} in {setting!r} holds no keys")
    holder[keys[-1]] = value
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _value(text: str) -> Any:
    """Reads a value as JSON where it is JSON, else as a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--version", required=True, help="version of the release")
    parser.add_argument(
        "--wheels", required=True, type=Path, help="folder of the wheels of requirements/kosd.txt"
    )
    parser.add_argument(
        "--out", required=True, type=Path, help="folder to write the tree to; empty or not there"
    )
    parser.add_argument("--fault", metavar="JSON", help='fault of a demo release: {"fail_health_after_s": 3}')
    parser.add_argument("--set", dest="settings", metavar="UNIT.KEY=VALUE", action="append", default=[])
    asked = parser.parse_args(arguments)
    try:
        count = assemble(asked.version, asked.wheels, asked.fault, asked.settings).write(asked.out)
    except (TreeError, OSError, zipfile.BadZipFile) as error:
        print(f"tree: {error}", file=sys.stderr)
        return 1
    print(f"{asked.out}: {count} files of release {asked.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
