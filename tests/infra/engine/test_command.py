"""The script that finds or builds the command: immediate when it is there, clear when it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.conftest import ROOT

SCRIPT = ROOT / "tools/pulumi"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout with the script alone, and a folder `bin` that is all there is on PATH."""
    shutil.copytree(SCRIPT, tmp_path / "tools/pulumi")
    (tmp_path / "bin").mkdir()
    for program in ("bash", "cat", "cut", "dirname", "flock", "mkdir", "nice", "rm", "sed", "sha256sum"):
        found = shutil.which(program)
        assert found
        (tmp_path / "bin" / program).symlink_to(found)
    return tmp_path


def install(machine: Path, name: str, script: str) -> None:
    program = machine / "bin" / name
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)


def go(machine: Path) -> None:
    """Install a Go that writes down what it is asked to build, and builds a file."""
    install(
        machine,
        "go",
        f'[[ $1 == version ]] && echo "go version go1.26.0 linux/amd64" && exit\n'
        f'echo "$*" >>{machine}/built\n'
        f'mkdir -p "$GOBIN" && echo "#!/bin/bash" >"$GOBIN/pulumi" && /bin/chmod 755 "$GOBIN/pulumi"',
    )


def run(machine: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(machine / "bin"), "HOME": str(machine)}
    return subprocess.run(
        [machine / "tools/pulumi/pulumi.sh"], env=environment, capture_output=True, text=True, check=False
    )


def test_the_command_on_path_is_taken_and_nothing_is_built(machine: Path) -> None:
    go(machine)
    install(machine, "pulumi", "echo v3.300.0")
    found = run(machine)
    assert (found.returncode, found.stdout) == (0, f"{machine}/bin/pulumi\n")
    assert not (machine / "built").exists()


def test_it_is_built_once_from_its_pinned_version(machine: Path) -> None:
    go(machine)
    first, second = run(machine), run(machine)
    built = machine / "build/tools/pulumi/bin/pulumi"
    assert (first.returncode, first.stdout) == (0, f"{built}\n")
    assert (second.stdout, second.stderr) == (f"{built}\n", "")
    (asked,) = (machine / "built").read_text().splitlines()
    assert "version.Version=v3.259.0" in asked
    assert os.access(built, os.X_OK)


def test_another_pinned_version_is_built_anew(machine: Path) -> None:
    go(machine)
    run(machine)
    pins = machine / "tools/pulumi/go.mod"
    pins.write_text(pins.read_text().replace("v3.259.0", "v3.260.0"))
    assert run(machine).returncode == 0
    assert "v3.260.0" in (machine / "built").read_text().splitlines()[-1]


def test_a_build_that_was_killed_is_not_taken_for_a_command(machine: Path) -> None:
    go(machine)
    install(
        machine,
        "go",
        '[[ $1 == version ]] && exit\nmkdir -p "$GOBIN" && echo half >"$GOBIN/pulumi"; kill -9 $$',
    )
    assert run(machine).returncode != 0
    go(machine)
    assert run(machine).returncode == 0
    assert (machine / "built").exists()


def test_without_the_command_and_without_go_it_says_how_to_get_either(machine: Path) -> None:
    found = run(machine)
    assert (found.returncode, found.stdout) == (3, "")
    assert "LEFT OUT" in found.stderr
    assert "Install Pulumi" in found.stderr
    assert "Go 1.25 or newer" in found.stderr
