"""The collection as a user gets it: built, installed into an empty folder, run from there on a node (D01)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from world import World

from bed import Bed, Plan

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"meta", "plugins", "roles", "playbooks", "changelogs"}
FILES = {"MANIFEST.json", "FILES.json", "README.md", "LICENSE", "CHANGELOG.rst"}


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artefact")
    subprocess.run([sys.executable, "tools/collection.py", "--out", str(out)], cwd=ROOT, check=True)
    return next(out.glob("kos-fleet-*.tar.gz"))


@pytest.fixture(scope="module")
def installed(artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that had nothing in it, with the collection installed and no network needed."""
    folder = tmp_path_factory.mktemp("empty")
    install = [
        program("ansible-galaxy"),
        "collection",
        "install",
        str(artefact),
        "--offline",
        "-p",
        str(folder),
    ]
    subprocess.run(install, check=True, cwd=folder, env=environment(folder))
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing of this checkout is found."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE", "PYTHON", "KOS"))
    }
    return {
        **kept,
        "ANSIBLE_COLLECTIONS_PATH": str(folder),
        "ANSIBLE_INJECT_FACT_VARS": "false",
        "HOME": str(folder),
    }


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bed, Path]]:
    inventory = tmp_path_factory.mktemp("inventory")
    machines = Bed("artefact")
    machines.up(Plan(inventory, nodes=1, zones=("a",)))
    yield machines, inventory
    machines.down()


def test_the_artefact_holds_the_collection_and_nothing_that_lay_about(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        names = [name for name in archive.getnames() if name]
    assert {name.split("/")[0] for name in names} <= PARTS | FILES
    assert [name for name in names if name.startswith("roles/bootstrap/files/kosctl-")], "the node's bundle"
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_same_files_make_the_same_artefact(artefact: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "tools/collection.py", "--out", str(tmp_path)], cwd=ROOT, check=True)
    assert next(tmp_path.glob("*.tar.gz")).read_bytes() == artefact.read_bytes()


def test_every_module_and_role_is_documented_where_it_is_installed(installed: Path) -> None:
    def listed(kind: str) -> set[str]:
        command = [program("ansible-doc"), "--json", "--list", "--type", kind, "kos.fleet"]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=installed, env=environment(installed)
        )
        return {name.removeprefix("kos.fleet.") for name in json.loads(done.stdout)}

    modules = {path.stem for path in (ROOT / "plugins/modules").glob("[a-z]*.py")}
    assert listed("module") == modules >= {"release", "node_info", "health", "repository"}
    assert listed("role") == {path.name for path in (ROOT / "roles").iterdir()}


def test_site_runs_from_the_installed_collection_alone(installed: Path, bed: tuple[Bed, Path]) -> None:
    machines, inventory = bed
    world = World(ROOT / "build/world")
    release = world.release("1.0.0")
    public = shutil.copytree(world.public, installed / "public")
    mirror = machines.node("mirror1").address
    variables = {
        "bootstrap_fleet": "artefact",
        "bootstrap_mirrors": [f"http://{mirror}:8080/"],
        "bootstrap_trust_root": str(public / "metadata/1.root.json"),
        "mirror_source": str(public),
        "runtime_release": "1.0.0",
    }
    (inventory / "group_vars").mkdir()
    (inventory / "group_vars/all.yml").write_text(yaml.safe_dump(variables))
    site = [program("ansible-playbook"), "kos.fleet.site", "-i", str(inventory)]

    subprocess.run(site, check=True, cwd=installed, env=environment(installed))

    assert (
        machines.exec("node1", ["readlink", "/var/lib/kos/current"]).stdout.strip()
        == f"releases/{release.root}"
    )
    assert machines.exec("node1", ["systemctl", "is-active", "kos-kosd.service"]).stdout.strip() == "active"
