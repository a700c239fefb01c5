"""The systemd generator: which units a boot is offered, under the shells that nodes have."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

GENERATOR = Path(__file__).parents[4] / "runtime/kosnode/shell/generator"
OLD, NEW = "aa" * 32, "bb" * 32
BOOT, TICKS = "0f9b6a3e-1111-4222-8333-444455556666", 1234


class Node:
    """A root with two slots, the new one current, and a /proc of its own."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root, self.shell = root, shell
        self.var = root / "var/lib/kos"
        self.out = root / "run/generator"
        for release in (OLD, NEW):
            self.unit(self.var / "releases" / release, "kos-kosd.service")
            self.unit(self.var / "releases" / release, "kos-sysinfo.service")
            self.unit(self.var / "releases" / release, "kos-sysinfo.timer")
        (self.var / "current").symlink_to(f"releases/{NEW}")
        self.boot()

    def unit(self, base: Path, name: str) -> Path:
        path = base / "units" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[Unit]\n")
        return path

    def boot(self, boot: str = BOOT, ticks: int = TICKS, name: str = "systemd") -> None:
        random = self.root / "proc/sys/kernel/random"
        random.mkdir(parents=True, exist_ok=True)
        (random / "boot_id").write_text(f"{boot}\n")
        (self.root / "proc/1").mkdir(exist_ok=True)
        fields = " ".join(str(n) for n in range(4, 22))
        (self.root / "proc/1/stat").write_text(f"1 ({name}) S {fields} {ticks} 23 24 25\n")

    def trial(self, boot: str = f"{BOOT}:{TICKS}", previous: str = OLD, end: str = "\n") -> None:
        lines = ["format=1", f"release={NEW}", f"previous={previous}", "deadline=12", f"boot={boot}"]
        (self.var / "trial").write_text("\n".join(lines) + end)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.shell, str(GENERATOR), *(arguments or (str(self.out),))],
            env={"PATH": os.environ["PATH"], "KOS_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )

    def offered(self) -> dict[str, str]:
        """Run it; return what each unit links to, below /var/lib/kos."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        done = self.run()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        found = {path.name: path.resolve(strict=True) for path in self.out.iterdir() if path.is_symlink()}
        return {name: str(path.relative_to(self.var)) for name, path in sorted(found.items())}

    def wanted(self) -> list[str]:
        return sorted(path.name for path in (self.out / "kos.target.wants").iterdir() if path.exists())


@pytest.fixture(name="node", params=["dash", "busybox sh"])
def fixture_node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    shell = request.param.split()
    assert shutil.which(shell[0]), f"{shell[0]} is missing; the Debian package {shell[0]} brings it"
    return Node(tmp_path, shell)


def of(release: str) -> dict[str, str]:
    names = ("kos-kosd.service", "kos-sysinfo.service", "kos-sysinfo.timer")
    return {name: f"releases/{release}/units/{name}" for name in names}


def test_the_units_of_the_current_release_are_offered_and_wanted(node: Node) -> None:
    assert node.offered() == of(NEW)
    assert node.wanted() == ["kos-kosd.service", "kos-sysinfo.timer"]


def test_before_var_is_mounted_nothing_is_wanted_by_which_the_boot_unit_knows(node: Node) -> None:
    mounted = node.var.rename(node.root / "elsewhere")
    assert node.offered() == {}
    assert list((node.out / "kos.target.wants").iterdir()) == []
    mounted.rename(node.var)
    assert node.offered() == of(NEW)


def test_the_units_that_the_node_adds_are_offered_beside_them(node: Node) -> None:
    node.unit(node.var / "node-units", "kos-meter.service")

    assert node.offered() == {**of(NEW), "kos-meter.service": "node-units/units/kos-meter.service"}
    assert "kos-meter.service" in node.wanted()


def test_a_release_goes_before_a_unit_of_the_node_with_the_same_name(node: Node) -> None:
    node.unit(node.var / "node-units", "kos-kosd.service")

    assert node.offered() == of(NEW)


def test_a_trial_of_this_boot_runs_on(node: Node) -> None:
    node.trial()

    assert node.offered() == of(NEW)


@pytest.mark.parametrize(
    ("boot", "ticks"), [("0f9b6a3e-9999-4222-8333-444455556666", TICKS), (BOOT, TICKS + 1)]
)
def test_a_trial_of_another_boot_is_not_started_again(node: Node, boot: str, ticks: int) -> None:
    """Containers keep the boot id of their host, so the start of PID 1 counts as well."""
    node.trial()
    node.boot(boot, ticks)

    assert node.offered() == of(OLD)


@pytest.mark.parametrize("name", ["(sd) x) y", "a b c", "init) S 1 2 3"])
def test_the_name_of_the_first_process_may_hold_anything(node: Node, name: str) -> None:
    node.boot(name=name)
    node.trial()

    assert node.offered() == of(NEW)


def test_a_trial_file_without_an_end_of_line_is_read_whole(node: Node) -> None:
    node.trial(end="")

    assert node.offered() == of(NEW)


@pytest.mark.parametrize("text", ["", "format=1\n", "boot=\nprevious=*\n", f"previous={OLD}\n"])
def test_a_trial_file_that_says_nothing_never_starts_what_it_tried(node: Node, text: str) -> None:
    (node.var / "trial").write_text(text)

    assert node.offered() in ({}, of(OLD))


def test_the_first_release_of_a_node_leaves_nothing_behind_when_its_trial_is_over(node: Node) -> None:
    node.trial(boot="other:1", previous="none")
    node.unit(node.var / "node-units", "kos-meter.service")

    assert node.offered() == {"kos-meter.service": "node-units/units/kos-meter.service"}


def test_an_unreadable_proc_counts_as_another_boot(node: Node) -> None:
    node.trial()
    shutil.rmtree(node.root / "proc")

    assert node.offered() == of(OLD)


def test_only_plain_names_and_plain_files_are_offered(node: Node) -> None:
    slot = node.var / "releases" / NEW
    for name in (
        "sshd.service",
        "kos-a b.service",
        "kos-A.service",
        "kos-x@y.service",
        "kos-a.socket",
        "kos-b.service.d",
    ):
        node.unit(slot, name)
    (slot / "units/kos-link.service").symlink_to("/etc/passwd")
    (slot / "units/kos-dir.service").mkdir()
    ran = node.root / "ran"
    odd = node.unit(slot, "kos-$(touch ran).service")
    odd.write_text(f"#!/bin/sh\ntouch {ran}\n")
    odd.chmod(0o755)

    assert node.offered() == of(NEW)
    assert not ran.exists()


def test_a_node_without_a_release_boots_without_units(node: Node) -> None:
    (node.var / "current").unlink()

    assert node.offered() == {}


def test_a_current_that_leads_nowhere_does_not_stop_a_boot(node: Node) -> None:
    shutil.rmtree(node.var / "releases")

    assert node.offered() == {}


def test_it_ends_well_and_touches_nothing_when_it_cannot_write_or_is_not_told_where(node: Node) -> None:
    before = sorted(node.root.rglob("*"))

    for arguments in (("/dev/null/nowhere",), ("",)):
        done = node.run(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(node.root.rglob("*")) == before
    assert not Path("/kos.target.wants").exists()


def test_shellcheck_has_nothing_to_say() -> None:
    found = shutil.which("shellcheck")
    assert found, "shellcheck is missing; the Debian package shellcheck brings it"
    done = subprocess.run([found, "--shell=sh", str(GENERATOR)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")
