"""The quick way to see that a block is sound: make the text that the gem would have written, and compare.

Nothing is parsed for it, which is what makes a verification fast. It knows the common case alone, strings in
which nothing but quotes is escaped; of any other block it says nothing, and block.py judges.
"""

from __future__ import annotations

import re
from hashlib import sha256

from .block import merkle_fold

_HEAD = b'    "index": %d,\n    "timestamp": "'
_DATA = b'",\n    "data": [\n      "'
_BETWEEN = b'",\n      "'
_TAIL = b'"\n    ],\n    "previous_hash": "%b",\n    "merkle_root": "%b",\n    "hash": "%b"'
_TAIL_BYTES = len(_TAIL % ((b"0" * 64,) * 3))
_TIMESTAMP_BYTES = 27
# Days that every month has; block.py knows the others.
_TIMESTAMP = re.compile(
    rb"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    rb"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
)
# What a JSON string cannot hold as it is.
_SPECIAL = bytes(range(32)) + b'"\\'


def written(text: bytes, number: int, previous: bytes) -> bytes | None:
    """Return the hash of a block if it is, byte for byte, as the gem writes a sound one.

    Args:
        text: the block in the pretty form, without its braces and what stands between them and their lines.
        number: the index that it has to have, 1 or more.
        previous: hash of the block before, hexadecimal.

    Returns:
        The hash, hexadecimal; None where the block is another, or not of the common case.
    """
    head = _HEAD % number
    at = len(head) + _TIMESTAMP_BYTES
    timestamp = text[len(head) : at]
    raw = text[at + len(_DATA) : -_TAIL_BYTES]
    items = raw.split(_BETWEEN)
    level = []
    for item in items:
        parts = item.split(b'\\"')
        if len(item) - len(item.translate(None, _SPECIAL)) != 2 * len(parts) - 2:
            return None
        level.append(sha256(b'"'.join(parts)).hexdigest())
    if not (raw.isascii() or _is_utf8(raw)) or not _TIMESTAMP.fullmatch(timestamp):
        return None
    root = merkle_fold(level).encode()
    hashed = raw.replace(_BETWEEN, b'","') if len(items) > 1 else raw
    digest = sha256(b'%d%b%b%b["%b"]' % (number, timestamp, previous, root, hashed)).hexdigest().encode()
    made = b"%b%b%b%b%b" % (head, timestamp, _DATA, raw, _TAIL % (previous, root, digest))
    return digest if made == text else None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
