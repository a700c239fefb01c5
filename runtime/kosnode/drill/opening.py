"""Opens the repository of a drill: to read, with the recovery key, and with what the request holds alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from ..backup.config import Repository
from ..backup.context import progress
from ..backup.restic import Access, Restic, Snapshot
from ..errors import NotFoundError
from .proxy import Proxy
from .request import Request
from .upstream import Folder, Server, Upstream


@dataclass(frozen=True)
class Opened:
    """A repository that can be read.

    Args:
        restic: reads it.
        id: of the repository.
        key: id of the recovery key in it.
        proxy: what it is read through; None where it is read with credentials of the request.
    """

    restic: Restic
    id: str
    key: str
    proxy: Proxy | None


class Still(Restic):
    """A repository as it was when its snapshots were first listed, each listing being half a second."""

    _listed: list[Snapshot] | None = None

    def snapshots(self, *tags: str) -> list[Snapshot]:
        if self._listed is None:
            self._listed = super().snapshots()
        return [one for one in self._listed if set(tags) <= set(one.tags)]


def reading(repository: Repository, access: Access, timeout_s: float) -> Restic:
    """Return a repository that is read without locks and without a cache."""
    return Still(repository, replace(access, lock=False, cache=None), timeout_s=timeout_s, progress=progress)


def upstream(request: Request) -> Upstream | None:
    """Return what the proxy reads from; None where it has no protocol for it."""
    url = request.repository.url
    if url.startswith("/"):
        return Folder(Path(url))
    if not url.startswith("rest:"):
        return None
    parts = urlsplit(url.removeprefix("rest:"))
    user = request.environment.get("RESTIC_REST_USERNAME") or (parts.username and unquote(parts.username))
    return Server(
        urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])),
        user=user or None,
        password=request.environment.get("RESTIC_REST_PASSWORD"),
        certificates=request.certificates,
        timeout_s=request.backend_timeout_s,
    )


@contextlib.contextmanager
def proxy_of(request: Request) -> Iterator[Proxy | None]:
    """Have the proxy of a drill for a block; None where there is none for such a repository."""
    found = upstream(request)
    if found is None:
        yield None
        return
    proxy = Proxy(found)
    try:
        yield proxy
    finally:
        proxy.close()


def open_with(request: Request, proxy: Proxy | None, key: Path, folder: Path) -> Opened:
    """Open the repository.

    Args:
        key: file with the recovery key.
        folder: for certificates, which restic wants as a file.

    Raises:
        BackendError: it does not answer.
        NotFoundError: there is none.
        TrustError: the recovery key is none of it.
    """
    repository, environment = request.repository, request.environment
    if proxy is not None:
        # restic would try for minutes.
        try:
            with proxy.upstream.open("config", head=True):
                pass
        except NotFoundError:
            raise NotFoundError(f"there is no repository {repository.name} at its address") from None
        repository, environment = Repository(repository.name, proxy.url), {}
    elif request.certificates is not None:
        ca = folder / "ca.pem"
        ca.write_text(request.certificates)
        repository = replace(repository, ca=ca)
    access = Access(key, environment)
    used, _ = reading(repository, access, request.backend_timeout_s).keys()
    restic = reading(repository, replace(access, key=used), request.backend_timeout_s)
    return Opened(restic, restic.identity(), used, proxy)


def shown(url: str) -> str:
    """Return an address for people: without a user."""
    head, separator, rest = url.partition("://")
    return f"{head}{separator}{rest.rpartition('@')[2]}" if separator else url
