"""Makes a release repository with keys of its own, and publishes releases of the reference runtime into it.

    world = World(Path("build/world"))
    world.release("1.0.0")
    world.release("1.2.0", fault={"fail_health_after_s": 3})
    world.public         # what a mirror serves
    world.trust_root     # what nodes pin

Everything is made by the publisher's own commands. A world is kept in its folder for the next run; it is made
anew when anything that goes into releases or into the publisher has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools import release_tree

REPOSITORY = Path(__file__).resolve().parents[2]
RUNTIME = REPOSITORY / "runtime"
HOLDERS = ("alice", "bob", "carol")
QUORUM = 2
# What decides the bytes of a world: what releases carry, and what the publisher makes of it.
ENGINE = "archive authored files manifest merkle metadata patch schema unit version".split()
SOURCES = (
    *("runtime/kosd", "runtime/release", "requirements/kosd.txt", "tests/world"),
    *("runtime/kosnode/publish", "runtime/kosnode/schemas"),
    *(f"runtime/kosnode/{module}.py" for module in ENGINE),
)
# Half of what a timestamp holds by default.
TIMESTAMP_AGE_S = 24 * 3600


class WorldError(Exception):
    """A command of the publisher failed, or a release cannot be made; the message says why."""


@dataclass(frozen=True)
class Release:
    """A published release.

    Attributes:
        version: Its version.
        root: Its release root, which names the slot on a node and the files on a mirror.
        arch: any, x86_64 or aarch64.
        channels: Channels it is in.
    """

    version: str
    root: str
    arch: str
    channels: tuple[str, ...]


class World:
    """A release repository whose three holders and online key are at hand.

    Args:
        folder: Where it is kept. What is there is used if it was made from the same sources, else made anew.
        say: Called with each line of progress.
        expires: How long documents hold, role to duration such as `365d`; the publisher's defaults otherwise.
    """

    def __init__(
        self, folder: Path, say: Callable[[str], None] = print, expires: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder.resolve()
        self._say = say
        with self._alone():
            self._make(dict(expires or {}))

    @property
    def repository(self) -> Path:
        """The publisher's folder."""
        return self.folder / "repository"

    @property
    def public(self) -> Path:
        """What a mirror serves: a folder of static files."""
        return self.repository / "public"

    @property
    def trust_root(self) -> Path:
        """The root of trust that nodes pin."""
        return self.public / "metadata/1.root.json"

    def key(self, holder: str) -> Path:
        """Return the encrypted private key of a holder (alice, bob, carol) or of `online`."""
        return self.folder / f"keys/{holder}.key"

    def passphrase(self, holder: str) -> Path:
        """Return the file with the passphrase of a holder's key."""
        return self.folder / f"keys/{holder}.passphrase"

    def releases(self) -> dict[str, Release]:
        """Return what this world has published, by version."""
        kept = json.loads(self._record.read_text())["releases"]
        return {
            version: Release(**{**entry, "channels": tuple(entry["channels"])})
            for version, entry in kept.items()
        }

    def release(
        self,
        version: str,
        *,
        fault: Mapping[str, int] | None = None,
        arch: str = "any",
        channels: Sequence[str] = ("stable",),
        manifest: Mapping[str, object] | None = None,
    ) -> Release:
        """Build, sign and publish a release of the reference runtime, unless it is there already.

        Args:
            version: SemVer.
            fault: What the daemon does wrong, such as `{"fail_health_after_s": 3}`.
            arch: any, x86_64 or aarch64.
            channels: Channels it is in.
            manifest: More of its release.json, such as `{"sync_risk": "high"}`.

        Raises:
            WorldError: It cannot be built, or it is there and was asked for differently.
        """
        asked = _digest([version, fault, arch, list(channels), manifest])
        with self._alone():
            record = json.loads(self._record.read_text())
            if version in record["releases"]:
                if record["asked"][version] != asked:
                    raise WorldError(f"{self.folder} has a release {version} that was made differently")
                return self.releases()[version]
            self._say(f"world: building and signing release {version}")
            root = self._build(version, fault, arch, channels, manifest)
            self.sign_and_publish()
            done = Release(version, root, arch, tuple(channels))
            record["releases"][version] = asdict(done)
            record["asked"][version] = asked
            self._write(record)
        return done

    def tree(self, version: str, fault: Mapping[str, int] | None = None) -> Path:
        """Return the tree of a release of the reference runtime, made unless it is there.

        Raises:
            WorldError: It cannot be made.
        """
        tree = self.folder / f"trees/{version}-{_digest(fault)[:12]}"
        if not tree.is_dir():
            fresh = tree.with_name(f".{tree.name}.new")
            try:
                release_tree.make_tree(fresh, version, fault=dict(fault or {}))
            except subprocess.CalledProcessError as error:
                raise WorldError(f"the tree of release {version} cannot be made: {error}") from error
            fresh.rename(tree)
        return tree

    def sign_and_publish(self) -> None:
        """Have the quorum sign what waits for signatures, and publish it.

        Raises:
            WorldError: The publisher refuses.
        """
        for role in ("root", "targets", "releases"):
            for holder in HOLDERS[:QUORUM] if (self.repository / "staged").is_dir() else ():
                if not list((self.repository / "staged").glob(f"*{role}.json")):
                    continue
                self.publisher(
                    *("sign", str(self.repository), "--role", role, "--key", str(self.key(holder))),
                    *("--passphrase-file", str(self.passphrase(holder))),
                )
        self.publisher("publish", str(self.repository), "--passphrase-file", str(self.passphrase("online")))

    def publisher(self, *words: str) -> dict[str, Any]:
        """Run a verb of the publisher (`kosctl repo …`) and return its result.

        Raises:
            WorldError: It refused; the message is its own.
        """
        out = self._run([sys.executable, "-m", "kosnode.publish", *words, "--json"])
        answer = json.loads(out)
        if not answer["ok"]:
            raise WorldError(f"kosctl repo {words[0]}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _build(
        self,
        version: str,
        fault: Mapping[str, int] | None,
        arch: str,
        channels: Sequence[str],
        manifest: Mapping[str, object] | None,
    ) -> str:
        tree = self.tree(version, fault)
        release_file = self.folder / "release.json"
        release_file.write_text(
            json.dumps({"name": "kos", "version": version, "arch": arch, **(manifest or {})})
        )
        words = ["build", str(self.repository), "--tree", str(tree), "--release-file", str(release_file)]
        for channel in channels:
            words += ["--channel", channel]
        return str(self.publisher(*words)["root"])

    def _make(self, expires: dict[str, str]) -> None:
        made_from = _digest([_fingerprint(SOURCES), expires])
        if self._record.is_file() and json.loads(self._record.read_text())["made_from"] == made_from:
            self._renew()
            return
        self._say(f"world: making the keys and the repository in {self.folder}")
        for path in self.folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for holder in (*HOLDERS, "online"):
            self._make_key(holder)
        words = [
            f"--{role}-key={self.key(holder).with_suffix('.pub')}"
            for role in ("root", "releases")
            for holder in HOLDERS
        ]
        words += [f"--expires={role}={duration}" for role, duration in expires.items()]
        self.publisher(
            *("init", str(self.repository), *words),
            *(f"--root-threshold={QUORUM}", f"--releases-threshold={QUORUM}"),
            *("--online-key", str(self.key("online")), "--passphrase-file", str(self.passphrase("online"))),
        )
        self.sign_and_publish()
        (self.folder / "trees").mkdir()
        self._write({"made_from": made_from, "releases": {}, "asked": {}})

    def _make_key(self, holder: str) -> None:
        self.key(holder).parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.passphrase(holder), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
        self.publisher(
            *("key", "new", "--out", str(self.key(holder)), "--holder", holder),
            *("--passphrase-file", str(self.passphrase(holder))),
        )

    def _renew(self) -> None:
        age = time.time() - (self.public / "metadata/timestamp.json").stat().st_mtime
        if age > TIMESTAMP_AGE_S:
            self.publisher(
                "timestamp", str(self.repository), "--passphrase-file", str(self.passphrase("online"))
            )

    @property
    def _record(self) -> Path:
        return self.folder / "world.json"

    def _write(self, record: Mapping[str, Any]) -> None:
        temporary = self._record.with_suffix(".new")
        temporary.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        temporary.replace(self._record)

    def _run(self, argv: Sequence[str]) -> str:
        environment = {**os.environ, "PYTHONPATH": str(RUNTIME)}
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0 and not done.stdout.startswith("{"):
            raise WorldError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _fingerprint(sources: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        top = REPOSITORY / source
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(REPOSITORY)}\n".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
