"""Program aws_fleet against mocks: what it registers for its example stacks."""

from __future__ import annotations

from infra.conftest import ROOT, Example
from kos_infra import contract, recording

PROGRAM = ROOT / "pulumi/aws_fleet/__main__.py"


def test_the_example_registers_machines_and_exports_the_contract(example: Example) -> None:
    recorded = recording.record_file(
        PROGRAM, project="kos-aws-fleet", stack="dev", config=example("aws_fleet", "dev")
    )
    assert len(recorded.registrations) > 10
    assert {group.name for group in recorded.of_type("aws:autoscaling/group:Group")} == {
        "canary-a",
        "griot-b",
    }
    contract.check(recorded.outputs["kos_fleet"])
