"""A fake provider as the engine starts it: speaks the engine's protocol for one package.

usage: python -m infra.engine.provider aws|kubernetes ENGINE-ADDRESS

It stands in for `pulumi-resource-aws` and `pulumi-resource-kubernetes` and serves the loopback alone. The SDK
has an interface for providers, `pulumi.provider.experimental`; that of 3.259 cannot take back files that it
was given, so this speaks the protocol itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format, struct_pb2
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from infra.engine.behaviour import Package, RefusedError
from infra.engine.cloud import Cloud, Json
from infra.engine.fake import Fake, Target
from infra.engine.shapes import Problems, Shapes

SHAPES_VARIABLE = "KOS_FAKE_SHAPES"
PACKAGES = ("aws", "kubernetes")


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """The provider's side of the protocol.

    Source: `provider.proto` of Pulumi; a method of another name is one that the engine can do without.
    """

    def __init__(self, fake: Fake, version: str) -> None:
        self._fake = fake
        self._version = version

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        """Say which version of the provider this stands for."""
        return plugin_pb2.PluginInfo(version=self._version)

    def CheckConfig(self, request: Any, context: Any) -> Any:
        """Check the configuration."""
        with _refusing(context):
            problems = self._fake.check_config(_plain(request.news))
            return provider_pb2.CheckResponse(inputs=request.news, failures=_failures(problems))

    def DiffConfig(self, request: Any, context: Any) -> Any:
        """Leave it to the engine whether another configuration matters."""
        return provider_pb2.DiffResponse()

    def Configure(self, request: Any, context: Any) -> Any:
        """Take the configuration. Secrets come in the clear, and the engine keeps them secret."""
        with _refusing(context):
            self._fake.configure(_plain(request.args))
            return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Invoke(self, request: Any, context: Any) -> Any:
        """Answer a function."""
        with _refusing(context):
            answer = self._fake.invoke(request.tok, _plain(request.args))
            return provider_pb2.InvokeResponse(**{"return": _struct(answer)})

    def Check(self, request: Any, context: Any) -> Any:
        """Check a resource's inputs."""
        with _refusing(context):
            olds, news = _plain(request.olds), _plain(request.news)
            inputs, problems = self._fake.check(Target(request.urn), olds, news, request.randomSeed)
            return provider_pb2.CheckResponse(inputs=_struct(inputs), failures=_failures(problems))

    def Diff(self, request: Any, context: Any) -> Any:
        """Compare a resource with new inputs."""
        with _refusing(context):
            found = self._fake.diff(Target(request.urn), _plain(request.olds), _plain(request.news))
            kinds = provider_pb2.PropertyDiff
            detailed = {
                path: kinds(kind=kinds.UPDATE_REPLACE if path in found.replaces else kinds.UPDATE)
                for path in found.changed
            }
            some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
            return provider_pb2.DiffResponse(
                changes=some if found.changed else none,
                diffs=found.changed,
                replaces=found.replaces,
                deleteBeforeReplace=found.delete_first,
                detailedDiff=detailed,
                hasDetailedDiff=True,
            )

    def Create(self, request: Any, context: Any) -> Any:
        """Make a resource."""
        with _refusing(context):
            inputs = _plain(request.properties)
            identity, state = self._fake.create(Target(request.urn), inputs, request.preview)
            return provider_pb2.CreateResponse(id=identity, properties=_struct(state))

    def Update(self, request: Any, context: Any) -> Any:
        """Change a resource."""
        with _refusing(context):
            state, news = _plain(request.olds), _plain(request.news)
            changed = self._fake.update(Target(request.urn), request.id, state, news, request.preview)
            return provider_pb2.UpdateResponse(properties=_struct(changed))

    def Read(self, request: Any, context: Any) -> Any:
        """Read a resource; one that is gone has no id."""
        with _refusing(context):
            found = self._fake.read(Target(request.urn), request.id)
            if found is None:
                return provider_pb2.ReadResponse()
            return provider_pb2.ReadResponse(
                id=found.id, properties=_struct(found.state), inputs=_struct(found.inputs)
            )

    def Delete(self, request: Any, context: Any) -> Any:
        """Delete a resource."""
        with _refusing(context):
            self._fake.delete(Target(request.urn), request.id)
            return Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        """Nothing here takes long enough to be cancelled."""
        return Empty()


@contextmanager
def _refusing(context: Any) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))


def _plain(properties: Any) -> Json:
    plain: Json = json_format.MessageToDict(properties)
    return plain


def _struct(values: Mapping[str, Any]) -> Any:
    return json_format.ParseDict(values, struct_pb2.Struct())


def _failures(problems: Problems) -> list[Any]:
    return [provider_pb2.CheckFailure(property=path, reason=reason) for path, reason in problems]


def main() -> None:
    """Serve the package that the command line names until the engine ends this process."""
    name = sys.argv[1]
    package: Package = importlib.import_module(f"infra.engine.{name}").PACKAGE
    shapes = Shapes(Path(os.environ[SHAPES_VARIABLE]))
    # One request at a time: what the clouds promise of names holds without locks.
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    servicer = Servicer(Fake(package, Cloud.of_environment(), shapes), shapes.version(name))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
