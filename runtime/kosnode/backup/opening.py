"""Opens the repositories of a node: makes them, gives them a recovery key, and remembers which they are.

A machine that has the recovery key alone is let into the repositories of the node whose place it takes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, NotFoundError, RefusedError, TrustError
from .config import BackupConfig, Repository
from .restic import Restic
from .runs import Runs

RECOVERY = "recovery"
_NODE = "node"
_SHORTEST = 12
# A repository, opened with the node's own password, or with the one in a file.
Opener = Callable[[Repository, "Path | None"], Restic]


def open_all(
    config: BackupConfig,
    runs: Runs,
    witnessed: set[str],
    recovery: str | None,
    restic: Opener,
) -> list[dict[str, Any]]:
    """Make each repository unless it is there, and remember its id.

    Args:
        witnessed: ids of the repositories that the witness knows of this node; none where it knows no line.
        recovery: password of the recovery key; None where no repository lacks one.
        restic: opens a repository.

    Returns:
        `{"name","id","made"}` of each; `made` also where only the key of the node was.

    Raises:
        TrustError: neither the node's password nor the recovery key opens a repository.
        InputError: a repository needs a recovery key and none was given.
        RefusedError: what is at the address is not what this node knew, or the witness knows others only.
    """
    if recovery is not None and len(recovery) < _SHORTEST:
        raise InputError(f"the recovery key must have {_SHORTEST} or more characters", key="recovery key")
    known = runs.repositories()
    opened = []
    for repository in config.repositories:
        store = restic(repository, None)
        before = known.get(repository.name)
        try:
            found, made = _open(store, repository, before, witnessed, recovery)
        except TrustError:
            if recovery is None:
                raise
            with in_memory(recovery) as held:
                rescue = restic(repository, held)
                found, made = _rescued(rescue, repository, before, witnessed, recovery), True
                rescue.add_key(store.password(), _NODE)
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


@contextlib.contextmanager
def in_memory(text: str) -> Iterator[Path]:
    """Have a secret as a file that is on no disk, and that processes of root can open by its path."""
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode("utf-8"))
        # In a PID namespace /proc has another number for this process than getpid(2).
        process = os.readlink("/proc/self")  # noqa: PTH115  # the text of the link, and no path
        yield Path(f"/proc/{process}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _rescued(
    store: Restic,
    repository: Repository,
    before: Mapping[str, str] | None,
    witnessed: set[str],
    recovery: str,
) -> str:
    """Return the id of a repository that opens with the recovery key alone."""
    try:
        return _open(store, repository, before, witnessed, recovery)[0]
    except TrustError:
        name = repository.name
        raise TrustError(
            f"neither the node's password nor the recovery key opens repository {name}", key=name
        ) from None


def _needed(recovery: str | None, repository: Repository) -> str:
    if recovery is None:
        raise InputError(
            f"repository {repository.name} has no recovery key; give one on standard input",
            key="recovery key",
        )
    return recovery
