"""Cuts a ledger into its blocks without holding more than one of them: by lines where it can, else by tokens.

A ledger is a JSON array. The gem writes it in one pretty form; there a cut at the lines between two blocks is
sound, since no JSON string holds a raw newline and each piece has to be one whole JSON value. Any other form
is cut by a tokenizer that knows strings and brackets and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from .block import Block, read, unread

CHUNK_BYTES = 1 << 20
# One block is held in memory. Those of real chains have a few kilobytes.
MAX_BLOCK_BYTES = 16 << 20
# No text of a block is like these.
TOO_LARGE = b"a block over %d MiB" % (MAX_BLOCK_BYTES >> 20)
TORN = b"torn"

OPENING = b"[\n  {\n"
_BETWEEN = b"\n  },\n  {\n"
_CLOSING = b"\n  }\n]"
_SPACE = b" \t\n\r"
# A string that the end of the buffer cuts off matches without its last quote.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("?)|[][{},]', re.DOTALL)


def pretty(stream: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of the pretty form as text, each with the offset of the line that ends the one before.

    Args:
        stream: the ledger, which begins with `OPENING`.
        start: offset in bytes; blocks before it are left out. 0 leaves out none.

    Yields:
        Offset and text of a block, without its braces (`block_of` reads it); TORN or TOO_LARGE at the end of
        a ledger that cannot be read further.
    """
    stream.seek(start or len(OPENING))
    offset, end = start, stream.tell()
    pending, inside = b"", start == 0
    while chunk := stream.read(CHUNK_BYTES):
        *pieces, pending = (pending + chunk).split(_BETWEEN)
        for piece in pieces:
            if inside:
                yield offset, piece
            offset = end + len(piece)
            end = offset + len(_BETWEEN)
            inside = True
        if len(pending) > MAX_BLOCK_BYTES:
            yield offset, TOO_LARGE
            return
    if inside:
        whole = pending.rstrip(_SPACE)
        yield offset, whole[: -len(_CLOSING)] if whole.endswith(_CLOSING) else TORN


def block_of(text: bytes) -> Block:
    """Judge one block that `pretty` yielded."""
    return unread(text.decode()) if text in (TORN, TOO_LARGE) else read(b"{%b}" % text)


def any_form(stream: BinaryIO) -> Iterator[Block]:
    """Yield the elements of a JSON array in whatever form; where it is no whole array, the last one says so.

    Args:
        stream: the ledger.
    """
    stream.seek(0)
    buffer, start, position = b"", 0, 0
    depth = count = 0
    began = False
    while chunk := stream.read(CHUNK_BYTES):
        buffer, position, start = buffer[start:] + chunk, position - start, 0
        while token := _TOKEN.search(buffer, position):
            sign = token[0]
            if sign[:1] == b'"':
                if not token[1]:
                    break
                position = token.end()
                continue
            position = token.end()
            text = buffer[start : token.start()].strip(_SPACE) if depth < 2 else b""
            if depth == 0:
                if began or text or sign != b"[":
                    yield unread("text after its end" if began else "not an array")
                    return
                began, depth, start = True, 1, position
            elif sign in b"[{":
                depth += 1
            elif sign == b"," or depth == 1:
                if depth == 1:
                    if sign == b"}":
                        yield unread("not JSON")
                        return
                    if text or count or sign == b",":
                        yield read(text)
                        count += 1
                    start = position
                    depth -= sign == b"]"
            else:
                depth -= 1
        else:
            position = len(buffer)
        if len(buffer) - start > MAX_BLOCK_BYTES:
            yield unread(TOO_LARGE.decode())
            return
    rest = buffer[start:].strip(_SPACE)
    if depth:
        yield unread(TORN.decode())
    elif rest or not began:
        yield unread("text after its end" if began else "not an array" if rest else "empty file")
