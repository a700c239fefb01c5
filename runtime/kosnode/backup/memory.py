"""What a node itself remembers of its witness, and how it finds that the two disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import RefusedError
from ..journal import JsonLines
from . import trail
from .trail import Line
from .witness import Witness


class Trail:
    """The lines of the witness of one node, as far as they were seen and checked.

    Args:
        path: the node's copy.
        node: its name.
        publics: the keys that may have signed.
    """

    def __init__(self, path: Path, node: str, publics: Sequence[str]) -> None:
        self._copy = JsonLines(path, mode=0o600)
        self._node = node
        self._publics = publics
        self.lines = [trail.parse(raw) for raw in self._copy.lines()]

    @property
    def last(self) -> Line | None:
        return self.lines[-1] if self.lines else None

    def newest(self, source: str, repository: str | None = None) -> Line | None:
        """Return the newest line of a source (in the repository with this id)."""
        for line in reversed(self.lines):
            if line.value["source"] == source and repository in (None, line.value["repository"]):
                return line
        return None

    def repositories(self) -> set[str]:
        """Return the ids of the repositories that have been written to."""
        return {str(line.value["repository"]) for line in self.lines}

    def read(self, witness: Witness) -> None:
        """Read what the witness has beyond the copy, and check that it continues it.

        Raises:
            BackendError: the witness gives no answer.
            RefusedError: it contradicts the copy: a cut tail, another line in place of the last one.
            TrustError: a line is not signed with the node's key.
        """
        last = self.last
        found = witness.read(self._node, 0 if last is None else last.seq - 1)
        if last is not None:
            if not found:
                raise RefusedError(
                    f"the witness contradicts this node: its file ends before line {last.seq}, which it took",
                    key="witness",
                )
            if found[0].raw != last.raw:
                raise RefusedError(
                    f"the witness contradicts this node: its line {last.seq} is another one", key="witness"
                )
            found = found[1:]
        trail.follow(found, last, self._node)
        if found:
            # Each line holds the hash of the one before it, so that the last signature is for all of them.
            trail.check_signature(found[-1], self._publics)
        self._keep(found)

    def append(self, witness: Witness, line: Line) -> None:
        """Have the witness take a line, and remember it then."""
        witness.append(self._node, line)
        self._keep([line])

    def _keep(self, found: Iterable[Line]) -> None:
        for line in found:
            self._copy.append(line.value)
            self.lines.append(line)
