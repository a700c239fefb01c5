"""What was done: one line for each source of a run, and for each restore that was confirmed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import files
from ..errors import InputError
from ..journal import JsonLines
from .config import Repository
from .places import Places


class Runs:
    """The memory of the backups of a node; the caller holds their lock while it appends.

    A line of a run: `{"kind":"run","time","run","source","ok","errors","snapshots":[{"repository","id",
    "repository_id"}],"manifest","tree","heads",…}`. A line of a restore: `{"kind":"restore","time","id",
    "run","source","heads"}`; one that was undone: `{"kind":"undo","time","id","source"}`.

    Args:
        places: of the node.
    """

    def __init__(self, places: Places) -> None:
        self._lines = JsonLines(places.runs, mode=0o600)
        self._known = places.known

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write a line, durably."""
        self._lines.append(entry)

    def all(self) -> list[dict[str, Any]]:
        """Return every line that can be read, oldest first."""
        return list(self._lines.entries())

    def newest(self, source: str, repository_id: str | None = None) -> dict[str, Any] | None:
        """Return the newest line of a source that has a snapshot (in that repository)."""
        for entry in reversed(self.all()):
            if entry.get("kind") == "run" and entry.get("source") == source:
                found = [
                    one
                    for one in entry.get("snapshots", ())
                    if repository_id is None or one.get("repository_id") == repository_id
                ]
                if found:
                    return dict(entry)
        return None

    def last_restore(self, source: str) -> dict[str, Any] | None:
        """Return the newest line of a restore of a source, unless that was undone."""
        found: dict[str, Any] | None = None
        for entry in self.all():
            if entry.get("source") == source and entry.get("kind") == "restore":
                found = entry
            elif entry.get("kind") == "undo" and found is not None and entry.get("id") == found["id"]:
                found = None
        return found

    def repositories(self) -> dict[str, dict[str, str]]:
        """Return `{NAME: {"id","url","key"}}` of the repositories that `backup init` opened."""
        try:
            value = files.read_json(self._known)
        except FileNotFoundError:
            return {}
        if not isinstance(value, dict):
            raise InputError(f"{self._known}: must be a mapping")
        return value

    def key(self, repository: Repository) -> str | None:
        """Return the id of the key that this node has to a repository, where it is known."""
        entry = self.repositories().get(repository.name)
        return None if entry is None or entry["url"] != repository.url else entry.get("key")

    def remember(self, repositories: Mapping[str, Mapping[str, str]]) -> None:
        """Write down the repositories that are known."""
        self._known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_durable(
            self._known, files.canonical({k: dict(v) for k, v in repositories.items()}), mode=0o600
        )
