"""Which inputs and outputs a resource type has, and of which kinds: read off the classes of Pulumi's SDKs.

The SDKs' classes are what users write against, so a name that they do not have is a mistake even where a
program spells it in a plain dictionary. To import the SDKs takes seconds, so each answer is kept in a folder.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# What the engine sends in place of a value that only an update will tell.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

# {"is": "string", "number", "boolean" or "any"}, {"is": "list" or "map", "of": shape}, or
# {"is": "object", "class": reference}
Shape = dict[str, Any]
# What is wrong with inputs: path and reason.
Problems = list[tuple[str, str]]

_ANY: Shape = {"is": "any"}
_PLAIN: dict[type, str] = {str: "string", int: "number", float: "number", bool: "boolean"}
# What a provider takes for each kind: it reads scalars from one another, and nothing else.
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "string": (str, int, float, bool),
    "number": (int, float, str),
    "boolean": (bool, str),
    "list": (list,),
    "map": (dict,),
    "object": (dict,),
}


class UnknownTypeError(Exception):
    """The SDK has no resource of this type."""


class Shapes:
    """What the SDKs say about resource types.

    Args:
        folder: Where answers are kept; may be shared by processes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def resource(self, token: str) -> Shape:
        """Return `{"inputs": class, "outputs": {name: shape}}` of a type such as `aws:s3/bucket:Bucket`.

        Raises:
            UnknownTypeError: The SDK has no such type.
        """
        return typing.cast(Shape, self._kept(token, lambda: _resource(token)))

    def version(self, package: str) -> str:
        """Return the version of a package's SDK."""
        return metadata.version(f"pulumi_{package}")

    def fields(self, reference: str) -> Shape:
        """Return `{"fields": {name: shape}, "required": [names]}` of an input class, `module:Class`."""
        return typing.cast(Shape, self._kept(reference, lambda: _fields(_class(reference))))

    def problems(self, token: str, inputs: Mapping[str, Any]) -> Problems:
        """Return what is wrong with the names and kinds of a resource's inputs."""
        return list(self._object_problems("", inputs, self.resource(token)["inputs"]))

    def _object_problems(
        self, path: str, value: Mapping[str, Any], reference: str
    ) -> Iterator[tuple[str, str]]:
        definition = self.fields(reference)
        for name, inner in value.items():
            where = f"{path}.{name}" if path else name
            if name not in definition["fields"]:
                yield where, f"{reference.rpartition(':')[2]} of the SDK has no such input"
            else:
                yield from self._problems(where, inner, definition["fields"][name])
        for name in definition["required"]:
            if value.get(name) is None:
                yield f"{path}.{name}" if path else name, "is required and missing"

    def _problems(self, path: str, value: Any, shape: Shape) -> Iterator[tuple[str, str]]:
        kind = shape["is"]
        if value is None or value == UNKNOWN or kind == "any":
            return
        given: Any = value
        if not isinstance(value, _ACCEPTED[kind]):
            yield path, f"is {type(value).__name__} and not {kind}"
        elif kind == "list":
            for index, item in enumerate(given):
                yield from self._problems(f"{path}[{index}]", item, shape["of"])
        elif kind == "map":
            for key, item in given.items():
                yield from self._problems(f"{path}.{key}", item, shape["of"])
        elif kind == "object":
            yield from self._object_problems(path, given, shape["class"])

    def _kept(self, key: str, make: typing.Callable[[], Any]) -> Any:
        if key not in self._known:
            path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
            if not path.exists():
                temporary = path.with_suffix(f".{os.getpid()}")
                temporary.write_text(json.dumps(make()))
                temporary.rename(path)
            self._known[key] = json.loads(path.read_text())
        return self._known[key]


def _resource(token: str) -> Shape:
    import pulumi._types as sdk

    resource = _resource_class(token)
    module = sys.modules[resource.__module__]
    arguments = module.__all__[0]
    names = sdk.resource_py_to_pulumi_names(resource)
    hints = sdk.resource_types(resource)
    return {
        "inputs": f"{module.__name__}:{arguments}",
        "outputs": {
            name: _shape(hints.get(name, Any)) for name in names.values() if name not in ("id", "urn")
        },
    }


def _resource_class(token: str) -> type:
    package, module, name = token.split(":")
    if package == "pulumi":
        return typing.cast(type, importlib.import_module(f"pulumi_{name}").Provider)
    importlib.import_module(f"pulumi_{package}")
    from pulumi.runtime import rpc

    known = rpc.get_resource_module(package, module, "")
    described: dict[str, Any] = getattr(known, "mod_info", {"classes": {}})
    if token in described["classes"]:
        found = getattr(importlib.import_module(described["fqn"]), described["classes"][token])
        return typing.cast(type, found)
    raise UnknownTypeError(token)


def _fields(arguments: type) -> Shape:
    import pulumi._types as sdk

    to_wire = sdk.input_type_py_to_pulumi_names(arguments)
    parameters = inspect.signature(arguments).parameters.values()
    return {
        "fields": {name: _shape(hint) for name, hint in sdk.input_type_types(arguments).items()},
        "required": sorted(
            to_wire[each.name]
            for each in parameters
            if each.name in to_wire and each.default is inspect.Parameter.empty
        ),
    }


def _class(reference: str) -> type:
    module, _, name = reference.partition(":")
    return typing.cast(type, getattr(importlib.import_module(module), name))


def _shape(hint: Any) -> Shape:
    import pulumi._types as sdk

    hint = sdk.unwrap_type(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return {"is": _PLAIN[hint]}
    if origin is typing.Literal:
        return {"is": "string"}
    if origin is not None and origin is not types.UnionType and origin is not typing.Union:
        if issubclass(origin, Mapping):
            return {"is": "map", "of": _shape(arguments[1])}
        if issubclass(origin, Sequence):
            return {"is": "list", "of": _shape(arguments[0])}
    if isinstance(hint, type) and sdk.is_input_type(hint):
        return {"is": "object", "class": f"{hint.__module__}:{hint.__name__}"}
    return _ANY
