"""The programs by plain `pulumi up`, where Pulumi's Python language host is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import yaml

from infra.conftest import ROOT
from infra.engine.harness import Engine

HOST = "pulumi-language-python"


@pytest.mark.parametrize(
    ("program", "made"),
    [("aws_fleet", "aws:autoscaling/group:Group"), ("aws_eks", "aws:eks/cluster:Cluster")],
)
def test_a_program_comes_up_by_the_command_that_its_guide_names(
    engine: Engine, program: str, made: str
) -> None:
    if shutil.which(HOST) is None:
        pytest.skip(f"LEFT OUT: {HOST} is not on PATH; it comes with Pulumi's own installation")
    work = engine.settle(ROOT / "pulumi" / program)
    project = yaml.safe_load((work / "Pulumi.yaml").read_text())
    project["main"] = str(ROOT / "pulumi" / program)
    project["runtime"]["options"]["virtualenv"] = sys.prefix
    (work / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    for command in (["stack", "init", "dev"], ["up", "--yes", "--stack", "dev"]):
        done = subprocess.run(
            ["pulumi", *command, "--non-interactive"], cwd=work, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert engine.cloud.all(made)
