"""What a drill is asked for: read from standard input, checked and typed before anything is touched."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from .. import boot, files, schema
from ..backup import config, signing, trail
from ..backup.config import Repository, SourceSpec
from ..backup.trail import Line
from ..errors import InputError
from ..schema import refuse

MAX_BYTES = 256 * 1024 * 1024
WHERE = "the request"


@dataclass(frozen=True)
class Request:
    """One drill; what the values mean stands in drill-request.schema.json.

    Args:
        repository: without certificates, which are text here.
        table: the sources of the node; None takes them of its own snapshot.
        lines: of the witness, where they were handed over.
        witness: address of the witness, where they were not.
    """

    node: str
    repository: Repository
    recovery_key: str = field(repr=False)
    node_keys: tuple[str, ...]
    seed: str
    certificates: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    witness: str | None = None
    lines: tuple[Line, ...] | None = None
    hosts: Mapping[str, Sequence[str]] | None = None
    wanted: tuple[str, ...] | None = None
    time: datetime | None = None
    table: tuple[SourceSpec, ...] | None = None
    production: tuple[Path, ...] = ()
    scratch: Path | None = None
    interval_s: int = 7_776_000
    reserve_bytes: int = 64 * 1024 * 1024
    backend_timeout_s: int = 600
    previous: str | None = None


def parse(data: bytes) -> Request:
    """Read a request.

    Raises:
        InputError: names the key and the rule, and never a secret.
    """
    return read(files.parse(data, limit=MAX_BYTES, what=WHERE))


def read(document: Any) -> Request:
    """Check and type a request; raises InputError, as `parse`."""
    schema.check(document, "drill-request", where=WHERE)
    wanted = tuple(document["sources"]) if "sources" in document else None
    table = rows(document["table"], WHERE) if "table" in document else None
    for name in wanted or ():
        known = None if table is None else next((one for one in table if one.name == name), None)
        if table is not None and known is None:
            refuse(WHERE, "sources", f"{name} is not in the table")
        if known is not None and known.rank == "skip":
            refuse(WHERE, "sources", f"{name} is of class skip: it is not backed up")
    repository = document["repository"]
    url = repository["url"]
    if urlsplit(url.partition(":")[2] if "://" in url else "").password is not None:
        refuse(WHERE, "repository.url", "holds a password; secrets belong into repository.environment")
    try:
        ssl.create_default_context(cadata=repository.get("ca"))
    except ssl.SSLError:
        refuse(WHERE, "repository.ca", "holds no certificate in PEM that can be read")
    for name in repository.get("environment", {}):
        if not config.is_for_backends(name):
            refuse(WHERE, f"repository.environment.{name}", "is not for a backend to set")
    plain = {
        key: document[key]
        for key in ("interval_s", "reserve_bytes", "backend_timeout_s", "previous", "hosts")
        if key in document
    }
    witness = document.get("witness", {})
    return Request(
        node=document["node"],
        repository=Repository(repository["name"], url),
        recovery_key=document["recovery_key"],
        node_keys=tuple(signing.parse_public(one, f"{WHERE}: node_keys") for one in document["node_keys"]),
        seed=document["seed"],
        certificates=repository.get("ca"),
        environment=repository.get("environment", {}),
        witness=witness.get("url"),
        lines=_lines(witness["lines"]) if "lines" in witness else None,
        wanted=wanted,
        time=_time(document["time"]) if "time" in document else None,
        table=table,
        production=tuple(_path(one, "production") for one in document.get("production", ())),
        scratch=_path(document["scratch"], "scratch") if "scratch" in document else None,
        **plain,
    )


def rows(sources: object, where: str) -> tuple[SourceSpec, ...]:
    """Read the sources of a table of backups; raises InputError."""
    # The rest of that table is of no use to a drill.
    whole = {"format": 1, "repositories": {"none": {"url": "/none"}}, "sources": sources}
    return config.parse(whole, where).sources


def _lines(found: Sequence[Mapping[str, Any]]) -> tuple[Line, ...]:
    lines = []
    for number, one in enumerate(found):
        try:
            lines.append(trail.parse(files.canonical(one)))
        except InputError as error:
            refuse(WHERE, f"witness.lines[{number}]", error.message)
    return tuple(lines)


def _time(text: str) -> datetime:
    try:
        return boot.moment(text)
    except ValueError:
        raise InputError(f"{WHERE}: time: there is no such time as {text}", key="time") from None


def _path(text: str, key: str) -> Path:
    if str(PurePosixPath(text)) != text or ".." in PurePosixPath(text).parts or text == "/":
        refuse(WHERE, key, "must be an absolute path without . and .., and not / itself")
    return Path(text)
