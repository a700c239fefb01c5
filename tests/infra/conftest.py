"""What all tests of the infrastructure share: no way to a real account, and the example stacks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import fleet_files

ROOT = Path(__file__).resolve().parents[2]
# What could lead to an account of whoever runs the tests.
REACH = ("AWS_", "KUBE", "PULUMI_")

Example = Callable[[str, str], dict[str, str]]


@pytest.fixture(autouse=True)
def no_account_in_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take the machine's credentials out of reach: variables, files, the instance's service."""
    for name in list(os.environ):
        if name.startswith(REACH):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of no account."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOACCOUNT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of no account")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that name a root of trust and a bundle of this session."""
    return fleet_files.make(tmp_path_factory.mktemp("fleet") / "files")


def settings_of(program: str, stack: str) -> dict[str, Any]:
    """Return the settings of a program's example stack as they are in its file."""
    config = _config(program, stack)
    found: dict[str, Any] = next(value for key, value in config.items() if key.endswith(":settings"))
    return found


@pytest.fixture
def example(files: dict[str, str], credentials: None) -> Example:
    """Return the configuration of an example stack as a program gets it, with files that are there."""

    def read(program: str, stack: str) -> dict[str, str]:
        config = _config(program, stack)
        for value in config.values():
            if isinstance(value, dict) and "trust_root" in value:
                value.update(files)
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}

    return read


def _config(program: str, stack: str) -> dict[str, Any]:
    text = (ROOT / f"pulumi/{program}/Pulumi.{stack}.yaml").read_text("utf-8")
    config: dict[str, Any] = yaml.safe_load(text)["config"]
    return config
