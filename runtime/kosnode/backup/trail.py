"""The witness's file: one signed line for each snapshot, each bound to the one before it.

Whoever holds a copy of the end can tell a cut tail, a rewritten line and a rolled back node, and needs to
trust neither the node nor the store for it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import boot, files
from ..errors import InputError, RefusedError, TrustError
from . import signing

FORMAT = 1
FIRST = "0" * 64
MAX_LINE = 16 * 1024
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_KEYS = {
    *(
        "format",
        "seq",
        "time",
        "node",
        "run",
        "source",
        "repository",
        "snapshot",
        "manifest",
        "tree",
        "heads",
    ),
    *("previous", "signature"),
}


@dataclass(frozen=True)
class Line:
    """One line, as it was read.

    Args:
        raw: canonical JSON without the line's end.
        value: the same as an object.
    """

    raw: bytes
    value: Mapping[str, Any]

    @property
    def seq(self) -> int:
        return int(self.value["seq"])

    @property
    def hash(self) -> str:
        """What the next line has as `previous`."""
        return hashlib.sha3_256(self.raw).hexdigest()


def check_node(name: str) -> str:
    """Return the name of a node, which is also that of a file; raises InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(
            "node: must be a host name of letters, digits, dots, hyphens and underscores", key="node"
        )
    return name


def make(what: Mapping[str, Any], last: Line | None, *, key: Any) -> Line:
    """Make and sign the line that follows.

    Args:
        what: `time`, `node`, `run`, `source`, `repository`, `snapshot`, `manifest`, `tree`, `heads`.
        last: the end of the witness's file; None where it is empty.
        key: path of the node's private key.
    """
    value = {
        "format": FORMAT,
        "seq": 1 if last is None else last.seq + 1,
        "previous": FIRST if last is None else last.hash,
        **what,
    }
    value["signature"] = signing.sign(key, files.canonical(value))
    return parse(files.canonical(value))


def parse(raw: bytes) -> Line:
    """Read one line.

    Raises:
        InputError: it is not one, in canonical form.
    """
    value = files.parse(raw, limit=MAX_LINE, what="a line of the witness")
    if not isinstance(value, dict) or set(value) != _KEYS or value["format"] != FORMAT:
        raise InputError("a line of the witness has not the keys that it must have")
    hashes = ("repository", "snapshot", "manifest", "tree", "previous")
    texts = ("time", "node", "run", "source", "signature", *hashes)
    if not all(isinstance(value[key], str) for key in texts) or not isinstance(value["heads"], dict):
        raise InputError("a line of the witness has a value of the wrong kind")
    for key in hashes:
        if not _HASH.fullmatch(value[key]):
            raise InputError(f"a line of the witness: {key} must be 64 hex digits", key=key)
    if isinstance(value["seq"], bool) or not isinstance(value["seq"], int) or value["seq"] < 1:
        raise InputError("a line of the witness: seq must be 1 or more", key="seq")
    try:
        boot.moment(value["time"])
    except ValueError:
        raise InputError("a line of the witness: time must be as 2026-01-31T12:00:00Z", key="time") from None
    if files.canonical(value) != raw:
        raise InputError("a line of the witness is not canonical JSON")
    return Line(raw, value)


def check_signature(line: Line, publics: Sequence[str]) -> None:
    """Check who signed a line; raises TrustError."""
    unsigned = {key: value for key, value in line.value.items() if key != "signature"}
    try:
        signing.verify(publics, files.canonical(unsigned), str(line.value["signature"]))
    except TrustError:
        raise TrustError(
            f"line {line.seq} of the witness is not signed with the key of node {line.value['node']}"
        ) from None


def follow(lines: Sequence[Line], last: Line | None, node: str) -> None:
    """Check that lines continue a chain.

    Args:
        lines: in order.
        last: what they have to follow; None where they are from the beginning.

    Raises:
        RefusedError: names the first line that does not fit.
    """
    for line in lines:
        seq, previous = (1, FIRST) if last is None else (last.seq + 1, last.hash)
        if line.seq != seq or line.value["previous"] != previous:
            raise RefusedError(
                f"the witness: line {line.seq} does not follow from line {seq - 1}: it was cut or rewritten",
                key="witness",
            )
        if line.value["node"] != node:
            raise RefusedError(f"the witness: line {line.seq} is of node {line.value['node']}", key="witness")
        last = line
