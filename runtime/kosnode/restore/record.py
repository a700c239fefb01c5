"""What a restore is at, on disk: so that one that was killed is finished, undone or gone on with later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import files, state
from ..backup import manifest
from ..errors import DamagedError, InputError, NotFoundError

# The way of a restore; FAILED is where a verification found something, and nothing was touched.
STATES = "FETCHING FETCHED VERIFIED SWAPPING SWAPPED UNDOING UNDONE CONFIRMED FAILED".split()
OPEN = ("FETCHING", "FETCHED", "VERIFIED")
ENDED = ("UNDONE", "CONFIRMED", "FAILED")


@dataclass(frozen=True)
class Step:
    """One exchange of a swap.

    Args:
        live: path that changes.
        restored: what takes its place; None where the old only goes away.
        before: where the old is kept.
    """

    live: Path
    restored: Path | None
    before: Path


@dataclass(frozen=True)
class Record:
    """One restore.

    Args:
        request: what was asked for; the same again goes on with it.
        folders: directories that the restore made beside live data and takes away again.
        steps: of the swap, in order.
        services: units that were stopped for it and are started afterwards.
        heads: of the snapshot.
        detail: figures for the answer.
    """

    id: str
    state: str
    source: str
    run: str
    snapshot: str
    repository: str
    request: Mapping[str, Any]
    folders: Sequence[Path] = ()
    steps: Sequence[Step] = ()
    services: Sequence[str] = ()
    heads: Mapping[str, Any] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


class Records:
    """The restores of a node; the caller holds the lock of the backups.

    Args:
        path: folder with one file for each.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, record: Record, **changes: Any) -> Record:
        """Write a record with changes, durably, and return it."""
        record = replace(record, **changes)
        folder = self._path / record.id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_durable(folder / "state.json", files.canonical(_as_json(record)), mode=0o600)
        return record

    def load(self, id_: str) -> Record:
        """Read a record; raises NotFoundError, or DamagedError."""
        if not id_ or "/" in id_ or id_.startswith("."):
            raise InputError("id: must be that of a restore", key="id")
        path = self._path / id_ / "state.json"
        try:
            return _parse(files.read_json(path))
        except FileNotFoundError:
            raise NotFoundError(f"there is no restore {id_}", key="id") from None
        except (InputError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{path} cannot be read: {error}") from None

    def all(self) -> list[Record]:
        """Return all restores, oldest first."""
        if not self._path.is_dir():
            return []
        names = sorted(one.name for one in self._path.iterdir() if (one / "state.json").is_file())
        return [self.load(name) for name in names]

    def forget(self, record: Record) -> None:
        """Remove a record."""
        state.remove_tree(self._path / record.id)


def _as_json(record: Record) -> dict[str, Any]:
    return {
        "format": 1,
        **asdict(record),
        "request": dict(record.request),
        "folders": [_text(one) for one in record.folders],
        "steps": [
            {
                "live": _text(one.live),
                "restored": None if one.restored is None else _text(one.restored),
                "before": _text(one.before),
            }
            for one in record.steps
        ],
        "services": list(record.services),
        "heads": dict(record.heads),
        "detail": dict(record.detail),
    }


def _parse(value: Any) -> Record:
    if value["format"] != 1 or value["state"] not in STATES:
        raise InputError("it is no record of a restore")
    return Record(
        id=str(value["id"]),
        state=str(value["state"]),
        source=str(value["source"]),
        run=str(value["run"]),
        snapshot=str(value["snapshot"]),
        repository=str(value["repository"]),
        request=dict(value["request"]),
        folders=[_path(one) for one in value["folders"]],
        steps=[
            Step(
                _path(one["live"]),
                None if one["restored"] is None else _path(one["restored"]),
                _path(one["before"]),
            )
            for one in value["steps"]
        ],
        services=list(value["services"]),
        heads=dict(value["heads"]),
        detail=dict(value["detail"]),
    )


def _text(path: Path) -> str:
    return manifest.encode(bytes(path))


def _path(text: str) -> Path:
    return Path(manifest.decode(text).decode("utf-8", "surrogateescape"))
