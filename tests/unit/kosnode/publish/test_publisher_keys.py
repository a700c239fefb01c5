"""Keys of holders: encrypted at rest, never overwritten, never readable by others, one key under one id."""

from __future__ import annotations

import io
import json
import stat
import subprocess
from pathlib import Path

import pytest
from publisher_world import PASSPHRASE, World

from kosnode.errors import InputError
from kosnode.publish import keys

OTHER = b"another passphrase of a test"


def test_a_new_key_is_encrypted_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    public = keys.make(tmp_path / "alice.key", PASSPHRASE)
    pem = (tmp_path / "alice.key").read_bytes()
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE((tmp_path / "alice.key").stat().st_mode) == 0o600
    assert keys.load_public(tmp_path / "alice.pub") == public
    assert keys.holder_of(public) == "alice"
    assert keys.load_signer(tmp_path / "alice.key", PASSPHRASE).public_key.keyid == public.keyid


def test_the_encryption_is_what_the_documentation_says(tmp_path: Path) -> None:
    keys.make(tmp_path / "alice.key", PASSPHRASE)
    command = ["openssl", "asn1parse", "-in", str(tmp_path / "alice.key")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "PBES2" in said
    assert "PBKDF2" in said
    assert "hmacWithSHA256" in said
    assert "aes-256-cbc" in said
    assert "INTEGER           :0800" in said
    assert "2048" in keys.ENCRYPTION


def test_a_key_that_openssl_encrypted_with_scrypt_opens(tmp_path: Path) -> None:
    public = keys.make(tmp_path / "alice.key", PASSPHRASE)
    for name in ("in", "out"):  # OpenSSL reads a second line from a file that is named twice
        (tmp_path / name).write_bytes(PASSPHRASE)
    slow = tmp_path / "slow.key"
    subprocess.run(
        [
            "openssl",
            "pkcs8",
            "-topk8",
            "-v2",
            "aes-256-cbc",
            "-scrypt",
            "-in",
            str(tmp_path / "alice.key"),
            "-out",
            str(slow),
            "-passin",
            f"file:{tmp_path / 'in'}",
            "-passout",
            f"file:{tmp_path / 'out'}",
        ],
        check=True,
    )
    slow.chmod(0o600)
    assert keys.load_signer(slow, PASSPHRASE).public_key.keyid == public.keyid


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    keys.make(tmp_path / "alice.key", PASSPHRASE)
    before = (tmp_path / "alice.key").read_bytes()
    with pytest.raises(InputError, match="never overwritten"):
        keys.make(tmp_path / "alice.key", PASSPHRASE)
    (tmp_path / "bob.pub").write_text("taken")
    with pytest.raises(InputError, match=r"bob\.pub exists already"):
        keys.make(tmp_path / "bob.key", PASSPHRASE)
    assert (tmp_path / "alice.key").read_bytes() == before
    assert not (tmp_path / "bob.key").exists()


def test_a_wrong_passphrase_is_said_to_be_wrong(world: World) -> None:
    with pytest.raises(InputError, match="passphrase is wrong"):
        keys.load_signer(world.key("alice"), OTHER)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660])
def test_a_key_that_others_can_read_is_refused(world: World, mode: int) -> None:
    world.key("alice").chmod(mode)
    with pytest.raises(InputError, match=f"mode {mode:04o}, others can read it"):
        keys.load_signer(world.key("alice"), PASSPHRASE)


def test_a_key_that_is_not_encrypted_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(plain)], check=True)
    plain.chmod(0o600)
    with pytest.raises(InputError, match="not encrypted"):
        keys.load_signer(plain, PASSPHRASE)


def test_after_a_change_only_the_new_passphrase_opens_the_same_key(world: World) -> None:
    path = world.key("alice")
    before = keys.load_signer(path, PASSPHRASE).public_key.keyid
    keys.change_passphrase(path, PASSPHRASE, OTHER)
    assert keys.load_signer(path, OTHER).public_key.keyid == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(InputError, match="passphrase is wrong"):
        keys.load_signer(path, PASSPHRASE)


def test_a_change_with_the_wrong_passphrase_leaves_the_key_alone(world: World) -> None:
    before = world.key("alice").read_bytes()
    with pytest.raises(InputError, match="passphrase is wrong"):
        keys.change_passphrase(world.key("alice"), OTHER, OTHER)
    assert world.key("alice").read_bytes() == before


def test_one_key_under_two_key_ids_is_refused(world: World) -> None:
    """C19: TUF counts key ids, so a second id for one key would be a second signature."""
    value = json.loads(world.public("alice").read_bytes())
    value["keyid"] = "0" * 64
    world.public("alice").write_text(json.dumps(value))
    with pytest.raises(InputError, match="is not that of the key"):
        keys.load_public(world.public("alice"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "and nothing else"),
        ({"scheme": "rsassa-pss-sha256"}, "only ed25519"),
        ({"keyval": {"public": "zz"}}, "64 hex digits"),
        ({"x-kos-holder": "a b"}, "not a name of a holder"),
    ],
)
def test_a_public_key_that_is_not_one_is_refused(
    world: World, change: dict[str, object], message: str
) -> None:
    value = {**json.loads(world.public("alice").read_bytes()), **change}
    world.public("alice").write_text(json.dumps(value))
    with pytest.raises(InputError, match=message):
        keys.load_public(world.public("alice"))


def test_a_private_key_in_place_of_a_public_one_is_named(world: World) -> None:
    with pytest.raises(InputError, match="is a private key"):
        keys.load_public(world.key("alice"))


def test_a_passphrase_is_the_first_line_of_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE + b"\r\nsecond line")
    path.chmod(0o600)
    assert keys.read_passphrase(str(path)) == PASSPHRASE
    path.chmod(0o644)
    with pytest.raises(InputError, match="others can read it"):
        keys.read_passphrase(str(path))
    path.chmod(0o600)
    path.write_bytes(b"short\n")
    with pytest.raises(InputError, match="at least 12"):
        keys.read_passphrase(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        keys.read_passphrase(str(tmp_path / "absent"))


class _Input(io.TextIOWrapper):
    def __init__(self, data: bytes, terminal: bool) -> None:
        super().__init__(io.BytesIO(data))
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def test_a_passphrase_comes_from_standard_input_but_never_from_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", _Input(PASSPHRASE + b"\n", terminal=False))
    assert keys.read_passphrase("-") == PASSPHRASE
    monkeypatch.setattr("sys.stdin", _Input(PASSPHRASE + b"\n", terminal=True))
    with pytest.raises(InputError, match="terminal"):
        keys.read_passphrase("-")
