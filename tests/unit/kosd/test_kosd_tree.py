"""The tree of a release: the same inputs give the same bytes, and nothing compiled gets in (S04)."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from kosd_node import REPOSITORY

SCRIPT = REPOSITORY / "runtime/release/tree.py"


def make(wheels: Path, out: Path, *more: str, version: str = "1.1.0") -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(SCRIPT),
        "--version",
        version,
        "--wheels",
        str(wheels),
        "--out",
        str(out),
        *more,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def fingerprint(tree: Path) -> dict[str, tuple[str, int]]:
    return {
        path.relative_to(tree).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mode & 0o7777,
        )
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


def unit(tree: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((tree / f"units/{name}/unit.yml").read_text())
    return document


@pytest.fixture
def one_wheel(tmp_path: Path) -> Path:
    """A folder with one small wheel: enough wherever the libraries do not matter."""
    return wheel(tmp_path / "wheels", {"thing/__init__.py": b"", "thing-1.dist-info/RECORD": b"noise"})


def wheel(folder: Path, files: dict[str, bytes], name: str = "thing-1-py3-none-any.whl") -> Path:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return folder


def test_two_runs_give_the_same_files_with_the_two_modes_a_release_allows(
    wheels: Path, tmp_path: Path
) -> None:
    assert make(wheels, tmp_path / "a").returncode == 0
    assert make(wheels, tmp_path / "b").returncode == 0

    found = fingerprint(tmp_path / "a")
    assert found == fingerprint(tmp_path / "b")
    assert {path for path, (_, mode) in found.items() if mode == 0o555} == {
        "agents/heartbeat",
        "agents/sysinfo",
        "bin/kosd",
    }
    assert {mode for _, mode in found.values()} == {0o444, 0o555}
    assert {"lib/kosd/main.py", "lib/kosd/openapi.json", "lib/kosd/static/status.css"} <= set(found)
    assert not [path for path in found if path.endswith((".pyc", "/RECORD", "/INSTALLER"))]


def test_another_version_changes_the_version_and_nothing_else(one_wheel: Path, tmp_path: Path) -> None:
    make(one_wheel, tmp_path / "a", version="1.1.0")
    make(one_wheel, tmp_path / "b", version="1.2.0-rc.1")

    before, after = fingerprint(tmp_path / "a"), fingerprint(tmp_path / "b")
    assert {path for path in before if before[path] != after[path]} == {
        "share/kosd/version",
        "units/kosd/unit.yml",
    }
    assert unit(tmp_path / "b", "kosd")["version"] == "1.2.0-rc.1"
    assert (tmp_path / "b/share/kosd/version").read_text() == "1.2.0-rc.1\n"


def test_every_unit_depends_on_files_that_are_there_and_starts_a_program(
    one_wheel: Path, tmp_path: Path
) -> None:
    make(one_wheel, tmp_path / "tree")

    for name in ("kosd", "sysinfo", "heartbeat"):
        document = unit(tmp_path / "tree", name)
        assert document["id"] == name
        assert document["entry"]["user"] == "kos"
        program = tmp_path / "tree" / document["entry"]["command"][0]
        assert program.stat().st_mode & 0o111
        assert all((tmp_path / "tree" / path).exists() for path in document["files"])
        assert any(program.is_relative_to(tmp_path / "tree" / path) for path in document["files"])


def test_a_fault_is_carried_only_when_it_is_asked_for(one_wheel: Path, tmp_path: Path) -> None:
    make(one_wheel, tmp_path / "plain")
    assert make(one_wheel, tmp_path / "demo", "--fault", '{"fail_health_after_s": 3}').returncode == 0

    assert not (tmp_path / "plain/share/kosd/fault.json").exists()
    assert json.loads((tmp_path / "demo/share/kosd/fault.json").read_text()) == {"fail_health_after_s": 3}


def test_a_setting_changes_one_field_of_one_unit(one_wheel: Path, tmp_path: Path) -> None:
    make(one_wheel, tmp_path / "plain")
    assert (
        make(one_wheel, tmp_path / "set", "--set", "heartbeat.entry.env.HEARTBEAT_EVERY_S=2s").returncode == 0
    )

    before, after = unit(tmp_path / "plain", "heartbeat"), unit(tmp_path / "set", "heartbeat")
    before["entry"]["env"]["HEARTBEAT_EVERY_S"] = "2s"
    assert after == before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"thing/fast.cpython-311-x86_64-linux-gnu.so": b"x"}, "is compiled"),
        ({"thing/fast": b"\x7fELF..."}, "is compiled"),
        ({"../../etc/passwd": b"x"}, "leads out of the tree"),
        ({"/etc/passwd": b"x"}, "leads out of the tree"),
        ({"kosd/main.py": b"x"}, "would lie within the daemon's own package"),
        ({"thing-1.data/scripts/run": b"x"}, "holds files for elsewhere"),
    ],
)
def test_a_wheel_that_is_not_pure_or_not_honest_is_refused(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    ended = make(wheel(tmp_path / "wheels", files), tmp_path / "tree")

    assert ended.returncode == 1
    assert message in ended.stderr
    assert not (tmp_path / "tree").exists()


def test_two_wheels_with_the_same_file_are_refused(one_wheel: Path, tmp_path: Path) -> None:
    wheel(one_wheel, {"thing/__init__.py": b"other"}, "other-1-py3-none-any.whl")

    assert "lib/thing/__init__.py: comes from two sources" in make(one_wheel, tmp_path / "tree").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fault", '{"fail_helth": 3}'], "tree: --fault: "),
        (["--fault", '{"fail_health_after_s": -1}'], "must be bigger than or equal to 0"),
        (["--fault", "{"], "tree: --fault: "),
        (["--set", "kosd"], "tree: --set: must be UNIT.KEY=VALUE"),
        (
            ["--set", "kosf.tier=1"],
            "tree: --set: there is no unit 'kosf'; known are heartbeat, kosd, sysinfo",
        ),
        (["--set", "kosd.tier.x=1"], "tree: --set: 'tier' in 'kosd.tier.x=1' holds no keys"),
    ],
)
def test_a_wrong_argument_is_one_message_and_no_tree(
    one_wheel: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    ended = make(one_wheel, tmp_path / "tree", *arguments)

    assert ended.returncode == 1
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "tree").exists()


def test_a_version_that_is_none_is_refused(one_wheel: Path, tmp_path: Path) -> None:
    assert (
        "--version: must be MAJOR.MINOR.PATCH" in make(one_wheel, tmp_path / "tree", version="latest").stderr
    )


def test_a_folder_that_holds_something_is_not_written_to(one_wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/mine").touch()

    assert "is not empty" in make(one_wheel, tmp_path / "tree").stderr


def test_a_folder_without_wheels_is_refused(tmp_path: Path) -> None:
    assert "there is no wheel" in make(tmp_path, tmp_path / "tree").stderr
