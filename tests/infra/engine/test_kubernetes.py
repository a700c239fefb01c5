"""Program kubernetes under the real engine: the canary goes first, and what is protected stays (D04, A04)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pulumi import automation

from infra.conftest import ROOT
from infra.engine.harness import Engine, Stack

PROGRAM = ROOT / "pulumi/kubernetes"
SETTINGS = "kos-kubernetes:settings"

CONFIG = "kubernetes:core/v1:ConfigMap"
DAEMONS = "kubernetes:apps/v1:DaemonSet"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
VOLUME = "kubernetes:core/v1:PersistentVolumeClaim"


@pytest.fixture(scope="session")
def units_as_made(
    command: automation.PulumiCommand, tmp_path_factory: pytest.TempPathFactory, shapes: Path
) -> Engine:
    """The example stack for many, up, on a machine that knows its cluster; tests take copies of it."""
    engine = Engine(command, tmp_path_factory.mktemp("units") / "engine", shapes)
    kubeconfig = engine.folder / ".kube/config"
    kubeconfig.parent.mkdir(parents=True)
    kubeconfig.write_text(yaml.safe_dump({"contexts": [{"name": "demo-prod"}]}))
    with engine.entered():
        made = engine.stack(PROGRAM, "prod").up()
    assert not made.error, made.error
    return engine


@pytest.fixture
def units(units_as_made: Engine, tmp_path: Path) -> Iterator[Stack]:
    """A copy of the stack that is up, with units that a test may change."""
    shutil.copytree(PROGRAM / "units", tmp_path / "units")
    engine = units_as_made.copy(tmp_path / "engine")
    with engine.entered():
        stack = engine.stack(PROGRAM, "prod")
        stack.change(SETTINGS, lambda settings: settings.update(units_dir=str(tmp_path / "units")))
        stack.cloud.forget_calls()
        yield stack


def new_image(tmp_path: Path) -> None:
    path = tmp_path / "units/beacon/unit.yml"
    text = path.read_text()
    path.write_text(text.replace("0" * 64, "f" * 64))
    assert path.read_text() != text


def image(stack: Stack, name: str) -> str:
    (container,) = stack.cloud.one(DEPLOYMENT, name).inputs["spec"]["template"]["spec"]["containers"]
    return str(container["image"])


def test_a_second_up_changes_nothing(units: Stack) -> None:
    outcome = units.up()

    assert (outcome.error, outcome.changes()) == ("", {})


def test_a_new_image_is_proven_by_the_canary_before_the_others_get_it(units: Stack, tmp_path: Path) -> None:
    new_image(tmp_path)

    outcome = units.up()

    assert outcome.error == ""
    assert outcome.steps == (("update", DEPLOYMENT, "beacon-canary"), ("update", DEPLOYMENT, "beacon"))


def test_a_canary_that_does_not_get_ready_stops_the_others(units: Stack, tmp_path: Path) -> None:
    new_image(tmp_path)
    before = image(units, "beacon")
    units.cloud.fail("update", DEPLOYMENT, "beacon-canary", message="is not ready after 480 s")

    outcome = units.up()

    assert "is not ready" in outcome.error
    assert image(units, "beacon") == before
    assert units.up().error == ""
    assert image(units, "beacon") == image(units, "beacon-canary") != before


def test_another_configuration_is_there_before_the_old_one_goes(units: Stack) -> None:
    units.change(SETTINGS, lambda settings: settings["units"]["beacon"]["config"].update(greeting="good day"))

    outcome = units.up()

    assert outcome.error == ""
    order = [
        (call.operation, call.type, call.name)
        for call in units.cloud.calls()
        if call.type in (CONFIG, DEPLOYMENT)
    ]
    assert [each for each in order if each[0] in ("create", "update", "delete")] == [
        ("create", CONFIG, "beacon-config"),
        ("update", DEPLOYMENT, "beacon-canary"),
        ("update", DEPLOYMENT, "beacon"),
        ("delete", CONFIG, "beacon-config"),
    ]


def test_a_second_writer_is_refused_and_nothing_is_changed(units: Stack) -> None:
    def second(settings: dict[str, Any]) -> None:
        settings["units"]["ledger"]["replicas"] = 2

    units.change(SETTINGS, second)

    outcome = units.up()

    assert "units.ledger.replicas: 2 is more than the unit allows, which is 1" in outcome.error
    assert not [call for call in units.cloud.calls() if call.operation in ("create", "update", "delete")]


def test_destroy_refuses_to_take_state_along_and_leaves_it_when_it_is_meant(units: Stack) -> None:
    refused = units.destroy()
    assert "because it is protected" in refused.error
    units.unprotect()

    assert units.destroy().error == ""

    assert {one.name for one in units.cloud.all("kubernetes:*")} == {"namespace", "ledger-state"}
