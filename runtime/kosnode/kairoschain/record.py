"""What was made of this host last: the next run, the deep check and a removal go by it, and need no spec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import files
from ..errors import NotFoundError


@dataclass(frozen=True)
class Wanted:
    """What a deep check compares with.

    Args:
        version: of the gem.
        host: where the server listens.
        port: TCP port of the server.
        tls: whether the server itself speaks TLS.
        proxy: whether there is a TLS proxy.
        expiry_days: age at which tokens expire.
        metrics: file of the textfile collector, if there is one.
    """

    version: str
    host: str
    port: int
    tls: bool
    proxy: bool
    expiry_days: int
    metrics: str | None


@dataclass(frozen=True)
class Record:
    """What is kept between runs.

    Args:
        code: folder of the gem's versions; None before the first run that ended well. So are the next ones.
        data: data directory.
        previous: folder of the version that is kept beside the present one.
        wanted: what the node was made to be.
        pending: units whose files were changed and that were not started again yet: a crash forgets none.
    """

    code: str | None = None
    data: str | None = None
    previous: str | None = None
    wanted: Wanted | None = None
    pending: tuple[str, ...] = ()

    def with_pending(self, names: list[str]) -> Record:
        """Return the same with other units to be started."""
        return replace(self, pending=tuple(names))

    def require(self) -> tuple[Path, Path, Wanted]:
        """Return code, data and what is wanted.

        Raises:
            NotFoundError: this host was never made a KairosChain node.
        """
        if self.code is None or self.data is None or self.wanted is None:
            raise NotFoundError("this host is no KairosChain node")
        return Path(self.code), Path(self.data), self.wanted


def read(path: Path) -> Record:
    """Read the record; where there is none, an empty one."""
    if not path.is_file():
        return Record()
    value: dict[str, Any] = files.read_json(path)
    wanted = value["wanted"]
    return Record(
        value["code"],
        value["data"],
        value["previous"],
        Wanted(**wanted) if wanted is not None else None,
        tuple(value["pending"]),
    )


def write(path: Path, record: Record) -> None:
    """Write the record; an empty one is taken away."""
    if record == Record():
        path.unlink(missing_ok=True)
        return
    wanted = vars(record.wanted) if record.wanted else None
    value = {**vars(record), "format": 1, "wanted": wanted, "pending": list(record.pending)}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_durable(path, files.canonical(value) + b"\n", mode=0o600)
