"""Runs the application's own commands, as its own account, and reads their words: exit codes say nothing."""

from __future__ import annotations

import json
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, KosError, NotFoundError
from . import layout

ACCOUNT = "kairos"
PROGRAM = "kairos-chain"
_TIMEOUT_S = 300.0
_INITIALIZE = {"method": "initialize", "params": {"protocolVersion": "2024-11-05", "capabilities": {}}}
_VERIFY = {"method": "tools/call", "params": {"name": "chain_verify", "arguments": {}}}
_VERIFIED = "Blockchain Integrity Verified: OK (Length: "

_TO_JSON = "require 'yaml'; require 'json'; puts JSON.generate(YAML.safe_load($stdin.read) || {})"
_TO_YAML = "require 'yaml'; require 'json'; print YAML.dump(JSON.parse($stdin.read))"
# Quicker to start, and there is no gem in it.
_RUBY = ("ruby", "--disable=gems", "-e")
_GEM = """
require "rubygems/package"
require "json"
spec = Gem::Package.new(ARGV.first).spec
puts JSON.generate("name" => spec.name, "version" => spec.version.to_s)
"""


@dataclass(frozen=True)
class ChainVerify:
    """What the tool `chain_verify` said.

    Args:
        ok: whether it called the ledger whole; an absent one is not.
        length: how many blocks it saw, where it said so.
        text: its words.
    """

    ok: bool
    length: int | None
    text: str


