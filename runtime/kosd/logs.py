"""Structured logs: one JSON object a line on standard output, with the ids that join them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TextIO

from kosd.events import rfc3339

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
# What a record may carry through `extra=`; nothing else reaches a line, so no secret does by accident.
FIELDS = ("unit", "method", "path", "status", "duration_ms", "client", "bytes")


class JsonFormatter(logging.Formatter):
    """Writes a record as one object: ts, level, event, msg, node, release, and the ids there are."""

    def __init__(self, context: Callable[[], dict[str, object]]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": rfc3339(record.created),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "server" if record.name.startswith("uvicorn") else record.name),
            "msg": record.getMessage(),
            **self._context(),
        }
        if current := request_id.get():
            line["request_id"] = current
        line.update({name: record.__dict__[name] for name in FIELDS if record.__dict__.get(name) is not None})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: str, context: Callable[[], dict[str, object]], stream: TextIO | None = None) -> None:
    """Sends every logger of this process, uvicorn's too, through the one formatter."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter(context))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())
    # asyncio at debug level speaks of its selector, which nobody asked for.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
