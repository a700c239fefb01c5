"""Signs manifests and lines of the witness with the node's key, by `ssh-keygen -Y` (PROTOCOL.sshsig)."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import files
from ..errors import InputError, KosError, TrustError

NAMESPACE = "kos-backup"
_PUBLIC = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}(?: .*)?")
_TIMEOUT_S = 20


def make_key(path: Path, comment: str) -> str:
    """Make an Ed25519 key unless there is one, and return the public key.

    Args:
        path: of the private key; the public one has `.pub`.
        comment: who the key is of.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".key.", dir=path.parent) as folder:
            made = Path(folder) / "key"
            _run(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(made)])
            # The private key last: where it is, both are.
            files.write_durable(path.with_name(f"{path.name}.pub"), made.with_suffix(".pub").read_bytes())
            files.write_durable(path, made.read_bytes(), mode=0o600)
    return public_key(path)


def public_key(path: Path) -> str:
    """Return the public key that belongs to a private one, without its comment.

    Raises:
        InputError: there is no key, or anybody besides its owner may read it.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; `kosctl backup init` makes the node's key") from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise InputError(f"{path}: must be readable by root alone, mode 0600")
    return parse_public(_run(["-y", "-P", "", "-f", str(path)]), str(path))


def parse_public(text: str, where: str) -> str:
    """Return kind and key of a public key.

    Raises:
        InputError: it is none of Ed25519.
    """
    if not _PUBLIC.fullmatch(text.strip()):
        raise InputError(f"{where}: is no public key of kind ssh-ed25519")
    return " ".join(text.split()[:2])


def sign(key: Path, data: bytes) -> str:
    """Return the armoured signature of some bytes.

    Raises:
        InputError: there is no such key.
        KosError: ssh-keygen failed.
    """
    if not key.exists():
        raise InputError(f"{key}: is missing; `kosctl backup init` makes the node's key")
    return _run(["-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE], stdin=data)


def trusted(key: Path, former: Path) -> list[str]:
    """Return the public keys of a node: that of its key, and those it had on machines before this one.

    Args:
        key: its private key.
        former: file with a public key on each line; it may be missing.

    Raises:
        InputError: there is no key, or a line of `former` is none.
    """
    lines = former.read_text().splitlines() if former.exists() else []
    return [public_key(key), *(parse_public(line, str(former)) for line in lines if line.strip())]


def verify(publics: Sequence[str], data: bytes, signature: str) -> None:
    """Check a signature.

    Args:
        publics: keys of which one must have signed, kind and key each.

    Raises:
        TrustError: it is not that of one of these keys over these bytes.
    """
    with tempfile.TemporaryDirectory(prefix="kos-sig-") as folder:
        allowed, signed = Path(folder) / "allowed", Path(folder) / "signature"
        allowed.write_text("".join(f'node namespaces="{NAMESPACE}" {one}\n' for one in publics))
        signed.write_text(signature)
        words = ["-Y", "verify", "-f", str(allowed), "-I", "node", "-n", NAMESPACE, "-s", str(signed)]
        try:
            _run(words, stdin=data)
        except SigningError:
            raise TrustError("the signature is not that of the node's key over this") from None


class SigningError(KosError):
    """ssh-keygen said no; the message holds its last words."""

    kind = "signing"


def _run(words: list[str], stdin: bytes = b"") -> str:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise InputError("ssh-keygen is not installed on this host", key="ssh-keygen")
    # Without an agent and without a terminal: nobody is asked for a passphrase.
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
    try:
        # A file, since a manifest is large and goes through a pipe a page at a time.
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            argv = [program, *words]
            done = subprocess.run(
                argv, stdin=given, capture_output=True, env=environment, timeout=_TIMEOUT_S, check=False
            )
    except subprocess.TimeoutExpired:
        raise SigningError(f"ssh-keygen did not end within {_TIMEOUT_S} s") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SigningError(
            f"ssh-keygen ended with {done.returncode}: {said[-1] if said else 'it said nothing'}"
        )
    return done.stdout.decode("utf-8", "replace")
