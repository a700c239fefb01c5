"""The checks and builds behind the make targets; `nox --list` names them, `nox --tags lint` is the lint lane.

Every session uses the one environment that `make setup` makes, except where another ansible-core is needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build"
COLLECTION = BUILD / "ansible_collections/kos/fleet"

# What the artefact consists of, and the list of what sanity tests may ignore.
COLLECTION_PARTS = (
    *("galaxy.yml", "README.md", "LICENSE", "meta", "plugins", "roles", "playbooks", "extensions"),
    *("changelogs/changelog.yaml", "changelogs/config.yaml", "tests/sanity"),
)

nox.options.default_venv_backend = "none"
nox.options.sessions = []

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@nox.session(tags=["lint"])
def ruff(session: nox.Session) -> None:
    """Python: style, likely mistakes, format."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(tags=["lint"])
def mypy(session: nox.Session) -> None:
    """Python: types, strictly in the engine, the runtime, the tools and what tests stand on."""
    tests = [f"tests/{name}" for name in ("backup", "bed", "bench", "verify", "world")]
    session.run("mypy", "runtime", *tests, "tools", "noxfile.py")
    if python_files(COLLECTION / "plugins"):
        session.run("mypy", str(COLLECTION.relative_to(ROOT) / "plugins"))


@nox.session(tags=["lint"])
def mypy_infra(session: nox.Session) -> None:
    """Python: types of the Pulumi programs, in the environment that has Pulumi's SDK."""
    session.run("tools/setup.sh", "infra", external=True)
    python = "build/environments/infra/bin/python"
    session.run(python, "-m", "mypy", "--python-version", "3.11", "pulumi", "tests/infra", external=True)


@nox.session(tags=["lint"])
def shell(session: nox.Session) -> None:
    """Shell scripts: shellcheck, and the syntax of POSIX ones under dash and busybox."""
    scripts = shell_scripts()
    session.run("shellcheck", *scripts)
    for script, interpreter in scripts.items():
        if interpreter == "sh":
            session.run("dash", "-n", script)
            session.run("busybox", "sh", "-n", script)


@nox.session(tags=["lint"])
def ansible_lint(session: nox.Session) -> None:
    """Playbooks and roles: profile production, nothing skipped."""
    session.run("ansible-lint", "--offline", "--strict", "--nocolor")


@nox.session(tags=["lint"])
def sanity_219(session: nox.Session) -> None:
    """ansible-test sanity on the oldest ansible-core that is supported."""
    ansible_test_sanity(session, Path(sys.executable).parent, "24_2")


@nox.session(tags=["lint"])
def sanity_221(session: nox.Session) -> None:
    """ansible-test sanity on a newer ansible-core, which needs Python 3.12 or 3.13."""
    python = newer_python()
    if python is None:
        session.skip("no Python 3.12 or 3.13 is on this machine, so ansible-core 2.21 is NOT tested here")
    ansible_test_sanity(session, environment(session, python, "core221"), "25_2")


@nox.session(tags=["lint"])
def docs(session: nox.Session) -> None:
    """Documentation: reference pages from the code, then a build that fails on a dead link."""
    session.run("python", "tools/reference.py")
    session.run("mkdocs", "build", "--strict")


@nox.session
def molecule(session: nox.Session) -> None:
    """One scenario, or all: `nox --session molecule -- runtime`. They share one bed, gone at the end."""
    scenarios = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")} - {"default"}
    # Without Ansible, whose start takes as long again.
    take_down = ["python", "-m", "verify.ready", "--down"]
    try:
        for scenario in session.posargs or sorted(scenarios):
            session.run("molecule", "test", "--scenario-name", scenario)
    finally:
        session.run(*take_down, env={"PYTHONPATH": os.pathsep.join(("tests", "runtime", "."))})


@nox.session
def bench(session: nox.Session) -> None:
    """Measure every figure that the README quotes."""
    session.run("python", "tests/bench/bench.py", *session.posargs)


def project_files(*below: str) -> list[str]:
    """Return the project's files in the given folders, committed or new; what git ignores is not ours."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *below]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()})


def python_files(folder: Path) -> list[Path]:
    """Return the Python files below a folder."""
    return sorted(folder.rglob("*.py"))


def shell_scripts() -> dict[str, str]:
    """Return the project's shell scripts, each with the shell that its first line names."""
    scripts = {}
    for name in project_files():
        with (ROOT / name).open("rb") as file:
            first = file.readline(100)
        if named := re.match(rb"#!\s*/(?:usr/)?bin/(?:env )?(sh|dash|bash)\b", first):
            scripts[name] = named[1].decode()
    return scripts


def newer_python() -> str | None:
    """Return a Python that ansible-core 2.21 runs on and that can make a virtual environment."""
    for candidate in ("python3.13", "python3.12"):
        works = [candidate, "-c", "import ensurepip, venv"]
        if (
            shutil.which(candidate)
            and subprocess.run(works, capture_output=True, check=False).returncode == 0
        ):
            return candidate
    return None


def environment(session: nox.Session, python: str, name: str) -> Path:
    """Make a virtual environment from a hashed requirement file unless it is there; return its programs."""
    requirements = ROOT / f"requirements/{name}.txt"
    folder = BUILD / "environments" / name
    stamp = folder / ".made-from"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        session.run(python, "-m", "venv", "--clear", str(folder))
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        session.run(*pip, "--require-hashes", "--requirement", str(requirements))
        stamp.write_text(wanted)
    return folder / "bin"


def ansible_test_sanity(session: nox.Session, programs: Path, get_pip: str) -> None:
    """Run every sanity test on a copy of what the artefact consists of.

    Args:
        session: The session to run in.
        programs: Folder with the ansible-test to use.
        get_pip: Version of the pip bootstrap script that this ansible-test would download.
    """
    copy = BUILD / "sanity" / get_pip / "ansible_collections/kos/fleet"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for name in project_files(*COLLECTION_PARTS):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    # ansible-test lists files by git, and this copy is in a folder that the project's own git ignores.
    session.run("git", "init", "--quiet", str(copy))
    # ansible-test makes environments without pip and would fetch a script that brings it from a web page.
    # Python has a pip built in.
    script = Path.home() / f".ansible/test/cache/get_pip_{get_pip}.py"
    if not script.exists():
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text("import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    version = subprocess.run(
        [programs / "python", "--version"], check=True, capture_output=True, text=True
    ).stdout
    python = ".".join(version.split()[1].split(".")[:2])
    with session.chdir(copy):
        session.run(
            str(programs / "ansible-test"),
            *("sanity", "--requirements", "--python", python, "--color", "no"),
            env={"PATH": path},
        )
