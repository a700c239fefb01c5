"""Ed25519 keys of the people who sign: made, read, shown and encrypted again.

A private key is PKCS#8 PEM as `cryptography` encrypts it with `BestAvailableEncryption`: PBES2 (RFC 8018)
with AES-256-CBC under PBKDF2-HMAC-SHA-256 of 2048 rounds, which slows guessing by little, so the passphrase
has to be strong by itself. Keys that OpenSSL wrote with scrypt are read as well. A public key is one JSON
object, a TUF key with its key id and the name of its holder.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from .. import files
from ..errors import InputError

MAX_KEY_BYTES = 16 * 1024
MIN_PASSPHRASE = 12
HOLDER = "x-kos-holder"
ENCRYPTION = "PKCS#8, PBES2: AES-256-CBC, PBKDF2-HMAC-SHA-256 with 2048 rounds"

_HOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PUBLIC_HEX = re.compile(r"[0-9a-f]{64}")


def read_passphrase(source: str, *, key: str = "--passphrase-file") -> bytes:
    """Read a passphrase from a file, or from standard input.

    Args:
        source: path of a file that only its owner can read, or `-` for standard input, which must not be a
            terminal (it would echo). The first line counts, without its newline.
        key: the option that is named in messages.

    Raises:
        InputError: no such file, readable by others, empty, too short, a terminal.
    """
    if source == "-":
        if sys.stdin.isatty():
            raise InputError(
                "standard input is a terminal, which would show the passphrase: name a file", key=key
            )
        line = sys.stdin.buffer.readline(MAX_KEY_BYTES)
    else:
        line = _read_private(Path(source), key).split(b"\n", 1)[0]
    passphrase = line.rstrip(b"\r\n")
    if len(passphrase) < MIN_PASSPHRASE:
        raise InputError(
            f"the passphrase has {len(passphrase)} bytes, at least {MIN_PASSPHRASE} are needed", key=key
        )
    return passphrase


def make(path: Path, passphrase: bytes, *, holder: str | None = None) -> Key:
    """Make a key pair: `path` (0600, encrypted) and the public half beside it with the suffix `.pub`.

    Args:
        path: where the private key goes; neither file may exist.
        passphrase: see `read_passphrase`.
        holder: who holds the key, shown to those who sign; the file's name without suffix where None.

    Returns:
        The public key.

    Raises:
        InputError: a file exists already, or the holder's name is not a name.
    """
    name = path.stem if holder is None else holder
    if not _HOLDER_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is not a name of a holder: letters, digits, `._@-`, at most 64", key="--holder"
        )
    public_path = public_path_of(path)
    if public_path == path:
        raise InputError("the private key cannot end in .pub, where its public half goes", key="--out")
    for taken in (path, public_path):
        if taken.exists() or taken.is_symlink():
            raise InputError(f"{taken} exists already; a key is never overwritten", key="--out")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a directory", key="--out")
    private = Ed25519PrivateKey.generate()
    public = _public_of(private, name)
    files.write_durable(path, _encrypted(private, passphrase), mode=0o600)
    files.write_durable(public_path, public_json(public), mode=0o644)
    return public


def change_passphrase(path: Path, old: bytes, new: bytes) -> None:
    """Encrypt a private key with another passphrase, in place and durably.

    Raises:
        InputError: the old passphrase is wrong, or the file is no private key that only its owner can read.
    """
    files.write_durable(path, _encrypted(_private(path, old), new), mode=0o600)


def public_path_of(path: Path) -> Path:
    """Return where the public half of the private key at `path` is."""
    return path.with_suffix(".pub")


def public_json(key: Key) -> bytes:
    """Return the file form of a public key."""
    return files.canonical({"keyid": key.keyid, **key.to_dict()}) + b"\n"


def load_public(path: Path, *, option: str = "key") -> Key:
    """Read a public key and check that its key id is that of its contents.

    The check matters: TUF counts key ids, so one key under two ids would sign twice (C19).

    Raises:
        InputError: no such file, an unknown field, another kind of key, a key id that is not the key's own.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", key=option) from None
    if b"PRIVATE KEY" in data:
        raise InputError(f"{path} is a private key; the public one ends in .pub", key=option)
    value = files.parse(data, limit=MAX_KEY_BYTES, what=str(path))
    allowed = {"keyid", "keytype", "scheme", "keyval", HOLDER}
    if not isinstance(value, dict) or not allowed - {HOLDER} <= set(value) <= allowed:
        raise InputError(
            f"{path} is not a public key: it needs {', '.join(sorted(allowed))} and nothing else", key=option
        )
    return check_public(value.pop("keyid"), value, f"{path}")


def check_public(keyid: Any, value: dict[str, Any], what: str) -> Key:
    """Return a public key from its TUF form, refusing what is not Ed25519 under its own key id."""
    keyval = value.get("keyval")
    public = keyval.get("public") if isinstance(keyval, dict) and set(keyval) == {"public"} else None
    if value.get("keytype") != "ed25519" or value.get("scheme") != "ed25519":
        raise InputError(
            f"{what}: only ed25519 keys are used here, not {value.get('keytype')}", key="keytype"
        )
    if not isinstance(public, str) or not _PUBLIC_HEX.fullmatch(public):
        raise InputError(f"{what}: keyval.public is not 64 hex digits", key="keyval.public")
    holder = value.get(HOLDER)
    if holder is not None and (not isinstance(holder, str) or not _HOLDER_NAME.fullmatch(holder)):
        raise InputError(f"{what}: {HOLDER} is not a name of a holder", key=HOLDER)
    own = own_keyid(public)
    if keyid != own:
        raise InputError(f"{what}: key id {keyid} is not that of the key, which is {own}", key="keyid")
    return SSlibKey(own, "ed25519", "ed25519", {"public": public}, {} if holder is None else {HOLDER: holder})


def own_keyid(public_hex: str) -> str:
    """Return the key id of an Ed25519 key, as securesystemslib computes it from the key's contents."""
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex))).keyid


def holder_of(key: Key) -> str:
    """Return how people call a key: its holder, else the beginning of its key id."""
    holder = key.unrecognized_fields.get(HOLDER)
    return holder if isinstance(holder, str) else key.keyid[:12]


def load_signer(path: Path, passphrase: bytes) -> CryptoSigner:
    """Open a private key for signing.

    Raises:
        InputError: wrong passphrase, not a private key, not Ed25519, or readable by others.
    """
    return CryptoSigner(_private(path, passphrase))


def _read_private(path: Path, option: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", key=option) from None
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(stream.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a directory", key=option)
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise InputError(f"{path} has mode {mode:04o}, others can read it: chmod 600 {path}", key=option)
        return stream.read(MAX_KEY_BYTES)


def _private(path: Path, passphrase: bytes) -> Ed25519PrivateKey:
    data = _read_private(path, "--key")
    if b"PRIVATE KEY" not in data:
        raise InputError(f"{path} is not a private key in PEM", key="--key")
    if b"ENCRYPTED" not in data:
        raise InputError(f"{path} is a private key that is not encrypted; it is not used", key="--key")
    try:
        private = serialization.load_pem_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(
            f"{path} does not open: the passphrase is wrong or the file is damaged", key="--key"
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise InputError(f"{path} is not an Ed25519 key", key="--key")
    return private


def _public_of(private: Ed25519PrivateKey, holder: str) -> Key:
    key = SSlibKey.from_crypto(private.public_key())
    key.unrecognized_fields[HOLDER] = holder
    return key


def _encrypted(private: Ed25519PrivateKey, passphrase: bytes) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
