"""Opens the repositories of a node: makes them, gives them a recovery key, and remembers which they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InputError, NotFoundError, RefusedError
from .config import BackupConfig, Repository
from .restic import Restic
from .runs import Runs

RECOVERY = "recovery"
_SHORTEST = 12


def open_all(
    config: BackupConfig,
    runs: Runs,
    witnessed: set[str],
    recovery: str | None,
    restic: Callable[[Repository], Restic],
) -> list[dict[str, Any]]:
    """Make each repository unless it is there, and remember its id.

    Args:
        witnessed: ids of the repositories that the witness knows of this node; none where it knows no line.
        recovery: password of the recovery key; None where no repository lacks one.
        restic: opens a repository.

    Returns:
        `{"name","id","made"}` of each.

    Raises:
        InputError: a repository needs a recovery key and none was given.
        RefusedError: what is at the address is not what this node knew, or the witness knows others only.
    """
    if recovery is not None and len(recovery) < _SHORTEST:
        raise InputError(f"the recovery key must have {_SHORTEST} or more characters", key="recovery key")
    known = runs.repositories()
    opened = []
    for repository in config.repositories:
        store = restic(repository)
        found, made = _open(store, repository, known.get(repository.name), witnessed, recovery)
        key, users = store.keys()
        if RECOVERY not in users:
            store.add_key(_needed(recovery, repository), RECOVERY)
            made = True
        opened.append({"name": repository.name, "id": found, "made": made})
        known[repository.name] = {"id": found, "url": repository.url, "key": key}
        # After each, so that what was made is known where the next one fails.
        runs.remember(known)
    return opened


def _open(
    store: Restic,
    repository: Repository,
    before: Mapping[str, str] | None,
    witnessed: set[str],
    recovery: str | None,
) -> tuple[str, bool]:
    name = repository.name
    try:
        found = store.identity()
    except NotFoundError:
        _needed(recovery, repository)
        if before is not None and before["url"] == repository.url:
            raise RefusedError(
                f"repository {name} is gone from its address; where that is meant, give it another name",
                key=f"repositories.{name}",
            ) from None
        return store.init(), True
    if before is not None and before["url"] == repository.url and before["id"] != found:
        raise RefusedError(
            f"repository {name} is another one than this node knows: its id is {found[:12]}, "
            f"not {before['id'][:12]}",
            key=f"repositories.{name}",
        )
    if before is None and witnessed and found not in witnessed:
        raise RefusedError(
            f"repository {name} was never written to by this node: the witness does not know {found[:12]}",
            key=f"repositories.{name}",
        )
    return found, False


def _needed(recovery: str | None, repository: Repository) -> str:
    if recovery is None:
        raise InputError(
            f"repository {repository.name} has no recovery key; give one on standard input",
            key="recovery key",
        )
    return recovery
