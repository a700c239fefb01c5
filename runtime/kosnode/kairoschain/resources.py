"""What a KairosChain node consists of besides files and links: its account, its gem; and the way back."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..host import NOLOGIN, Change, File, Link, Resource, System, remove_tree
from . import health, layout
from .application import ACCOUNT, PROGRAM, Application, install
from .record import Wanted
from .settings import Settings
from .spec import Spec
from .tokens import AdminToken

# In the folder of a version that is installed whole: the digest of its gem.
MARK = ".sha256"


class Machine(System):
    """The host, and what of it this part needs besides; tests put a fake in its place."""

    def application(self, folder: Path) -> Application:
        """Return the version that is installed in a folder."""
        return Application(folder)

    def install(self, gem: Path, folder: Path, version: str) -> None:
        """Install a gem into a folder; see `application.install`."""
        install(gem, folder, version)

    def ask_health(self, wanted: Wanted) -> dict[str, Any] | None:
        """Return what the server says of itself, or None; see `health.ask_health`."""
        return health.ask_health(wanted)

    def forget_failures(self) -> None:
        """Have systemd forget units of this part that ended badly at some time."""
        self.run(["systemctl", "reset-failed", "kairos-*"])


@dataclass(frozen=True)
class ServiceAccount:
    """The account of the application, without a login."""

    home: str

    def plan(self, system: System) -> list[Change]:
        return [] if system.account(ACCOUNT) else [Change(f"create account {ACCOUNT}")]

    def apply(self, system: System) -> None:
        kind = ["--system", "--user-group", "--no-create-home", "--password", "*", "--comment", "KairosChain"]
        where = ["--home-dir", self.home, "--shell", NOLOGIN, ACCOUNT]
        system.run(["useradd", *system.prefix(), *kind, *where])


@dataclass(frozen=True)
class Installed:
    """A version of the gem in a folder of its own, whole or not there.

    Args:
        folder: named after version and digest.
        spec: what is installed.
    """

    folder: Path
    spec: Spec
    machine: Machine

    @property
    def there(self) -> bool:
        """Whether it is installed whole."""
        mark = self.folder / MARK
        return mark.is_file() and mark.read_text("ascii") == self.spec.sha256

    def plan(self, system: System) -> list[Change]:
        del system
        return [] if self.there else [Change(f"install {PROGRAM} {self.spec.version} in {self.folder}")]

    def apply(self, system: System) -> None:
        del system
        assert self.spec.gem is not None, "checked before anything was touched"
        new = self.folder.with_name(f".{self.folder.name}.new")
        remove_tree(new)
        remove_tree(self.folder)
        try:
            new.mkdir(mode=0o755)
            self.machine.install(self.spec.gem, new, self.spec.version)
            _open_to_all(new)
            (new / MARK).write_text(self.spec.sha256, "ascii")
            os.sync()
            new.rename(self.folder)
        finally:
            remove_tree(new)


def versions(code: Path) -> list[Path]:
    """Return the folders of all versions that are installed."""
    found = sorted(code.iterdir()) if code.is_dir() else []
    return [path for path in found if (path / MARK).is_file() and not path.is_symlink()]


def written_by(resource: Resource) -> list[Path]:
    """Return the files and links that a resource writes."""
    if isinstance(resource, AdminToken):
        return [resource.path, resource.data / layout.TOKENS]
    if isinstance(resource, (File, Link, Settings)):
        return [resource.path]
    return []


def restorer(path: Path, system: System) -> Callable[[], None]:
    """Return what makes a file or a link again as it is now, or takes it away where it is not there."""
    if path.is_symlink():
        target = str(path.readlink())
        return lambda: files.link_durable(path, target)
    if not path.exists():
        return lambda: path.unlink(missing_ok=True)
    content, mode, owner = path.read_bytes(), stat.S_IMODE(path.stat().st_mode), system.owner(path)

    def restore() -> None:
        files.write_durable(path, content, mode=mode)
        system.chown(path, *owner)

    return restore


def _open_to_all(folder: Path) -> None:
    """The code is no secret, and another account runs it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o055 if path.is_dir() else 0o044))
