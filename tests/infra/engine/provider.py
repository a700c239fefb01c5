"""A fake provider as the engine starts it: keeps resources in the folder of a cloud and reaches no network.

usage: python -m infra.engine.provider aws|kubernetes ENGINE-ADDRESS

It stands in for `pulumi-resource-aws` and `pulumi-resource-kubernetes`: names and kinds of inputs are checked
against the SDK's own classes, ids and outputs are made up, changes are told from replacements.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi.provider.experimental import provider as api
from pulumi.provider.experimental import server
from pulumi.provider.experimental.property_value import PropertyValue

from infra.engine.behaviour import Behaviour, Package, RefusedError, Request
from infra.engine.cloud import Call, Cloud, Json, Resource
from infra.engine.shapes import UNKNOWN, Shape, Shapes, UnknownTypeError

SHAPES_VARIABLE = "KOS_FAKE_SHAPES"
PACKAGES = ("aws", "kubernetes")

# What the engine adds to a provider's inputs for itself.
_ENGINES_OWN = ("version", "pluginDownloadURL", "__internal")
# The real providers note here which inputs they made up, and so do these.
_MADE_UP = "__defaults"


class FakeProvider(api.Provider):
    """Answers the engine for one package.

    Args:
        package: What is particular to it.
        cloud: Where its resources are.
        shapes: What the SDK says about its types.
    """

    def __init__(self, package: Package, cloud: Cloud, shapes: Shapes) -> None:
        self._package = package
        self._cloud = cloud
        self._shapes = shapes
        self._settings: Mapping[str, Any] = {}

    async def check_config(self, request: api.CheckRequest) -> api.CheckResponse:
        """Refuse a configuration that has names which the SDK does not know."""
        settings = _settings(request.new_inputs)
        problems = self._shapes.problems(f"pulumi:providers:{self._package.name}", settings)
        return api.CheckResponse(inputs=request.new_inputs, failures=_failures(problems))

    async def configure(self, request: api.ConfigureRequest) -> api.ConfigureResponse:
        """Take the configuration, or refuse it as the real provider would.

        Secrets come in the clear and the engine keeps them: so it is with any provider that knows none.
        """
        self._settings = _settings(request.args)
        self._meet(Call("configure", f"pulumi:providers:{self._package.name}", ""))
        self._package.configure(self._cloud, self._settings)
        return api.ConfigureResponse(accept_secrets=False, supports_preview=True)

    async def invoke(self, request: api.InvokeRequest) -> api.InvokeResponse:
        """Answer a function, or refuse it by name."""
        self._meet(Call("invoke", request.tok, ""))
        answer = self._package.invoke(self._cloud, self._settings, request.tok, _plain_map(request.args))
        return api.InvokeResponse(return_value=_values(answer))

    async def check(self, request: api.CheckRequest) -> api.CheckResponse:
        """Check names and kinds of inputs and make up a physical name where there is none."""
        kind, name = _type_and_name(request.urn)
        inputs = _plain_map(request.new_inputs)
        self._meet(Call("check", kind, name))
        try:
            problems = self._shapes.problems(kind, inputs)
        except UnknownTypeError:
            raise RefusedError(f"the SDK of {self._package.name} has no type {kind}") from None
        named = self._behaviour(kind).named
        if named is not None and _at(inputs, named) is None:
            seed = hashlib.sha256(request.random_seed or request.urn.encode()).hexdigest()[:7]
            made_up = _at(_plain_map(request.old_inputs), named) or f"{name}-{seed}"
            inputs = {**_with(inputs, named, made_up), _MADE_UP: [named]}
        return api.CheckResponse(inputs=_values(inputs), failures=_failures(problems))

    async def diff(self, request: api.DiffRequest) -> api.DiffResponse:
        """Tell an update from a replacement, and both from no change."""
        kind, _ = _type_and_name(request.urn)
        behaviour = self._behaviour(kind)
        news = _plain_map(request.new_inputs)
        changed = list(self._changed(kind, _plain_map(request.old_state), news, request.ignore_changes))
        replaces = [path for path in changed if any(_within(path, each) for each in behaviour.replaces)]
        kinds = api.PropertyDiffKind
        return api.DiffResponse(
            changes=bool(changed),
            replaces=replaces,
            diffs=changed,
            # A name that is not made up anew is taken until the old resource is gone.
            delete_before_replace=bool(behaviour.named) and behaviour.named not in news.get(_MADE_UP, []),
            detailed_diff={
                path: api.PropertyDiff(kinds.UPDATE_REPLACE if path in replaces else kinds.UPDATE, True)
                for path in changed
            },
        )

    async def create(self, request: api.CreateRequest) -> api.CreateResponse:
        """Make a resource; a preview has what it asks for and leaves the rest unknown."""
        kind, name = _type_and_name(request.urn)
        inputs = _plain_map(request.properties)
        behaviour = self._behaviour(kind)
        if request.preview:
            return api.CreateResponse("", _values(self._foreseen(kind, behaviour, inputs)))
        self._meet(Call("create", kind, name))
        identity = self._new_id(kind, behaviour, inputs, request.urn)
        made = Request(self._cloud, self._settings, kind, name, identity, inputs)
        state = self._state(behaviour, made, {})
        self._cloud.put(Resource(kind, name, identity, inputs, state))
        return api.CreateResponse(identity, _values(state))

    async def update(self, request: api.UpdateRequest) -> api.UpdateResponse:
        """Change a resource in place."""
        kind, name = _type_and_name(request.urn)
        behaviour = self._behaviour(kind)
        olds, inputs = _plain_map(request.olds), _plain_map(request.news)
        changed = tuple(self._changed(kind, olds, inputs, list(request.ignore_changes)))
        if request.preview:
            kept = self._kept(kind, behaviour, olds)
            unknown = dict.fromkeys(behaviour.changing & kept.keys(), UNKNOWN)
            return api.UpdateResponse(_values({**kept, **unknown, **_asked(inputs)}))
        self._meet(Call("update", kind, name, request.resource_id, changed))
        old = self._existing(kind, request.resource_id)
        changes = Request(self._cloud, self._settings, kind, name, old.id, inputs, old, changed)
        state = self._state(behaviour, changes, self._kept(kind, behaviour, old.state))
        self._cloud.put(Resource(kind, name, old.id, inputs, state))
        return api.UpdateResponse(_values(state))

    async def read(self, request: api.ReadRequest) -> api.ReadResponse:
        """Return a resource as the cloud has it now; one that is gone has no id."""
        kind, name = _type_and_name(request.urn)
        self._meet(Call("read", kind, name, request.resource_id))
        found = self._cloud.get(kind, request.resource_id)
        if found is None:
            return api.ReadResponse("")
        return api.ReadResponse(found.id, _values(found.state), _values(found.inputs))

    async def delete(self, request: api.DeleteRequest) -> None:
        """Delete a resource, unless the cloud would not."""
        kind, name = _type_and_name(request.urn)
        self._meet(Call("delete", kind, name, request.resource_id))
        found = self._cloud.get(kind, request.resource_id)
        if found is not None:
            self._behaviour(kind).guard(found, self._cloud.all())
            self._cloud.delete(kind, found.id)

    def _behaviour(self, kind: str) -> Behaviour:
        return self._package.behaviour(kind, self._shapes.fields(self._shapes.resource(kind)["inputs"]))

    def _inputs_of(self, kind: str) -> Mapping[str, Any]:
        fields: Mapping[str, Any] = self._shapes.fields(self._shapes.resource(kind)["inputs"])["fields"]
        return fields

    def _outputs_of(self, kind: str, behaviour: Behaviour) -> Shape:
        """Return the outputs that the cloud fills in where a program does not ask for them."""
        asked = self._inputs_of(kind).keys() - behaviour.settled
        outputs: Shape = self._shapes.resource(kind)["outputs"]
        return {name: shape for name, shape in outputs.items() if name not in asked}

    def _meet(self, call: Call) -> None:
        fault = self._cloud.meet(call)
        if fault is not None and fault.deadly:
            os._exit(9)
        if fault is not None:
            raise RefusedError(fault.message)

    def _existing(self, kind: str, identity: str) -> Resource:
        found = self._cloud.get(kind, identity)
        if found is None:
            raise RefusedError(f"the cloud has no {kind} with id {identity}")
        return found

    def _new_id(self, kind: str, behaviour: Behaviour, inputs: Json, urn: str) -> str:
        name = _physical_name(behaviour, inputs)
        if name is not None:
            if name in (_physical_name(behaviour, each.inputs) for each in self._cloud.all(kind)):
                raise RefusedError(f"the cloud already has a {kind} with the name {name}")
            if not behaviour.prefix:
                return name
        made = len(self._cloud.calls("create"))
        return f"{behaviour.prefix}{hashlib.sha256(f'{urn} {made}'.encode()).hexdigest()[:17]}"

    def _changed(self, kind: str, olds: Json, news: Json, ignored: list[str]) -> Iterator[str]:
        settled = self._behaviour(kind).settled
        for name in self._inputs_of(kind):
            for path in _differences(name, olds.get(name), news.get(name)):
                given = any(_within(path, each) for each in settled) and _at(news, path) is None
                if not given and name not in ignored:
                    yield path

    def _foreseen(self, kind: str, behaviour: Behaviour, inputs: Json) -> Json:
        """Return what a preview of a creation can tell."""
        foreseen = {**dict.fromkeys(self._outputs_of(kind, behaviour), UNKNOWN), **_asked(inputs)}
        for path in behaviour.settled:
            if "." in path and path.partition(".")[0] in inputs and _at(inputs, path) is None:
                foreseen = _with(foreseen, path, UNKNOWN)
        return foreseen

    def _kept(self, kind: str, behaviour: Behaviour, state: Json) -> Json:
        """Return what an update leaves of a state: that which the program does not ask for."""
        outputs = self._outputs_of(kind, behaviour)
        return {name: value for name, value in state.items() if name in outputs}

    def _state(self, behaviour: Behaviour, request: Request, kept: Json) -> Json:
        common = self._package.common(request, self._outputs_of(request.type, behaviour))
        return {**common, **kept, **_asked(request.inputs), **behaviour.outputs(request)}


def _physical_name(behaviour: Behaviour, inputs: Json) -> str | None:
    name = _at(inputs, behaviour.named) if behaviour.named else None
    scope = _at(inputs, behaviour.scope) if behaviour.scope else None
    return name if name is None or scope is None else f"{scope}/{name}"


def _asked(inputs: Json) -> Json:
    return {name: value for name, value in inputs.items() if name != _MADE_UP}


def _type_and_name(urn: str) -> tuple[str, str]:
    parts = urn.split("::")
    return parts[2].rpartition("$")[2], "::".join(parts[3:])


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith((f"{prefix}.", f"{prefix}["))


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(f"{path}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield path


def _at(inputs: Json, path: str) -> Any:
    value: Any = inputs
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _with(inputs: Json, path: str, value: Any) -> Json:
    first, _, rest = path.partition(".")
    return {**inputs, first: _with(inputs.get(first) or {}, rest, value) if rest else value}


def _settings(values: Mapping[str, PropertyValue]) -> Json:
    """Return a provider's configuration, in which whatever is not text comes as JSON."""
    plain = {name: value for name, value in _plain_map(values).items() if name not in _ENGINES_OWN}
    return {name: _decoded(value) for name, value in plain.items()}


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("[", "{"):
        return json.loads(value)
    return value


