"""Takes a KairosChain node off its host. The data stays unless the word for it is said."""

from __future__ import annotations

from pathlib import Path

from ..errors import NotFoundError
from ..host import Change, Gone, NoUser, Resource
from ..lock import Lock
from ..paths import NodePaths
from . import record, units
from .application import ACCOUNT
from .data import Copies
from .places import Places
from .resources import Machine, versions

_UNITS = (units.TIMER, units.CHECK, units.PROXY, units.SERVICE)
_LOCK_WAIT_S = 5.0


def remove(
    paths: NodePaths, *, purge: bool, check: bool, machine: Machine | None = None
) -> tuple[Change, ...]:
    """Take server, proxy, checks and code away, or say what would be done.

    Args:
        paths: where the node is.
        purge: also the data, its tokens and the account.
        check: change nothing.
        machine: the host; a fake in tests.

    Returns:
        What changed; nothing where the host is no KairosChain node.
    """
    places, machine = Places(paths.root), machine or Machine(paths)
    try:
        code, data, wanted = record.read(places.record).require()
    except NotFoundError:
        return ()
    metrics = [Path(wanted.metrics)] if wanted.metrics else []
    gone: list[Resource] = [
        *(Gone(path) for name in _UNITS for path in (places.wanted(name), places.unit(name))),
        *(
            Gone(path)
            for path in (places.logrotate, places.proxy, *metrics, code / "current", *versions(code))
        ),
    ]
    if purge:
        copies = Copies(data)
        gone += [Gone(path) for path in (data, copies.before, copies.next, copies.failed, places.home)]
        gone += [Gone(places.token.parent), Gone(code), NoUser(ACCOUNT)]
    elif code not in data.parents:  # else the data is in the folder of the code
        gone.append(Gone(code))
    running = [name for name in _UNITS if machine.systemd.is_active(name)]
    changes = [Change(f"stop {name}") for name in running]
    for resource in gone:
        changes += resource.plan(machine)
    changes += Gone(places.record).plan(machine)
    if check:
        return tuple(changes)
    with Lock(places.lock).hold("kairoschain", wait_s=_LOCK_WAIT_S):
        machine.systemd.stop(running)
        for resource in gone:
            if resource.plan(machine):
                resource.apply(machine)
        machine.systemd.daemon_reload()
        machine.forget_failures()
        # The last: a removal that is broken off is taken up by the same command.
        places.record.unlink()
    return tuple(changes)
