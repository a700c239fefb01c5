"""Reads a stack file beside its program, as Pulumi hands it to the program."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kosnode.errors import InputError


@dataclass(frozen=True)
class StackFile:
    """A stack of a program.

    Args:
        program: the program's folder.
        project: name of the project.
        stack: name of the stack.
        config: its configuration, keys with their namespace, structured values as they are.
    """

    program: Path
    project: str
    stack: str
    config: dict[str, Any]

    def handed_over(self) -> dict[str, str]:
        """Return the configuration as a program gets it: structured values as JSON."""
        return {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in self.config.items()
        }


def read(path: Path) -> StackFile:
    """Read a stack file.

    Args:
        path: `PROGRAM/Pulumi.STACK.yaml`.

    Raises:
        InputError: it is none, or its program is not beside it.
    """
    prefix, _, rest = path.name.partition(".")
    stack = rest.removesuffix(".yaml")
    if prefix != "Pulumi" or stack in ("", rest):
        raise InputError(f"{path}: must be the file of a stack, Pulumi.STACK.yaml")
    try:
        project = yaml.safe_load((path.parent / "Pulumi.yaml").read_text("utf-8"))["name"]
        config = yaml.safe_load(path.read_text("utf-8"))["config"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read with the Pulumi.yaml beside it: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: config: must be a mapping", key="config")
    return StackFile(path.parent, project, stack, config)
