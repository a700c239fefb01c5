"""What a stack costs and looks like: the table, the picture, and the guide that shows both."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from infra.aws.conftest import Run
from infra.conftest import ROOT
from kos_infra import costs, describe, policies, topology
from kos_infra.recording import Recording, Registration

GUIDE = ROOT / "docs/guide/clusters.md"
IMAGES = ROOT / "docs/images"
PROGRAMS = ("aws_fleet", "aws_eks")


def title(program: str) -> str:
    return f"kos-{program.replace('_', '-')} prod"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_picture_in_the_guide_is_that_of_the_example(run: Run, program: str) -> None:
    drawn = topology.svg(run(program, "prod").registrations, title(program))
    path = IMAGES / f"topology-{program.replace('_', '-')}.svg"
    if os.environ.get("KOS_WRITE_SNAPSHOTS"):
        path.write_text(drawn, "utf-8")
    assert path.read_text("utf-8") == drawn


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_costs_in_the_guide_are_those_of_the_example(run: Run, program: str) -> None:
    assert_in_guide(f"costs of {program} prod", costs.table(run(program, "prod").registrations))


def test_the_guide_names_every_policy() -> None:
    lines = ["| policy | what has to be so |", "|---|---|"]
    lines += [f"| `{rule.name}` | {rule.description} |" for rule in policies.RULES]
    assert_in_guide("policies", "\n".join([*lines, ""]))


def assert_in_guide(part: str, text: str) -> None:
    """Compare a part of the guide that is made with how it would be made now."""
    page = GUIDE.read_text("utf-8")
    place = re.compile(rf"(<!-- {part} -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    found = place.search(page)
    assert found
    if os.environ.get("KOS_WRITE_SNAPSHOTS"):
        GUIDE.write_text(place.sub(lambda match: f"{match[1]}{text}{match[3]}", page), "utf-8")
        return
    assert found[2] == text


@pytest.fixture
def prod(run: Run) -> Recording:
    return run("aws_fleet", "prod")


def texts(drawn: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawn).iter() if element.text]


def test_the_picture_shows_each_zone_with_its_groups_and_the_way_out(prod: Recording) -> None:
    shown = texts(topology.svg(prod.registrations, "demo"))
    for text in (
        *("eu-central-1a  10.40.0.0/20", "eu-central-1b  10.40.16.0/20", "eu-central-1c  10.40.32.0/20"),
        *("canary-a", "griot-a", "hakim-b", "archon-c", "wave 0: canary", "wave 3: archon"),
        *(
            "4 nodes, 2 on demand, 2 spot",
            "autoscaling, s3, ssm, ssmmessages",
            "locked for 90 days, compliance",
        ),
    ):
        assert text in shown


def test_a_name_with_a_sign_of_markup_does_not_break_the_picture(prod: Recording) -> None:
    ElementTree.fromstring(topology.svg(prod.registrations, "<demo> & others"))


def test_machines_count_with_their_dearest_type_on_demand(prod: Recording) -> None:
    found = {row.what: row for row in costs.rows(prod.registrations)}
    assert found["machine m7a.large"].count == 4
    assert "machine m6i.large" not in found
    assert found["machine m7g.medium"].count == 5
    assert found["GiB of volume"].count == 30 + 4 * 30 + 4 * 60 + 3 * 60
    assert found["endpoint in a zone"].count == 9


def test_the_total_is_the_sum_and_says_of_when_it_is(prod: Recording) -> None:
    table = costs.table(prod.registrations)
    total = sum(row.usd for row in costs.rows(prod.registrations))
    assert f"| **at most** | | | **{total:.2f}** |" in table
    assert f"Prices of {costs.prices()['date']}" in table


def test_a_type_without_a_price_is_named_and_the_total_is_a_lower_bound(run: Run) -> None:
    def change(settings: dict[str, list[dict[str, object]]]) -> None:
        settings["groups"][0]["instance_types"] = ["c8gn.large"]

    table = costs.table(run("aws_fleet", "prod", change).registrations)
    assert "| machine c8gn.large | 1 | no price | 0.00 |" in table
    assert "**at least**" in table


def test_a_stack_is_described_before_it_is_made(
    tmp_path: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    program = ROOT / "pulumi/aws_fleet"
    stack = yaml.safe_load((program / "Pulumi.prod.yaml").read_text("utf-8"))
    stack["config"]["kos-aws-fleet:settings"].update(files)
    for name in ("Pulumi.yaml", "__main__.py"):
        (tmp_path / name).symlink_to(program / name)
    (tmp_path / "Pulumi.prod.yaml").write_text(yaml.safe_dump(stack))
    picture = tmp_path / "picture.svg"
    assert describe.main([str(tmp_path / "Pulumi.prod.yaml"), "--svg", str(picture)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("kos-aws-fleet prod: ")
    assert "machine m7a.large" in said
    assert "canary-a" in picture.read_text("utf-8")


def test_a_stack_is_described_by_its_export(
    tmp_path: Path, prod: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "state.json"
    resources = [exported(one) for one in prod.registrations]
    export.write_text(json.dumps({"version": 3, "deployment": {"resources": resources}}))
    assert describe.main([str(export)]) == 0
    assert costs.table(prod.registrations) in capsys.readouterr().out


def exported(one: Registration) -> dict[str, object]:
    return {
        "urn": one.urn,
        "type": one.type,
        "custom": one.custom,
        "inputs": one.inputs,
        "dependencies": one.depends_on,
        "protect": one.protect,
    }


def test_a_stack_file_without_settings_gets_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: x")
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n")
    assert describe.main([str(tmp_path / "Pulumi.dev.yaml")]) == 2
    assert "config: must be a mapping" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("state.json", "[]", "is neither a stack file nor what `pulumi stack export` wrote"),
        ("state.json", "no json", "is neither a stack file nor what"),
        ("state.json", '{"deployment": {"resources": []}}', "the stack has no resources"),
        ("Pulumi.yaml", "name: x", "must be the file of a stack, Pulumi.STACK.yaml"),
        ("Pulumi.dev.yaml", "config: {}", "cannot be read with the Pulumi.yaml beside it"),
    ],
)
def test_what_cannot_be_described_gets_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert describe.main([str(path)]) == 2
    assert message in capsys.readouterr().err
