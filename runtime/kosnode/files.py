"""Canonical JSON, strict reading of JSON, and writes that survive a power cut."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from .errors import InputError

MAX_DEPTH = 32
MAX_JSON_BYTES = 32 * 1024 * 1024


def canonical(value: Any) -> bytes:
    """Return the one JSON encoding of `value`: sorted keys, no white space, UTF-8, integers only.

    Args:
        value: dicts with string keys, lists, strings, integers, booleans, None.

    Raises:
        InputError: for a float, a non-string key, a surrogate, or anything JSON cannot say.
    """
    _check(value, "", 0)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def parse(data: bytes, *, limit: int = MAX_JSON_BYTES, what: str = "JSON") -> Any:
    """Read JSON strictly.

    Args:
        data: the bytes.
        limit: the most bytes that are read.
        what: how the input is called in messages.

    Raises:
        InputError: too long, not UTF-8, not JSON, a duplicate key, a float, too deep.
    """
    if len(data) > limit:
        raise InputError(f"{what} has {len(data)} bytes, at most {limit} are allowed")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float
        )
    except RecursionError:
        raise InputError(f"{what} is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InputError(f"{what} is not valid JSON: {error}") from None
    _check(value, "", 0)
    return value


def read_json(path: Path, *, limit: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file strictly; a missing file raises FileNotFoundError, a bad one InputError."""
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    return parse(data, limit=limit, what=str(path))


def write_durable(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data`: temporary name, fsync, rename, fsync of the directory.

    A crash leaves the old content or the new, never a mixture.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def link_durable(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target` by one rename, and fsync the directory."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key!r} stands twice")
        result[key] = value
    return result


def _no_float(text: str) -> Any:
    raise ValueError(f"{text} is not an integer")


def _check(value: Any, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InputError(f"nested deeper than {MAX_DEPTH} levels", key=where)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"key {key!r} is not a string", key=where)
            _check_text(key, where)
            _check(item, f"{where}.{key}" if where else key, depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]", depth + 1)
    elif isinstance(value, str):
        _check_text(value, where)
    elif not (value is None or isinstance(value, (bool, int))):
        raise InputError(f"{type(value).__name__} is not allowed in canonical JSON", key=where)


def _check_text(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("text holds a lone surrogate", key=where) from None
