"""Makes a release repository with keys of its own, and publishes releases of the reference runtime into it.

    world = World(Path("build/world"))
    world.release("1.0.0")
    world.release("1.2.0", fault={"fail_health_after_s": 3})
    world.publish(Wish("1.3.0", channels=("beta",)), Wish("1.4.0", arch="aarch64"))   # one signing for both
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
ENGINE = "archive authored files listing manifest merkle metadata patch schema unit version".split()
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


@dataclass(frozen=True)
class Wish:
    """A release to publish.

    Attributes:
        version: SemVer.
        fault: What the daemon does wrong, such as `{"fail_health_after_s": 3}`.
        arch: any, x86_64 or aarch64.
        channels: Channels it is in.
        manifest: More of its release.json, such as `{"sync_risk": "high"}`.
    """

    version: str
    fault: Mapping[str, int] | None = None
    arch: str = "any"
    channels: tuple[str, ...] = ("stable",)
    manifest: Mapping[str, object] | None = None


class World:
    """A release repository whose three holders and online key are at hand.

    Args:
        folder: Where it is kept. What is there is used if it was made from the same sources, else made anew.
        say: Called with each line of progress.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print) -> None:
        self.folder = folder.resolve()
        self._say = say
        with self._alone():
            self._make()

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
        self, version: str, *, fault: Mapping[str, int] | None = None, channels: Sequence[str] = ("stable",)
    ) -> Release:
        """Build, sign and publish one release, unless it is there already; see `publish`."""
        return self.publish(Wish(version, fault, channels=tuple(channels)))[version]

    def publish(self, *wishes: Wish) -> dict[str, Release]:
        """Build, sign and publish releases of the reference runtime, unless they are there already.

        Returns:
            All that is published, by version.

        Raises:
            WorldError: One cannot be built, or is there and was asked for differently.
        """
        with self._alone():
            record = json.loads(self._record.read_text())
            fresh = []
            for wish in wishes:
                if wish.version not in record["asked"]:
                    fresh.append(wish)
                elif record["asked"][wish.version] != _digest(asdict(wish)):
                    raise WorldError(f"{self.folder} has a release {wish.version} that was made differently")
            for wish in fresh:
                self._say(f"world: building release {wish.version}")
                done = Release(wish.version, self._build(wish), wish.arch, wish.channels)
                record["releases"][wish.version] = asdict(done)
                record["asked"][wish.version] = _digest(asdict(wish))
            if fresh:
                self._say("world: signing and publishing")
                self._sign(self.repository)
                self._publish()
                self._write(record)
        return self.releases()

    def expired_root(self) -> Path:
        """Return a root of trust of the same holders that has expired."""
        repository = self.folder / "expired"
        if not repository.is_dir():
            self._found(repository, "--expires=root=1s")
            time.sleep(1.5)
        return repository / "staged/1.root.json"

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

    def _build(self, wish: Wish) -> str:
        release_file = self.folder / "release.json"
        release_file.write_text(
            json.dumps({"name": "kos", "version": wish.version, "arch": wish.arch, **(wish.manifest or {})})
        )
        words = ["build", str(self.repository), "--tree", str(self.tree(wish.version, wish.fault))]
        words += ["--release-file", str(release_file), *(f"--channel={channel}" for channel in wish.channels)]
        return str(self.publisher(*words)["root"])

    def _make(self) -> None:
        made_from = _fingerprint(SOURCES)
        if self._record.is_file() and json.loads(self._record.read_text())["made_from"] == made_from:
            self._renew()
            return
        self._say(f"world: making the keys and the repository in {self.folder}")
        for path in self.folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for holder in (*HOLDERS, "online"):
            self._make_key(holder)
        self._found(self.repository)
        self._publish()
        (self.folder / "trees").mkdir()
        self._write({"made_from": made_from, "releases": {}, "asked": {}})

    def _found(self, repository: Path, *more: str) -> None:
        public = [
            (role, self.key(holder).with_suffix(".pub"))
            for role in ("root", "releases")
            for holder in HOLDERS
        ]
        self.publisher(
            *("init", str(repository), *(f"--{role}-key={key}" for role, key in public), *more),
            *(f"--root-threshold={QUORUM}", f"--releases-threshold={QUORUM}"),
            *("--online-key", str(self.key("online")), "--passphrase-file", str(self.passphrase("online"))),
        )
        self._sign(repository)

    def _sign(self, repository: Path) -> None:
        for role in ("root", "targets", "releases"):
            if not list((repository / "staged").glob(f"*{role}.json")):
                continue
            for holder in HOLDERS[:QUORUM]:
                self.publisher(
                    *("sign", str(repository), "--role", role, "--key", str(self.key(holder))),
                    *("--passphrase-file", str(self.passphrase(holder))),
                )

    def _publish(self) -> None:
        self.publisher("publish", str(self.repository), "--passphrase-file", str(self.passphrase("online")))

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
