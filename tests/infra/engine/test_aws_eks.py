"""Program aws_eks under the real engine: a cluster is changed in place, and is never without machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pulumi import automation

from infra.conftest import ROOT
from infra.engine.harness import Engine, Stack
from kos_infra import drift

PROGRAM = ROOT / "pulumi/aws_eks"
SETTINGS = "kos-aws-eks:settings"

CLUSTER = "aws:eks/cluster:Cluster"
WORKERS = "aws:eks/nodeGroup:NodeGroup"


@pytest.fixture(scope="session")
def cluster_as_made(
    command: automation.PulumiCommand, tmp_path_factory: pytest.TempPathFactory, shapes: Path
) -> Engine:
    """The example cluster, up; tests take copies of it."""
    engine = Engine(command, tmp_path_factory.mktemp("cluster") / "engine", shapes)
    with engine.entered():
        made = engine.stack(PROGRAM, "dev").up()
    assert not made.error, made.error
    return engine


@pytest.fixture
def cluster(cluster_as_made: Engine, tmp_path: Path) -> Iterator[Stack]:
    """A copy of the example cluster that is up."""
    engine = cluster_as_made.copy(tmp_path / "engine")
    with engine.entered():
        yield engine.stack(PROGRAM, "dev")


def test_a_second_up_changes_nothing(cluster: Stack) -> None:
    outcome = cluster.up()
    assert (outcome.error, outcome.changes()) == ("", {})


def test_another_version_is_an_update_in_place_of_the_cluster_then_of_its_machines(cluster: Stack) -> None:
    before = {made.id for made in cluster.cloud.all()}

    def newer(settings: dict[str, Any]) -> None:
        settings["version"] = "1.35"
        for group in settings["groups"]:
            group["release"] = "1.35.0-20261119"
        settings["addons"]["kube-proxy"] = "v1.35.0-eksbuild.1"

    cluster.change(SETTINGS, newer)
    outcome = cluster.up()
    assert outcome.error == ""
    assert {operation for operation, _, _ in outcome.steps} == {"update"}
    updated = [kind for _, kind, _ in outcome.steps if kind in (CLUSTER, WORKERS)]
    assert updated == [CLUSTER, WORKERS, WORKERS]
    assert {made.id for made in cluster.cloud.all()} == before


def test_other_machines_are_there_before_the_old_ones_go(cluster: Stack) -> None:
    def larger(settings: dict[str, Any]) -> None:
        settings["groups"][0]["instance_types"] = ["m7g.2xlarge"]

    cluster.change(SETTINGS, larger)
    cluster.cloud.forget_calls()
    outcome = cluster.up()
    assert outcome.error == ""
    calls = [call.operation for call in cluster.cloud.calls(kind=WORKERS) if call.name == "arm"]
    assert [operation for operation in calls if operation != "check"] == ["create", "delete"]


def test_a_scaler_that_moved_a_group_is_not_moved_back(cluster: Stack) -> None:
    scaled = cluster.cloud.one(WORKERS, "arm").state["scalingConfig"]
    cluster.cloud.edit(WORKERS, "arm", scalingConfig={**scaled, "desiredSize": 4})
    assert cluster.refresh().error == ""
    outcome = cluster.up()
    assert (outcome.error, outcome.changes()) == ("", {})
    assert cluster.cloud.one(WORKERS, "arm").state["scalingConfig"]["desiredSize"] == 4


def test_destroy_takes_the_cluster_down_in_order(cluster: Stack) -> None:
    cluster.unprotect()
    outcome = cluster.destroy()
    assert outcome.error == ""
    assert cluster.cloud.all(CLUSTER) == []


def test_a_cluster_that_is_protected_stays_even_when_the_state_lets_it_go(cluster: Stack) -> None:
    cluster.change(SETTINGS, lambda settings: settings.update(deletion_protection=True))
    assert cluster.up().error == ""
    assert "because it is protected" in cluster.destroy().error
    cluster.unprotect()
    assert "deletion protection is enabled" in cluster.destroy().error
    assert cluster.cloud.one(CLUSTER)


def test_what_a_scaler_moves_is_no_drift(cluster: Stack) -> None:
    scaled = cluster.cloud.one(WORKERS, "arm").state["scalingConfig"]
    cluster.cloud.edit(WORKERS, "arm", scalingConfig={**scaled, "desiredSize": 4})
    assert drift.look(cluster.automation).answer is drift.Answer.CLEAN
    cluster.cloud.edit(WORKERS, "arm", scalingConfig={**scaled, "desiredSize": 4, "maxSize": 40})
    found = drift.look(cluster.automation)
    assert [each.properties for each in found.drifts] == [("scalingConfig.maxSize",)]
