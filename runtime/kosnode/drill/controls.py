"""Negative controls: what was proven is damaged on purpose, and the same verification has to say no.

Each is done on a copy in scratch, and undone. What it says no to is what the control is for: a drill whose
repository went away has not shown anything.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import disk
from ..backup.config import Repository, SourceSpec
from ..backup.kairoschain import LEDGER
from ..backup.opening import in_memory
from ..backup.restic import Access, Restic, ResticError
from ..backup.source import Finding
from ..command import as_known
from ..errors import DamagedError, KosError, TrustError, UntestedError
from ..restore.choose import Wish
from ..restore.compare import Whereabouts
from ..restore.restoring import check
from . import exam, isolation, opening, scratch, upstream
from .choice import Chance
from .exam import Copy, Known
from .opening import Opened
from .proxy import Proxy
from .remarks import FAILED, UNTESTED, Remark
from .request import Request
from .upstream import Part, Upstream

# Of each source whose verification passed, by its method.
OF_METHOD = {"postgres": "missing-wal", "sqlite": "missing-delta", "kairoschain": "cut-ledger"}
RED, GREEN, NOT_TESTED = "red", "green", "untested"
_TAIL = 1 << 20
# A blob begins with 16 bytes of nonce and ends with 16 of a code: of so many each bit counts.
_OF_A_BLOB = 32


@dataclass(frozen=True)
class Control:
    """What became of one control.

    Args:
        text: what was damaged.
        outcome: `red` where the verification found it, as it has to; `green`; or `untested`.
        found: what the verification said.
    """

    name: str
    source: str | None
    text: str
    outcome: str
    found: str | None
    ms: int

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "source": self.source,
            "text": self.text,
            "outcome": self.outcome,
            "found": self.found,
            "ms": self.ms,
        }

    def remark(self) -> Remark | None:
        """Return what it means for the drill; None where it is as it has to be."""
        if self.outcome == RED:
            return None
        if self.outcome == GREEN:
            said = f"control {self.name} stayed green: {self.text}, and the verification did not notice"
            return Remark("control-green", said, FAILED, self.source)
        return Remark(
            "control-untested", f"control {self.name} could not be made: {self.found}", UNTESTED, self.source
        )


@dataclass(frozen=True)
class Subject:
    """A source whose verification passed, on which controls are made.

    Args:
        copy: what came back of it.
        read: files of the repository that were read to choose and to fetch it; none where that is not known.
    """

    spec: SourceSpec
    copy: Copy
    read: Collection[str]

    @property
    def name(self) -> str:
        return self.spec.name


def without_a_file(subject: Subject, chance: Chance) -> Control:
    """Take a file out of what came back: the comparison with the manifest has to miss it."""
    listed = subject.copy.chosen.manifest
    unstable = set(listed.unstable)
    stable = [one for one in listed.entries if one.kind == "file" and one.path not in unstable]

    def work() -> str | None:
        if not stable:
            raise UntestedError("nothing that came back is a file that has to be there")
        entry = chance.one("missing file", stable)
        path = Whereabouts(subject.copy.places).of(entry.path)
        assert path is not None, "an entry lies within a root"
        with _away(Path(path), subject.copy):
            return _first(exam.compare(subject.copy))

    return _made("missing-file", subject.name, "a file of what came back is taken away", work)


def without_a_part(subject: Subject, sockets: Path) -> Control:
    """Take away what its method cannot do without, and have it rebuilt and checked again.

    The comparison with the manifest would find it first, so that is left out: each has to notice by itself.
    """
    name = OF_METHOD[subject.spec.method]
    text, damaged = {
        "missing-wal": ("the WAL segment with the newest point is taken away", _without_wal),
        "missing-delta": ("a page delta, or the image before it, is taken away", _without_delta),
        "cut-ledger": ("the last block of the ledger is cut off cleanly", _cut_ledger),
    }[name]

    def work() -> str | None:
        source = exam.source_of(subject.spec, subject.copy, sockets)
        with damaged(subject.copy), isolation.cut_off():
            try:
                restored = exam.rebuild(source, subject.copy, None)
                return _first(check(source, restored))
            except DamagedError as error:
                return error.message

    return _made(name, subject.name, text, work)


class OnCopy:
    """Controls on a copy of the repository: of what this one source needs of it.

    Args:
        request: for the key.
        opened: the repository.
        known: with what a snapshot is believed.
        subject: the source.
        folder: a new one in scratch.
        chance: decides what is damaged.
    """

    def __init__(
        self, request: Request, opened: Opened, known: Known, subject: Subject, folder: Path, chance: Chance
    ) -> None:
        self._request = request
        self._opened = opened
        self._known = known
        self._subject = subject
        self._folder = folder
        self._repository = folder / "repository"
        self._chance = chance
        self._key: str | None = opened.key
        self._read: Mapping[str, Sequence[Part]] = {}

    def run(self) -> list[Control]:
        """Make all of them."""
        name = self._subject.name
        try:
            self._folder.mkdir(mode=0o700)
            self._make()
            self._learn()
        except (KosError, OSError) as error:
            why = as_known(error).message
            return [
                Control(one, name, "a copy of the repository is damaged", NOT_TESTED, why, 0)
                for one in ("flipped-byte", "missing-pack", "wrong-key")
            ]
        finally:
            # What came back of it lies beside it.
            disk.remove(self._folder / "back")
        packs = f"one of the {len(self._packs)} packs that {name} needs"
        done = [
            _made("flipped-byte", name, f"a bit of {packs} is flipped", self._flipped),
            _made("missing-pack", name, f"{packs} is taken away", self._missing),
            _made("wrong-key", name, "another key than the recovery key is used", self._wrong_key),
        ]
        disk.remove(self._folder)
        return done

    @property
    def _packs(self) -> list[str]:
        return sorted(name for name in self._read if name.startswith("data/"))

    def _make(self) -> None:
        """Make a copy of what the source needs, and of nothing else."""
        size = self._subject.copy.chosen.manifest.size
        if self._opened.proxy is None:
            scratch.check_room(self._folder, size, self._request.reserve_bytes)
            self._copy_snapshot()
            return
        source = self._opened.proxy.upstream
        snapshot = self._subject.copy.chosen.snapshot.id
        names = ["config", f"keys/{self._opened.key}", f"snapshots/{snapshot}"]
        names += sorted(name for name in self._subject.read if re.match(r"(data|index)/.", name))
        size = sum(_size(source, name) for name in names)
        scratch.check_room(self._folder, size, self._request.reserve_bytes)
        for name in names:
            path = upstream.place(self._repository, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with source.open(name) as body:
                disk.write(path, body.blocks, 0o600)

    def _copy_snapshot(self) -> None:
        """Have restic copy the snapshot, where files of the repository cannot be had."""
        origin, timeout_s = self._opened.restic.repository, self._request.backend_timeout_s
        made = Repository(origin.name, str(self._repository), ca=origin.ca)
        with in_memory(self._request.recovery_key) as secret:
            opening.reading(made, Access(secret), timeout_s).init()
            given = {
                **self._request.environment,
                "RESTIC_FROM_REPOSITORY": origin.url,
                "RESTIC_FROM_PASSWORD_FILE": str(secret),
                "RESTIC_FROM_KEY_HINT": self._opened.key,
            }
            opening.reading(made, Access(secret, given), timeout_s).copy(
                self._subject.copy.chosen.snapshot.id
            )
        # The witness knows the snapshot by its first id alone.
        self._key, self._known = None, replace(self._known, trail=None)

    def _learn(self) -> None:
        """See that the copy is whole, and what of it is read."""
        proxy = Proxy(upstream.Folder(self._repository))
        try:
            with proxy.recording() as self._read:
                found = self._verify(proxy.url)
        finally:
            proxy.close()
        if found is not None:
            raise UntestedError(f"the undamaged copy is not whole: {found}")

    def _verify(self, url: str | None = None) -> str | None:
        """Do with the copy what was done with the repository; returns what is wrong.

        Raises:
            KosError: it could not be asked.
        """
        disk.remove(self._folder / "back")
        with in_memory(self._request.recovery_key) as secret:
            restic = self._restic(secret, url)
            run = self._subject.copy.chosen.manifest.run
            chosen = self._known.find(Wish(self._subject.name, run, older=True), restic)
            return _first(exam.compare(exam.bring(restic, chosen, self._folder / "back")))

    def _restic(self, secret: Path, url: str | None = None) -> Restic:
        repository = Repository(self._opened.restic.repository.name, url or str(self._repository))
        access = Access(secret, key=self._key)
        return opening.reading(repository, access, self._request.backend_timeout_s)

    def _damaged(self) -> str | None:
        try:
            return self._verify()
        except (DamagedError, ResticError) as error:
            return error.message

    def _flipped(self) -> str | None:
        draws = self._chance.of("flipped byte")
        # Where a read begins a blob begins that is needed; what lies between two blobs may not be.
        name, first = draws.choice([(name, part.first) for name in self._packs for part in self._read[name]])
        place, bit = first + draws.randrange(_OF_A_BLOB), 1 << draws.randrange(8)
        path = upstream.place(self._repository, name)
        flip(path, place, bit)
        try:
            return self._damaged()
        finally:
            flip(path, place, bit)

    def _missing(self) -> str | None:
        path = upstream.place(self._repository, self._chance.one("missing pack", self._packs))
        with _away(path, self._subject.copy):
            return self._damaged()

    def _wrong_key(self) -> str | None:
        with in_memory(f"not {self._request.recovery_key}") as secret:
            try:
                self._restic(secret).identity()
            except TrustError as error:
                return error.message
        return None


def flip(path: Path, place: int, bit: int) -> None:
    """Flip a bit of a file, or flip it back."""
    with path.open("r+b", buffering=0) as stream:
        stream.seek(place)
        (byte,) = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte ^ bit]))


def cut_last(ledger: Path) -> tuple[int, bytes]:
    """Cut the last block of a ledger off, so that what is left is a ledger.

    Returns:
        Where the file was cut, and what was there.

    Raises:
        UntestedError: the last block cannot be told from the end of the file.
    """
    size = ledger.stat().st_size
    with ledger.open("r+b") as stream:
        start = stream.seek(max(0, size - _TAIL))
        tail = stream.read()
        for comma in reversed(list(re.finditer(rb"[\[,]\s*(?=\{)", tail))):
            try:
                # Of all objects that begin in the tail only a whole block leaves nothing over.
                json.loads(tail[comma.end() :].rstrip().removesuffix(b"]"))
            except ValueError:
                continue
            stream.seek(start + comma.start())
            stream.truncate()
            stream.write(b"[]" if tail[comma.start() : comma.start() + 1] == b"[" else b"\n]")
            return start + comma.start(), tail[comma.start() :]
    raise UntestedError("the ledger has no block that could be cut off")


@contextlib.contextmanager
def _cut_ledger(copy: Copy) -> Iterator[None]:
    ledger = copy.roots[0].stored / LEDGER
    place, end = cut_last(ledger)
    try:
        yield
    finally:
        with ledger.open("r+b") as stream:
            stream.truncate(place)
            stream.seek(place)
            stream.write(end)


@contextlib.contextmanager
def _without_wal(copy: Copy) -> Iterator[None]:
    wal = str(copy.chosen.manifest.heads["wal"])
    found = next((copy.roots[0].stored / "archive").rglob(f"{wal}-*"), None)
    if found is None:
        raise UntestedError(f"WAL segment {wal} is not in what came back")
    with _away(found, copy):
        yield


@contextlib.contextmanager
def _without_delta(copy: Copy) -> Iterator[None]:
    base = max(one for one in copy.roots[0].stored.iterdir() if one.is_dir())
    deltas = sorted(base.glob("*.delta"))
    # The newest may say that nothing changed: then nothing is lost with it.
    with _away(deltas[0] if len(deltas) > 1 else base / "base", copy):
        yield


@contextlib.contextmanager
def _away(path: Path, copy: Copy) -> Iterator[None]:
    """Have a file away for a block."""
    kept = copy.folder / "kept"
    path.rename(kept)
    try:
        yield
    finally:
        kept.rename(path)


def _made(name: str, source: str, text: str, work: Callable[[], str | None]) -> Control:
    began = time.monotonic()
    try:
        found = work()
        outcome = GREEN if found is None else RED
    except (KosError, OSError) as error:
        found = as_known(error).message
        outcome = NOT_TESTED
    return Control(name, source, text, outcome, found, round((time.monotonic() - began) * 1000))


def _first(findings: Sequence[Finding]) -> str | None:
    return findings[0].text if findings else None


def _size(source: Upstream, name: str) -> int:
    with source.open(name, head=True) as body:
        return body.size
