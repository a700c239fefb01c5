"""The table that backup, restore, drill, docs and metrics read: /etc/kos/backup.json, checked and typed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from .. import files, schema
from ..errors import InputError, NotFoundError
from ..schema import refuse
from .places import Places

MAX_BYTES = 1024 * 1024
CLASSES = ("critical", "high", "medium", "low", "skip")
METHODS = ("node", "tree", "sqlite", "postgres", "kairoschain")
# What each method needs to know of its source, and what says nothing to it.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "node": (),
    "tree": ("path",),
    "sqlite": ("path",),
    "postgres": ("cluster",),
    "kairoschain": ("path",),
}
_WHERE = ("path", "cluster")
_EXCLUDES = ("tree", "kairoschain")
_ENV_LINE = re.compile(r"([A-Z][A-Z0-9_]{0,63})=(.*)")
# Set by the engine, or a way to run a command.
_ENV_REFUSED = re.compile(
    r"RESTIC_(REPOSITORY|PASSWORD|FROM_|CACHE|KEY_HINT|PROGRESS).*|PATH|LD_.*|HOME|TMPDIR|GODEBUG"
)


@dataclass(frozen=True)
class Repository:
    """Where snapshots go.

    Args:
        url: as restic writes it; never with a password in it.
        append_only: its server takes no removal: retention runs on another host.
        ca: certificates that its server's is checked against.
    """

    name: str
    url: str
    append_only: bool = False
    ca: Path | None = None


@dataclass(frozen=True)
class SourceSpec:
    """One source.

    Args:
        rank: its class, one of CLASSES; `skip` is written down and not backed up.
        path: of trees, databases in a file and ledgers, absolute.
        cluster: `VERSION/NAME` of PostgreSQL.
        exclude: patterns (`patterns.py`).
        service: systemd unit that may not run while its data is swapped.
        owner: account that its programs and its verifier run as.
        verifier: command that is run on restored data, with its path as the last argument.
        before, after: commands; one that fails is a failure of the source.
        interval_s: seconds between two runs, at most.
    """

    name: str
    rank: str
    method: str
    path: Path | None = None
    cluster: str | None = None
    exclude: tuple[str, ...] = ()
    service: str | None = None
    owner: str | None = None
    verifier: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    interval_s: int = 86_400


@dataclass(frozen=True)
class Retention:
    """Which snapshots stay: all of the last `within` (restic's durations), and `minimum` of each source."""

    within: str = "30d"
    minimum: int = 7


@dataclass(frozen=True)
class BackupConfig:
    """The whole table; what the numbers mean stands in backup.schema.json."""

    repositories: tuple[Repository, ...]
    sources: tuple[SourceSpec, ...]
    witness: str | None = None
    interval_s: int = 86_400
    backend_timeout_s: int = 600
    reserve_bytes: int = 64 * 1024 * 1024
    retention: Retention = Retention()
    drill_interval_s: int = 7_776_000

    def repository(self, name: str) -> Repository:
        """Return a repository by name; raises NotFoundError."""
        found = next((one for one in self.repositories if one.name == name), None)
        if found is None:
            known = ", ".join(one.name for one in self.repositories)
            raise NotFoundError(f"no repository is called {name}; there are {known}", key="repository")
        return found

    def source(self, name: str) -> SourceSpec:
        """Return a source by name; raises NotFoundError."""
        found = next((one for one in self.sources if one.name == name), None)
        if found is None:
            known = ", ".join(one.name for one in self.sources) or "none"
            raise NotFoundError(f"no source is called {name}; there are {known}", key="source")
        return found

    def chosen(self, names: Sequence[str]) -> list[SourceSpec]:
        """Return the sources that are backed up, or those of them that are named.

        Raises:
            NotFoundError: no such source.
            InputError: a source of class `skip` is named, or there is nothing to back up.
        """
        picked = [self.source(name) for name in dict.fromkeys(names)] if names else list(self.sources)
        for spec in picked:
            if names and spec.rank == "skip":
                raise InputError(f"source {spec.name} is of class skip: it is not backed up", key="source")
        picked = [spec for spec in picked if spec.rank != "skip"]
        if not picked:
            raise InputError("there is no source to back up", key="sources")
        return picked


def load(places: Places) -> BackupConfig:
    """Read the table of a node.

    Raises:
        InputError: names file, key and rule: no such file, an unknown key, a value that breaks a rule.
    """
    try:
        document = files.read_json(places.config, limit=MAX_BYTES)
    except FileNotFoundError:
        raise InputError(f"{places.config}: is missing; the role backup writes it") from None
    return parse(document, str(places.config))


def parse(document: object, where: str) -> BackupConfig:
    """Check and type a table.

    Args:
        document: what was read.
        where: how it is called in messages.

    Raises:
        InputError: names the key and the rule.
    """
    schema.check(document, "backup", where=where)
    assert isinstance(document, dict), "the schema asks for a mapping"
    repositories = tuple(
        _repository(name, one, where, f"repositories.{name}")
        for name, one in document["repositories"].items()
    )
    sources = tuple(
        _source(name, one, document, where, f"sources.{name}") for name, one in document["sources"].items()
    )
    _refuse_nesting(sources, where)
    witness = document.get("witness", {}).get("url")
    if witness is not None:
        _refuse_password(witness, where, "witness.url")
    numbers = {
        key: document[key] for key in ("interval_s", "backend_timeout_s", "reserve_bytes") if key in document
    }
    drill = {"drill_interval_s": document["drill"]["interval_s"]} if "drill" in document else {}
    return BackupConfig(
        repositories,
        sources,
        witness=witness,
        retention=Retention(**document.get("retention", {})),
        **numbers,
        **drill,
    )


def read_password_file(places: Places, repository: str) -> Path:
    """Return the file with the password of a repository.

    Raises:
        InputError: it is missing, empty, or somebody besides root may read it.
    """
    path = places.password(repository)
    if not _read_secret(path, f"repository {repository} has no password").strip():
        raise InputError(f"{path}: is empty; it must hold the password of {repository}", key=repository)
    return path


def read_environment(places: Places, repository: str) -> dict[str, str]:
    """Return what a backend wants in its environment; nothing where there is no such file.

    Raises:
        InputError: names file and line, never a value.
    """
    path = places.environment(repository)
    if not path.exists():
        return {}
    values: dict[str, str] = {}
    for number, line in enumerate(_read_secret(path, "").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _ENV_LINE.fullmatch(line)
        if found is None:
            raise InputError(f"{path}: line {number} must be NAME=VALUE", key=repository)
        if not is_for_backends(found[1]):
            raise InputError(f"{path}: line {number}: {found[1]} is not for a backend to set", key=repository)
        values[found[1]] = found[2]
    return values


def is_for_backends(name: str) -> bool:
    """Say whether a name may stand in the environment that a backend is given."""
    return _ENV_REFUSED.fullmatch(name) is None


def _read_secret(path: Path, without: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing: {without}", key=path.stem) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", key=path.stem) from None
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise InputError(f"{path}: must be a file of root alone, mode 0600", key=path.stem)
        try:
            return stream.read(MAX_BYTES).decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: is not UTF-8", key=path.stem) from None


def _repository(name: str, one: Mapping[str, Any], where: str, key: str) -> Repository:
    _refuse_password(one["url"].partition(":")[2] if "://" in one["url"] else "", where, f"{key}.url")
    return Repository(
        name, one["url"], bool(one.get("append_only", False)), Path(one["ca"]) if "ca" in one else None
    )


def _refuse_password(address: str, where: str, key: str) -> None:
    if urlsplit(address).password is not None:
        refuse(where, key, "holds a password; secrets belong into /etc/kos/backup.secrets")


def _source(
    name: str, one: Mapping[str, Any], document: Mapping[str, Any], where: str, key: str
) -> SourceSpec:
    method = one["method"]
    for needed in _NEEDS[method]:
        if needed not in one:
            refuse(where, f"{key}.{needed}", f"is missing; method {method} needs it")
    for given in _WHERE:
        if given in one and given not in _NEEDS[method]:
            refuse(where, f"{key}.{given}", f"says nothing to method {method}")
    if one.get("exclude") and method not in _EXCLUDES:
        refuse(where, f"{key}.exclude", f"method {method} is whole or nothing")
    path = one.get("path")
    if path is not None and (
        str(PurePosixPath(path)) != path or ".." in PurePosixPath(path).parts or path == "/"
    ):
        refuse(where, f"{key}.path", "must be an absolute path without . and .., and not / itself")
    return SourceSpec(
        name,
        one["class"],
        method,
        path=None if path is None else Path(path),
        cluster=one.get("cluster"),
        exclude=tuple(one.get("exclude", ())),
        service=one.get("service"),
        owner=one.get("owner"),
        verifier=tuple(one.get("verifier", ())),
        before=tuple(tuple(argv) for argv in one.get("before", ())),
        after=tuple(tuple(argv) for argv in one.get("after", ())),
        interval_s=one.get("interval_s", document.get("interval_s", 86_400)),
    )


def _refuse_nesting(sources: Sequence[SourceSpec], where: str) -> None:
    """Refuse a path twice: a restore of one source would move the other's data away."""
    kept = [(spec.name, spec.path) for spec in sources if spec.path is not None and spec.rank != "skip"]
    for name, path in kept:
        for other, above in kept:
            if name != other and (path == above or above in path.parents):
                refuse(where, f"sources.{name}.path", f"lies within the path of source {other}")
