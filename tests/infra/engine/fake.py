"""A fake provider: keeps resources in the folder of a cloud, and is as strict about them as a real one.

Names and kinds of inputs are checked against the SDK's own classes, ids and outputs are made up, changes are
told from replacements, and orders for faults are carried out. `provider.py` is what talks to the engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.engine.behaviour import Behaviour, Package, RefusedError, Request
from infra.engine.cloud import Call, Cloud, Json, Resource
from infra.engine.shapes import UNKNOWN, Problems, Shape, Shapes, UnknownTypeError

# What the engine adds to a provider's inputs for itself.
_ENGINES_OWN = ("version", "pluginDownloadURL", "__internal")
_TEXT: Shape = {"is": "string"}
# The real providers note here which inputs they made up, and so do these.
_MADE_UP = "__defaults"
# Marks a file among the inputs, which has a hash beside its path.
_SIGNATURE = "4dabf18193072939515e22adb298388d"


@dataclass(frozen=True)
class Target:
    """Which resource the engine means."""

    urn: str

    @property
    def type(self) -> str:
        """Its type token."""
        return self.urn.split("::")[2].rpartition("$")[2]

    @property
    def name(self) -> str:
        """Its logical name."""
        return "::".join(self.urn.split("::")[3:])


@dataclass(frozen=True)
class Difference:
    """How new inputs differ from a state: paths, and those of them that make another resource."""

    changed: tuple[str, ...]
    replaces: tuple[str, ...]
    delete_first: bool


class Fake:
    """Does for one package what a provider does.

    Args:
        package: What is particular to it.
        cloud: Where its resources are.
        shapes: What the SDK says about its types.
    """

    def __init__(self, package: Package, cloud: Cloud, shapes: Shapes) -> None:
        self._package = package
        self._cloud = cloud
        self._shapes = shapes
        self._type = f"pulumi:providers:{package.name}"
        self._settings: Json = {}

    def check_config(self, settings: Json) -> Problems:
        """Return what is wrong with the names in a provider's configuration, as (path, reason)."""
        return self._shapes.problems(self._type, self._decoded(settings))

    def configure(self, settings: Json) -> None:
        """Take a configuration, or refuse it as the real provider would."""
        self._settings = self._decoded(settings)
        self._meet(Call("configure", self._type, ""))
        self._package.configure(self._settings)

    def invoke(self, function: str, arguments: Json) -> Json:
        """Answer a function, or refuse it by name."""
        self._meet(Call("invoke", function, ""))
        return self._package.invoke(self._settings, function, arguments)

    def check(
        self, target: Target, olds: Json, news: Json, seed: bytes
    ) -> tuple[Json, list[tuple[str, str]]]:
        """Return the inputs with a physical name, and what is wrong with them as (path, reason)."""
        self._meet(Call("check", target.type, target.name))
        try:
            problems = self._shapes.problems(target.type, news)
        except UnknownTypeError:
            raise RefusedError(f"the SDK of {self._package.name} has no type {target.type}") from None
        named = self._behaviour(target.type).named
        if named is None or _at(news, named) is not None:
            return news, problems
        suffix = hashlib.sha256(seed or target.urn.encode()).hexdigest()[:7]
        made_up = _at(olds, named) or f"{target.name}-{suffix}"
        return {**_with(news, named, made_up), _MADE_UP: [named]}, problems

    def diff(self, target: Target, state: Json, news: Json) -> Difference:
        """Tell an update from a replacement, and both from no change."""
        behaviour = self._behaviour(target.type)
        changed = tuple(self._changed(target.type, state, news))
        replaces = tuple(path for path in changed if _within(path, behaviour.replaces))
        # A name that stays, and is not made up anew, is taken until the old resource is gone.
        fixed = behaviour.named is not None and behaviour.named not in news.get(_MADE_UP, [])
        return Difference(changed, replaces, fixed and behaviour.named not in changed)

    def create(self, target: Target, inputs: Json, preview: bool) -> tuple[str, Json]:
        """Make a resource and return its id and state; a preview leaves unknown what is not asked for."""
        behaviour = self._behaviour(target.type)
        if preview:
            return "", self._foreseen(target.type, behaviour, inputs)
        self._meet(Call("create", target.type, target.name))
        identity = self._new_id(target, behaviour, inputs)
        made = Request(self._cloud, self._settings, target.type, target.name, identity, inputs)
        return identity, self._put(behaviour, made, {})

    def update(self, target: Target, identity: str, state: Json, inputs: Json, preview: bool) -> Json:
        """Change a resource in place and return its state."""
        behaviour = self._behaviour(target.type)
        if preview:
            kept = self._kept(target.type, behaviour, state)
            return {**kept, **dict.fromkeys(behaviour.changing & kept.keys(), UNKNOWN), **_asked(inputs)}
        changed = tuple(self._changed(target.type, state, inputs))
        self._meet(Call("update", target.type, target.name, identity, changed))
        old = self._cloud.get(target.type, identity)
        if old is None:
            raise RefusedError(f"the cloud has no {target.type} with id {identity}")
        changes = Request(
            self._cloud, self._settings, target.type, target.name, identity, inputs, old, changed
        )
        return self._put(behaviour, changes, self._kept(target.type, behaviour, old.state))

    def read(self, target: Target, identity: str) -> Resource | None:
        """Return a resource as the cloud has it now, None where it is gone."""
        self._meet(Call("read", target.type, target.name, identity))
        return self._cloud.get(target.type, identity)

    def delete(self, target: Target, identity: str) -> None:
        """Delete a resource, unless the cloud would not."""
        self._meet(Call("delete", target.type, target.name, identity))
        found = self._cloud.get(target.type, identity)
        if found is not None:
            self._behaviour(target.type).guard(found, self._cloud.all())
            self._cloud.delete(target.type, identity)

    def _behaviour(self, kind: str) -> Behaviour:
        return self._package.behaviour(kind, self._shapes.fields(self._shapes.resource(kind)["inputs"]))

    def _inputs_of(self, kind: str) -> Shape:
        fields: Shape = self._shapes.fields(self._shapes.resource(kind)["inputs"])["fields"]
        return fields

    def _outputs_of(self, kind: str, behaviour: Behaviour) -> Shape:
        """Return the outputs that the cloud fills in where a program does not ask for them."""
        asked = self._inputs_of(kind).keys() - behaviour.settled
        outputs: Shape = self._shapes.resource(kind)["outputs"]
        return {name: shape for name, shape in outputs.items() if name not in asked}

    def _decoded(self, settings: Json) -> Json:
        """Return a provider's configuration, in which whatever is not text comes as JSON."""
        shapes = self._inputs_of(self._type)
        given = {name: value for name, value in settings.items() if name not in _ENGINES_OWN}
        for name, value in given.items():
            if isinstance(value, str) and value != UNKNOWN and shapes.get(name, _TEXT) != _TEXT:
                given[name] = json.loads(value)
        return given

    def _meet(self, call: Call) -> None:
        fault = self._cloud.meet(call)
        if fault is not None and fault.kills:
            if fault.kills == "engine":
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if fault is not None:
            raise RefusedError(fault.message)

    def _new_id(self, target: Target, behaviour: Behaviour, inputs: Json) -> str:
        name = _physical_name(behaviour, inputs)
        if name is not None:
            if name in (_physical_name(behaviour, each.inputs) for each in self._cloud.all(target.type)):
                raise RefusedError(f"the cloud already has a {target.type} with the name {name}")
            if not behaviour.prefix:
                return name
        return f"{behaviour.prefix}{secrets.token_hex(9)[:17]}"

    def _changed(self, kind: str, state: Json, news: Json) -> Iterator[str]:
        settled = self._behaviour(kind).settled
        for name in self._inputs_of(kind):
            for path in _differences(name, state.get(name), news.get(name)):
                if _at(news, path) is not None or not _within(path, settled):
                    yield path

    def _foreseen(self, kind: str, behaviour: Behaviour, inputs: Json) -> Json:
        foreseen = {**dict.fromkeys(self._outputs_of(kind, behaviour), UNKNOWN), **_asked(inputs)}
        for path in behaviour.settled:
            if "." in path and path.partition(".")[0] in inputs and _at(inputs, path) is None:
                foreseen = _with(foreseen, path, UNKNOWN)
        return foreseen

    def _kept(self, kind: str, behaviour: Behaviour, state: Json) -> Json:
        """Return what an update leaves of a state: that which the program does not ask for."""
        outputs = self._outputs_of(kind, behaviour)
        return {name: value for name, value in state.items() if name in outputs}

    def _put(self, behaviour: Behaviour, request: Request, kept: Json) -> Json:
        common = self._package.common(request, self._outputs_of(request.type, behaviour))
        state = {**common, **kept, **_asked(request.inputs), **behaviour.outputs(request)}
        self._cloud.put(Resource(request.type, request.name, request.id, request.inputs, state))
        return state


def _physical_name(behaviour: Behaviour, inputs: Json) -> str | None:
    name = _at(inputs, behaviour.named) if behaviour.named else None
    scope = _at(inputs, behaviour.scope) if behaviour.scope else None
    return name if name is None or scope is None else f"{scope}/{name}"


def _asked(inputs: Json) -> Json:
    return {name: value for name, value in inputs.items() if name != _MADE_UP}


def _within(path: str, prefixes: frozenset[str]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        if _SIGNATURE in old:
            old, new = {"hash": old.get("hash")}, {"hash": new.get("hash")}
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(f"{path}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield path


def _at(inputs: Mapping[str, Any], path: str) -> Any:
    value: Any = inputs
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _with(inputs: Json, path: str, value: Any) -> Json:
    first, _, rest = path.partition(".")
    return {**inputs, first: _with(inputs.get(first) or {}, rest, value) if rest else value}
