# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a contract is read from: a stack by the command, its state, or an exported file."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import typing as t
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ansible_collections.kos.fleet.plugins.plugin_utils import _cloud, _contract

COMMAND_TIMEOUT_S = 120
MAX_BYTES = 256 * 1024 * 1024

# What may be in the environment and must not be in a message, whatever the command says.
_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSPHRASE|PASSWORD|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
_SHOWN = 500


class StackError(Exception):
    """A stack that cannot be read; the message says which, and what to do."""


@dataclass(frozen=True)
class Source:
    """One contract and the place it came from.

    Args:
        value: the contract's value, unchecked.
        where: how the place is called in messages.
    """

    value: t.Any
    where: str


def from_command(stack: str, project_dir: Path, state: str | None) -> Source:
    """Ask Pulumi's command for the outputs of a stack, secrets hidden.

    Args:
        stack: as the command takes it: `prod`, or `organisation/project/prod`.
        project_dir: folder with the Pulumi.yaml of the program.
        state: address of the state, where it is not the one that the command is logged in to.

    Raises:
        StackError: no such folder, no command, or the command failed; with its last words.
        ContractError: the stack has no contract among its outputs.
    """
    where = f"stack {stack}"
    if not (project_dir / "Pulumi.yaml").is_file():
        raise StackError(f"{where}: project_dir: {project_dir} has no Pulumi.yaml")
    command = shutil.which("pulumi")
    if command is None:
        raise StackError(
            f"{where}: the command pulumi is not on PATH; install it, or read the state or an exported file"
        )
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    if state is not None:
        environment["PULUMI_BACKEND_URL"] = state
    try:
        done = subprocess.run(
            [command, "stack", "output", "--json", "--non-interactive", "--stack", stack],
            cwd=project_dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"{where}: pulumi gave no answer within {COMMAND_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise StackError(f"{where}: pulumi failed: {_last_words(done.stderr or done.stdout, environment)}")
    return Source(_contract.of_outputs(_json(done.stdout, where), where), where)


def from_state(state: str, project: str, stack: str, base: Path) -> Source:
    """Read the checkpoint of a stack where Pulumi's own backends for folders and buckets keep it.

    Args:
        state: `file://FOLDER`, or `s3://BUCKET/PREFIX` with parameters `region`, `profile`, `endpoint`.
        project: name of the program in its Pulumi.yaml.
        stack: name of the stack.
        base: folder that a relative one is below.

    Raises:
        StackError: an address that is neither, no such stack there, or what is there cannot be read.
        CloudError: the bucket cannot be asked.
        ContractError: the stack has no contract among its outputs.
    """
    for name, value in (("project", project), ("stack", stack)):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", value) or value in (".", ".."):
            raise StackError(f"{name}: must be a plain name of letters, digits, and . _ -; it is {value!r}")
    parts = urlsplit(state)
    path = f".pulumi/stacks/{project}/{stack}.json"
    if parts.scheme == "file":
        folder = base / Path(state.removeprefix("file://")).expanduser()
        data, where = _from_folder(folder, path), f"{folder / path}"
    elif parts.scheme == "s3" and parts.netloc:
        where = f"s3://{parts.netloc}{parts.path.rstrip('/')}/{path}"
        data = _from_bucket(parts.netloc, parts.path.strip("/"), path, parts.query)
    else:
        raise StackError("state: must be file://FOLDER or s3://BUCKET/PREFIX")
    if data is None:
        raise StackError(
            f"{where}: there is no such stack; its project and name are those of `pulumi stack ls`"
        )
    return Source(_contract.of_deployment(_json(data, where), where), where)


def from_file(path: Path) -> Source:
    """Read what `pulumi stack output kos_fleet --json`, `stack output --json` or `stack export` wrote.

    Raises:
        StackError: it cannot be read.
        ContractError: there is no contract in it.
    """
    try:
        data = _bounded(path)
    except OSError as error:
        raise StackError(f"file: {path} cannot be read: {error.strerror}") from None
    return Source(_contract.of_file(_json(data, str(path)), str(path)), str(path))


def _from_folder(folder: Path, path: str) -> bytes | None:
    if not folder.is_dir():
        raise StackError(f"state: {folder} is no folder")
    for name in (path, f"{path}.gz"):
        try:
            return _bounded(folder / name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StackError(f"{folder / name} cannot be read: {error.strerror}") from None
    return None


def _from_bucket(bucket: str, prefix: str, path: str, query: str) -> bytes | None:
    said = {name: values[-1] for name, values in parse_qs(query).items()}
    store = _cloud.Bucket(bucket, said.get("region"), said.get("profile"), said.get("endpoint"))
    key = f"{prefix}/{path}" if prefix else path
    data = store.read(key, MAX_BYTES + 1)
    return data if data is not None else store.read(f"{key}.gz", MAX_BYTES + 1)


def _bounded(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _json(data: bytes, where: str) -> t.Any:
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise StackError(f"{where}: is not whole: {error}") from None
    if len(data) > MAX_BYTES:
        raise StackError(f"{where}: has more than {MAX_BYTES} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        # A parser's message names places, never values.
        raise StackError(f"{where}: is not JSON: {error}") from None


def _last_words(stderr: bytes, environment: Mapping[str, str]) -> str:
    said = stderr.decode(errors="replace")
    # Before anything is cut off: half of a secret would not be found.
    for name, value in environment.items():
        if _SECRET_NAMES.search(name) and len(value) > 3:
            said = said.replace(value, "***")
    return " ".join(said.split())[-_SHOWN:] or "without a word"
