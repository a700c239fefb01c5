"""Makes a host a KairosChain node as a spec says: one plan, one transaction, and back where it fails."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import ledger
from ..errors import InputError, KosError, RefusedError, RevertedError, RevertedUnhealthyError
from ..host import Change, Directory, File, Gone, Link, Owned, Resource, remove_tree
from ..lock import Lock
from ..paths import NodePaths
from . import data, guard, health, layout, units
from . import record as records
from .application import ACCOUNT
from .places import Places
from .resources import Installed, Machine, ServiceAccount, restorer, versions, written_by
from .settings import Settings
from .spec import Spec, parse, version_of
from .tokens import AdminToken

_ROOT_ONLY = Owned(mode=0o600)
_FINISH = Change("finish an upgrade that was broken off, or take it back")
_STEP_S = 0.2
_START_S = 60.0
_LOCK_WAIT_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What was done, or would be.

    Args:
        changes: in order.
        version: of the gem, now.
        previous: the version before, where that was another.
        head: of the ledger; None where there is none yet (a plan on a clean host).
        upgrade: what the application said of an upgrade.
    """

    changes: tuple[Change, ...] = ()
    version: str = ""
    previous: str | None = None
    head: ledger.Head | None = None
    upgrade: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `kosctl kairoschain apply`."""
        shown = [change for change in self.changes if change.path is not None]
        return {
            "diff": [{"path": c.path, "before": c.before or "", "after": c.after or ""} for c in shown],
            "version": self.version,
            "previous": self.previous,
            "head": self.head.as_dict() if self.head else None,
            "anchor": str(ledger.anchor_of(self.head)) if self.head else None,
            "upgrade": self.upgrade,
        }


def apply(value: Any, paths: NodePaths, *, check: bool, machine: Machine | None = None) -> Outcome:
    """Make the host a KairosChain node, or say what would be done.

    Args:
        value: the spec, as `files.parse` read it.
        paths: where the node is.
        check: change nothing.
        machine: the host; a fake in tests.

    Raises:
        InputError, RefusedError, NotFoundError, DamagedError, DiskError: the spec, the gem, or what is on the
            host already does not allow it; nothing was touched.
        RevertedError, RevertedUnhealthyError: it failed, and the host is as it was before; in the second case
            the server was not well then either, or is not any more.
        BusyError: another run is under way.
    """
    spec = parse(value, paths.root)
    places = Places(paths.root)
    run = _Run(spec, places, machine or Machine(paths))
    with contextlib.nullcontext() if check else Lock(places.lock).hold("kairoschain", wait_s=_LOCK_WAIT_S):
        return run.plan() if check else run.do()


@dataclass
class _Run:
    """One run: what is there, what is wanted, and the steps from the one to the other."""

    spec: Spec
    places: Places
    machine: Machine
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    words: str = ""
    told: str = ""

    def __post_init__(self) -> None:
        spec, places = self.spec, self.places
        self.copies = data.Copies(spec.data)
        self.gem = Installed(spec.code / f"{spec.version}-{spec.sha256[:12]}", spec, self.machine)
        self.application = self.machine.application(self.gem.folder)
        self.record = self.was = records.read(places.record)
        self.fresh = not _holds_anything(spec.data) and not self.copies.before.exists()
        self.current = spec.code / "current"
        self.before = str(self.current.readlink()) if self.current.is_symlink() else None

    def plan(self) -> Outcome:
        """Say what would be done."""
        if self.copies.before.exists():
            # What it is that goes on is only known once it was tried.
            return self._outcome([_FINISH], None)
        self._refuse()
        changes, _ = self._changes()
        return self._outcome(changes, ledger.verify(layout.ledger(self.spec.data)).head)

    def do(self) -> Outcome:
        """Do it."""
        self._recover()
        self._refuse()
        if not self.gem.there and self.spec.gem is None:
            raise InputError(f"gem: {self.gem.folder.name} is not installed, and was not brought", key="gem")
        changes, restarts = self._changes()
        if not changes:
            self._note(self._settled())
            return self._outcome([], ledger.verify(layout.ledger(self.spec.data)).head)
        self._note(self.record.with_pending(restarts))
        for resource in self._base():
            self._make(resource)
        systemd = self.machine.systemd
        running = [name for name in (units.SERVICE, units.PROXY) if systemd.is_active(name)]
        try:
            head = self._switch()
        except Exception as error:
            raise self._taken_back(error, running) from error
        except BaseException as error:
            self._taken_back(error, running)
            raise
        self._clean_up()
        self._note(self._settled())
        return self._outcome(changes, head)

    def _switch(self) -> ledger.Head:
        restarts = self.record.pending
        if units.SERVICE in restarts:
            self.machine.systemd.stop([units.SERVICE])
        self._make_data()
        for resource in (*self._inside(), *self._outside()):
            if resource.plan(self.machine):
                for path in written_by(resource):
                    self.undo.callback(restorer(path, self.machine))
                resource.apply(self.machine)
        self.machine.systemd.daemon_reload()
        self.machine.systemd.restart(restarts)
        return self._wait()

    # What is wanted

    def _base(self) -> list[Resource]:
        """What changes nothing for a server that runs."""
        return [
            ServiceAccount(str(self.places.seen(self.places.home))),
            Directory(self.places.home, Owned(ACCOUNT, ACCOUNT, 0o700)),
            Directory(self.spec.code),
            Directory(self.places.token.parent),
            *([Directory(self.places.proxy)] if self.spec.proxy else []),
            self.gem,
        ]

    def _inside(self) -> list[Resource]:
        """What the server reads at its start, in the data directory."""
        spec, places = self.spec, self.places
        return [
            data.Private(spec.data),
            Settings(spec.data / layout.CONFIG, spec.settings),
            AdminToken(places.token, places.spare_token, spec.data, self.application, spec.token_days),
        ]

    def _outside(self) -> list[Resource]:
        spec, places = self.spec, self.places
        seen = places.seen
        wanted: list[Resource] = [
            Link(self.current, self.gem.folder.name),
            File(places.unit(units.SERVICE), units.service(spec, seen(spec.data), seen(spec.code)).encode()),
            File(
                places.unit(units.CHECK), units.check(seen(spec.metrics) if spec.metrics else None).encode()
            ),
            File(places.unit(units.TIMER), units.timer(spec).encode()),
            File(places.logrotate, units.logrotate(seen(spec.data)).encode()),
        ]
        if spec.proxy is not None:
            wanted += [
                File(places.proxy / "nginx.conf", units.nginx(spec, spec.proxy).encode()),
                File(places.proxy / "tls.crt", spec.proxy.certificate.encode()),
                File(places.proxy / "tls.key", spec.proxy.key.encode(), _ROOT_ONLY, shown=False),
                File(places.unit(units.PROXY), units.proxy_service(spec.proxy).encode()),
            ]
        for name in self._units():
            wanted += [Directory(places.wanted(name).parent), Link(places.wanted(name), f"../{name}")]
        return wanted

    def _units(self) -> list[str]:
        return [units.SERVICE, units.TIMER, *([units.PROXY] if self.spec.proxy else [])]

    def _gone(self) -> list[Resource]:
        """What an earlier spec asked for and this one does not; versions that nothing goes back to."""
        places = self.places
        keep = (self.gem.folder.name, self._kept())
        gone: list[Resource] = [Gone(path) for path in versions(self.spec.code) if path.name not in keep]
        if self.spec.proxy is None:
            gone += [
                Gone(path) for path in (places.wanted(units.PROXY), places.unit(units.PROXY), places.proxy)
            ]
        return gone

    def _changes(self) -> tuple[list[Change], list[str]]:
        """Return what differs, and the units that are to be started, or started again."""
        systemd = self.machine.systemd
        first = [_FINISH] if self.copies.before.exists() else []
        first += self._planned(self._base())
        inside = self._planned(self._inside())
        if self.fresh:
            inside.insert(0, Change(f"make data directory {self.spec.data} and its ledger"))
        elif self._upgrades():
            have = data.version_of(self.spec.data)
            to = f"to {self.spec.version}, on a copy"
            inside.insert(0, Change(f"upgrade {self.spec.data} from {have} {to}"))
        outside = self._planned(self._outside())
        touched = {change.path for change in outside if change.path}
        restarts = [
            name
            for name in self._units()
            if name in self.record.pending or self._reads(name, touched) or not systemd.is_active(name)
        ]
        if units.SERVICE not in restarts and (inside or self._is_outdated()):
            restarts.insert(0, units.SERVICE)
        steps = [Change(f"restart {name}") for name in restarts]
        return [*first, *inside, *outside, *self._planned(self._gone()), *steps], restarts

    def _planned(self, resources: Sequence[Resource]) -> list[Change]:
        return [change for resource in resources for change in resource.plan(self.machine)]

    def _reads(self, name: str, touched: set[str]) -> bool:
        """Whether a unit reads one of the files at its start."""
        places = self.places
        own = {str(places.unit(name))}
        if name == units.SERVICE:
            own.add(str(self.current))
        if name == units.PROXY:
            own |= {path for path in touched if path.startswith(f"{places.proxy}/")}
        return bool(own & touched)

    def _is_outdated(self) -> bool:
        spec, places = self.spec, self.places
        return guard.is_outdated(places.started, spec.data, spec.code, places.unit(units.SERVICE))

    # What is there

    def _upgrades(self) -> bool:
        return not self.fresh and data.version_of(self.spec.data) != self.spec.version

    def _refuse(self) -> None:
        """Refuse what the host does not allow, before anything is touched."""
        spec = self.spec
        for key, was, wanted in (
            ("data", self.record.data, spec.data),
            ("code", self.record.code, spec.code),
        ):
            if was not in (None, str(wanted)):
                raise RefusedError(f"{key}: it is {was} on this node; move it yourself first", key=key)
        if os.path.ismount(spec.data):
            raise InputError(f"data: {spec.data} is a file system; name a folder in it", key="data")
        if spec.metrics is not None and not spec.metrics.parent.is_dir():
            raise InputError(f"metrics: {spec.metrics.parent} is not there", key="metrics")
        if not self.gem.there:
            self._refuse_gem()
        if self.fresh:
            if self.record.data is not None or spec.anchor is not None:
                raise RefusedError(
                    f"{spec.data} is gone, and a new one would hide that; restore a backup of it", key="data"
                )
        elif spec.data.is_dir():
            self._refuse_data()

    def _refuse_gem(self) -> None:
        gem, wanted = self.spec.gem, self.spec.sha256
        if gem is None:
            return
        if not gem.is_file():
            raise InputError(f"gem: {gem} is not there", key="gem")
        found = hashlib.sha256(gem.read_bytes()).hexdigest()
        if found != wanted:
            raise InputError(f"gem: its digest is {found}, and not {wanted}", key="sha256")

    def _refuse_data(self) -> None:
        spec = self.spec
        if not layout.is_data(spec.data):
            raise RefusedError(
                f"{spec.data} holds files and no {layout.META}, so it is no data directory; empty it, or "
                "restore a backup that has it",
                key="data",
            )
        have = data.version_of(spec.data)
        if version_of(have) > version_of(spec.version):
            raise RefusedError(
                f"version: the data is of {have}, which {spec.version} cannot read; the way back is a backup "
                f"from before {have}",
                key="version",
            )
        path = layout.ledger(spec.data)
        with ledger.shared(path):
            if spec.anchor is None:
                ledger.head(path)
            elif not (found := ledger.compare(path, spec.anchor)).continues:
                raise RefusedError(
                    f"anchor: the ledger is {found.relation}; it had block {spec.anchor} at an earlier run",
                    key="anchor",
                    detail=found.verdict.as_dict(),
                )
        if have != spec.version:
            data.require_room(spec.data)

    def _recover(self) -> None:
        """Take back an upgrade that was broken off before its version took over; later ones go on."""
        if self.copies.next.exists():
            remove_tree(self.copies.next)
        if not self.copies.before.exists():
            return
        version = self.before.partition("-")[0] if self.before else None
        if not layout.is_data(self.spec.data) or data.version_of(self.spec.data) != version:
            self.machine.systemd.stop([units.SERVICE])
            data.put_back(self.copies, None)

    # Steps

    def _make(self, resource: Resource) -> None:
        if resource.plan(self.machine):
            resource.apply(self.machine)

    def _make_data(self) -> None:
        if self.copies.before.exists():
            self.undo.callback(self._put_back, None)
        elif self.fresh:
            self.undo.callback(remove_tree, self.spec.data)
            data.make(self.copies, self.application, self.machine)
        elif self._upgrades():
            self.words = data.upgrade(self.copies, self.application, self.spec.version, self.machine)
            self.undo.callback(self._put_back, ledger.head(layout.ledger(self.spec.data)))

    def _put_back(self, sealed: ledger.Head | None) -> None:
        self.told = data.put_back(self.copies, sealed)

    def _wait(self) -> ledger.Head:
        """Wait until the server answers, then look at it; return the ledger's head."""
        wanted = self.wanted
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            answered = self.machine.ask_health(wanted)
            if answered is not None and answered.get("version") == wanted.version:
                break
            time.sleep(_STEP_S)
        data_, token = self.spec.data, self.places.token
        machine = self.machine
        report = health.look(wanted, data_, token, self.application, machine.systemd, machine.ask_health)
        if report.findings or report.verdict.head is None:
            raise KosError("; ".join(report.findings))
        return report.verdict.head

    def _taken_back(self, error: BaseException, running: Sequence[str]) -> KosError:
        """Put everything back as it was; return the error that says so."""
        systemd = self.machine.systemd
        with contextlib.suppress(KosError):
            systemd.stop([units.SERVICE])
        self.undo.close()
        try:
            systemd.daemon_reload()
            systemd.restart(running)
            well = self.fresh or ledger.verify(layout.ledger(self.spec.data)).ok
        except KosError:
            well = False
        self._note(self.was)
        state = "the node is as it was before" if well else "it was put back as it was, and is not well"
        kind = RevertedError if well else RevertedUnhealthyError
        return kind(f"{str(error).rstrip('.')}; {state}{self.told}")

    def _clean_up(self) -> None:
        remove_tree(self.copies.before)
        if self.spec.proxy is None and self.places.unit(units.PROXY).exists():
            self.machine.systemd.stop([units.PROXY])
        for resource in self._gone():
            self._make(resource)

    # What is known

    @property
    def wanted(self) -> records.Wanted:
        """What a deep check compares with."""
        spec, http = self.spec, self.spec.settings["http"]
        return records.Wanted(
            version=spec.version,
            host=http["host"],
            port=http["port"],
            tls=bool(http.get("tls", {}).get("enabled")),
            proxy=spec.proxy is not None,
            expiry_days=http["default_token_expiry_days"],
            metrics=str(spec.metrics) if spec.metrics else None,
        )

    def _kept(self) -> str | None:
        """The version that stays beside the new one."""
        previous: str | None = self.record.previous
        return self.before if self.before not in (None, self.gem.folder.name) else previous

    def _outcome(self, changes: Sequence[Change], head: ledger.Head | None) -> Outcome:
        before = self.before.partition("-")[0] if self.before else None
        previous = before if before != self.spec.version else None
        return Outcome(tuple(changes), self.spec.version, previous, head, self.words)

    def _settled(self) -> records.Record:
        return records.Record(str(self.spec.code), str(self.spec.data), self._kept(), self.wanted)

    def _note(self, record: records.Record) -> None:
        if record != records.read(self.places.record):
            records.write(self.places.record, record)
        self.record = record


def _holds_anything(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
