"""The playbooks take over a cluster with nothing but the example inventory and its stack (D07)."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader

from .conftest import ROOT, launch

PLAY = """
- hosts: nodes
  gather_facts: false
  tasks:
    - kos.fleet.inventory_check:
        nodes: "{{ ansible_play_hosts_all }}"
        mirrors: true
        roles: [bootstrap, runtime]
        canary: "{{ patch_canary }}"
      run_once: true
      register: plan
    - ansible.builtin.copy:
        dest: "{{ playbook_dir }}/seen.json"
        content: >-
          {{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars)))
             | combine({'plan': plan}) | to_json }}
      delegate_to: localhost
      connection: local
      run_once: true
"""


@pytest.fixture
def inventory(contract: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cloud: None) -> Path:
    """The example as somebody copied it, with a stack that the command knows, and its cache filled."""
    folder = tmp_path / "project/inventories/pulumi"
    shutil.copytree(ROOT / "inventories/pulumi", folder)
    program = tmp_path / "project/pulumi/aws_fleet"
    program.mkdir(parents=True)
    (program / "Pulumi.yaml").write_text("name: aws-fleet\n")
    (program / "outputs.json").write_text(json.dumps({"kos_fleet": contract}))
    command = tmp_path / "bin/pulumi"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nexec cat outputs.json\n")
    command.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    key = Path.home() / ".ssh/id_ed25519.pub"
    key.parent.mkdir()
    key.write_text("ssh-ed25519 AAAA somebody\n")
    plugin: Any = inventory_loader.get("kos.fleet.pulumi")
    launch(contract, "canary", note="{{ 7 * 7 }}")
    launch(contract, "rest", 2)
    plugin.parse(InventoryData(), DataLoader(), str(folder / "fleet.pulumi.yml"), cache=False)
    plugin.update_cache_if_changed()
    return folder


def run(inventory: Path, play: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook in a process of its own, for which there is no cloud: what it knows is in the cache."""
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), str(play), *options]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build"),
        "KOS_REPORT_DIR": str(play.parent / "report"),
    }
    del environment["AWS_ACCESS_KEY_ID"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_rollout_is_planned_with_no_value_copied_by_hand(
    inventory: Path, tmp_path: Path, contract: dict[str, Any]
) -> None:
    (tmp_path / "play.yml").write_text(PLAY)

    done = run(inventory, tmp_path / "play.yml")
    assert done.returncode == 0, done.stdout + done.stderr

    seen = json.loads((tmp_path / "seen.json").read_text())
    plan = seen.pop("plan")
    assert [wave["name"] for wave in plan["waves"]] == [
        "canary",
        "zone eu_central_1b 1/2",
        "zone eu_central_1b 2/2",
    ]
    (canary,) = plan["waves"][0]["hosts"]
    assert seen[canary]["bootstrap_zone"] == "eu-central-1a"
    assert seen[canary]["bootstrap_class"] == "griot"
    # What somebody writes into a tag is never run on the controller.
    assert seen[canary]["kos_instance"]["tags"]["note"] == "{{ 7 * 7 }}"
    for node in seen.values():
        assert node["bootstrap_fleet"] == contract["fleet"]
        assert node["bootstrap_mirrors"] == [contract["mirror"]["url"]]


def test_an_inventory_that_cannot_be_read_is_an_error_and_not_an_empty_fleet(
    inventory: Path, tmp_path: Path
) -> None:
    (tmp_path / "play.yml").write_text(PLAY)

    done = run(inventory, tmp_path / "play.yml", "--flush-cache")

    assert done.returncode != 0
    assert "no credentials; looked at" in done.stdout + done.stderr


def test_the_example_names_a_program_of_this_project() -> None:
    folder = ROOT / "inventories/pulumi"
    said = yaml.safe_load((folder / "fleet.pulumi.yml").read_text())

    program = folder / said["project_dir"]
    assert yaml.safe_load((program / "Pulumi.yaml").read_text())["name"]
    assert (program / f"Pulumi.{said['stack']}.yaml").is_file()
