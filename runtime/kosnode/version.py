"""Versions by Semantic Versioning 2.0.0 (https://semver.org), and ranges of them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, total_ordering

from .errors import InputError

MAX_LENGTH = 64
_NUMBER = r"(?:0|[1-9][0-9]*)"
_WORD = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_WORD}(?:\.{_WORD})*))?", re.ASCII)
_COMPARATOR = re.compile(r"(>=|<=|>|<|=)?(.+)")
_COMPARE: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
# Numbers come before words, and a release after all of its pre-releases.
Key = tuple[int, int, int, int, tuple[tuple[int, int, str], ...]]


@total_ordering
@dataclass(frozen=True)
class Version:
    """A version without a build part, ordered by the precedence of section 11 of the specification.

    Args:
        text: as written, such as `1.4.0-rc.1`.

    Raises:
        InputError: not a version.
    """

    text: str

    def __post_init__(self) -> None:
        _ = self.key

    def __str__(self) -> str:
        return self.text

    def __lt__(self, other: Version) -> bool:
        return self.key < other.key

    @cached_property
    def key(self) -> Key:
        """The version as a tuple that sorts by precedence."""
        match = _VERSION.fullmatch(self.text) if len(self.text) <= MAX_LENGTH else None
        if match is None:
            shown = self.text if len(self.text) <= MAX_LENGTH else self.text[:MAX_LENGTH] + "…"
            raise InputError(f"{shown!r} is not a version such as 1.4.0 or 1.4.0-rc.1, without a build part")
        words = match[4].split(".") if match[4] else []
        before = tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in words)
        return int(match[1]), int(match[2]), int(match[3]), 0 if words else 1, before


@dataclass(frozen=True)
class Range:
    """Comparators that must all hold, separated by spaces: `>=1.0.0 <2.0.0`; a bare version means itself.

    Only precedence counts: `<2.0.0` holds for `2.0.0-rc.1`.

    Args:
        text: as written.

    Raises:
        InputError: not a range.
    """

    text: str

    def __post_init__(self) -> None:
        _ = self._comparators

    def __contains__(self, version: Version) -> bool:
        return all(compare(version, bound) for compare, bound in self._comparators)

    @cached_property
    def _comparators(self) -> tuple[tuple[Callable[[Version, Version], bool], Version], ...]:
        matches = [_COMPARATOR.fullmatch(word) for word in self.text.split(" ")]
        found = [(_COMPARE[match[1] or "="], Version(match[2])) for match in matches if match]
        if not found or len(found) != len(matches):
            raise InputError(
                f"{self.text[:MAX_LENGTH]!r} is not a range of versions such as '>=1.0.0 <2.0.0'"
            )
        return tuple(found)


def key(text: str) -> Key:
    """Return a version as a tuple that sorts by precedence.

    Raises:
        InputError: not a version.
    """
    return Version(text).key


def matches(text: str, wanted: str) -> bool:
    """Tell whether a version is in a range.

    Raises:
        InputError: one of the two is not what it should be.
    """
    return Version(text) in Range(wanted)
