"""A real S3 server on loopback, versitygw over a folder; a policy says what each of its users may do."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backup.servers import Server, free_port, listening

PROGRAM = Path(__file__).resolve().parents[2] / "build/tools/versitygw/bin/versitygw"
BUCKET = "backups"
OWNER, NODE, READER, PRUNER = "owner", "node", "reader", "pruner"
# As docs/guide/backup.md tells to write it: the node adds, and takes away nothing but its locks.
_ALLOWED = (
    ((NODE, READER, PRUNER), ("s3:ListBucket", "s3:GetBucketLocation"), ""),
    ((NODE, READER, PRUNER), ("s3:GetObject",), "/*"),
    ((NODE, PRUNER), ("s3:PutObject",), "/*"),
    ((NODE,), ("s3:DeleteObject",), "/n1/locks/*"),
    ((PRUNER,), ("s3:DeleteObject",), "/*"),
)


@dataclass
class Gateway:
    """One server, which can be started again.

    Args:
        folder: of the server, with the bucket's files below `served`.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    words: dict[str, str] = field(
        default_factory=lambda: {name: secrets.token_hex(20) for name in (OWNER, NODE, READER, PRUNER)}
    )

    @property
    def url(self) -> str:
        return f"s3:http://127.0.0.1:{self.port}/{BUCKET}/n1"

    @property
    def bucket(self) -> Path:
        """The folder with the bucket's objects as files."""
        return self.folder / "served" / BUCKET

    def environment(self, user: str) -> dict[str, str]:
        """Return the credentials of a user as restic wants them."""
        return {"AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": self.words[user]}

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Serve for a block."""
        for name in ("served", "about", "users"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        users = {
            name: {"access": name, "secret": self.words[name], "role": "user"}
            for name in (NODE, READER, PRUNER)
        }
        (self.folder / "users/users.json").write_text(json.dumps({"accessAccounts": users}))
        argv = [str(PROGRAM), "--quiet", f"--port=127.0.0.1:{self.port}", f"--iam-dir={self.folder}/users"]
        argv += ["posix", f"--sidecar={self.folder}/about", str(self.folder / "served")]
        owner = ["env", f"ROOT_ACCESS_KEY={OWNER}", f"ROOT_SECRET_KEY={self.words[OWNER]}"]
        with listening([*owner, *argv], self.port) as server:
            yield server

    def make_bucket(self) -> None:
        """Make the bucket with its policy; the server runs."""
        statements = [
            {
                "Effect": "Allow",
                "Principal": {"AWS": list(users)},
                "Action": list(actions),
                "Resource": f"arn:aws:s3:::{BUCKET}{keys}",
            }
            for users, actions, keys in _ALLOWED
        ]
        self._put("")
        self._put("?policy=", json.dumps({"Version": "2012-10-17", "Statement": statements}))

    def _put(self, query: str, data: str = "") -> None:
        argv = ["curl", "--silent", "--show-error", "--fail-with-body", "--request", "PUT"]
        argv += ["--aws-sigv4", "aws:amz:us-east-1:s3", "--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
        argv += ["--user", f"{OWNER}:{self.words[OWNER]}", "--data-binary", data]
        subprocess.run([*argv, f"http://127.0.0.1:{self.port}/{BUCKET}{query}"], check=True)


@contextlib.contextmanager
def s3_gateway(folder: Path) -> Iterator[Gateway]:
    """Serve an empty bucket for a block; a test without the server is left out, and says how to get it."""
    if not PROGRAM.is_file():
        pytest.skip("LEFT OUT: there is no S3 server here: tools/versitygw/versitygw.sh builds it with Go")
    gateway = Gateway(folder)
    with gateway.running():
        gateway.make_bucket()
        yield gateway
