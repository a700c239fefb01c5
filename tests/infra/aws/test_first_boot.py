"""The first boot of a node, run for real: its own program, the real bundle, a root and a mirror that are
folders. Only the cloud's command is a stand-in, which writes down what it was told."""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import fleet_files
from infra.conftest import ROOT
from kos_infra import first_boot, userdata

INSTANCE = "i-0aaaabbbbccccdddd"
KEY = "ssh-ed25519 " + "A" * 68 + " operator"

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="kosctl host apply is root's alone; run this as root"
)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the real bundle, as `make collection` makes it."""
    folder = tmp_path_factory.mktemp("bundle")
    command = [sys.executable, str(ROOT / "tools/bundle.py"), "--output", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@dataclass
class Machine:
    """A machine that has just been started: a root, a mirror, and a cloud that listens."""

    root: Path
    mirror: Path
    said: Path
    settings: dict[str, Any]

    def boot(self) -> subprocess.CompletedProcess[str]:
        """Run what cloud-init would run."""
        file = self.root / "settings.json"
        file.write_text(json.dumps(self.settings))
        command = [sys.executable, "-IB", first_boot.__file__, str(file), "--root", str(self.root)]
        path = f"{self.said.parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
        )

    def told_cloud(self) -> list[str]:
        """What the auto scaling group was told, oldest first."""
        return self.said.read_text().splitlines() if self.said.exists() else []

    def node(self) -> dict[str, Any]:
        """The configuration of the node that it became."""
        document: dict[str, Any] = json.loads((self.root / "etc/kos/node.json").read_text())
        return document


def boot_settings(url: str, archive: Path, version: str, *, install: bool = False) -> userdata.Boot:
    data = archive.read_bytes()
    return userdata.Boot(
        node={
            "format": 1,
            "fleet": "demo",
            "zone": "eu-central-1a",
            "class": "griot",
            "release": "kos",
            "channel": "stable",
            "mirrors": [url],
        },
        trust_root=fleet_files.root_of_trust().decode(),
        operator_keys=(KEY,),
        admin_keys=(),
        bundle={
            "url": f"{url}kosctl/{archive.name}",
            "version": version,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
        },
        hook={"name": "kos-node", "group": "demo-dev-griot-a", "region": "eu-central-1"},
        install=install,
    )


def machine(folder: Path, archive: Path, version: str, *, install: bool = False) -> Machine:
    root, mirror, programs = folder / "root", folder / "mirror", folder / "bin"
    for path in (
        *("etc/sudoers.d", "etc/tmpfiles.d", "etc/systemd/system", "var/lib/cloud/data"),
        *("usr/local/sbin", "var/log", "run", "opt"),
    ):
        (root / path).mkdir(parents=True)
    for name, text in {"passwd": "root:x:0:0::/root:/bin/sh\n", "group": "root:x:0:\n", "shadow": ""}.items():
        (root / "etc" / name).write_text(text)
    (root / "var/lib/cloud/data/instance-id").write_text(f"{INSTANCE}\n")
    (mirror / "kosctl").mkdir(parents=True)
    (mirror / "kosctl" / archive.name).write_bytes(archive.read_bytes())
    programs.mkdir()
    aws = programs / "aws"
    aws.write_text(f'#!/bin/sh\necho "$@" >>{programs}/said\n')
    aws.chmod(0o755)
    boot = boot_settings(f"file://{mirror}/", archive, version, install=install)
    return Machine(root, mirror, programs / "said", boot.settings())


@pytest.fixture
def fresh(tmp_path: Path, bundle: Path) -> Machine:
    """A machine that is told to become a node with the real bundle."""
    described = json.loads((bundle / "kosctl.json").read_text())
    return machine(tmp_path / "machine", bundle / described["file"], described["version"])


def result_told(machine: Machine) -> list[str]:
    return [line.rpartition("--lifecycle-action-result ")[2] for line in machine.told_cloud()]


@needs_root
def test_a_machine_becomes_a_node_and_completes_its_launch(fresh: Machine) -> None:
    done = fresh.boot()
    assert done.returncode == 0, done.stderr
    node = fresh.node()
    assert (node["node"], node["zone"], node["class"]) == (INSTANCE, "eu-central-1a", "griot")
    assert (fresh.root / "etc/kos/trust/root.json").read_text() == fresh.settings["spec"]["trust_root"]
    assert (fresh.root / "opt/kos/current/bin/kosctl").is_file()
    assert (fresh.root / "opt/kos/fallback").is_file()
    assert fresh.told_cloud() == [
        "autoscaling complete-lifecycle-action --region eu-central-1 "
        "--auto-scaling-group-name demo-dev-griot-a --lifecycle-hook-name kos-node "
        f"--instance-id {INSTANCE} --lifecycle-action-result CONTINUE"
    ]


@needs_root
def test_a_second_run_changes_nothing_and_needs_no_mirror(fresh: Machine) -> None:
    fresh.boot()
    before = {path: path.lstat().st_mtime_ns for path in (fresh.root / "etc").rglob("*") if path.is_file()}
    for path in (fresh.mirror / "kosctl").iterdir():
        path.unlink()
    done = fresh.boot()
    assert done.returncode == 0, done.stderr
    assert {
        path: path.lstat().st_mtime_ns for path in (fresh.root / "etc").rglob("*") if path.is_file()
    } == before


@needs_root
def test_a_boot_that_was_killed_while_unpacking_is_finished_by_the_next(fresh: Machine) -> None:
    half = fresh.root / "opt/kos" / fresh.settings["bundle"]["version"]
    (half / "bin").mkdir(parents=True)
    (half / "bin/kosctl").write_text("half a program")
    done = fresh.boot()
    assert done.returncode == 0, done.stderr
    assert result_told(fresh) == ["CONTINUE"]


def test_a_bundle_with_other_bytes_is_refused_and_the_machine_given_up(fresh: Machine) -> None:
    archive = next((fresh.mirror / "kosctl").iterdir())
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    done = fresh.boot()
    assert done.returncode == 1
    assert "has the digest" in done.stderr
    assert not (fresh.root / "opt/kos").exists()
    assert result_told(fresh) == ["ABANDON"]


def test_a_mirror_that_sends_more_than_the_bundle_is_not_read_to_its_end(fresh: Machine) -> None:
    archive = next((fresh.mirror / "kosctl").iterdir())
    with archive.open("ab") as stream:
        stream.write(b"more")
    done = fresh.boot()
    assert done.returncode == 1
    assert f"does not have the {fresh.settings['bundle']['size']} bytes" in done.stderr


@needs_root
def test_what_the_engine_refuses_gives_the_machine_up_with_its_words(fresh: Machine) -> None:
    fresh.settings["spec"]["trust_root"] = "{}"
    done = fresh.boot()
    assert done.returncode == 1
    assert "trust_root" in done.stderr
    assert result_told(fresh) == ["ABANDON"]


def test_a_cloud_that_cannot_be_told_does_not_hide_what_went_wrong(fresh: Machine) -> None:
    (fresh.said.parent / "aws").write_text("#!/bin/sh\necho 'no such hook' >&2\nexit 1\n")
    fresh.settings["bundle"]["sha256"] = "0" * 64
    done = fresh.boot()
    assert done.returncode == 1
    assert "no such hook" in done.stderr
    assert "has the digest" in done.stderr


def test_an_image_that_lacks_something_is_told_all_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(first_boot, "SYSTEM_PROGRAMS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    lacking = ", ".join(first_boot.missing())
    assert "aws (package awscli)" in lacking
    assert "zstandard (package python3-zstandard)" in lacking


def test_a_mirror_that_is_late_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    late = tmp_path / "bundle"
    monkeypatch.setattr(time, "sleep", lambda _seconds: late.write_bytes(b"here"))
    assert first_boot.fetch(late.as_uri(), 4) == b"here"


def test_a_mirror_that_never_comes_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with pytest.raises(first_boot.BootError, match="cannot be fetched"):
        first_boot.fetch((tmp_path / "bundle").as_uri(), 4)


# An engine that answers as kosctl does in a trial; what it was asked is written down beside it.
ENGINE = """
import json, pathlib, sys
script = json.loads({script!r})
asked = pathlib.Path({asked!r})
request = json.load(sys.stdin)
verb = request.get("verb", "host")
count = asked.read_text().split().count(verb) if asked.exists() else 0
with asked.open("a") as stream:
    stream.write(verb + "\\n")
