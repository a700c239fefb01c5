"""What a program registers, as plain values, taken from a run of the real program without engine or cloud."""

from __future__ import annotations

import asyncio
import contextvars
import runpy
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulumi import FileAsset
from pulumi.runtime import rpc
from pulumi.runtime.config import set_all_config
from pulumi.runtime.mocks import MockCallArgs, MockEngine, MockMonitor, MockResourceArgs, Mocks, MockSettings
from pulumi.runtime.settings import configure
from pulumi.runtime.stack import run_in_stack

STACK = "pulumi:pulumi:Stack"


@dataclass(frozen=True)
class Registration:
    """A resource as a program asks for it.

    Args:
        urn: its identity.
        type: its type, such as `aws:ec2/vpc:Vpc`.
        name: its logical name.
        parent: URN of its parent, empty for none.
        custom: whether a provider makes it; False for a component.
        inputs: its inputs, by the provider's names.
        provider: name of the provider that makes it, empty for a default one.
        depends_on: URNs of what it waits for, sorted.
        protect: whether the engine refuses to delete it.
        retain_on_delete: whether it stays in the cloud when the stack forgets it.
        ignore_changes: inputs that are not compared.
        aliases: URNs that it had before.
    """

    urn: str
    type: str
    name: str
    parent: str = ""
    custom: bool = True
    inputs: Mapping[str, Any] = field(default_factory=dict)
    provider: str = ""
    depends_on: tuple[str, ...] = ()
    protect: bool = False
    retain_on_delete: bool = False
    ignore_changes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """What one run of a program registered.

    Args:
        registrations: sorted by URN.
        outputs: the stack's outputs.
    """

    registrations: tuple[Registration, ...]
    outputs: Mapping[str, Any]

    def of_type(self, kind: str) -> tuple[Registration, ...]:
        """Return the registrations of one type."""
        return tuple(one for one in self.registrations if one.type == kind)

    def one(self, kind: str, name: str) -> Registration:
        """Return the registration of that type and logical name.

        Raises:
            LookupError: there is none, or more than one.
        """
        found = [one for one in self.of_type(kind) if one.name == name]
        if len(found) != 1:
            raise LookupError(f"{len(found)} resources of type {kind} have the name {name}")
        return found[0]


def from_export(document: Mapping[str, Any]) -> tuple[Registration, ...]:
    """Return what a stack consists of, from what `pulumi stack export` wrote, sorted by URN.

    Args:
        document: the export; its secrets stay as they are.
    """
    found = [
        Registration(
            urn=one["urn"],
            type=one["type"],
            name=one["urn"].split("::", 3)[3],
            parent=one.get("parent", ""),
            custom=one.get("custom", False),
            inputs=one.get("inputs", {}),
            provider=one["provider"].split("::")[-2] if one.get("provider") else "",
            depends_on=tuple(sorted(one.get("dependencies", ()))),
            protect=one.get("protect", False),
            retain_on_delete=one.get("retainOnDelete", False),
            ignore_changes=tuple(one.get("ignoreChanges", ())),
            aliases=tuple(one.get("aliases", ())),
        )
        for one in document["deployment"].get("resources", ())
        if one["type"] != STACK
    ]
    return tuple(sorted(found, key=lambda one: one.urn))


def record_file(
    program: Path,
    *,
    project: str,
    stack: str,
    config: Mapping[str, str],
    into: list[Registration] | None = None,
) -> Recording:
    """Run a program's `__main__.py` and return what it registers; the rest is as in `record`."""
    return record(
        lambda: runpy.run_path(str(program), run_name="__main__"),
        project=project,
        stack=stack,
        config=config,
        into=into,
    )


def record(
    program: Callable[[], object],
    *,
    project: str,
    stack: str,
    config: Mapping[str, str],
    into: list[Registration] | None = None,
) -> Recording:
    """Run a program against mocks and return what it registers.

    Args:
        program: what registers resources.
        project: name of the project.
        stack: name of the stack.
        config: the stack's configuration, keys with their namespace, structured values as JSON.
        into: where registrations go as they come, for what a program registered before it failed.

    Raises:
        Exception: what the program raises.
    """
    monitor = _Monitor(_Cloud(), [] if into is None else into)

    def run() -> None:
        configure(
            MockSettings(  # type: ignore[no-untyped-call]  # Pulumi leaves its mocks untyped
                monitor=monitor,
                monitor_features=set(),
                engine=MockEngine(None),
                project=project,
                stack=stack,
                dry_run=False,
                organization="organization",
                outputs=set(),
                lock=threading.Lock(),
                package_refs={},
                callbacks=None,
            )
        )
        set_all_config(dict(config), [])
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(run_in_stack(lambda: _nothing(program())))
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    # All that Pulumi's SDK remembers is in context variables and in the event loop: a context and a loop of
    # its own keep one run from leaking into the next.
    contextvars.Context().run(run)
    return Recording(tuple(sorted(monitor.registrations, key=lambda one: one.urn)), monitor.outputs)


def _nothing(_: object) -> None:
    """A program's value is of no use, and must not be taken for something to wait for."""


class _Cloud(Mocks):
    """Gives what a cloud would: an id, an ARN, and the few outputs that programs pass on."""

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        outputs = {
            "arn": f"arn:aws:{args.typ.split(':')[-1].lower()}:{args.name}",
            "certificateAuthority": {"data": "QXV0aG9yaXR5"},
            "endpoint": "https://cluster.example",
            "latestVersion": 1,
            "name": args.name,
            "prefixListId": "pl-1",
            **args.inputs,
        }
        if "vpcConfig" in args.inputs:
            outputs["vpcConfig"] = {**args.inputs["vpcConfig"], "clusterSecurityGroupId": "sg-cluster"}
        return f"{args.name}-id", outputs

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the cloud is asked for {args.token}; a program knows all from its settings")


class _Monitor(MockMonitor):
    """The monitor of Pulumi's own mocks, which also keeps the options of each resource."""

    def __init__(self, mocks: Mocks, registrations: list[Registration]) -> None:
        super().__init__(mocks)
        self.registrations = registrations
        self.outputs: dict[str, Any] = {}

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """The URN that the engine would give, with the types of all ancestors but the stack."""
        if not parent:
            return str(super().make_urn(parent, type_, name))
        stack, project, qualified = parent.split("::")[:3]
        ancestors = "" if qualified == STACK else f"{qualified}$"
        return f"{stack}::{project}::{ancestors}{type_}::{name}"

    def RegisterResource(self, request: Any) -> Any:
        if request.type != STACK:
            self.registrations.append(
                Registration(
                    urn=self.make_urn(request.parent, request.type, request.name),
                    type=request.type,
                    name=request.name,
                    parent=request.parent,
                    custom=request.custom,
                    inputs=_plain(rpc.deserialize_properties(request.object)),
                    provider=request.provider.split("::")[-2] if request.provider else "",
                    depends_on=tuple(sorted(request.dependencies)),
                    protect=request.protect,
                    retain_on_delete=request.retainOnDelete,
                    ignore_changes=tuple(request.ignoreChanges),
                    aliases=tuple(alias.urn for alias in request.aliases),
                )
            )
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]  # as above

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if request.urn.split("::")[2] == STACK:
            self.outputs = _plain(rpc.deserialize_properties(request.outputs))
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]  # as above


def _plain(value: Any) -> Any:
    """Numbers of the protocol are floating; those that were whole are made whole. An asset is its path."""
    if isinstance(value, FileAsset):
        return {"path": value.path}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
