"""The policy pack as the engine uses it: a process that was started, asked over gRPC."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc


@dataclass(frozen=True)
class Finding:
    """What a policy says against a resource; `mandatory` stops an update."""

    policy: str
    urn: str
    message: str
    mandatory: bool


class Pack:
    """A pack that runs.

    Args:
        analyzer: The stub of its service.
    """

    def __init__(self, analyzer: Any) -> None:
        self._analyzer = analyzer

    def policies(self) -> set[str]:
        """Return the names of the policies."""
        return {policy.name for policy in self._analyzer.GetAnalyzerInfo(empty_pb2.Empty()).policies}

    def ask(self, resources: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """Return what the policies say about resources as an exported state has them.

        Each is asked about alone with its inputs, then all together, as in an update.
        """
        found: list[Finding] = []
        for each in resources:
            request = analyzer_pb2.AnalyzeRequest(**_resource(each, each.get("inputs", {})))
            found += _findings(self._analyzer.Analyze(request))
        together = [
            analyzer_pb2.AnalyzerResource(**_resource(each, each.get("outputs", {}))) for each in resources
        ]
        request = analyzer_pb2.AnalyzeStackRequest(resources=together)
        return found + _findings(self._analyzer.AnalyzeStack(request))


@contextmanager
def started(folder: Path) -> Iterator[Pack]:
    """Start a pack's own `__main__.py`, and end it afterwards."""
    command = [sys.executable, "-u", "__main__.py"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, f"{folder} did not start"
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield Pack(analyzer_pb2_grpc.AnalyzerStub(channel))
        finally:
            process.terminate()


def _resource(state: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": state["type"],
        "urn": state["urn"],
        "name": state["urn"].rpartition("::")[2],
        "properties": json_format.ParseDict(properties, struct_pb2.Struct()),
        "options": analyzer_pb2.AnalyzerResourceOptions(protect=state.get("protect", False)),
    }


def _findings(response: Any) -> list[Finding]:
    mandatory = analyzer_pb2.MANDATORY
    return [
        Finding(each.policyName, each.urn, each.message, each.enforcementLevel == mandatory)
        for each in response.diagnostics
    ]
