"""The project is laid out as its users were told, and what belongs together is complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def locked(name: str) -> set[str]:
    """Return the distributions that a requirement file pins."""
    lines = (ROOT / f"requirements/{name}.txt").read_text().splitlines()
    return {line.split("==")[0].lower() for line in lines if re.match(r"[a-z0-9]\S*==", line, re.IGNORECASE)}


@pytest.mark.parametrize(
    "part",
    [
        *("galaxy.yml", "meta/runtime.yml", "README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.rst"),
        *("plugins/modules", "plugins/filter", "plugins/callback", "roles", "playbooks", "pulumi"),
        *(
            "runtime/kosnode",
            "runtime/kosd",
            "inventories/example",
            "molecule",
            "tests",
            "docs",
            "changelogs",
        ),
    ],
)
def test_a_part_is_where_the_layout_says(part: str) -> None:
    """D10."""
    assert (ROOT / part).exists()


def test_the_field_s_packages_are_what_it_is_built_on() -> None:
    """D11."""
    controller = {
        "ansible-core",
        "molecule",
        "pytest-testinfra",
        "cryptography",
        "requests",
        "pyyaml",
        "jinja2",
    }
    assert controller - locked("dev") == set()
    assert {"pulumi", "pulumi-aws", "pulumi-kubernetes"} - locked("infra") == set()


@pytest.mark.parametrize("role", ROLES)
def test_each_role_has_a_scenario_that_fails_and_converges(role: str) -> None:
    """D05."""
    scenario = ROOT / "molecule" / role
    sequence = " ".join(read(scenario / "molecule.yml")["scenario"]["test_sequence"])
    for step in ("check", "converge", "idempotence", "verify", "bad_input", "remove"):
        assert step in sequence, f"scenario {role} has no step {step}"
    assert list((ROOT / "tests/verify").glob(f"test_{role}*.py"))


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_of_a_role_name_the_same_variables(role: str) -> None:
    """D02."""
    options = read(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = read(ROOT / "roles" / role / "defaults/main.yml") or {}
    required = {name for name, option in options.items() if option.get("required")}
    assert {name for name in options if not name.startswith(f"{role}_")} == set()
    assert set(defaults) <= set(options)
    assert required & set(defaults) == set()
    for name, value in defaults.items():
        assert options[name].get("default", value) == value, name


def test_every_module_that_asks_kosctl_takes_the_group_s_defaults() -> None:
    actions = {path.stem for path in (ROOT / "plugins/action").glob("[a-z]*.py")}
    group = set(read(ROOT / "meta/runtime.yml")["action_groups"]["kosctl"])
    assert group <= actions


def test_every_requirement_file_is_hashed_and_names_no_address() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text, path.name
        pinned = re.findall(r"^[a-zA-Z0-9]\S*==[^\\\n]+\\\n +--hash=sha256:", text, re.MULTILINE)
        assert len(pinned) == len(re.findall(r"^[a-zA-Z0-9]", text, re.MULTILINE)), path.name
