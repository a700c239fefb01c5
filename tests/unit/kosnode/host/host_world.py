"""A host that is a folder, for tests: accounts are lines in its passwd, ownership is noted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from kosnode.errors import KosError
from kosnode.host import System
from kosnode.paths import NodePaths

NOW = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
KEY = "ssh-ed25519 " + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " operator"


class FakeSystemd:
    """Writes down what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.active: set[str] = set()

    def daemon_reload(self) -> None:
        self.calls.append(("daemon-reload",))

    def start(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self.calls.append(("start", *names))
        self.active |= set(names)

    def restart(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self.calls.append(("restart", *names))

    def stop(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self.calls.append(("stop", *names))
        self.active -= set(names)

    def reload(self, names: Sequence[str], *, timeout_s: float = 0) -> None:
        self.calls.append(("reload", *names))

    def is_active(self, name: str) -> bool:
        return name in self.active


class FakeSystem(System):
    """A host below a folder, without root and without systemd."""

    live = True  # type: ignore[assignment]  # a property of the real one

    def __init__(self, paths: NodePaths) -> None:
        super().__init__(paths)
        self.systemd = FakeSystemd()  # type: ignore[assignment]  # as much of it as a host needs
        self.owners: dict[Path, tuple[int, int]] = {}
        self.refuses: set[str] = set()
        etc = paths.root / "etc"
        for folder in ("sudoers.d", "tmpfiles.d", "systemd/system"):
            (etc / folder).mkdir(parents=True)
        for folder in ("var/lib", "usr/local/sbin", "usr/local/share/man"):
            (paths.root / folder).mkdir(parents=True)
        (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (etc / "group").write_text("root:x:0:\n")

    def run(self, argv: Sequence[str]) -> str:
        if argv[0] in self.refuses:
            raise KosError(f"{argv[0]} says no")
        name = argv[-1]
        passwd, group = self.paths.root / "etc/passwd", self.paths.root / "etc/group"
        if argv[0] == "useradd":
            number = 900 + len(passwd.read_text().splitlines())
            home = argv[list(argv).index("--home-dir") + 1]
            shell = argv[list(argv).index("--shell") + 1]
            passwd.write_text(passwd.read_text() + f"{name}:x:{number}:{number}::{home}:{shell}\n")
            group.write_text(group.read_text() + f"{name}:x:{number}:\n")
        elif argv[0] == "userdel":
            for table in (passwd, group):
                kept = [line for line in table.read_text().splitlines() if not line.startswith(f"{name}:")]
                table.write_text("".join(f"{line}\n" for line in kept))
        elif argv[0] != "visudo":
            raise AssertionError(f"unexpected command {argv}")
        return ""

    def running(self) -> list[str]:
        return sorted(self.systemd.active)  # type: ignore[attr-defined]  # the fake one's

    def forget_failures(self) -> None:
        pass

    def owner(self, path: Path) -> tuple[int, int]:
        return self.owners.get(path, (0, 0))

    def chown(self, path: Path, uid: int, gid: int) -> None:
        self.owners[path] = (uid, gid)


class RootKeys:
    """The root role of a fleet: makes its metadata."""

    def __init__(self) -> None:
        self.signer = CryptoSigner.generate_ed25519()

    def metadata(
        self,
        version: int = 1,
        days: int = 300,
        signer: CryptoSigner | None = None,
        by: RootKeys | None = None,
    ) -> dict[str, Any]:
        root = Root(version=version, expires=NOW + timedelta(days=days), consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.add_key((signer or self.signer).public_key, role)
        signed = Metadata(root)
        signed.sign(signer or self.signer)
        if by is not None:
            signed.sign(by.signer, append=True)
        value: dict[str, Any] = json.loads(signed.to_bytes())
        return value


def unpack(paths: NodePaths, version: str) -> str:
    """Put an engine where bootstrap unpacks it."""
    library = paths.opt / version / "lib/kosnode"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("")
    return version