answers = script.get(verb, [dict()])
answer = answers[min(count, len(answers) - 1)]
error = answer.get("error")
print(json.dumps(dict(ok=error is None, error=error, result=answer)))
"""

TRIAL = {"trial": "T", "token": "secret", "version": "1.2.0", "deadline_in_s": 60, "how": "patch"}
BAKING = {"trial": {"id": "T", "baked": False, "health": "unknown"}}
BAKED = {"trial": {"id": "T", "baked": True, "health": "healthy"}}
OVER = {"trial": None}


def with_engine(folder: Path, script: dict[str, Any]) -> tuple[Machine, Path]:
    """A machine whose bundle holds an engine that follows a script, and the list of what that was asked."""
    folder.mkdir()
    asked, archive = folder / "asked", folder / "kosctl-9.tar.gz"
    program = ENGINE.format(script=json.dumps(script), asked=str(asked)).encode()
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as stream:
        member = tarfile.TarInfo("bin/kosctl")
        member.size, member.mode = len(program), 0o555
        stream.addfile(member, io.BytesIO(program))
    archive.write_bytes(gzip.compress(plain.getvalue()))
    return machine(folder / "machine", archive, "9", install=True), asked


def test_the_newest_release_is_installed_and_confirmed_once_it_is_healthy(tmp_path: Path) -> None:
    script = {"activate": [TRIAL], "status": [BAKING, BAKED]}
    machine, asked = with_engine(tmp_path / "fleet", script)
    done = machine.boot()
    assert done.returncode == 0, done.stderr
    assert asked.read_text().split() == ["host", "stage", "activate", "status", "status", "confirm"]
    assert result_told(machine) == ["CONTINUE"]


def test_a_release_that_reverts_gives_the_machine_up(tmp_path: Path) -> None:
    machine, asked = with_engine(tmp_path / "fleet", {"activate": [TRIAL], "status": [BAKING, OVER]})
    done = machine.boot()
    assert done.returncode == 1
    assert "release 1.2.0 did not become healthy" in done.stderr
    assert "confirm" not in asked.read_text()
    assert result_told(machine) == ["ABANDON"]


def test_a_mirror_without_a_release_gives_the_machine_up(tmp_path: Path) -> None:
    script = {"stage": [{"error": {"kind": "not-found", "message": "no such release", "key": None}}]}
    machine, asked = with_engine(tmp_path / "fleet", script)
    done = machine.boot()
    assert done.returncode == 1
    assert "no such release" in done.stderr
    assert asked.read_text().split() == ["host", "stage"]
    assert result_told(machine) == ["ABANDON"]


def test_a_release_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    machine, asked = with_engine(tmp_path / "fleet", {"activate": [{"how": "present"}]})
    assert machine.boot().returncode == 0
    assert asked.read_text().split() == ["host", "stage", "activate"]


def test_the_token_of_a_trial_is_in_no_log(tmp_path: Path) -> None:
    machine, _asked = with_engine(tmp_path / "fleet", {"activate": [TRIAL], "status": [OVER]})
    done = machine.boot()
    assert "secret" not in done.stdout + done.stderr


def test_user_data_is_a_cloud_config_that_runs_the_program_with_its_settings(tmp_path: Path) -> None:
    archive = tmp_path / "kosctl.tar.gz"
    archive.write_bytes(b"bundle")
    boot = boot_settings("https://mirror.example/", archive, "1.0.0")
    data = userdata.render(boot)
    assert data.startswith(b"#cloud-config\n")
    config = yaml.safe_load(data)
    files = {file["path"]: file["content"] for file in config["write_files"]}
    program, settings = config["runcmd"][0][2:]
    assert files[program] == Path(first_boot.__file__).read_text("utf-8")
    assert json.loads(files[settings]) == boot.settings()
    assert base64.b64decode(userdata.encode(boot, "groups")) == data


def test_the_account_of_the_image_takes_the_administrators_keys_and_the_operator_gets_none_of_them(
    tmp_path: Path,
) -> None:
    archive = tmp_path / "kosctl.tar.gz"
    archive.write_bytes(b"bundle")
    plain = boot_settings("https://mirror.example/", archive, "1.0.0")
    boot = userdata.Boot(**{**vars(plain), "admin_keys": ("ssh-ed25519 ADMIN",)})
    assert yaml.safe_load(userdata.render(boot))["ssh_authorized_keys"] == ["ssh-ed25519 ADMIN"]
    assert boot.settings() == plain.settings()
    assert "ssh_authorized_keys" not in yaml.safe_load(userdata.render(plain))


def test_user_data_is_compressed_only_where_it_would_be_too_long(tmp_path: Path) -> None:
    archive = tmp_path / "kosctl.tar.gz"
    archive.write_bytes(b"bundle")
    boot = boot_settings("https://mirror.example/", archive, "1.0.0")
    long = userdata.Boot(**{**vars(boot), "operator_keys": (KEY,) * 200})
    data = userdata.render(long)
    assert data.startswith(b"\x1f\x8b")
    assert len(data) <= userdata.LIMIT < len(gzip.decompress(data))
    assert userdata.render(long) == data


def test_the_image_is_asked_for_what_role_bootstrap_asks_a_host_for() -> None:
    probe = ast.parse((ROOT / "plugins/plugin_utils/_host.py").read_text("utf-8"))
    asked = next(
        ast.literal_eval(statement.value)
        for statement in probe.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "PROGRAMS"
    )
    assert {**asked, "aws": "awscli"} == first_boot.PROGRAMS
