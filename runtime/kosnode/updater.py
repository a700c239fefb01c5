"""python-tuf's client with our transport below it and a time that is given to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from .fetch import AbsentError, Mirror


class MirrorFetcher(FetcherInterface):
    """Lets python-tuf read from one mirror, and remembers the metadata it got, to explain a refusal.

    Attributes:
        mirror: where from.
        seen: metadata by path.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.seen: dict[str, bytes] = {}
        self._limit = 0

    def download_bytes(self, url: str, max_length: int) -> bytes:
        self.seen[url] = data = super().download_bytes(url, max_length)
        return data

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[Any]]:
        self._limit = max_length
        with super().download_file(url, max_length) as stream:
            yield stream

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with self.mirror.open(url.lstrip("/"), limit=self._limit) as body:
                return iter([body.read()])
        except AbsentError as error:
            raise DownloadHTTPError(error.reason, error.status) from error


class TimedUpdater(Updater):
    """A client that measures expiry at `reference`.

    7.0.1 offers no argument for it; a test fails when the attribute has moved.

    Args:
        directory: where it keeps metadata.
        base: path of the metadata on the mirror.
        fetcher: the mirror.
        pinned: bytes of the root that everything hangs from.
        reference: the time.
        config: bounds.
    """

    def __init__(
        self,
        directory: Path,
        base: str,
        fetcher: MirrorFetcher,
        pinned: bytes,
        reference: datetime,
        config: UpdaterConfig,
    ) -> None:
        super().__init__(str(directory), base, fetcher=fetcher, config=config, bootstrap=pinned)
        self._trusted_set.reference_time = reference
