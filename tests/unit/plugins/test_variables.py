"""A misspelt or unknown variable is refused by name; roles, their defaults and their specifications agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.kos.fleet.plugins.plugin_utils._variables import role_variables, unknown

ROLES = Path(__file__).resolve().parents[3] / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir())


def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant() -> None:
    told = unknown(["bootstrap_mirors", "other"], "bootstrap_", {"bootstrap_mirrors", "bootstrap_fleet"})
    assert told == ["bootstrap_mirors is not a variable of bootstrap; did you mean bootstrap_mirrors?"]


def test_an_unknown_variable_is_refused_with_all_that_are_known() -> None:
    told = unknown(["bootstrap_zzz"], "bootstrap_", {"bootstrap_fleet"})
    assert told == ["bootstrap_zzz is not a variable of bootstrap; known are bootstrap_fleet"]


def test_private_and_foreign_variables_are_nobodys_business() -> None:
    assert unknown(["_bootstrap_x", "bootstrapped", "mirror_port"], "bootstrap_", {"bootstrap_fleet"}) == []


@pytest.mark.parametrize("role", NAMES)
def test_defaults_and_specification_of_a_role_agree(role: str) -> None:
    specs = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    specified = {
        name: option["default"] for name, option in specs["main"]["options"].items() if "default" in option
    }
    assert defaults == specified


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_of_a_role_begins_with_its_name_and_is_used(role: str) -> None:
    files = [path for part in ("tasks", "vars") for path in (ROLES / role / part).glob("*.yml")]
    text = "".join(path.read_text() for path in files)
    for name in role_variables(ROLES / role):
        assert name.startswith(f"{role}_")
        assert name in text


@pytest.mark.parametrize("role", NAMES)
def test_a_role_is_a_handful_of_tasks_and_can_be_removed(role: str) -> None:
    assert len(yaml.safe_load((ROLES / role / "tasks/main.yml").read_text())) <= 5
    assert (ROLES / role / "tasks/remove.yml").is_file()


@pytest.mark.parametrize("role", NAMES)
def test_the_readme_of_a_role_names_every_variable(role: str) -> None:
    readme = (ROLES / role / "README.md").read_text()
    for name in role_variables(ROLES / role):
        assert f"`{name}`" in readme
