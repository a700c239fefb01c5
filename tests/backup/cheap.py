"""Makes a restic repository whose keys cost milliseconds to open, so that a test can open it a hundred times.

restic makes a key cost half a second on purpose. Here the same master key is wrapped again with a scrypt that
is cheap (restic, doc/design.rst, Keys, Encryption and MAC); everything else is restic's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives import poly1305
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_N, _R, _P = 1024, 8, 1


def make(restic: Path, repository: Path, passwords: dict[str, str]) -> None:
    """Make a repository.

    Args:
        restic: the program.
        repository: where; it is not there yet.
        passwords: by the name of the key's user.
    """
    given = {
        "PATH": "/usr/bin:/bin",
        "RESTIC_PASSWORD": "until it has cheap keys",
        "HOME": str(repository.parent),
    }
    argv = [str(restic), "--no-cache", "-r", str(repository)]
    subprocess.run([*argv, "init", "-q"], env=given, check=True)
    shown = subprocess.run([*argv, "cat", "masterkey"], env=given, check=True, capture_output=True).stdout
    master = json.dumps(json.loads(shown), separators=(",", ":")).encode()
    for old in (repository / "keys").iterdir():
        old.unlink()
    for user, password in passwords.items():
        key = json.dumps(_key(master, user, password)).encode()
        (repository / "keys" / hashlib.sha256(key).hexdigest()).write_bytes(key)


def _key(master: bytes, user: str, password: str) -> dict[str, object]:
    salt, nonce = os.urandom(64), os.urandom(16)
    derived = hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, dklen=64)
    encrypt, mac_k, mac_r = derived[:32], derived[32:48], derived[48:]
    encryptor = Cipher(algorithms.AES(encrypt), modes.CTR(nonce)).encryptor()
    sealed = encryptor.update(master) + encryptor.finalize()
    block = Cipher(algorithms.AES(mac_k), modes.ECB()).encryptor()
    one_time = mac_r + block.update(nonce) + block.finalize()
    mac = poly1305.Poly1305.generate_tag(one_time, sealed)
    return {
        **{"created": "2026-01-01T00:00:00Z", "username": user, "hostname": "test", "kdf": "scrypt"},
        **{"N": _N, "r": _R, "p": _P, "salt": base64.b64encode(salt).decode()},
        "data": base64.b64encode(nonce + sealed + mac).decode(),
    }
