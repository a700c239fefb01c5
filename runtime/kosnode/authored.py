"""Reads the documents that people write: YAML, TOML or JSON, all down to the same strict JSON values.

Only a controller imports this: nodes read JSON and have no PyYAML.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from . import files
from .errors import InputError

MAX_BYTES = 1024 * 1024


class _StrictLoader(yaml.SafeLoader):
    """Knows strings, integers, true, false, null, lists and mappings, each written in one way."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases are not allowed", problem_mark=event.start_mark
            )
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem=f"the tag {event.tag} is not allowed", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"key {key.value!r} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_StrictLoader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in (
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("bool", r"^(?:true|false)$", ["t", "f"]),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", list("-0123456789")),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first)


def load(path: Path) -> dict[str, Any]:
    """Read the document at `path`; its suffix says what it is written in.

    Raises:
        InputError: not there, an unknown suffix, too long, not well-formed, a duplicate key, a float, a date,
            not a mapping.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise InputError(f"{path}: must end in one of {', '.join(sorted(_READERS))}")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return reader(data, str(path))


def load_yaml(data: bytes, what: str = "YAML") -> dict[str, Any]:
    """Read the part of YAML that says the same as JSON.

    Anchors, tags, dates and floats are not part of it: `1.0` and `2026-01-01` are text, so that a version
    never becomes a number. A key that stands twice is refused.

    Args:
        data: the document, UTF-8.
        what: how it is called in messages.

    Raises:
        InputError: as `load`.
    """
    text = _text(data, what)
    try:
        loader = _StrictLoader(text)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{what}{place}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{what}: is not valid YAML: {said}") from None
    except RecursionError:
        raise InputError(f"{what}: is nested deeper than {files.MAX_DEPTH} levels") from None
    return _mapping(value, what)


def load_toml(data: bytes, what: str = "TOML") -> dict[str, Any]:
    """Read TOML; floats and dates are refused.

    Raises:
        InputError: as `load`, and where this Python has no reader of TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib

        try:
            value = tomllib.loads(_text(data, what))
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{what}: is not valid TOML: {error}") from None
        except RecursionError:
            raise InputError(f"{what}: is nested deeper than {files.MAX_DEPTH} levels") from None
        return _mapping(value, what)
    raise InputError(f"{what}: reading TOML needs Python 3.11 or later; write YAML or JSON")


def load_json(data: bytes, what: str = "JSON") -> dict[str, Any]:
    """Read JSON as strictly as a node does.

    Raises:
        InputError: as `load`.
    """
    return _mapping(files.parse(data, limit=MAX_BYTES, what=what), what)


_READERS: dict[str, Callable[[bytes, str], dict[str, Any]]] = {
    ".yml": load_yaml,
    ".yaml": load_yaml,
    ".toml": load_toml,
    ".json": load_json,
}


def _text(data: bytes, what: str) -> str:
    if len(data) > MAX_BYTES:
        raise InputError(f"{what}: has more than {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: is not UTF-8 at byte {error.start}") from None


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what}: must be a mapping of keys to values")
    try:
        files.canonical(value)
    except InputError as error:
        raise InputError(f"{what}: {error.key}: {error.message}", key=error.key) from None
    return value
