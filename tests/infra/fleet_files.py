"""The files that a fleet's settings name: a root of trust whose keys are gone, and a small bundle."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import secrets
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

VERSION = "1.0.0-00000000"


def make(folder: Path) -> dict[str, str]:
    """Write the files and return the settings that name them.

    Args:
        folder: where to; it is made where it is missing, and what is there is used again.
    """
    root, bundle = folder / "root.json", folder / "bundle"
    if not root.exists():
        bundle.mkdir(parents=True, exist_ok=True)
        _bundle(bundle)
        root.write_bytes(root_of_trust())
    return {"trust_root": str(root), "bundle": str(bundle)}


def root_of_trust(*, expires: datetime | None = None, padding: int = 0) -> bytes:
    """Return a root of trust that is signed by three keys, all of which are gone afterwards.

    Args:
        expires: until when it holds; a year from now by default.
        padding: characters that it carries without need.
    """
    signers = [CryptoSigner.generate_ed25519() for _ in range(3)]
    root = Root(expires=expires or datetime.now(UTC) + timedelta(days=365))
    root.unrecognized_fields["x-padding"] = secrets.token_hex(padding // 2)
    for signer in signers:
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.add_key(signer.public_key, role)
    root.roles["root"].threshold = len(signers)
    signed = Metadata(root)
    for signer in signers:
        signed.sign(signer, append=True)
    return bytes(signed.to_bytes())


def settle(folder: Path) -> None:
    """Have the copies of stack files in a folder name files that are there."""
    for path in folder.glob("Pulumi.*.yaml"):
        document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
        for value in document["config"].values():
            if isinstance(value, dict) and "trust_root" in value:
                value.update(make(folder / "files"))
        path.write_text(yaml.safe_dump(document), "utf-8")


def _bundle(folder: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("VERSION"))
    data = gzip.compress(plain.getvalue(), mtime=0)
    name = f"kosctl-{VERSION}.tar.gz"
    (folder / name).write_bytes(data)
    described = {"version": VERSION, "file": name, "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "kosctl.json").write_text(json.dumps(described), "utf-8")
