"""The releases that were unhealthy on this node, by root, so that none of them comes back by itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import files
from .errors import DamagedError, InputError, RefusedError

KEEP = 256


@dataclass(frozen=True)
class Refusal:
    """One refused release: why, and in which trial it was seen."""

    root: str
    name: str
    version: str
    reason: str
    time: str
    trial: str


class Refusals:
    """The list on disk. The caller holds the node's lock while it changes it.

    Args:
        path: of the list.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[Refusal]:
        """Return the refused releases, newest last.

        Raises:
            DamagedError: the list cannot be read; nothing may be installed past it unseen.
        """
        try:
            value: Any = files.read_json(self._path, limit=1 << 20)
            return [Refusal(**one) for one in value["refused"]]
        except FileNotFoundError:
            return []
        except (InputError, TypeError, KeyError) as error:
            raise DamagedError(f"{self._path} cannot be read: {error}") from None

    def find(self, root: str) -> Refusal | None:
        """Return the refusal of a release, if there is one."""
        return next((one for one in self.all() if one.root == root), None)

    def check(self, root: str) -> None:
        """Raise RefusedError for a release that is refused."""
        refusal = self.find(root)
        if refusal is not None:
            raise RefusedError(
                f"release {refusal.name} {refusal.version} is refused since {refusal.time}: "
                f"{refusal.reason}; `kosctl refusals --clear {root[:12]}` allows it again",
                key="release",
                detail={"root": root, "trial": refusal.trial},
            )

    def add(self, refusal: Refusal) -> None:
        """Put a release on the list; its older refusal gives way."""
        rest = [one for one in self.all() if one.root != refusal.root]
        self._write([*rest, refusal][-KEEP:])

    def clear(self, root: str) -> bool:
        """Take a release off the list, named by 12 or more digits of its root; says whether it was on it."""
        if len(root) < 12 or not set(root) <= set("0123456789abcdef"):
            raise InputError("a refused release is named by its root, 12 to 64 hex digits", key="clear")
        before = self.all()
        rest = [one for one in before if not one.root.startswith(root)]
        if len(before) - len(rest) > 1:
            raise InputError(f"{root} names several refused releases", key="clear")
        if len(rest) == len(before):
            return False
        self._write(rest)
        return True

    def _write(self, refusals: list[Refusal]) -> None:
        value = {"format": 1, "refused": [asdict(one) for one in refusals]}
        files.write_durable(self._path, files.canonical(value))