@dataclass(frozen=True)
class Application:
    """One installed version.

    Args:
        folder: where the gem and what it brings are (its GEM_HOME).
        account: whose processes its commands are; None leaves them this process's own.
    """

    folder: Path
    account: str | None = ACCOUNT

    @property
    def program(self) -> Path:
        return self.folder / "bin" / PROGRAM

    def initialise(self, data: Path) -> None:
        """Make a data directory and its ledger. Its parent has to be writable for the account.

        Raises:
            KosError: it made none; the message holds its words.
        """
        # The first greeting installs what belongs to every node, with a block for each, so that from now on a
        # ledger that is absent has been lost.
        said = self._run(data, [], stdin=_line(_INITIALIZE))
        if not layout.is_data(data) or not layout.ledger(data).is_file():
            raise KosError(f"{PROGRAM} made no data directory: {_words(said)}")

    def chain_verify(self, data: Path) -> ChainVerify:
        """Ask the application for its own verdict. Writes nothing: no `initialize` is sent (K20).

        Raises:
            NotFoundError: there is no data directory, and asking would make one.
        """
        if not layout.is_data(data):
            raise NotFoundError(f"{data} is no data directory of KairosChain")
        said = self._run(data, [], stdin=_line(_VERIFY))
        for line in said.stdout.splitlines():
            try:
                text = str(json.loads(line)["result"]["content"][0]["text"])
            except (ValueError, KeyError, IndexError, TypeError):
                continue
            length = text.removeprefix(_VERIFIED).partition(")")[0]
            ok = text.startswith(_VERIFIED) and length.isdecimal()
            return ChainVerify(ok, int(length) if ok else None, text)
        return ChainVerify(False, None, _words(said))

    def preview(self, data: Path) -> str:
        """Return what an upgrade of a data directory would do, in the application's words."""
        return self._run(data, ["upgrade"]).stdout.strip()

    def upgrade(self, data: Path) -> str:
        """Bring a data directory to this version, and return the application's words.

        Raises:
            KosError: it ended badly. That it ended well says nothing.
        """
        said = self._run(data, ["upgrade", "--apply"])
        if said.returncode != 0:
            raise KosError(f"{PROGRAM} upgrade --apply failed: {_words(said)}")
        return said.stdout.strip()

    def add_admin(self, data: Path, output: Path) -> None:
        """Have an admin token added to the store of a data directory, and written to a file.

        Args:
            output: a new file, in a folder that the account may write to.

        Raises:
            KosError: there is none.
        """
        store = data / layout.TOKENS
        words = ["--init-admin", "--quiet", "--token-output-file", str(output), "--token-store", str(store)]
        said = self._run(data, words)
        if not output.is_file():
            raise KosError(f"{PROGRAM} --init-admin made no token: {_words(said)}")

    def _run(self, data: Path, words: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = [str(self.program), "--data-dir", str(data), *words]
        home = {"GEM_HOME": str(self.folder)}
        return run(argv, account=self.account, environment=home, cwd=_standing(data), stdin=stdin)


def install(gem: Path, folder: Path, version: str) -> None:
    """Install a gem, without a network, into a folder of its own.

    Raises:
        InputError: it is another gem, or another version, than was said.
        KosError: RubyGems refused it.
    """
    said = run(["ruby", "-e", _GEM, str(gem)])
    if said.returncode != 0:
        raise InputError(f"{gem.name} is not a gem: {_words(said)}", key="gem")
    found = json.loads(said.stdout)
    if found != {"name": PROGRAM, "version": version}:
        raise InputError(
            f"gem: {gem.name} is {found['name']} {found['version']}, and not {PROGRAM} {version}", key="gem"
        )
    words = [
        "gem",
        "install",
        "--local",
        "--no-document",
        "--no-user-install",
        "--bindir",
        str(folder / "bin"),
    ]
    done = run([*words, str(gem)], environment={"GEM_HOME": str(folder)})
    if done.returncode != 0 or not (folder / "bin" / PROGRAM).is_file():
        raise KosError(f"the gem cannot be installed: {_words(done)}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file by the node's own Ruby, which is what the application reads it with.

    Raises:
        InputError: it is not YAML, or no mapping.
    """
    said = run([*_RUBY, _TO_JSON], stdin=path.read_text("utf-8"))
    if said.returncode != 0:
        raise InputError(f"{path} cannot be read: {_words(said)}", key=str(path))
    value = json.loads(said.stdout)
    if not isinstance(value, dict):
        raise InputError(f"{path} is no mapping", key=str(path))
    return value


def to_yaml(value: dict[str, Any]) -> bytes:
    """Return YAML as the node's own Ruby writes it."""
    said = run([*_RUBY, _TO_YAML], stdin=json.dumps(value, ensure_ascii=False))
    if said.returncode != 0:
        raise KosError(f"ruby cannot write YAML: {_words(said)}")
    return said.stdout.encode()


def run(
    argv: Sequence[str],
    *,
    account: str | None = None,
    environment: dict[str, str] | None = None,
    cwd: Path = Path("/"),
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command with an environment that says nothing of ours, and return what it said.

    Args:
        account: whose process it is; None makes it this process's own.

    Raises:
        KosError: it cannot be started, or does not end.
    """
    whose: dict[str, Any] = {}
    home = "/root"
    if account is not None:
        try:
            known = pwd.getpwnam(account)
        except KeyError:
            raise KosError(f"account {account} is not there") from None
        whose = {"user": known.pw_uid, "group": known.pw_gid, "extra_groups": []}
        home = known.pw_dir
    base = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": home}
    try:
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**base, **(environment or {})},
            cwd=cwd,
            umask=0o077,
            timeout=_TIMEOUT_S,
            check=False,
            **whose,
        )
    except subprocess.TimeoutExpired:
        raise KosError(f"{argv[0]} did not end within {_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise KosError(f"{argv[0]} cannot be started: {error.strerror}") from None


def _standing(data: Path) -> Path:
    """Some tools of the application work in the working directory, whatever the data directory is."""
    return data if data.is_dir() else Path("/")


def _line(message: dict[str, Any]) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, **message}) + "\n"


def _words(said: subprocess.CompletedProcess[str]) -> str:
    return " ".join((said.stderr.strip() or said.stdout.strip()).split())[-500:] or f"exit {said.returncode}"
