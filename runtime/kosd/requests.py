"""What every request gets: an id, a line in the log, a place in the metrics and safe headers."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from kosd import logs
from kosd.metrics import Metrics

log = logging.getLogger("kosd.request")
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Asked for every few seconds by machines: worth a line only when something is wrong.
QUIET = frozenset({"/health", "/metrics"})


class RequestLog:
    """ASGI wrapper around the application."""

    def __init__(self, app: Starlette, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        current = asked if SANE_ID.fullmatch(asked) else uuid.uuid4().hex
        token = logs.request_id.set(current)
        began = time.perf_counter()
        status, streams = 500, False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = current
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                streams = headers.get("content-type", "").startswith("text/event-stream")
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self._tell(scope, status, time.perf_counter() - began, streams)
            logs.request_id.reset(token)

    def _tell(self, scope: Scope, status: int, duration_s: float, streams: bool) -> None:
        method = scope["method"] if scope["method"] in {"GET", "HEAD", "POST", "PUT", "DELETE"} else "other"
        if not streams:
            self._metrics.requests.labels(method, self._route(scope), str(status)).observe(duration_s)
        quiet = scope["path"] in QUIET and status < 500
        level = logging.DEBUG if quiet else logging.WARNING if status >= 500 else logging.INFO
        client = scope.get("client")
        log.log(
            level,
            "%s %s %d",
            scope["method"],
            scope["path"],
            status,
            extra={
                "event": "request",
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "duration_ms": round(duration_s * 1000, 3),
                "client": client[0] if client else None,
            },
        )

    def _route(self, scope: Scope) -> str:
        """Names the route, never the path: a stranger must not be able to grow the metrics."""
        for route in self.app.routes:
            if getattr(route, "endpoint", None) == scope.get("endpoint"):
                return str(getattr(route, "path", "unmatched"))
        return "unmatched"
