"""The endpoints: read-only, never waiting for anything but the reader."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from kosd import answers, page
from kosd.daemon import Daemon
from kosd.metrics import Metrics
from kosd.requests import RequestLog
from kosd.verdict import Status

log = logging.getLogger("kosd.api")
MAX_STREAMS = 16
STREAM_PAUSE_S = 15.0
MAX_EVENTS = 1000
STATIC = {
    "status.css": "text/css; charset=utf-8",
    "status.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
NO_STORE = {"Cache-Control": "no-store"}


class Api:
    """The handlers, over one daemon."""

    def __init__(self, daemon: Daemon, metrics: Metrics) -> None:
        self._daemon = daemon
        self._metrics = metrics
        self._streams = 0
        package = resources.files(__package__)
        self._static = {name: package.joinpath("static").joinpath(name).read_bytes() for name in STATIC}

    def routes(self) -> list[Route]:
        return [
            Route("/", self.status_page),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/v1/status", self.status),
            Route("/v1/units", self.units),
            Route("/v1/units/{name}", self.unit),
            Route("/v1/events", self.events),
            Route("/static/{name}", self.static),
        ]

    async def status_page(self, request: Request) -> Response:
        _known_parameters(request)
        return Response(page.render(self._daemon), media_type="text/html", headers=NO_STORE | page.HEADERS)

    async def health(self, request: Request) -> Response:
        found = self._daemon.health()
        code = 503 if found.status is Status.FAILING else 200
        return JSONResponse(answers.health(self._daemon, found), code, headers=NO_STORE)

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=self._metrics.content_type, headers=NO_STORE)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(openapi_document())

    async def status(self, request: Request) -> Response:
        _known_parameters(request)
        return JSONResponse(answers.status(self._daemon), headers=NO_STORE)

    async def units(self, request: Request) -> Response:
        _known_parameters(request)
        return JSONResponse(answers.units(self._daemon), headers=NO_STORE)

    async def unit(self, request: Request) -> Response:
        _known_parameters(request)
        sample = self._daemon.observer.sample
        seen = sample.seen.get(request.path_params["name"]) if sample else None
        if seen is None:
            raise HTTPException(404, "There is no unit of that name; /v1/units lists them.")
        return JSONResponse(answers.unit(self._daemon, seen), headers=NO_STORE)

    async def events(self, request: Request) -> Response:
        _known_parameters(request, "since", "limit")
        wants_stream = "text/event-stream" in request.headers.get("accept", "")
        since = _whole_number(request.query_params.get("since", "0"), "since", 0, 2**53)
        limit = _whole_number(request.query_params.get("limit", str(MAX_EVENTS)), "limit", 1, MAX_EVENTS)
        if not wants_stream or request.method == "HEAD":
            return JSONResponse(answers.events(self._daemon, since, limit), headers=NO_STORE)
        # A browser that lost the stream says where it was; that is later than what the address says.
        if last := request.headers.get("last-event-id"):
            since = _whole_number(last, "Last-Event-ID", 0, 2**53)
        if self._streams >= MAX_STREAMS:
            raise HTTPException(503, f"There are {MAX_STREAMS} event streams already.", {"Retry-After": "30"})
        return StreamingResponse(self._stream(since), media_type="text/event-stream", headers=NO_STORE)

    async def _stream(self, since: int) -> AsyncIterator[str]:
        self._streams += 1
        try:
            yield "retry: 3000\n\n"
            while True:
                news = await self._daemon.events.wait(since, STREAM_PAUSE_S)
                for event in news:
                    since = event.id
                    data = json.dumps(event.document(), ensure_ascii=False)
                    yield f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n"
                if self._daemon.events.closed:
                    return
                if not news:
                    # Tells proxies and both ends that the line still stands.
                    yield ": nothing new\n\n"
        finally:
            self._streams -= 1

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404, "There is no such file.")
        return Response(
            self._static[name], headers={"Content-Type": STATIC[name], "Cache-Control": "no-cache"}
        )


def build(daemon: Daemon) -> RequestLog:
    """Returns the ASGI application over a daemon."""
    metrics = Metrics(daemon)
    app = Starlette(
        routes=Api(daemon, metrics).routes(),
        exception_handlers={HTTPException: _problem_of, Exception: _problem_of},
    )
    # /v1/units/ and /v1/units are not the same thing, and a redirect would hide a typing error.
    app.router.redirect_slashes = False
    return RequestLog(app, metrics)


def openapi_document() -> dict[str, Any]:
    """Returns the hand-written OpenAPI 3.1 description of these endpoints."""
    return dict(json.loads(resources.files(__package__).joinpath("openapi.json").read_text("utf-8")))


async def _problem_of(request: Request, error: Exception) -> Response:
    """Answers an error as RFC 9457 asks: application/problem+json."""
    if isinstance(error, HTTPException):
        status, headers = error.status_code, dict(error.headers or {})
        detail = error.detail
        if status == 405:
            detail = f"{request.method} is not served here; the API is read-only."
        elif detail == "Not Found":
            detail = f"There is nothing at {request.url.path}."
    else:
        status, headers, detail = 500, {}, "The daemon failed at this request; its log says why."
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(document, status, headers=headers | NO_STORE, media_type="application/problem+json")


def _known_parameters(request: Request, *known: str) -> None:
    for name in request.query_params:
        if name not in known:
            may = f"known are {', '.join(known)}" if known else "this address takes none"
            raise HTTPException(400, f"The parameter {name[:40]!r} is unknown; {may}.")


def _whole_number(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise HTTPException(400, f"{name} must be a whole number from {least} to {most}.")
    return int(text)
