"""Looks after repositories: checks their data in turn, removes what is old, takes away stale locks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import boot, files
from ..errors import InputError, RefusedError
from . import retention
from .config import Repository
from .context import Context, progress
from .source import Finding

# So many checks read all data once.
TURNS = 12


@dataclass(frozen=True)
class Turn:
    """The `number`th of `total` parts of the data."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Turn:
        """Read N/T; raises InputError."""
        number, slash, total = text.partition("/")
        if (
            not (slash and number.isdecimal() and total.isdecimal())
            or not 1 <= int(number) <= int(total) <= 256
        ):
            raise InputError("data: must be N/T with 1 <= N <= T <= 256, such as 1/12", key="data")
        return cls(int(number), int(total))

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


def check(context: Context, turn: Turn | None) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Check every repository.

    Args:
        turn: which part of the data is read; None reads the next part in turn.

    Returns:
        `{"name","ok","read"}` of each, and what is damaged.

    Raises:
        KosError: a repository could not be checked.
    """
    memory = _Turns(context.places.var / "checks.json")
    rows, findings = [], []
    for repository in context.config.repositories:
        this = turn or memory.next(repository.name)
        found = context.restic(repository).check((this.number, this.total))
        findings += [Finding("damaged", f"{repository.name}: {line}") for line in found]
        rows.append({"name": repository.name, "ok": not found, "read": str(this)})
        if turn is None:
            memory.done(repository.name, this)
    return rows, findings


def forget(context: Context, *, dry_run: bool) -> dict[str, list[dict[str, str]]]:
    """Remove the snapshots that the retention does not keep, and the data that nothing needs then.

    Returns:
        `removed` and `kept`, each `{"repository","id","run","source","time"}`.

    Raises:
        RefusedError: a repository is append-only, or kept what was to be removed.
        KosError: what was removed until then is removed.
    """
    answer: dict[str, list[dict[str, str]]] = {"removed": [], "kept": []}
    refused = [one for one in context.config.repositories if one.append_only and not dry_run]
    if len(refused) == len(context.config.repositories):
        raise RefusedError(
            f"repository {refused[0].name} is append-only; prune it from a host with credentials of its own",
            key=f"repositories.{refused[0].name}.append_only",
        )
    for repository in context.config.repositories:
        if repository in refused:
            progress(
                f"repository {repository.name} is append-only; prune it from a host with its own credentials"
            )
            continue
        store = context.restic(repository)
        verdict = retention.judge(store.snapshots(), context.config.retention, context.clock.now())
        left: Sequence[str] = ()
        if verdict.remove and not dry_run:
            left = store.forget([one.id for one in verdict.remove])
        for one in (*verdict.remove, *verdict.keep):
            row = {
                "repository": repository.name,
                "id": one.id,
                "run": one.tag("run") or "",
                "source": one.tag("source") or "",
                "time": boot.text(one.time),
            }
            gone = one in verdict.remove and one.id not in left
            answer["removed" if gone else "kept"].append(row)
        if left:
            raise RefusedError(
                f"repository {repository.name} is append-only: it kept {len(left)} snapshots that were to go",
                key=f"repositories.{repository.name}",
                detail=dict(answer),
            )
        if verdict.remove and not dry_run:
            store.prune()
    return answer


def unlock(context: Context) -> dict[str, list[dict[str, Any]]]:
    """Take stale locks away: those of dead processes of this host, and those not renewed for 30 minutes.

    Returns:
        `unlocked` and `left`, each `{"repository","id","time","host","pid"}`.
    """
    answer: dict[str, list[dict[str, Any]]] = {"unlocked": [], "left": []}
    for repository in context.config.repositories:
        store = context.restic(repository)
        before = store.locks()
        if before:
            store.unlock()
        after = {one["id"] for one in store.locks()} if before else set()
        for one in before:
            answer["left" if one["id"] in after else "unlocked"].append(_lock(repository, one))
    return answer


def _lock(repository: Repository, one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "repository": repository.name,
        "id": str(one["id"]),
        "time": str(one.get("time", ""))[:19],
        "host": str(one.get("hostname", "")),
        "pid": int(one.get("pid", 0)),
    }


class _Turns:
    """Remembers which part of the data of each repository is read next."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def next(self, name: str) -> Turn:
        last = self._read().get(name, 0)
        return Turn(last % TURNS + 1, TURNS)

    def done(self, name: str, turn: Turn) -> None:
        files.write_durable(self._path, files.canonical({**self._read(), name: turn.number}), mode=0o600)

    def _read(self) -> dict[str, int]:
        try:
            value = files.read_json(self._path)
        except (FileNotFoundError, InputError):
            return {}
        return (
            {key: one for key, one in value.items() if isinstance(one, int)}
            if isinstance(value, dict)
            else {}
        )
