"""Every example stack of every program comes up under the real engine, and stays as it is (D04)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.conftest import ROOT, settings_of
from infra.engine import aws
from infra.engine.harness import Engine

# The tests of these programs begin with these stacks up.
ELSEWHERE = {("aws_fleet", "dev"), ("aws_eks", "dev"), ("kubernetes", "prod")}


def examples() -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.glob("pulumi/*/Pulumi.*.yaml")):
        yield path.parent.name, path.name.split(".")[1]


def write_kubeconfig(home: Path, stack: str) -> None:
    (home / ".kube").mkdir()
    contexts = [{"name": f"demo-{stack}", "context": {"cluster": "demo", "user": "operator"}}]
    (home / ".kube/config").write_text(yaml.safe_dump({"contexts": contexts}))


@pytest.mark.parametrize(("program", "stack"), sorted(set(examples()) - ELSEWHERE))
def test_an_example_comes_up_and_a_second_time_changes_nothing(
    engine: Engine, program: str, stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(aws.ACCOUNT_VARIABLE, settings_of(program, stack).get("account", aws.ACCOUNT))
    write_kubeconfig(engine.folder, stack)
    made = engine.stack(ROOT / "pulumi" / program, stack)
    first = made.up()
    assert first.error == ""
    assert first.changes().keys() == {"create"}
    second = made.up()
    assert (second.error, second.changes()) == ("", {})


def test_no_example_is_forgotten() -> None:
    assert set(examples()) > ELSEWHERE
