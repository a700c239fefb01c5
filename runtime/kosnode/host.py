"""What bootstrap makes of a host (accounts, folders, configuration, engine, units), and how it goes away.

A host is described by one JSON spec (docs/architecture.md, `kosctl host apply`). From it comes a list of
resources in the order in which they are needed. Each says what it would change and makes it so; everything
that can be wrong with the spec is said before the first of them is touched.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import compileall
import contextlib
import datetime
import grp
import hashlib
import json
import os
import pwd
import py_compile
import re
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from . import boot, config, files, render
from .audit import Audit, caller
from .command import Result
from .errors import BusyError, InputError, KosError, RefusedError, TrustError
from .lock import Lock
from .paths import NodePaths
from .systemd import RealSystemd, Systemd
from .unit import Unit, validate

SERVICE_ACCOUNT = "kos"
OPERATOR_ACCOUNT = "kosops"
NOLOGIN = "/usr/sbin/nologin"
OPERATOR_HOME = Path("var/lib/kosops")
_TAKEN_ACCOUNTS = ("root", SERVICE_ACCOUNT, OPERATOR_ACCOUNT)
MAX_SPEC_BYTES = 32 * 1024 * 1024
# Others that hold the lock for a moment only, and are waited for.
PATIENT = ("recover", "fallback", "confirm")
_LOCK_WAIT_S = 5.0

_SECTIONS = {
    *(
        "format",
        "engine",
        "node",
        "conf",
        "trust_root",
        "replace_trust_root",
        "mirror_ca",
        "operator",
        "accounts",
        "units",
    ),
}
_ENGINE = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_UNIT = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
_CONF = re.compile(r"[0-9]{2}-[a-z0-9][a-z0-9-]{0,62}\.json")
_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
    r" [A-Za-z0-9+/]{40,}={0,3}( [^\x00-\x1f\x7f]*)?"
)
# Role mirror's own service is no part of a node.
_NOT_OURS = ("kos-mirror.service",)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_SECRET_NAME = re.compile(r"(?i)(password|passwd|passphrase|secret|token|private|credential|api_?key)")

TARGET = """\
# Everything of kOS that runs on this host; the generator adds the units of the current release.
[Unit]
Description=kOS release and the agents of this node

[Install]
WantedBy=multi-user.target
"""

BOOT = """\
# A boot in the middle of a trial ends it in the last good release. Needs neither Python nor kosctl.
# Where /var is a mount of its own, systemd asked the generator before it was there: it has to ask again.
[Unit]
Description=End a kOS trial that a reboot interrupted, and find units on a late /var
DefaultDependencies=no
RequiresMountsFor=/var/lib/kos /opt/kos
After=local-fs.target systemd-tmpfiles-setup.service
Before=kos.target
ConditionPathExists=|/var/lib/kos/trial
ConditionPathExists=|/var/lib/kos/trial.confirmed
ConditionPathExists=|/var/lib/kos/outcome
ConditionDirectoryNotEmpty=|!/run/systemd/generator/kos.target.wants
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStartPre=-/usr/bin/systemctl daemon-reload
ExecStartPre=-/usr/bin/systemctl --no-block start kos.target
ExecStart=/opt/kos/fallback --reason reboot
TimeoutStartSec=300
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
"""

TMPFILES = "d /run/kos 0755 root root -\n"

# The path goes through the link `current`: its parents belong to root alone, so only root can make it mean
# another program, and an engine that is switched needs no second file that is switched at the same moment.
# The one command that the operator account may run as root, and that its SSH keys run whatever is asked.
GATE = "/opt/kos/current/bin/kosctl operate"
SUDOERS = f"""\
# The one right of the operator of kOS: requests as JSON on stdin, checked by kosctl.
Defaults:kosops env_reset, !setenv, !requiretty, env_keep="SSH_CONNECTION"
kosops ALL=(root:root) NOPASSWD: {GATE}
"""


@dataclass(frozen=True)
class Change:
    """One thing that differs from the spec.

    Args:
        action: what is done about it, a sentence for a person.
        path: the path it is about, below the node's root.
        before: text as it is, for a diff; None where there is none to show.
        after: text as it will be.
    """

    action: str
    path: str | None = None
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True)
class Account:
    """A line of /etc/passwd, as far as it matters here."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class System:
    """The commands and accounts of the host; tests put a fake in its place.

    Args:
        paths: where the node is.
    """

    def __init__(self, paths: NodePaths) -> None:
        self.paths = paths
        self.systemd: Systemd = RealSystemd()

    @property
    def live(self) -> bool:
        """Whether systemd of this very host runs here (not so where an image is made)."""
        return self.paths.root == Path("/") and Path("/run/systemd/system").is_dir()

    def run(self, argv: Sequence[str]) -> str:
        """Run a command and return its standard output; KosError with its words if it fails."""
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip() or f"exit {done.returncode}"
            raise KosError(f"`{' '.join(argv)}` failed: {words}")
        return done.stdout

    def running(self) -> list[str]:
        """Return the units of kOS that systemd has started, those that are made on the fly included."""
        states = "--state=active,activating,failed,reloading"
        patterns = ["kos-*.service", "kos-*.timer", "kos.target"]
        listed = self.run(["systemctl", "list-units", "--no-legend", "--plain", states, *patterns])
        names = [line.split()[0] for line in listed.splitlines() if line.strip()]
        return [name for name in names if name not in _NOT_OURS]

    def forget_failures(self) -> None:
        """Have systemd forget units of kOS that ended badly at some time."""
        self.run(["systemctl", "reset-failed", "kos-*"])

    def account(self, name: str) -> Account | None:
        """Return the account of that name, of the host or of the image below the node's root."""
        if self.paths.root == Path("/"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return Account(name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell)
            return None
        for line in _lines(self.paths.root / "etc/passwd"):
            fields = line.split(":")
            if fields[0] == name and len(fields) == 7:
                return Account(name, int(fields[2]), int(fields[3]), fields[5], fields[6])
        return None

    def group(self, name: str) -> int | None:
        """Return the number of a group, or None."""
        if self.paths.root == Path("/"):
            with contextlib.suppress(KeyError):
                return grp.getgrnam(name).gr_gid
            return None
        for line in _lines(self.paths.root / "etc/group"):
            fields = line.split(":")
            if fields[0] == name and len(fields) == 4:
                return int(fields[2])
        return None

    def end_processes(self, uid: int) -> None:
        """Kill what an account runs, such as a session that SSH keeps open; it cannot be removed before."""
        if self.paths.root != Path("/"):
            return
        for _ in range(20):
            mine = [path for path in Path("/proc").iterdir() if path.name.isdigit() and _runs_as(path) == uid]
            if not mine:
                return
            for path in mine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(path.name), signal.SIGKILL)
            time.sleep(0.1)

    def owner(self, path: Path) -> tuple[int, int]:
        """Return the numbers of the owner and the group of a path, links not followed."""
        found = path.lstat()
        return found.st_uid, found.st_gid

    def chown(self, path: Path, uid: int, gid: int) -> None:
        """Give a path to an owner and a group, links not followed."""
        os.chown(path, uid, gid, follow_symlinks=False)

    def prefix(self) -> list[str]:
        """Return the options that make useradd and userdel work on the node's root."""
        return [] if self.paths.root == Path("/") else ["--prefix", str(self.paths.root)]


