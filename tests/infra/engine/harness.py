"""Runs a program's own `__main__.py` under the real engine, against clouds that are folders.

Everything that the engine keeps (state, plug-ins, the passphrase of its secrets) is in the folder of a test,
and its environment has no way to a real cloud.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from pulumi import automation
from pulumi.automation.events import EngineEvent

from infra import fleet_files
from infra.conftest import REACH, ROOT
from infra.engine.cloud import FOLDER_VARIABLE, Cloud
from infra.engine.provider import PACKAGES, SHAPES_VARIABLE

BUILT = ROOT / "build/tools/pulumi"

PASSPHRASE = "of this test alone"


@dataclass(frozen=True)
class Outcome:
    """What an operation of the engine did.

    Attributes:
        summary: Number of steps by operation (`create`, `same`, `update`, `replace`, `delete`, …).
        steps: (operation, type, logical name) of each step that changes something, as they began.
        text: All that the engine printed.
        error: What the engine says went wrong, empty where nothing did.
    """

    summary: Mapping[str, int]
    steps: tuple[tuple[str, str, str], ...]
    text: str
    error: str = ""

    def changes(self) -> dict[str, int]:
        """Return the summary without what stayed the same."""
        return {operation: count for operation, count in self.summary.items() if operation != "same"}


@dataclass
class _Record:
    summary: dict[str, int] = field(default_factory=dict)
    steps: list[tuple[str, str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __call__(self, event: EngineEvent) -> None:
        if event.summary_event:
            changes = event.summary_event.resource_changes
            self.summary = {str(getattr(name, "value", name)): count for name, count in changes.items()}
        if event.diagnostic_event and event.diagnostic_event.severity == "error":
            self.errors.append(event.diagnostic_event.message.strip())
        if event.resource_pre_event:
            step = event.resource_pre_event.metadata
            operation = str(step.op.value)
            if operation not in ("same", "read", "refresh"):
                self.steps.append((operation, step.type, step.urn.rpartition("::")[2]))


class Stack:
    """A stack of a program in the folder of a test.

    Args:
        stack: The Automation API's own.
        cloud: Where its resources are.
    """

    def __init__(self, stack: automation.Stack, cloud: Cloud) -> None:
        self.automation = stack
        self.cloud = cloud

    def configure(self, values: Mapping[str, str], secret: bool = False) -> None:
        """Set keys of the configuration; one without a namespace is the program's own."""
        self.automation.set_all_config(
            {key: automation.ConfigValue(value, secret=secret) for key, value in values.items()}
        )

    def change(self, key: str, change: Callable[[Any], None]) -> None:
        """Change a structured value in the stack's file, as a person does who edits it."""
        workspace = Path(str(self.automation.workspace.work_dir))
        file = workspace / f"Pulumi.{self.automation.name}.yaml"
        document = yaml.safe_load(file.read_text())
        change(document["config"][key])
        file.write_text(yaml.safe_dump(document))

    def preview(self, plan: Path | None = None, **options: Any) -> Outcome:
        """Preview, and save the plan where a path is given."""
        return self._run(self.automation.preview, plan=str(plan) if plan else None, **options)

    def up(self, plan: Path | None = None, **options: Any) -> Outcome:
        """Update the stack, within a saved plan where one is given."""
        return self._run(self.automation.up, plan=str(plan) if plan else None, **options)

    def refresh(self, **options: Any) -> Outcome:
        """Bring the state in line with the cloud."""
        return self._run(self.automation.refresh, **options)

    def destroy(self, **options: Any) -> Outcome:
        """Delete all resources."""
        return self._run(self.automation.destroy, **options)

    def unprotect(self) -> None:
        """Take the protection of all resources away, as a person does who means to delete them."""
        self._command("state", "unprotect", "--all", "--yes")

    def state(self) -> list[dict[str, Any]]:
        """Return the resources of the exported state, secrets in the clear."""
        deployment = self.automation.export_stack().deployment or {}
        return list(deployment.get("resources") or [])

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs in the clear."""
        return {name: output.value for name, output in self.automation.outputs().items()}

    def _command(self, *arguments: str) -> str:
        workspace = self.automation.workspace
        asked = [*arguments, "--stack", self.automation.name]
        return str(workspace.pulumi_command.run(asked, workspace.work_dir, {}).stdout)

    def _run(self, operation: Callable[..., Any], **options: Any) -> Outcome:
        record = _Record()
        given = {name: value for name, value in options.items() if value is not None}
        try:
            result = operation(on_event=record, color="never", **given)
        except automation.CommandError as error:
            said = "\n".join(record.errors) or str(error)
            return Outcome(record.summary, tuple(record.steps), str(error), said)
        return Outcome(record.summary, tuple(record.steps), f"{result.stdout}\n{result.stderr}")


@dataclass(frozen=True)
class Engine:
    """The command `pulumi` with everything around it that belongs to one test.

    Args:
        command: The command.
        folder: The test's own folder.
        shapes: Folder where what the SDKs say is kept.
    """

    command: automation.PulumiCommand
    folder: Path
    shapes: Path

    @property
    def cloud(self) -> Cloud:
        """The cloud of this test."""
        return Cloud(self.folder / "cloud")

    def environment(self) -> dict[str, str]:
        """Return all variables of the engine, its providers and the programs."""
        command, programs = Path(shutil.which(self.command.command) or ""), self.folder / "bin"
        if not programs.exists():
            _write_programs(programs)
        (self.folder / "state").mkdir(exist_ok=True)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(REACH)},
            "HOME": str(self.folder),
            "PATH": os.pathsep.join([str(programs), str(command.parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "tests"),
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "AWS_ACCESS_KEY_ID": "AKIAOFNOACCOUNT",
            "AWS_SECRET_ACCESS_KEY": "of no account",
            FOLDER_VARIABLE: str(self.folder / "cloud"),
            SHAPES_VARIABLE: str(self.shapes),
        }

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have this process, in which programs run, in the engine's environment for a while."""
        with patch.dict(os.environ, self.environment(), clear=True):
            yield

    def copy(self, folder: Path) -> Engine:
        """Return an engine in another folder, with all that this one has made so far."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)

    def stack(self, program: Path, name: str, also: Callable[[], None] | None = None) -> Stack:
        """Make a stack of the program in a folder, or select it when it is there.

        The folder's Pulumi.yaml counts, and so do its files of stacks; the engine works on copies of them.

        Args:
            program: A folder with a `__main__.py`.
            name: The stack's; it is configured as its file in the folder says.
            also: Registers what the program would not.
        """
        work = self.settle(program)
        project = automation.LocalWorkspace(work_dir=str(work), pulumi_command=self.command)
        stack = automation.create_or_select_stack(
            stack_name=name,
            project_name=project.project_settings().name,
            program=lambda: run(program, also),
            opts=automation.LocalWorkspaceOptions(work_dir=str(work), pulumi_command=self.command),
        )
        return Stack(stack, self.cloud)

    def settle(self, program: Path) -> Path:
        """Return a folder with copies of a program's Pulumi files, in which all that they name is there."""
        work = self.folder / "work" / program.name
        if not work.exists():
            work.mkdir(parents=True)
            for file in program.glob("Pulumi*.yaml"):
                shutil.copy(file, work)
            fleet_files.settle(work)
        return work


