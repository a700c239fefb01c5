"""A witness behind an address: GET URL/NODE?since=N gives lines, POST URL/NODE takes one."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from ..errors import RefusedError
from .restic import BackendError
from .trail import Line
from .witness import MAX_BYTES, lines_of

_CONFLICT = 409


class Http:
    """A witness over HTTP.

    Args:
        url: without a slash at its end.
        ca: certificates that its server's is checked against; None takes the system's.
    """

    def __init__(self, url: str, *, timeout_s: float, ca: Path | None = None) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        handlers = (
            urllib.request.HTTPSHandler(context=context),
            _NoRedirect(),
            urllib.request.ProxyHandler({}),
        )
        self._opener = urllib.request.build_opener(*handlers)

    def read(self, node: str, since: int) -> list[Line]:
        return lines_of(self._ask(urllib.request.Request(f"{self._url}/{node}?since={since}")))

    def append(self, node: str, line: Line) -> None:
        self._ask(urllib.request.Request(f"{self._url}/{node}", data=line.raw + b"\n", method="POST"))

    def _ask(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                data: bytes = answer.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            said = error.read(1024).decode("utf-8", "replace").strip()
            if error.code == _CONFLICT:
                raise RefusedError(f"the witness refuses: {said}", key="witness") from None
            raise BackendError(f"the witness answered {error.code}: {said}", key="witness") from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", error)
            raise BackendError(f"the witness cannot be reached: {why}", key="witness") from None
        if len(data) > MAX_BYTES:
            raise BackendError(f"the witness gave more than {MAX_BYTES} bytes", key="witness")
        return data


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None