class Resource(Protocol):
    """A thing on the host that is as the spec says, or is made so."""

    def plan(self, system: System) -> list[Change]:
        """Say what differs, without changing anything."""
        ...

    def apply(self, system: System) -> None:
        """Make it so; called only where `plan` said something. Running it twice does no harm."""
        ...


@dataclass(frozen=True)
class User:
    """A system account with a group of its own.

    Args:
        groups: those that it is in besides; the one of services may read the configuration of units.
    """

    name: str
    home: str
    shell: str
    comment: str
    groups: tuple[str, ...] = (SERVICE_ACCOUNT,)

    def plan(self, system: System) -> list[Change]:
        found = system.account(self.name)
        if found is None:
            return [Change(f"create account {self.name}")]
        if (found.home, found.shell) != (self.home, self.shell):
            return [Change(f"account {self.name}: home {self.home}, shell {self.shell}")]
        return []

    def apply(self, system: System) -> None:
        same = ["--home-dir", self.home, "--shell", self.shell, "--comment", self.comment, self.name]
        if system.account(self.name) is None:
            # '*' bars passwords and, unlike '!', does not lock keys out where sshd runs without PAM.
            kind = ["--system", "--user-group", "--no-create-home", "--password", "*"]
            if self.groups and self.name not in (SERVICE_ACCOUNT, OPERATOR_ACCOUNT):
                kind += ["--groups", ",".join(self.groups)]
            system.run(["useradd", *system.prefix(), *kind, *same])
        else:
            system.run(["usermod", *system.prefix(), "--home", self.home, "--shell", self.shell, self.name])


_USERS = (
    User(SERVICE_ACCOUNT, "/var/lib/kos", NOLOGIN, "kOS services"),
    User(OPERATOR_ACCOUNT, f"/{OPERATOR_HOME}", "/bin/sh", "kOS operator"),
)


@dataclass(frozen=True)
class NoUser:
    """An account that is not to be there, nor its group."""

    name: str

    def plan(self, system: System) -> list[Change]:
        return [Change(f"remove account {self.name}")] if system.account(self.name) else []

    def apply(self, system: System) -> None:
        account = system.account(self.name)
        if account is not None:
            system.end_processes(account.uid)
        system.run(["userdel", *system.prefix(), self.name])


@dataclass(frozen=True)
class Stopped:
    """No unit of ours runs."""

    def plan(self, system: System) -> list[Change]:
        names = system.running()
        return [Change(f"stop {', '.join(names)}")] if names else []

    def apply(self, system: System) -> None:
        names = system.running()
        system.systemd.stop([name for name in names if name.endswith((".timer", ".target"))])
        system.systemd.stop([name for name in names if not name.endswith((".timer", ".target"))])


@dataclass(frozen=True)
class Owned:
    """Owner, group and mode of a path."""

    user: str = "root"
    group: str = "root"
    mode: int = 0o755

    def ids(self, system: System) -> tuple[int, int] | None:
        """Return the numbers, or None while the account is not there yet (a plan on a clean host)."""
        account = Account("root", 0, 0, "/root", "") if self.user == "root" else system.account(self.user)
        group = 0 if self.group == "root" else system.group(self.group)
        if account is None or group is None:
            return None
        return account.uid, group

    def differs(self, path: Path, system: System) -> bool:
        return stat.S_IMODE(path.lstat().st_mode) != self.mode or system.owner(path) != self.ids(system)

    def give(self, path: Path, system: System) -> None:
        ids = self.ids(system)
        if ids is None:
            raise KosError(
                f"account {self.user} or group {self.group} is not there; {path} cannot be given to it"
            )
        system.chown(path, *ids)
        path.chmod(self.mode)

    def __str__(self) -> str:
        return f"{self.user}:{self.group} {self.mode:04o}"


@dataclass(frozen=True)
class Directory:
    """A folder with owner and mode; what is in it is not touched.

    Args:
        ours: whether one that is there already, be it by a link, has to have this owner and mode as well.
    """

    path: Path
    owned: Owned = Owned()
    ours: bool = True

    def plan(self, system: System) -> list[Change]:
        if not self.ours and self.path.is_dir():
            return []
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise KosError(f"{self.path} is there and is not a folder")
        if not self.path.is_dir():
            return [Change(f"create folder {self.path} ({self.owned})")]
        if self.owned.differs(self.path, system):
            return [Change(f"folder {self.path}: {self.owned}")]
        return []

    def apply(self, system: System) -> None:
        if not self.path.is_dir():
            self.path.mkdir(parents=True)
            self.owned.give(self.path, system)
            files.fsync_directory(self.path.parent)
        self.owned.give(self.path, system)


