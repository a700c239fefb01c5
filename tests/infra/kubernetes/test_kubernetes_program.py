"""Program kubernetes against mocks: what its example stacks register, and nothing for bad input (A04)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pulumi
import pytest
import yaml

from infra.conftest import ROOT, settings_of
from kos_infra import policies, recording
from kos_infra.recording import Recording

FOLDER = ROOT / "pulumi/kubernetes"
STACKS = ("dev", "prod")
SNAPSHOTS = Path(__file__).with_name("snapshots")
# The oldest that providers of clusters still keep, and the newest.
VERSIONS = ("1.31", "1.35")

Run = Callable[..., Recording]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """A kubeconfig of the clusters that the examples name, where one is looked for by default."""
    path = Path.home() / ".kube/config"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"contexts": [{"name": f"demo-{stack}"} for stack in STACKS]}))
    return path


@pytest.fixture
def run(kubeconfig: Path) -> Run:
    """Return a function that runs the program with an example's settings, changed by another function."""

    def run(
        stack: str = "dev",
        change: Callable[[dict[str, Any]], object] = lambda _: None,
        into: list[recording.Registration] | None = None,
    ) -> Recording:
        settings = settings_of("kubernetes", stack)
        change(settings)
        config = {"kos-kubernetes:settings": json.dumps(settings)}
        return recording.record_file(
            FOLDER / "__main__.py", project="kos-kubernetes", stack=stack, config=config, into=into
        )

    return run


def of(recorded: Recording, kind: str, name: str) -> recording.Registration:
    (found,) = [
        one for one in recorded.registrations if one.type.rpartition(":")[2] == kind and one.name == name
    ]
    return found


@pytest.mark.parametrize("stack", STACKS)
def test_every_object_is_of_the_one_component_and_of_the_named_cluster(run: Run, stack: str) -> None:
    recorded = run(stack)
    objects = [one for one in recorded.registrations if one.type.startswith("kubernetes:")]
    (component,) = recorded.of_type("kos:kubernetes:Units")

    assert len(objects) > 10
    assert {one.parent for one in objects} == {component.urn}
    assert {one.provider for one in objects} == {"cluster"}
    assert recorded.one("pulumi:providers:kubernetes", "cluster").inputs == {"context": f"demo-{stack}"}


def test_the_preview_shows_volume_way_in_and_one_replica_of_what_may_run_once(run: Run) -> None:
    recorded = run("prod")

    volume = of(recorded, "PersistentVolumeClaim", "ledger-state")
    assert volume.inputs["spec"]["resources"]["requests"] == {"storage": "20Gi"}
    assert volume.protect
    assert volume.retain_on_delete
    assert of(recorded, "StatefulSet", "ledger").inputs["spec"]["replicas"] == 1
    assert of(recorded, "Ingress", "beacon").inputs["spec"]["rules"][0]["host"] == "beacon.demo.example"
    assert recorded.outputs["kos_units"]["units"]["beacon"] == {
        "kind": "Deployment",
        "replicas": 6,
        "canary": True,
    }


def test_the_canary_is_there_and_ready_before_the_others_are_changed(run: Run) -> None:
    recorded = run("prod")
    canaries = {
        of(recorded, "Deployment", "beacon-canary").urn,
        of(recorded, "DaemonSet", "scout-canary").urn,
    }

    for kind, name in (("Deployment", "beacon"), ("DaemonSet", "scout"), ("StatefulSet", "ledger")):
        assert canaries <= set(of(recorded, kind, name).depends_on)


@pytest.mark.parametrize("stack", STACKS)
def test_the_objects_are_what_a_cluster_takes(run: Run, stack: str) -> None:
    bodies = [one.inputs for one in run(stack).registrations if one.type.startswith("kubernetes:")]

    assert len(bodies) > 10
    for body in bodies:
        for version in VERSIONS:
            kubernetes_validate.validate(body, version, strict=True)


