"""The script that builds the S3 server of the tests: once, and clear when it cannot be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tools/versitygw"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout with the script alone, and a folder `bin` that is all there is on PATH."""
    shutil.copytree(SCRIPT, tmp_path / "tools/versitygw")
    (tmp_path / "bin").mkdir()
    for program in ("bash", "cat", "cut", "dirname", "flock", "mkdir", "nice", "rm", "sed", "sha256sum"):
        found = shutil.which(program)
        assert found
        (tmp_path / "bin" / program).symlink_to(found)
    return tmp_path


def go(machine: Path, does: str) -> None:
    """Install a Go that does something when it is to build."""
    program = machine / "bin/go"
    program.write_text(f'#!/bin/bash\n[[ $1 == version ]] && exit\nmkdir -p "$GOBIN"\n{does}\n')
    program.chmod(0o755)


def run(machine: Path) -> subprocess.CompletedProcess[str]:
    given = {"PATH": str(machine / "bin"), "HOME": str(machine)}
    argv = [machine / "tools/versitygw/versitygw.sh"]
    return subprocess.run(argv, env=given, capture_output=True, text=True, check=False)


def test_it_is_built_once_and_anew_where_a_build_was_killed(machine: Path) -> None:
    built = machine / "build/tools/versitygw/bin/versitygw"
    make = (
        f'echo "#!/bin/bash" >"$GOBIN/versitygw"; /bin/chmod 755 "$GOBIN/versitygw"; echo >>{machine}/built'
    )
    go(machine, f"{make}; kill -9 $$")
    assert run(machine).returncode != 0
    go(machine, make)
    first, second = run(machine), run(machine)
    assert (first.returncode, first.stdout, second.stdout) == (0, f"{built}\n", f"{built}\n")
    assert "building v1." in first.stderr
    assert (second.stderr, len((machine / "built").read_text())) == ("", 2)


def test_without_go_it_says_how_to_get_it(machine: Path) -> None:
    found = run(machine)
    assert (found.returncode, found.stdout) == (3, "")
    assert "LEFT OUT" in found.stderr
    assert "Go 1.25 or newer" in found.stderr