@dataclass(frozen=True)
class File:
    """A file with its bytes, owner and mode.

    Args:
        checker: a command that must accept the new file (its path is appended) before it is put in place.
        shown: whether a diff shows its text; a program of the engine is named by its hash.
    """

    path: Path
    data: bytes
    owned: Owned = Owned(mode=0o644)
    checker: tuple[str, ...] = ()
    shown: bool = True

    def plan(self, system: System) -> list[Change]:
        before = self._now()
        if before == self.data:
            if self.owned.differs(self.path, system):
                return [Change(f"file {self.path}: {self.owned}")]
            return []
        word = "create" if before is None else "change"
        show = _show if self.shown else _name
        return [
            Change(f"{word} {self.path}", str(self.path), show(before) if before else "", show(self.data))
        ]

    def apply(self, system: System) -> None:
        if self._now() != self.data:
            if self.checker:
                self._check(system)
            mode = self.owned.mode & 0o700  # until its owner is right, only root may read it
            files.write_durable(self.path, self.data, mode=mode)
        self.owned.give(self.path, system)

    def _now(self) -> bytes | None:
        if self.path.is_symlink() or not self.path.is_file():
            return None
        return self.path.read_bytes()

    def _check(self, system: System) -> None:
        with tempfile.NamedTemporaryFile(prefix="kos-check-") as candidate:
            candidate.write(self.data)
            candidate.flush()
            os.fchmod(candidate.fileno(), self.owned.mode)
            system.run([*self.checker, candidate.name])


@dataclass(frozen=True)
class Link:
    """A symbolic link, replaced by one rename."""

    path: Path
    target: str

    def plan(self, system: System) -> list[Change]:
        before = str(self.path.readlink()) if self.path.is_symlink() else None
        if before == self.target:
            return []
        return [Change(f"link {self.path} to {self.target}", str(self.path), before or "", self.target)]

    def apply(self, system: System) -> None:
        files.link_durable(self.path, self.target)


@dataclass(frozen=True)
class Gone:
    """A path that is not to be there with all that is below it; a file system of its own is emptied."""

    path: Path

    def plan(self, system: System) -> list[Change]:
        if os.path.ismount(self.path):
            return [Change(f"empty {self.path}")] if any(self.path.iterdir()) else []
        return [Change(f"remove {self.path}")] if os.path.lexists(self.path) else []

    def apply(self, system: System) -> None:
        remove_tree(self.path)


@dataclass(frozen=True)
class NotForUs:
    """A folder that is not to be there if nothing is in it, at any depth, but what of ours goes away."""

    path: Path
    ours: tuple[str, ...]

    def plan(self, system: System) -> list[Change]:
        inside = {str(path.relative_to(self.path)) for path in self.path.rglob("*")}
        alone = self.path.is_dir() and inside <= set(self.ours)
        return [Change(f"remove folder {self.path}")] if alone else []

    def apply(self, system: System) -> None:
        self.path.rmdir()


@dataclass(frozen=True)
class Empty:
    """A folder with nothing in it."""

    path: Path

    def plan(self, system: System) -> list[Change]:
        there = self.path.is_dir() and any(self.path.iterdir())
        return [Change(f"empty {self.path}")] if there else []

    def apply(self, system: System) -> None:
        for path in self.path.iterdir():
            remove_tree(path)


@dataclass(frozen=True)
class Compiled:
    """The engine's byte code, so that a start of kosctl does not compile a thousand functions."""

    library: Path

    def plan(self, system: System) -> list[Change]:
        package = self.library / "kosnode"
        if not package.is_dir() or (package / "__pycache__").is_dir():
            return []
        return [Change(f"compile {self.library}")]

    def apply(self, system: System) -> None:
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(str(self.library), quiet=2, invalidation_mode=mode)


@dataclass(frozen=True)
class HostResult:
    """What was done, or would be.

    Args:
        changes: in order.
        unset: optional keys of the configuration that have no value (S16).
        engine: the version that `current` names now.
        previous_engine: the version it named before, if that was another.
    """

    changes: tuple[Change, ...] = ()
    unset: tuple[str, ...] = ()
    engine: str | None = None
    previous_engine: str | None = None

    @property
    def changed(self) -> bool:
        return bool(self.changes)

    @property
    def actions(self) -> list[str]:
        return [change.action for change in self.changes]

    def as_dict(self) -> dict[str, Any]:
        """Return what stands in `result` of the command's answer."""
        shown = [change for change in self.changes if change.path is not None]
        return {
            "diff": [{"path": c.path, "before": c.before or "", "after": c.after or ""} for c in shown],
            "unset": list(self.unset),
            "engine": self.engine,
            "previous_engine": self.previous_engine,
        }


