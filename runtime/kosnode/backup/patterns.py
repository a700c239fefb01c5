"""Which paths a source leaves out: one meaning for the manifest and for restic.

A pattern that begins with `/` is matched from the root, another one anywhere below the root of a source.
`*` and `?` stay within a name, `**` stands for any number of names, also for none. What matches is left out
with all that is below it. That is the part of restic's patterns that says the same in both places.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def anchored(patterns: Sequence[str], roots: Sequence[Path]) -> list[str]:
    """Return patterns that match within the roots alone, with literal parts escaped as restic wants it."""
    found: list[str] = []
    for pattern in patterns:
        if pattern.startswith("/"):
            found.append(pattern.rstrip("/"))
        else:
            found += [f"{literal(str(root))}/**/{pattern.strip('/')}" for root in roots]
    return found


def for_restic(patterns: Iterable[str]) -> list[str]:
    """Return patterns that mean to restic what the anchored ones say.

    Of several `**` in one pattern restic takes one alone to stand for no name, so each way to leave some out
    becomes a pattern too.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        first, *rest = re.split(r"/\*\*(?:/\*\*)*(?=/|$)", pattern)
        for joints in itertools.product(("/**", ""), repeat=len(rest)):
            if joints.count("/**") or not rest:
                found[first + "".join(map("".join, zip(joints, rest, strict=True)))] = None
    return list(found)


def literal(path: str) -> str:
    """Return a pattern that matches this path alone."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", path)


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return what says whether an absolute path is matched by one of the anchored patterns."""
    if not patterns:
        return lambda path: False
    compiled = re.compile("|".join(_regex(pattern) for pattern in patterns), re.S)
    return lambda path: compiled.fullmatch(path) is not None


def _regex(pattern: str) -> str:
    parts = []
    for name in pattern.strip("/").split("/"):
        parts.append("(?:/[^/]+)*" if name == "**" else "/" + _name(name))
    return "".join(parts)


def _name(name: str) -> str:
    words = re.findall(r"\\.|.", name, re.S)
    known = {"*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(word, re.escape(word[-1])) for word in words)
