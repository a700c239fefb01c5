"""What all tests of the infrastructure share: no way to a real account, and the example stacks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What could lead to an account of whoever runs the tests.
REACH = ("AWS_", "KUBE", "PULUMI_")


@pytest.fixture(autouse=True)
def no_account_in_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take the machine's credentials out of reach: variables, files, the instance's service."""
    for name in os.environ:
        if name.startswith(REACH):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def example(program: str, stack: str) -> dict[str, str]:
    """Return the configuration of a program's example stack as Pulumi hands it to the program."""
    text = (ROOT / f"pulumi/{program}/Pulumi.{stack}.yaml").read_text("utf-8")
    config = yaml.safe_load(text)["config"]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
