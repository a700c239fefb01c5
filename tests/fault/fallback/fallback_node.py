"""A node in a directory for `fallback`: slots, a trial, state, and a systemctl that only notes its calls."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import kosnode

FALLBACK = Path(kosnode.__file__).parent / "shell/fallback"
GOOD, BAD = "a" * 64, "b" * 64
TRIAL = "20261121T120000Z-0123abcd"
SHELLS = ("dash", "busybox")
_APPLETS = "cat cut grep ln mkdir mv readlink rm sleep sync timeout tr".split()

_SYSTEMCTL = """#!/bin/sh
printf '%s\\n' "${0##*/} $*" >>"$FAKE_LOG"
case " $FAKE_FAIL " in *" $1 "*) exit 1 ;; esac
case " $FAKE_HANG " in *" $1 "*) exec sleep 1000 ;; esac
# Like the real one: 3 where none of the units is active.
[ "$1" != is-active ] || [ -n "$FAKE_ACTIVE" ] || exit 3
exit 0
"""


def this_boot() -> str:
    """Identity of this boot, written down here a second time on purpose: the two must agree."""
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    stat = Path("/proc/1/stat").read_text()
    return f"{kernel}:{stat[stat.rindex(')') + 2 :].split()[19]}"


@dataclass
class FallbackNode:
    """Everything below `root`; `shell` is the shell and the set of small tools that fallback runs with."""

    root: Path
    shell: str
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (f"releases/{GOOD}", f"releases/{BAD}", "state", "state-before", "evidence"):
            (self.var / name).mkdir(parents=True)
        for release in (GOOD, BAD):
            (self.var / "releases" / release / "release.json").write_text("{}")
        (self.root / "run/kos").mkdir(parents=True)
        kosctl = self.root / "opt/kos/current/bin/kosctl"
        kosctl.parent.mkdir(parents=True)
        kosctl.write_text("#!/bin/sh\n")
        kosctl.chmod(0o755)
        self.bin.mkdir()
        for name in ("systemctl", "systemd-run"):
            (self.bin / name).write_text(_SYSTEMCTL)
            (self.bin / name).chmod(0o755)
        if self.shell == "busybox":
            for name in _APPLETS:
                (self.bin / name).symlink_to(tool("busybox"))
            (self.bin / "flock").symlink_to(tool("flock"))

    @property
    def var(self) -> Path:
        return self.root / "var/lib/kos"

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def env(self) -> dict[str, str]:
        path = str(self.bin) if self.shell == "busybox" else f"{self.bin}:/usr/bin:/bin"
        log = {"FAKE_LOG": str(self.root / "calls"), "FAKE_FAIL": "", "FAKE_HANG": "", "FAKE_ACTIVE": ""}
        return {"KOS_ROOT": str(self.root), "PATH": path, **log, **self.extra}

    def argv(self, reason: str, *more: str) -> list[str]:
        shell = [tool("busybox"), "sh"] if self.shell == "busybox" else [tool(self.shell)]
        return [*shell, str(FALLBACK), "--reason", reason, *more]

    def fall_back(self, reason: str = "health", *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(reason, *more), env=self.env, capture_output=True, text=True, check=False
        )

    def write_trial(
        self, *, previous: str = GOOD, boot: str | None = None, migrates: Sequence[str] = ()
    ) -> None:
        lines = {
            "format": "1",
            "id": TRIAL,
            "release": BAD,
            "previous": previous,
            "boot": boot or this_boot(),
            "started": "100",
            "deadline": "280",
            "restart": "" if previous == "none" else "kos-a.service kos-db.service",
            "stop": "kos-new.service",
            "migrates": " ".join(migrates),
        }
        (self.var / "trial").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        point(self.var / "current", f"releases/{BAD}")

    def write_state(self, unit: str, text: str, before: str | None) -> None:
        """State as the bad release left it, and the copy from before (None: there was no state)."""
        (self.var / "state" / unit / "deep").mkdir(parents=True)
        (self.var / "state" / unit / "deep/data").write_text(text)
        copies = self.var / "state-before" / BAD
        copies.mkdir(exist_ok=True)
        if before is None:
            (copies / f"{unit}.none").touch()
        else:
            (copies / unit / "deep").mkdir(parents=True)
            (copies / unit / "deep/data").write_text(before)

    def state(self, unit: str) -> str | None:
        path = self.var / "state" / unit / "deep/data"
        return path.read_text() if path.exists() else None

    @property
    def calls(self) -> list[str]:
        log = self.root / "calls"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def current(self) -> str | None:
        link = self.var / "current"
        return str(link.readlink()) if link.is_symlink() else None

    @property
    def outcome(self) -> dict[str, str]:
        lines = (self.var / "outcome").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)


def tool(name: str) -> str:
    """Absolute path of a program that these tests need."""
    path = shutil.which(name)
    assert path is not None, f"{name} is not installed"
    return path


def point(link: Path, target: str) -> None:
    """Make `link` point to `target`, whatever it was."""
    link.unlink(missing_ok=True)
    link.symlink_to(target)