@pytest.mark.parametrize("stack", STACKS)
def test_the_examples_violate_no_policy(run: Run, stack: str) -> None:
    assert policies.violations(run(stack).registrations, policies.RULES) == ()


@pytest.mark.parametrize("stack", STACKS)
def test_names_inputs_and_options_change_only_where_somebody_means_it(run: Run, stack: str) -> None:
    """`KOS_WRITE_SNAPSHOTS=1` writes what is meant; the change is then read like code."""
    now = {
        one.urn: {
            "inputs": dict(one.inputs),
            "depends_on": list(one.depends_on),
            "protect": one.protect,
            "retain_on_delete": one.retain_on_delete,
        }
        for one in run(stack).registrations
    }
    path = SNAPSHOTS / f"{stack}.json"
    if os.environ.get("KOS_WRITE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")

    assert now == json.loads(path.read_text())


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *parents, last = path.split(".")

    def change(settings: dict[str, Any]) -> None:
        here = settings
        for name in parents:
            here = here.setdefault(name, {})
        if value is None:
            del here[last]
        else:
            here[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            put("units.ledger.replicas", 2),
            "settings: units.ledger.replicas: 2 is more than the unit allows, which is 1",
        ),
        (put("units.beacon.replicas", 0), "settings: units.beacon.replicas: must be 1 or more"),
        (put("units.beacon.replicas", True), "settings: units.beacon.replicas: must be a whole number"),
        (
            put("units.beacon.replica", 1),
            "settings: units.beacon.replica: is no setting that this program knows",
        ),
        (put("units.nobody", {}), "units/nobody/unit.yml: cannot be read: No such file"),
        (put("units", {}), "settings: units: "),
        (put("units.Beacon", {}), "settings: units.Beacon"),
        (put("context", None), "settings: context: is missing"),
        (put("context", "production"), "context: production is in no kubeconfig; looked at "),
        (put("namespace", "Kube System"), "settings: namespace: must match"),
        (put("canary", {"zone": "a", "bake_s": 0}), "settings: canary.bake_s: must be 1 or more"),
        (
            put("units.beacon.expose", {"host": "beacon.demo.example", "port": 8080}),
            "settings: units.beacon.expose.tls_secret: is missing",
        ),
        (put("units_dir", "nowhere"), "nowhere/beacon/unit.yml: cannot be read"),
    ],
)
def test_bad_input_is_one_message_before_anything_is_registered(
    run: Run, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    seen: list[recording.Registration] = []

    with pytest.raises(pulumi.RunError) as refused:
        run(change=change, into=seen)
    assert said in str(refused.value)
    assert seen == []


def test_a_unit_of_another_name_than_its_folder_is_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "units/other"
    folder.mkdir(parents=True)
    (folder / "unit.yml").write_text((FOLDER / "units/beacon/unit.yml").read_text())

    def change(settings: dict[str, Any]) -> None:
        settings.update(units_dir=str(tmp_path / "units"), units={"other": {}})

    with pytest.raises(pulumi.RunError, match="id: must be other, as its folder; it is beacon"):
        run(change=change)


def test_a_kubeconfig_is_looked_for_where_it_is_said_and_nothing_of_it_is_told(
    run: Run, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, broken = tmp_path / "other", tmp_path / "broken"
    other.write_text(
        yaml.safe_dump({"contexts": [{"name": "else"}], "users": [{"user": {"token": "hunter2"}}]})
    )
    broken.write_text("]")
    monkeypatch.setenv("KUBECONFIG", f"{other}{os.pathsep}{broken}")

    with pytest.raises(pulumi.RunError) as refused:
        run()
    assert f"looked at {other} and {broken}, which KUBECONFIG names" in str(refused.value)
    assert "hunter2" not in str(refused.value)

    monkeypatch.setenv("KUBECONFIG", f"{other}{os.pathsep}{kubeconfig}")
    assert run().registrations