@dataclass(frozen=True)
class NodeUnit:
    """An agent that this node adds to its release (S15)."""

    name: str
    unit: Unit
    document: dict[str, Any]
    contents: dict[str, tuple[bytes, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """A spec that has the right form; a section that is None is left alone."""

    engine: str | None = None
    node: dict[str, Any] | None = None
    conf: dict[str, dict[str, Any]] | None = None
    trust_root: bytes | None = None
    replace_trust_root: bool = False
    mirror_ca: bytes | None = None
    operator_keys: tuple[str, ...] | None = None
    accounts: tuple[str, ...] | None = None
    units: tuple[NodeUnit, ...] | None = None


def parse_spec(value: Any) -> Spec:
    """Check the form of a spec.

    Args:
        value: what `files.parse` made of it.

    Raises:
        InputError: naming the key and the rule.
    """
    if not isinstance(value, dict):
        raise InputError("the spec is not an object")
    for key in value:
        if key not in _SECTIONS:
            raise InputError(f"unknown section {key!r}; known are {', '.join(sorted(_SECTIONS))}", key=key)
    if value.get("format") != 1:
        raise InputError("format must be 1", key="format")
    engine = value.get("engine")
    if engine is not None and not (isinstance(engine, str) and _ENGINE.fullmatch(engine)):
        raise InputError("must be a version: letters, digits, dot, plus and hyphen", key="engine")
    root = value.get("trust_root")
    if root is not None and not isinstance(root, (dict, str)):
        raise InputError("must be the metadata of the root role, as an object or as text", key="trust_root")
    replace = value.get("replace_trust_root", False)
    if not isinstance(replace, bool):
        raise InputError("must be true or false", key="replace_trust_root")
    return Spec(
        engine=engine,
        node=_object(value.get("node"), "node"),
        conf=_conf(value.get("conf")),
        trust_root=root.encode() if isinstance(root, str) else _pretty(root) if root is not None else None,
        replace_trust_root=replace,
        mirror_ca=_mirror_ca(value.get("mirror_ca")),
        operator_keys=_operator(value.get("operator")),
        accounts=_accounts(value.get("accounts")),
        units=_units(value.get("units")),
    )


def check_root(data: bytes, *, known: Sequence[bytes], now: datetime.datetime, replace: bool) -> None:
    """Judge a root of trust before it is pinned.

    Args:
        data: metadata of the root role.
        known: roots that this node trusts already, the pinned one first; empty on a clean host.
        now: the time, UTC.
        replace: the word that allows another fleet's root.

    Raises:
        TrustError: not metadata of a root, not signed by its own keys, or expired.
        RefusedError: the node trusts another root, and none of those it trusts signed this one.
    """
    if data in known:
        return
    candidate = _root(data, "trust_root")
    try:
        candidate.signed.verify_delegate(Root.type, candidate.signed_bytes, candidate.signatures)
    except RepositoryError as error:
        raise TrustError(f"is not signed by enough of its own keys: {error}", key="trust_root") from None
    if candidate.signed.is_expired(now):
        raise TrustError(f"expired on {candidate.signed.expires:%Y-%m-%d %H:%M} UTC", key="trust_root")
    if not known or replace:
        return
    for earlier in known:
        trusted = _root(earlier, "pinned root")
        with contextlib.suppress(RepositoryError):
            trusted.signed.verify_delegate(Root.type, candidate.signed_bytes, candidate.signatures)
            if candidate.signed.version >= trusted.signed.version:
                return
    raise RefusedError(
        "is not this fleet's: no root that this node trusts has signed it, or it is older than that one; "
        "say bootstrap_replace_trust_root if the node is to change its fleet",
        key="trust_root",
    )


def resources(spec: Spec, paths: NodePaths, *, shell: Path, kept_engine: str | None) -> list[Resource]:
    """Return what the spec asks of a host, in the order in which it is made.

    Args:
        spec: a spec that was checked.
        paths: where the node is.
        shell: folder with `fallback` and `generator` of the engine.
        kept_engine: the version that is kept beside the new one.
    """
    wanted: list[Resource] = []
    base = spec.node is not None or spec.engine is not None
    if base:
        wanted += _accounts_and_folders(paths)
    for name in spec.accounts or ():
        wanted.append(User(name, "/nonexistent", NOLOGIN, "kOS unit account"))
    if spec.operator_keys is not None:
        wanted += _operator_files(spec.operator_keys, paths)
    if spec.trust_root is not None:
        wanted.append(File(paths.pinned_root, spec.trust_root))
        pinned = paths.pinned_root.read_bytes() if paths.pinned_root.is_file() else spec.trust_root
        if spec.replace_trust_root and pinned != spec.trust_root:
            wanted.append(Empty(paths.trust))
    if spec.mirror_ca:
        wanted.append(File(paths.mirror_ca, spec.mirror_ca))
    configuration = Owned("root", SERVICE_ACCOUNT, 0o640)
    for name, layer in sorted((spec.conf or {}).items()):
        wanted.append(File(paths.conf_d / name, _pretty(layer), configuration))
    if spec.node is not None:
        wanted.append(File(paths.node_json, _pretty(spec.node), configuration))
    for unit in spec.units or ():
        wanted += _unit_files(unit, paths)
    if spec.engine is not None:
        wanted += _engine_files(spec.engine, paths, shell, kept_engine)
    return wanted


def _accounts_and_folders(paths: NodePaths) -> list[Resource]:
    service = Owned("root", SERVICE_ACCOUNT, 0o750)
    private = Owned(mode=0o700)
    # The operator owns neither its home nor .ssh: who may write a folder may put another .ssh into it.
    operator = Owned("root", OPERATOR_ACCOUNT, 0o750)
    home = paths.root / OPERATOR_HOME
    return [
        *_USERS,
        *(Directory(path) for path in (paths.opt, paths.etc, paths.pinned_root.parent, paths.units_d)),
        *(Directory(path, service) for path in (paths.conf_d, paths.unit_config)),
        *(Directory(path) for path in (paths.var, paths.releases, paths.state, paths.journal.parent)),
        *(
            Directory(path, private)
            for path in (paths.state_before, paths.evidence, paths.fetch, paths.trust)
        ),
        Directory(paths.audit.parent, Owned(mode=0o750)),
        Directory(home, operator),
        Directory(home / ".ssh", operator),
        # Ansible keeps what it copies to a host below this one.
        Directory(home / ".ansible", Owned(OPERATOR_ACCOUNT, OPERATOR_ACCOUNT, 0o700)),
        File(paths.root / "etc/tmpfiles.d/kos.conf", TMPFILES.encode()),
    ]


def _operator_files(keys: Sequence[str], paths: NodePaths) -> list[Resource]:
    lines = "".join(f'restrict,command="sudo -n {GATE}" {key}\n' for key in keys)
    return [
        File(
            paths.root / OPERATOR_HOME / ".ssh/authorized_keys",
            lines.encode(),
            Owned("root", OPERATOR_ACCOUNT, 0o640),
        ),
        File(
            paths.root / "etc/sudoers.d/kos", SUDOERS.encode(), Owned(mode=0o440), checker=("visudo", "-cqf")
        ),
    ]


def _engine_files(engine: str, paths: NodePaths, shell: Path, kept: str | None) -> list[Resource]:
    systemd = paths.root / "etc/systemd/system"
    generators = paths.root / "etc/systemd/system-generators"
    program = Owned(mode=0o755)
    wanted: list[Resource] = [
        Compiled(paths.opt / engine / "lib"),
        *(Directory(path) for path in (generators, systemd / "multi-user.target.wants")),
        File(paths.fallback, (shell / "fallback").read_bytes(), program, shown=False),
        File(generators / "kos", (shell / "generator").read_bytes(), program, shown=False),
        File(systemd / "kos.target", TARGET.encode()),
        File(systemd / "kos-boot.service", BOOT.encode()),
        Link(systemd / "multi-user.target.wants/kos.target", "/etc/systemd/system/kos.target"),
        Link(systemd / "multi-user.target.wants/kos-boot.service", "/etc/systemd/system/kos-boot.service"),
        Link(paths.opt / "current", engine),
        Directory(_command(paths).parent),
        Link(_command(paths), "/opt/kos/current/bin/kosctl"),
        *_help_files(paths),
    ]
    for path in _engine_versions(paths):
        if path.name not in (engine, kept):
            wanted.append(Gone(path))
    return wanted


def _command(paths: NodePaths) -> Path:
    """The command by its name, for a person at the console."""
    return paths.root / "usr/local/sbin/kosctl"


def _help_files(paths: NodePaths) -> list[Resource]:
    """The man page and the completion for bash, where both look for what no package has brought."""
    # The parser knows this module.
    from . import cli, manpage

    page, completion = _help_paths(paths)
    parser = cli.build_parser()
    folders = sorted({*page.parents[:3], *completion.parents[:3]})
    return [
        *(Directory(folder, ours=False) for folder in folders),
        File(page, manpage.page(parser).encode(), shown=False),
        File(completion, cli.bash_completion(parser).encode(), shown=False),
    ]


def _help_paths(paths: NodePaths) -> tuple[Path, Path]:
    share = paths.root / "usr/local/share"
    return share / "man/man8/kosctl.8", share / "bash-completion/completions/kosctl"


def _unit_files(unit: NodeUnit, paths: NodePaths) -> list[Resource]:
    folder = paths.units_d / unit.name
    wanted: list[Resource] = [Directory(folder)]
    keep = {"unit.json"}
    for inside, (data, mode) in sorted(unit.contents.items()):
        parents = [parent for parent in Path(inside).parents if parent != Path()]
        wanted += [Directory(folder / parent) for parent in reversed(parents)]
        wanted.append(File(folder / inside, data, Owned(mode=mode)))
        keep |= {inside, *(str(parent) for parent in parents)}
    wanted += [Gone(path) for path in _extra(folder, keep)]
    wanted.append(File(folder / "unit.json", files.canonical(unit.document), Owned(mode=0o444)))
    return wanted


def apply(
    value: Any,
    paths: NodePaths,
    *,
    check: bool,
    system: System | None = None,
    shell: Path | None = None,
    now: datetime.datetime | None = None,
) -> HostResult:
    """Make the host as the spec says, or say what would be done.

    Args:
        value: the spec, as `files.parse` read it.
        paths: where the node is.
        check: change nothing.
        system: the host's commands; a fake in tests.
        shell: folder with `fallback` and `generator`; by default that of the engine which runs.
        now: the time, UTC.

    Returns:
        What changed. Nothing, if the host was so already.

    Raises:
        InputError: the spec is wrong; nothing was touched.
        TrustError, RefusedError: the root of trust is not one to pin.
        BusyError: a trial is running (configuration and engine are not switched under it), or another kosctl.
    """
    spec = parse_spec(value)
    system = system or System(paths)
    shell = shell or engine_shell()
    now = now or datetime.datetime.now(datetime.timezone.utc)
    _validate(spec, paths, system, _read_record(paths), now)
    with _alone(paths, check):
        return _apply(spec, paths, check, system, shell, now)


def _apply(
    spec: Spec, paths: NodePaths, check: bool, system: System, shell: Path, now: datetime.datetime
) -> HostResult:
    record = _read_record(paths)
    merged = _validate(spec, paths, system, record, now)
    before = _current_engine(paths)
    kept = before if before != spec.engine else _previous_engine(spec.engine, record)
    wanted = resources(spec, paths, shell=shell, kept_engine=kept)
    wanted += _unit_configuration(merged, paths) if spec.node is not None or spec.conf is not None else []
    wanted += _no_longer_named(spec, record, paths)
    planned = [(resource, found) for resource in wanted if (found := resource.plan(system))]
    changes = [change for _resource, found in planned for change in found]
    touched = _touched(spec, record, planned, paths)
    steps = _steps(touched, planned, merged, paths, system) if system.live else []
    changes += [Change(step.action) for step in steps]
    if changes and paths.trial.exists():
        raise BusyError(
            "a trial is running; nothing of the host is changed until it is confirmed or reverted"
        )
    result = HostResult(
        tuple(changes),
        merged.unset if merged else (),
        spec.engine or before,
        before if spec.engine not in (None, before) else None,
    )
    if check or not changes:
        return result
    stopped = _entries(paths) if touched.removed else {}
    # Before they are made: what a killed run made is known to be ours.
    record = {**record, "accounts": sorted({*record["accounts"], *(spec.accounts or ())})}
    _write_record({**record, "pending": [*touched.added, *touched.changed]}, paths)
    for resource, _found in planned:
        resource.apply(system)
    if touched:
        render.apply_node_units(paths, merged.units if merged else None, taken=_release_units(paths))
    for step in steps:
        step.run(system.systemd, {**stopped, **_entries(paths)})
    _write_record(_recorded(spec, record, kept), paths)
    return result


def remove(paths: NodePaths, *, purge: bool, check: bool, system: System | None = None) -> HostResult:
    """Take everything of kOS off the host.

    Args:
        paths: where the node is.
        purge: also the state of units, the evidence and the audit log; what it has of other nodes as their
            witness stays.
        check: change nothing.
        system: the host's commands; a fake in tests.

    Returns:
        What changed. Nothing, where nothing of kOS was.

    Raises:
        BusyError: a trial is running.
        KosError: a unit does not stop, an account cannot be removed.
    """
    system = system or System(paths)
    planned = _remove(paths, purge, True, system)
    if check or not planned.changed:
        return planned
    with _alone(paths, check):
        return _remove(paths, purge, False, system)


def _remove(paths: NodePaths, purge: bool, check: bool, system: System) -> HostResult:
    if paths.trial.exists() and not purge:
        raise BusyError("a trial is running; end it, or purge the node")
    record = _read_record(paths)
    wanted: list[Resource] = [Stopped()] if system.live else []
    # What names the accounts, and kosctl itself, go last: a removal that breaks off can be run again.
    names = (*record["accounts"], OPERATOR_ACCOUNT, SERVICE_ACCOUNT)
    wanted += [NoUser(name) for name in names]
    wanted += [Gone(path) for path in _all_paths(paths, purge=purge)]
    page, completion = _help_paths(paths)
    wanted += [
        NotForUs(paths.root / "etc/systemd/system-generators", ("kos",)),
        NotForUs(page.parent, (page.name,)),
        NotForUs(completion.parent, (completion.name,)),
        NotForUs(completion.parents[1], ("completions", f"completions/{completion.name}")),
    ]
    planned = [(resource, found) for resource in wanted if (found := resource.plan(system))]
    changes = [change for _resource, found in planned for change in found]
    if not check:
        for resource, _found in planned:
            resource.apply(system)
        if system.live and changes:
            system.systemd.daemon_reload()
            system.forget_failures()
    return HostResult(tuple(changes))


def add_parser(subparsers: Any) -> None:
    """Register the hidden verb `host` and what it can do; each sets `func`, from arguments to a `Result`.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned.
    """
    parser = subparsers.add_parser("host", description="Make this host a node, or take kOS off it (as root).")
    verbs = parser.add_subparsers(dest="host_verb", metavar="VERB", required=True)
    applying = verbs.add_parser("apply", description="Make the host as the spec on standard input says.")
    applying.set_defaults(run=_apply_command, func=_apply_command)
    removing = verbs.add_parser("remove", description="Take everything of kOS off the host.")
    removing.add_argument("--purge", action="store_true", help="also state, evidence and audit log")
    removing.set_defaults(run=_remove_command, func=_remove_command)
    for verb in (applying, removing):
        verb.add_argument("--check", action="store_true", help="say what would be done, and change nothing")
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object")
        verb.set_defaults(verb="host")


def _apply_command(args: argparse.Namespace) -> Result:
    paths = NodePaths(args.root)
    value = files.parse(sys.stdin.buffer.read(MAX_SPEC_BYTES + 1), limit=MAX_SPEC_BYTES, what="the spec")
    done = apply(value, paths, check=args.check)
    if done.changed and not args.check:
        what = {"verb": "host apply", "options": {"engine": done.engine}, "exit": 0, "changed": True}
        Audit(paths.audit, boot.SystemClock()).append(what, caller())
    return Result(done.as_dict(), done.changed, done.actions)


def _remove_command(args: argparse.Namespace) -> Result:
    done = remove(NodePaths(args.root), purge=args.purge, check=args.check)
    return Result(done.as_dict(), done.changed, done.actions)


@contextlib.contextmanager
def _alone(paths: NodePaths, check: bool) -> Iterator[None]:
    """Hold the node's lock, unless nothing is changed."""
    if check:
        yield
        return
    with Lock(paths.lock).hold("host", wait_s=_LOCK_WAIT_S, patient=PATIENT):
        yield


def engine_shell() -> Path:
    """Return the folder with `fallback` and `generator` of the engine that runs."""
    package = Path(__file__).resolve().parent
    installed = package.parents[1] / "shell"
    return installed if installed.is_dir() else package / "shell"


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a folder, also one that nobody may write to; durable.

    A folder that is a file system of its own is emptied.
    """
    if os.path.ismount(path):
        for child in path.iterdir():
            remove_tree(child)
        return
    if path.is_dir() and not path.is_symlink():
        for folder, _names, _files in os.walk(path):
            Path(folder).chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    files.fsync_directory(path.parent)


def _validate(
    spec: Spec, paths: NodePaths, system: System, record: dict[str, Any], now: datetime.datetime
) -> config.Config | None:
    """Say all that is wrong with a spec on this host; return the configuration that the node will have."""
    if spec.engine is not None and spec.trust_root is None and not paths.pinned_root.is_file():
        raise InputError("a node without a pinned root of trust needs one", key="trust_root")
    if spec.trust_root is not None:
        places = (paths.pinned_root, paths.trust / "metadata/root.json")
        known = [place.read_bytes() for place in places if place.is_file()]
        check_root(spec.trust_root, known=known, now=now, replace=spec.replace_trust_root)
    _check_accounts(spec, paths, system, record)
    merged = _merged(spec, paths, record)
    _check_authorities(spec, merged, paths)
    allowed = {SERVICE_ACCOUNT, *(spec.accounts or ())}
    release_units = _release_units(paths)
    for node_unit in spec.units or ():
        if node_unit.name in release_units:
            raise InputError("the release has a unit of that name already", key=f"units.{node_unit.name}")
        user = node_unit.unit.entry.user
        if user not in allowed and system.account(user) is None:
            raise InputError(
                f"account {user!r} does not exist on this node; name it in bootstrap_service_accounts",
                key=f"units.{node_unit.name}.entry.user",
            )
    return merged


def _check_accounts(spec: Spec, paths: NodePaths, system: System, record: dict[str, Any]) -> None:
    """Refuse to make an account ours that somebody else has: it would be changed, and go with kOS."""
    for index, name in enumerate(spec.accounts or ()):
        if name not in record["accounts"] and system.account(name) is not None:
            raise InputError(
                f"{name} is an account of this host already; leave it out, a unit may run as it all the same",
                key=f"accounts[{index}]",
            )
    if (spec.node is None and spec.engine is None) or _record_path(paths).is_file():
        return
    for user in _USERS:
        if system.account(user.name) is not None and user.plan(system):
            raise InputError(
                f"this host has an account {user.name} of somebody else's, a name that kOS needs",
                key="accounts",
            )


def _check_authorities(spec: Spec, merged: config.Config | None, paths: NodePaths) -> None:
    """Refuse a configuration that names authorities which will not be on the node."""
    concerned = spec.node is not None or spec.conf is not None or spec.mirror_ca is not None
    named = merged.authorities(paths) if merged is not None else None
    if named is None or not concerned:
        return
    there: bool | bytes = named.is_file()
    if named == paths.mirror_ca and spec.mirror_ca is not None:
        there = spec.mirror_ca
    if not there:
        raise InputError(f"names {named}, which is not there", key="mirror_ca")


def _merged(spec: Spec, paths: NodePaths, record: dict[str, Any]) -> config.Config | None:
    """Merge node.json and its layers as they will be, before any of them is written."""
    document: Any = spec.node
    if document is None:
        if not paths.node_json.is_file():
            return None
        document = files.read_json(paths.node_json)
    documents: dict[str, Any] = {}
    if paths.conf_d.is_dir():
        documents = {path.name: path for path in paths.conf_d.iterdir() if not path.name.startswith(".")}
    if spec.conf is not None:
        documents = {name: value for name, value in documents.items() if name not in record["conf"]}
        documents.update(spec.conf)
    layers = []
    for name in sorted(documents):
        value = documents[name]
        layer = files.read_json(value) if isinstance(value, Path) else value
        layers.append(config.parse_layer(layer, str(paths.conf_d / name)))
    return config.merge(document, layers, where=str(paths.node_json))


def _unit_configuration(merged: config.Config | None, paths: NodePaths) -> list[Resource]:
    """The files in unit.d: all of them come from the merged configuration, so others go away."""
    settings = {
        f"{name}.json": unit["config"]
        for name, unit in (merged.units if merged else {}).items()
        if "config" in unit
    }
    owned = Owned("root", SERVICE_ACCOUNT, 0o640)
    wanted: list[Resource] = [
        File(paths.unit_config / name, _pretty(value), owned) for name, value in sorted(settings.items())
    ]
    there = sorted(paths.unit_config.iterdir()) if paths.unit_config.is_dir() else []
    return wanted + [Gone(path) for path in there if path.name not in settings]


@dataclass(frozen=True)
class _Step:
    """Something that systemd is asked to do once the files are as they should be."""

    action: str
    verb: str
    units: tuple[str, ...] = ()

    def run(self, systemd: Systemd, entries: dict[str, Any]) -> None:
        if self.verb == "daemon-reload":
            systemd.daemon_reload()
        elif self.verb == "target":
            systemd.start([render.TARGET])
        elif self.verb == "reload":
            systemd.reload([f"kos-{unit}.service" for unit in self.units])
        elif self.verb == "stop":
            stop = [entries[unit] for unit in self.units if unit in entries]
            systemd.stop([name for entry in stop for name in (entry["timer"], entry["service"]) if name])
        else:
            start = [render.starts(entries[unit]) for unit in self.units]
            (systemd.start if self.verb == "start" else systemd.restart)(start)


def _touched(
    spec: Spec, record: dict[str, Any], planned: Sequence[tuple[Resource, list[Change]]], paths: NodePaths
) -> render.Change:
    """Which units of the node are new, other than they were (or were left half done), or no longer named."""
    if spec.units is None:
        return render.Change()
    names = {unit.name for unit in spec.units}
    changed = set(record["pending"])
    for resource, _found in planned:
        path = getattr(resource, "path", None)
        if isinstance(path, Path) and paths.units_d in path.parents:
            changed.add(path.relative_to(paths.units_d).parts[0])
    known = set(record["units"])
    return render.Change(
        added=tuple(sorted(names - known)),
        changed=tuple(sorted(changed & names & known)),
        removed=tuple(sorted(known - names)),
    )


def _steps(
    touched: render.Change,
    planned: Sequence[tuple[Resource, list[Change]]],
    merged: config.Config | None,
    paths: NodePaths,
    system: System,
) -> list[_Step]:
    changed = [resource.path for resource, _found in planned if isinstance(resource, (File, Link, Gone))]
    steps = []
    systemd_files = paths.root / "etc/systemd"
    if touched.removed:
        # Before systemd forgets what they were.
        steps.append(_Step(f"stop {', '.join(touched.removed)}", "stop", touched.removed))
    if touched or any(systemd_files in path.parents for path in changed):
        steps.append(_Step("systemd reads its units again", "daemon-reload"))
    if merged is not None and not system.systemd.is_active(render.TARGET):
        steps.append(_Step("start kos.target", "target"))
    if touched.added:
        steps.append(_Step(f"start {', '.join(touched.added)}", "start", touched.added))
    if touched.changed:
        steps.append(_Step(f"restart {', '.join(touched.changed)}", "restart", touched.changed))
    reread = tuple(
        sorted(path.stem for path in changed if path.parent == paths.unit_config and path.suffix == ".json")
    )
    if reread:
        steps.append(_Step(f"hand their configuration to {', '.join(reread)}", "reload", reread))
    return steps


def _entries(paths: NodePaths) -> dict[str, Any]:
    listing = paths.node_units / "units.json"
    return dict(files.read_json(listing)["units"]) if listing.is_file() else {}


def _release_units(paths: NodePaths) -> tuple[str, ...]:
    listing = paths.current / "units.json"
    return tuple(files.read_json(listing)["units"]) if listing.is_file() else ()


def _no_longer_named(spec: Spec, record: dict[str, Any], paths: NodePaths) -> list[Resource]:
    gone: list[Resource] = []
    if spec.conf is not None:
        gone += [Gone(paths.conf_d / name) for name in record["conf"] if name not in spec.conf]
    if spec.units is not None:
        names = {unit.name for unit in spec.units}
        gone += [Gone(paths.units_d / name) for name in record["units"] if name not in names]
    if spec.mirror_ca == b"":
        gone.append(Gone(paths.mirror_ca))
    return gone


def _all_paths(paths: NodePaths, *, purge: bool) -> list[Path]:
    systemd = paths.root / "etc/systemd"
    # What others count on outlives a witness that is no node any more.
    kept = {"witness"} if purge else {"witness", "state", "evidence"}
    there = sorted(_children(paths.var))
    var = [p for p in there if p.name not in kept]
    if purge and var == there:
        var = [paths.var]
    return [
        *(systemd / f"system/multi-user.target.wants/{name}" for name in ("kos.target", "kos-boot.service")),
        *(systemd / f"system/{name}" for name in ("kos.target", "kos-boot.service")),
        systemd / "system-generators/kos",
        paths.root / "etc/sudoers.d/kos",
        paths.root / "etc/tmpfiles.d/kos.conf",
        _command(paths),
        *_help_paths(paths),
        *var,
        *([paths.audit.parent] if purge else []),
        paths.etc,
        paths.run,
        paths.root / OPERATOR_HOME,
        paths.opt,
    ]


def _children(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _record_path(paths: NodePaths) -> Path:
    return paths.var / "host.json"


def _read_record(paths: NodePaths) -> dict[str, Any]:
    """What earlier runs put there: only that is taken away when a spec no longer names it."""
    empty: dict[str, Any] = {
        **{"format": 1, "conf": [], "units": [], "accounts": []},
        # Units whose files were changed and that were not started again yet: a crash forgets no restart.
        **{"pending": [], "previous_engine": None},
    }
    path = _record_path(paths)
    return {**empty, **files.read_json(path)} if path.is_file() else empty


def _recorded(spec: Spec, record: dict[str, Any], kept: str | None) -> dict[str, Any]:
    updated = {**record, "pending": []}
    if spec.conf is not None:
        updated["conf"] = sorted(spec.conf)
    if spec.units is not None:
        updated["units"] = sorted(unit.name for unit in spec.units)
    if spec.engine is not None:
        updated["previous_engine"] = kept
    return updated


def _write_record(record: dict[str, Any], paths: NodePaths) -> None:
    path = _record_path(paths)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_bytes() != _pretty(record):
        files.write_durable(path, _pretty(record))


def _current_engine(paths: NodePaths) -> str | None:
    link = paths.opt / "current"
    return str(link.readlink()) if link.is_symlink() else None


def _previous_engine(current: str | None, record: dict[str, Any]) -> str | None:
    previous = record["previous_engine"]
    return previous if isinstance(previous, str) and previous != current else None


def _engine_versions(paths: NodePaths) -> list[Path]:
    if not paths.opt.is_dir():
        return []
    return sorted(p for p in paths.opt.iterdir() if p.is_dir() and not p.is_symlink())


def _extra(folder: Path, keep: set[str]) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*")):
        inside = str(path.relative_to(folder))
        if inside not in keep and not any(str(p) not in keep for p in Path(inside).parents if str(p) != "."):
            yield path


def _root(data: bytes, key: str) -> Metadata[Root]:
    try:
        found = Metadata[Root].from_bytes(data)
    except Exception as error:
        raise TrustError(f"is not metadata of the root role: {error}", key=key) from None
    if not isinstance(found.signed, Root):
        raise TrustError(f"is not metadata of the root role, but of {found.signed.type}", key=key)
    return found


def _object(value: Any, key: str) -> dict[str, Any] | None:
    if value is None or isinstance(value, dict):
        return value
    raise InputError("must be an object", key=key)


def _conf(value: Any) -> dict[str, dict[str, Any]] | None:
    layers = _object(value, "conf")
    for name, layer in (layers or {}).items():
        if not _CONF.fullmatch(name):
            raise InputError(
                "must be called NN-name.json: two digits, then lower-case letters", key=f"conf.{name}"
            )
        config.parse_layer(layer, f"conf.{name}")
    return layers


def _mirror_ca(value: Any) -> bytes | None:
    """Check the authorities of https mirrors; empty text says that the node has none of its own."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError("must be the certificates of authorities as text", key="mirror_ca")
    if not value.strip():
        return b""
    certificates = _CERTIFICATE.findall(value)
    # Everybody on the node may read the file, so a key that came along is refused rather than left out.
    if not certificates or len(certificates) != value.count("-----BEGIN "):
        raise InputError(
            "must hold certificates in PEM form, and neither keys nor anything else", key="mirror_ca"
        )
    try:
        ssl.create_default_context(cadata="\n".join(certificates))
    except ssl.SSLError as error:
        raise InputError(
            f"holds a certificate that cannot be read: {error.reason or error}", key="mirror_ca"
        ) from None
    return f"{value.strip()}\n".encode()


def _operator(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"keys"} or not isinstance(value["keys"], list):
        raise InputError("must be an object with the list `keys`", key="operator")
    for index, key in enumerate(value["keys"]):
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise InputError(
                "is not one public key of OpenSSH without options (ssh-ed25519 AAAA… comment)",
                key=f"operator.keys[{index}]",
            )
    return tuple(value["keys"])


def _accounts(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise InputError("must be a list of names", key="accounts")
    for index, name in enumerate(value):
        if not isinstance(name, str) or not _ACCOUNT.fullmatch(name) or name in _TAKEN_ACCOUNTS:
            raise InputError("is not the name of an account for services", key=f"accounts[{index}]")
    return tuple(value)


def _units(value: Any) -> tuple[NodeUnit, ...] | None:
    units = _object(value, "units")
    if units is None:
        return None
    found = []
    for name, body in sorted(units.items()):
        key = f"units.{name}"
        if not _UNIT.fullmatch(name):
            raise InputError("must be lower-case letters, digits and inner hyphens, at most 48", key=key)
        if (
            not isinstance(body, dict)
            or not set(body) <= {"unit", "files"}
            or not isinstance(body.get("unit"), dict)
        ):
            raise InputError("must be an object with `unit`, and `files` if it has any", key=key)
        contents = {
            inside: _content(inside, item, f"{key}.files.{inside}")
            for inside, item in (_object(body.get("files"), f"{key}.files") or {}).items()
        }
        unit = validate(body["unit"], key)
        if unit.id != name:
            raise InputError(
                f"must be {name}, as the unit is called here; it is {unit.id}", key=f"{key}.unit.id"
            )
        _check_contents(unit, contents, key)
        found.append(NodeUnit(name, unit, body["unit"], contents))
    return tuple(found)


def _check_contents(unit: Unit, contents: dict[str, Any], key: str) -> None:
    """Refuse a unit that names a program or files of its own which did not come with it."""
    program = unit.entry.command[0]
    own = () if program.startswith("/") or program == "python3" else (program,)
    for path in (*unit.files, *own):
        if path != "." and not any(f"{inside}/".startswith(f"{path.rstrip('/')}/") for inside in contents):
            raise InputError(f"{path} is not among the files that came with it", key=f"{key}.files")


def _content(inside: str, value: Any, key: str) -> tuple[bytes, int]:
    parts = Path(inside).parts
    if (
        inside.startswith("/")
        or not parts
        or ".." in parts
        or str(Path(inside)) != inside
        or inside == "unit.json"
    ):
        raise InputError("must be a relative path that stays in the unit's folder", key=key)
    if not isinstance(value, dict) or not set(value) <= {"mode", "text", "base64"}:
        raise InputError("must be an object with `mode` and either `text` or `base64`", key=key)
    if value.get("mode", "0444") not in ("0444", "0555"):
        raise InputError("must be 0444 or 0555", key=f"{key}.mode")
    mode = int(value.get("mode", "0444"), 8)
    if isinstance(value.get("text"), str) and "base64" not in value:
        return value["text"].encode(), mode
    if isinstance(value.get("base64"), str) and "text" not in value:
        try:
            return base64.b64decode(value["base64"], validate=True), mode
        except binascii.Error:
            raise InputError("is not base64", key=f"{key}.base64") from None
    raise InputError("needs either `text` or `base64`", key=key)


def _pretty(value: Any) -> bytes:
    files.canonical(value)  # the same rules as everywhere: no floats, no surrogates
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _show(data: bytes) -> str:
    """Text for a diff: values whose name sounds like a secret are left out, bytes are named by their hash."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _name(data)
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict):
            return json.dumps(_without_secrets(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text


def _name(data: bytes) -> str:
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}\n"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "hidden"
            if _SECRET_NAME.search(key) and isinstance(item, (str, int))
            else _without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


def _runs_as(process: Path) -> int | None:
    """Return the real uid of a process by its folder in /proc; None where it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in (process / "status").read_text(errors="replace").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    return None


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
