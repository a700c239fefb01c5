"""Checks a document against one of the published JSON Schemas, with a message that names key and rule."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any, NoReturn

import fastjsonschema

from .errors import InputError

_KINDS = {
    "string": "a string",
    "integer": "an integer",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_SHOWN = 60


def load(name: str) -> dict[str, Any]:
    """Return the published schema `schemas/NAME.schema.json`."""
    text = resources.files(__package__).joinpath(f"schemas/{name}.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check(document: object, name: str, *, where: str, definition: str | None = None, key: str = "") -> None:
    """Check a document.

    Args:
        document: what was read.
        name: the schema's name, `unit` for `schemas/unit.schema.json`.
        where: how the document is called in messages, mostly its path.
        definition: check against `#/definitions/DEFINITION` instead of the whole schema.
        key: where the document stands in the file that `where` names, for messages.

    Raises:
        InputError: the first rule that is broken; `key` is the dotted path of the value.
    """
    try:
        _validator(name, definition)(document)
    except fastjsonschema.JsonSchemaValueException as error:
        _refuse(error, where, key)


def check_partial(document: object, name: str, *, where: str, key: str = "") -> None:
    """Check a document in which any key of the schema may be left out, as in a layer of configuration.

    Args and Raises: as `check`.
    """
    try:
        _partial_validator(name)(document)
    except fastjsonschema.JsonSchemaValueException as error:
        _refuse(error, where, key)


def join(*parts: str) -> str:
    """Return a dotted key from parts of which some may be empty."""
    joined = ".".join(part for part in parts if part)
    return joined.replace(".[", "[")


def suggestion(unknown: str, known: list[str]) -> str:
    """Return `did you mean X?` for a key that looks like a known one, else the list of what is known."""
    near = difflib.get_close_matches(unknown, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known)) or 'none'}"


def refuse(where: str, key: str, rule: str) -> NoReturn:
    """Raise the InputError that says which key of which document breaks which rule."""
    raise InputError(f"{where}: {key or 'the document'}: {rule}", key=key or None)


@cache
def _validator(name: str, definition: str | None) -> Callable[[object], object]:
    schema = load(name)
    if definition is not None:
        schema = {
            "$schema": schema["$schema"],
            "definitions": schema["definitions"],
            "$ref": f"#/definitions/{definition}",
        }
    validator: Callable[[object], object] = fastjsonschema.compile(schema, use_default=False)
    return validator


@cache
def _partial_validator(name: str) -> Callable[[object], object]:
    schema = _without_required(load(name))
    validator: Callable[[object], object] = fastjsonschema.compile(schema, use_default=False)
    return validator


def _without_required(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_required(value) for key, value in schema.items() if key != "required"}
    if isinstance(schema, list):
        return [_without_required(value) for value in schema]
    return schema


def _refuse(error: fastjsonschema.JsonSchemaValueException, where: str, base: str) -> NoReturn:
    key = join(base, str(error.name).removeprefix("data").removeprefix("."))
    definition = error.definition if isinstance(error.definition, dict) else {}
    if definition.get("additionalProperties") is False and isinstance(error.value, dict):
        # Before a key that is missing: it may be there, misspelt.
        known = sorted(definition.get("properties", {}))
        for unknown in sorted(set(map(str, error.value)) - set(known)):
            refuse(where, join(key, unknown), f"unknown key; {suggestion(unknown, known)}")
    if error.rule == "propertyNames" and isinstance(error.value, dict):
        names = definition["propertyNames"]
        pattern = names["pattern"].replace("$", r"\Z")
        wrong = next(name for name in error.value if not re.search(pattern, str(name)))
        refuse(where, key, f"the name {wrong[:_SHOWN]!r} is not allowed; it must be {names['x-rule']}")
    if error.rule == "required" and isinstance(error.value, dict):
        missing = next(name for name in definition["required"] if name not in error.value)
        refuse(where, join(key, missing), "is missing")
    rule = _rule(str(error.rule), error.rule_definition, definition)
    # Of a list or mapping it says something only that it is one where something else was asked for.
    tells = error.rule == "type" or not isinstance(error.value, (list, dict))
    refuse(where, key, rule + (_shown(error.value, definition) if tells else ""))


def _rule(rule: str, value: Any, definition: dict[str, Any]) -> str:
    said = definition.get("x-rule")
    if said:
        return f"must be {said}"
    if rule == "type":
        kinds = [value] if isinstance(value, str) else list(value)
        return f"must be {' or '.join(_KINDS[kind] for kind in kinds)}"
    if rule in ("enum", "const"):
        allowed = value if rule == "enum" else [value]
        return f"must be {'one of ' if len(allowed) > 1 else ''}{', '.join(map(_plain, allowed))}"
    bounds = {
        "minimum": f"must be {value} or more",
        "maximum": f"must be {value} or less",
        "minLength": f"must have {value} or more characters",
        "maxLength": f"must have at most {value} characters",
        "minItems": "must not be empty" if value == 1 else f"must have {value} or more entries",
        "maxItems": f"must have at most {value} entries",
        "minProperties": "must not be empty" if value == 1 else f"must have {value} or more keys",
        "maxProperties": f"must have at most {value} keys",
        "uniqueItems": "must not name anything twice",
    }
    return bounds.get(rule, f"breaks the rule {rule}")


def _shown(value: object, definition: dict[str, Any]) -> str:
    if definition.get("x-hidden"):
        return ""
    if isinstance(value, str):
        cut = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
        return f"; it is {cut!r}"
    if isinstance(value, (list, dict)):
        return f"; it is {'a list' if isinstance(value, list) else 'a mapping'}"
    return f"; it is {_plain(value)}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
