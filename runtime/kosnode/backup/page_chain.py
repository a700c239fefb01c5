"""The history of an image in a folder: bases and their page deltas, from which every point can be had again.

    chain/000001/{base,base.table,base.json,000001.delta,…}   is shipped; what stands there never changes
    table                                                     hashes of the newest image; made anew where lost
    new/                                                      what is being written or removed

A step is written in `new`, made durable and renamed into the chain: a crash leaves all that was there before.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from .. import boot, disk, files
from ..errors import DamagedError, NotFoundError
from . import pages
from .pages import Digest

# A chain ends where its deltas take half the room of its base: a new one is cheaper to ship and to apply.
OUTGROWN = 2
# Small databases may change wholly each time, and keep some points all the same.
LEAST_BYTES = 1024 * 1024
MOST_DELTAS = 1000

_BASE = re.compile(r"[0-9]{6}")
_DELTA = re.compile(r"[0-9]{6}\.delta")
_BASE_KEYS: dict[str, type] = {"format": int, "time": str, "about": dict, "size": int, "digest": str}


@dataclass(frozen=True)
class Point:
    """A state of the image that can be had again.

    Attributes:
        base: number of its base.
        number: of the delta; 0 is the base itself.
        time: when its copy was made, UTC.
        about: what the caller said of it.
        digest: what the image is.
        seal: of the base or delta.
        bytes: that it takes in the folder.
    """

    base: int
    number: int
    time: datetime
    about: Mapping[str, str]
    digest: Digest
    seal: str
    bytes: int


@dataclass(frozen=True)
class History:
    """What can be read of a chain.

    Attributes:
        points: oldest first; the headers of all of them fit together.
        damage: why it does not go on, where something is wrong.
    """

    points: list[Point]
    damage: DamagedError | None = None


def read(chain: Path) -> History:
    """Read the headers of a chain up to the first that does not fit.

    Args:
        chain: the folder with the bases, as it was shipped.
    """
    points: list[Point] = []
    try:
        for number in _numbers(chain, _BASE):
            points.append(_base(chain, number, points))
            for delta in _numbers(chain / f"{number:06}", _DELTA):
                points.append(_delta(chain, delta, points[-1]))
    except DamagedError as error:
        return History(points, error)
    return History(points)


def choose(history: History, until: datetime | None) -> Point:
    """Return the newest point that is not younger than `until`, or the newest of all.

    Raises:
        NotFoundError: before the first point, or after the last.
        DamagedError: what would tell is damaged; names the newest point before it.
    """
    points = history.points
    if history.damage is not None and (until is None or not points or until > points[-1].time):
        raise _with_last(history.damage, points)
    if not points:
        raise NotFoundError("there is no base image, so there is nothing to restore", key="base")
    if until is None:
        return points[-1]
    points = in_order(points)
    if not points[0].time <= until <= points[-1].time:
        first, last = boot.text(points[0].time), boot.text(points[-1].time)
        raise NotFoundError(
            f"{boot.text(until)} is not between the first point, {first}, and the last, {last}", key="time"
        )
    return [point for point in points if point.time <= until][-1]


def in_order(points: list[Point]) -> list[Point]:
    """Return the newest points, from the last time on that the clock went back."""
    begin = 0
    for number, (before, after) in enumerate(itertools.pairwise(points), 1):
        if after.time < before.time:
            begin = number
    return points[begin:]


def restore(chain: Path, out: Path, scratch: Path, until: datetime | None = None) -> Point:
    """Write the image of a point, and compare its digest after the base and after each delta.

    Args:
        chain: the folder with the bases, as it was shipped.
        out: a new file, of its owner alone.
        scratch: a directory for the table of the image; 0.8 % of its size.
        until: the time to restore to; None is the newest point.

    Raises:
        NotFoundError, DamagedError: as `choose`; or the bytes are not what was written: names the file.
    """
    history = read(chain)
    point = choose(history, until)
    steps = [one for one in history.points if one.base == point.base and one.number <= point.number]
    descriptor = os.open(out, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w+b") as image, _temporary(scratch / "table") as table:
            folder = _folder(chain, point)
            with _open(folder, "base") as base:
                _copy_base(base, image, table, folder, steps[0])
                _replay(folder, steps, base, table, image)
            image.flush()
            os.fsync(image.fileno())
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return point


class PageChain:
    """The history of one image on the node that makes it; one process at a time.

    Args:
        folder: its own; made where it is missing.
        say: takes a line for people.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self._say = say
        self.chain = folder / "chain"
        self._new = folder / "new"
        self._table = folder / "table"

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Offer an empty directory for the copy that `append` takes over; what a crash left in it is gone."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.chain.mkdir(mode=0o700, exist_ok=True)
        disk.remove(self._new)
        self._new.mkdir(mode=0o700)
        try:
            yield self._new
        finally:
            disk.remove(self._new)

    def append(self, image: Path, time: datetime, about: Mapping[str, str]) -> Point:
        """Add a point.

        A new base begins where there is none, the clock went back, the chain has grown too long or too large,
        or something of it is damaged on this node: what was shipped of it before is as good as it was.

        Args:
            image: in `workspace()`; it is used up.
            time: when the copy was made.
            about: kept with the point.
        """
        history = read(self.chain)
        time = time.replace(microsecond=0)
        head = history.points[-1] if history.points else None
        damage = history.damage
        if head is not None and damage is None and time >= head.time and head.number < MOST_DELTAS:
            try:
                point = self._add_delta(image, time, about, history.points)
            except DamagedError as error:
                damage = error
            else:
                if point is not None:
                    return point
        point = self._add_base(image, time, about)
        if damage is not None:
            self._say(f"the page deltas on this node are damaged and begin anew: {damage.message}")
            self.forget(point)
        return point

    def forget(self, point: Point) -> None:
        """Remove the bases before that of `point`: it has been shipped, or they are of no use."""
        for number in _numbers(self.chain, _BASE):
            if number < point.base:
                # Half removed it would be a damaged chain.
                disk.remove(self._new)
                (self.chain / f"{number:06}").rename(self._new)
                disk.remove(self._new)

    def _add_base(self, image: Path, time: datetime, about: Mapping[str, str]) -> Point:
        folder = self._new / "base"
        disk.remove(folder)
        folder.mkdir(mode=0o700)
        with image.open("rb") as stream, (folder / "base.table").open("wb") as table:
            digest = pages.scan(stream, table)
        image.rename(folder / "base")
        header = pages.sealed(
            {
                **{"format": 1, "time": boot.text(time), "about": dict(about)},
                **{"size": digest.size, "digest": digest.root},
            }
        )
        (folder / "base.json").write_bytes(files.canonical(header))
        disk.sync_all([*folder.iterdir(), folder])
        number = max(_numbers(self.chain, _BASE), default=0) + 1
        folder.rename(self.chain / f"{number:06}")
        disk.sync(self.chain)
        return _base(self.chain, number, [])

    def _add_delta(
        self, image: Path, time: datetime, about: Mapping[str, str], points: list[Point]
    ) -> Point | None:
        """Return None where a new base is better."""
        head = points[-1]
        steps = [point for point in points if point.base == head.base]
        folder = _folder(self.chain, head)
        limit = max(LEAST_BYTES, steps[0].digest.size // OUTGROWN) - sum(point.bytes for point in steps[1:])
        with contextlib.ExitStack() as stack:
            base = stack.enter_context(_open(folder, "base"))
            body_file = stack.enter_context(_temporary(self._new / "body"))
            table = stack.enter_context((self._new / "table").open("w+b"))
            before = stack.enter_context(self._known_table(folder, steps))
            known = stack.enter_context(_open(folder, "base.table"))
            body = pages.Body(body_file, base, known, limit)
            with image.open("rb") as stream:
                after = pages.scan(stream, table, before=before, changed=body.add)
            body.flush()
            if body.outgrown:
                return None
            written = self._new / f"{head.number + 1:06}.delta"
            with written.open("wb") as out:
                out.write(
                    pages.header_line(
                        number=head.number + 1,
                        time=boot.text(time),
                        about=about,
                        before=head.digest,
                        after=after,
                        previous=head.seal,
                        body=body,
                    )
                )
                body_file.seek(0)
                shutil.copyfileobj(body_file, out)
        disk.sync(written)
        written.rename(folder / written.name)
        disk.sync(folder)
        # Not made durable: its digest tells whether it is the right one.
        (self._new / "table").rename(self._table)
        return _delta(self.chain, head.number + 1, head)

    def _known_table(self, folder: Path, steps: list[Point]) -> BinaryIO:
        """Return the table of the newest image, made again where the one that is kept is another's."""
        head = steps[-1].digest
        if self._table.exists():
            table = self._table.open("r+b")
            if pages.Table(table, head.size).digest() == head:
                table.seek(0)
                return table
            table.close()
        shutil.copyfile(folder / "base.table", self._new / "known")
        table = (self._new / "known").open("r+b")
        with _open(folder, "base") as base:
            _replay(folder, steps, base, table, None)
        table.flush()
        table.seek(0)
        return table


def _copy_base(base: BinaryIO, image: BinaryIO, table: BinaryIO, folder: Path, point: Point) -> None:
    """Copy a base, write its table, and name the first page that is not what was written."""
    name = f"{folder.name}/base"

    def refuse(number: int, _: bytes) -> None:
        at = number * pages.PAGE_BYTES
        raise DamagedError(
            f"{name} is damaged: page {number}, at byte {at}, is not what was written", key=name
        )

    size = os.fstat(base.fileno()).st_size
    if size != point.digest.size:
        raise DamagedError(
            f"{name} has {size} bytes and had {point.digest.size} when it was written", key=name
        )
    with _open(folder, "base.table") as known:
        _check_table(pages.Table(known, size), folder, point)
        known.seek(0)
        pages.scan(_Tee(base, image), table, before=known, changed=refuse)


def _replay(
    folder: Path, steps: list[Point], base: BinaryIO, table: BinaryIO, image: BinaryIO | None
) -> None:
    """Apply deltas to the table of a base, and to its image where there is one."""
    hashes = pages.Table(table, steps[0].digest.size)
    _check_table(hashes, folder, steps[0])
    for before, point in itertools.pairwise(steps):
        try:
            _apply(folder, point, base, hashes, image)
        except DamagedError as error:
            raise _with_last(error, [before]) from None


def _apply(folder: Path, point: Point, base: BinaryIO, hashes: pages.Table, image: BinaryIO | None) -> None:
    name = f"{point.number:06}.delta"
    what = f"{folder.name}/{name}"
    with _open(folder, name) as stream:
        header = pages.read_header(stream, what)
        for number, content in pages.read_body(stream, header, base, what):
            hashes.replace(number, content)
            if image is not None:
                image.seek(number * pages.PAGE_BYTES)
                image.write(content)
    hashes.resize(point.digest.size)
    if image is not None:
        image.truncate(point.digest.size)
    if hashes.digest() != point.digest:
        raise DamagedError(f"{what} does not lead to the image that it names", key=what)


def _check_table(table: pages.Table, folder: Path, point: Point) -> None:
    if table.digest() != point.digest:
        name = f"{folder.name}/base.table"
        raise DamagedError(f"{name} is damaged: it is not the table of its base", key=name)


def _base(chain: Path, number: int, before: list[Point]) -> Point:
    what = f"{number:06}/base.json"
    folder = chain / f"{number:06}"
    with _open(folder, "base.json") as stream:
        header = pages.open_sealed(stream.read(pages.HEADER_BYTES), _BASE_KEYS, what)
    if before and before[-1].base != number - 1:
        raise DamagedError(f"{number - 1:06}, the base before {number:06}, is missing", key=what)
    digest = Digest(header["size"], header["digest"])
    return Point(number, 0, _time(header["time"], what), header["about"], digest, header["seal"], digest.size)


def _delta(chain: Path, number: int, before: Point) -> Point:
    what = f"{before.base:06}/{number:06}.delta"
    if number != before.number + 1:
        missing = f"{before.base:06}/{before.number + 1:06}.delta"
        raise DamagedError(f"{missing} is missing", key=missing)
    folder = chain / f"{before.base:06}"
    with _open(folder, f"{number:06}.delta") as stream:
        header = pages.read_header(stream, what)
        size = os.fstat(stream.fileno()).st_size
    if header.number != number or header.previous != before.seal or header.before != before.digest.root:
        raise DamagedError(
            f"{what} does not follow on what is before it: it is of another database or another place",
            key=what,
        )
    return Point(before.base, number, _time(header.time, what), header.about, header.after, header.seal, size)


def _time(written: str, what: str) -> datetime:
    try:
        return boot.moment(written)
    except ValueError:
        raise DamagedError(f"{what} does not name a time", key=what) from None


def _with_last(error: DamagedError, points: list[Point]) -> DamagedError:
    """Return the error with a word on what can be restored all the same."""
    good = f"; the points up to {boot.text(points[-1].time)} can be restored" if points else ""
    return DamagedError(error.message + good, key=error.key)


def _numbers(folder: Path, names: re.Pattern[str]) -> list[int]:
    """Return the numbers of the files in a folder that have such names, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name[:6]) for path in folder.iterdir() if names.fullmatch(path.name))


def _folder(chain: Path, point: Point) -> Path:
    return chain / f"{point.base:06}"


def _open(folder: Path, name: str) -> BinaryIO:
    try:
        return (folder / name).open("rb")
    except FileNotFoundError:
        what = f"{folder.name}/{name}"
        raise DamagedError(f"{what} is missing", key=what) from None


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    with path.open("w+b") as stream:
        try:
            yield stream
        finally:
            path.unlink()


class _Tee:
    """Reads a file and writes what was read into another."""

    def __init__(self, source: BinaryIO, out: BinaryIO) -> None:
        self._source, self._out = source, out

    def read(self, count: int) -> bytes:
        data = self._source.read(count)
        self._out.write(data)
        return data