def run(program: Path, also: Callable[[], None] | None = None) -> None:
    """Run a program's `__main__.py` as the language host does: in its folder, which is first on the path."""
    with _inside(program):
        runpy.run_path(str(program / "__main__.py"), run_name="__main__")
        if also is not None:
            also()


def find_command() -> automation.PulumiCommand | None:
    """Return the command: that on PATH, else the one that was built; None where neither is there."""
    if shutil.which("pulumi"):
        return automation.PulumiCommand()
    return automation.PulumiCommand(root=str(BUILT)) if (BUILT / "bin/pulumi").exists() else None


@contextmanager
def _inside(program: Path) -> Iterator[None]:
    here, path = Path.cwd(), list(sys.path)
    os.chdir(program)
    sys.path.insert(0, str(program))
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path


def _write_programs(folder: Path) -> None:
    folder.mkdir(parents=True)
    for package in PACKAGES:
        program = folder / f"pulumi-resource-{package}"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m infra.engine.provider {package} "$@"\n')
        program.chmod(0o755)
    # What Pulumi's own command of this name does: it comes with the language host, which may not be here.
    analyzer = folder / "pulumi-analyzer-policy-python"
    analyzer.write_text(f'#!/bin/sh\nexec "{sys.executable}" -u . "$@"\n')
    analyzer.chmod(0o755)