def _failures(problems: list[tuple[str, str]]) -> list[api.CheckFailure]:
    return [api.CheckFailure(path, reason) for path, reason in problems]


def _plain_map(values: Mapping[str, PropertyValue]) -> Json:
    return {name: _plain(value.value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item.value) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item.value) for item in value]
    if isinstance(value, (pulumi.Asset, pulumi.Archive)):
        raise RefusedError("the fake providers take no assets")
    return value


def _values(plain: Mapping[str, Any]) -> dict[str, PropertyValue]:
    return {name: _value(item) for name, item in plain.items()}


def _value(plain: Any) -> PropertyValue:
    if isinstance(plain, dict):
        return PropertyValue(_values(plain))
    if isinstance(plain, list):
        return PropertyValue([_value(item) for item in plain])
    if isinstance(plain, int) and not isinstance(plain, bool):
        return PropertyValue(float(plain))
    return PropertyValue(plain)


def main() -> None:
    """Serve the package that the command line names until the engine ends this process."""
    name = sys.argv.pop(1)
    package: Package = importlib.import_module(f"infra.engine.{name}").PACKAGE
    shapes = Shapes(Path(os.environ[SHAPES_VARIABLE]))
    server.main(sys.argv[1:], "0.0.1", FakeProvider(package, Cloud.of_environment(), shapes))


if __name__ == "__main__":
    main()
