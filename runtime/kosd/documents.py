"""Reads a JSON document and checks it against a schema, with one message that names key and rule."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import fastjsonschema

# More than any honest document of ours, little enough to read without a thought for memory.
MAX_BYTES = 1 << 20


class DocumentError(Exception):
    """A document is missing, is not JSON, or breaks its schema; the text is fit for an operator."""


class DocumentMissingError(DocumentError):
    """There is no file of that name."""


def schema(name: str) -> dict[str, Any]:
    """Returns the schema that ships in the package under this file name."""
    return dict(json.loads(resources.files(__package__).joinpath(name).read_text("utf-8")))


def read(path: Path, schema_name: str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Returns the checked document at `path`, which may be `max_bytes` long.

    Raises DocumentMissingError or DocumentError, whose text begins with the path.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise DocumentMissingError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > max_bytes:
        raise DocumentError(f"{path}: is larger than {max_bytes} bytes")
    try:
        document = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path}: is not JSON: {error}") from None
    try:
        return check(document, schema_name)
    except DocumentError as error:
        raise DocumentError(f"{path}: {error}") from None


def check(document: object, schema_name: str) -> dict[str, Any]:
    """Returns the document if the named schema allows it, else raises DocumentError."""
    try:
        _validator(schema_name)(document)
    except fastjsonschema.JsonSchemaValueException as error:
        raise DocumentError(_explain(error)) from None
    assert isinstance(document, dict), "every schema of ours asks for an object"
    return document


def with_defaults(document: dict[str, Any], rules: dict[str, Any]) -> dict[str, Any]:
    """Fills what a checked document leaves out with the schema's own `default`s, nested objects too."""
    filled = dict(document)
    for key, rule in rules.get("properties", {}).items():
        if rule.get("type") == "object" and "properties" in rule:
            filled[key] = with_defaults(filled.get(key, {}), rule)
        elif "default" in rule:
            filled.setdefault(key, rule["default"])
    return filled


@cache
def _validator(schema_name: str) -> Callable[[object], object]:
    validator: Callable[[object], object] = fastjsonschema.compile(schema(schema_name), use_default=False)
    return validator


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key {key!r} is there twice")
    return dict(pairs)


def _explain(error: fastjsonschema.JsonSchemaValueException) -> str:
    where = ".".join(str(part) for part in error.path[1:])
    if error.rule == "additionalProperties" and isinstance(error.value, dict):
        known = sorted(error.definition.get("properties", {}))
        unknown = min(set(error.value) - set(known))
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"{'.'.join(filter(None, (where, unknown)))}: unknown key; {hint}"
    rule = str(error.message).removeprefix(str(error.name)).strip()
    return f"{where or 'the document'}: {rule}; it is {_kind(error.value)}"


def _kind(value: object) -> str:
    """Names a value's kind and, where it can hold no secret, the value."""
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    names: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")
