"""What role backup makes of a host: a node that is backed up, a target of others' backups, their witness.

One JSON document on standard input (`schemas/backup-host.schema.json`) says it; all of it is checked before
anything is touched. Secrets are in no diff.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files, schema
from ..errors import InputError, KosError
from ..host import Change, Directory, File, Gone, Link, Owned, Resource, System, User
from ..lock import Lock
from ..paths import NodePaths
from . import config, host_units, methods, signing
from .context import require_root
from .places import Places
from .runs import Runs
from .source import Source

WITNESS = "koswitness"
SERVER_ACCOUNT = "restic-rest-server"
_LOCK_WAIT_S = 5.0
# A server that cannot have its address ends before that.
_SETTLE_S = 0.5
_SECRET = Owned(mode=0o600)


@dataclass(frozen=True)
class Secret(File):
    """A file of which a diff says nothing but that it changes."""

    def plan(self, system: System) -> list[Change]:
        return [Change(change.action) for change in super().plan(system)]


@dataclass(frozen=True)
class NodeKey:
    """The key that the node signs with; made once."""

    path: Path

    def plan(self, system: System) -> list[Change]:
        return [] if self.path.exists() else [Change(f"make the node's key {self.path}")]

    def apply(self, system: System) -> None:
        signing.make_key(self.path, "kos-backup")


def apply(document: object, paths: NodePaths, *, check: bool, system: System | None = None) -> dict[str, Any]:
    """Make the host as the document says, or say what would be done.

    Args:
        document: what was read on standard input.
        paths: where the node is.
        check: change nothing.
        system: the host; a fake in tests.

    Returns:
        `changes`, `node_key` and `host_key` (public keys, None where there is none yet), and `unopened`: the
        names of repositories that were never opened from here.

    Raises:
        InputError: names the key and the rule; nothing was touched.
    """
    schema.check(document, "backup-host", where="the spec")
    assert isinstance(document, dict), "the schema asks for a mapping"
    if "drill_table" in document:
        schema.check(document["drill_table"], "drill-host", where="the spec", key="drill_table")
    places, system = Places(paths), system or System(paths)
    unopened: list[str] = []
    if "node" in document:
        unopened = _check_node(document["node"], places, system)
    if ("certificate" in document.get("server", {})) != ("key" in document.get("server", {})):
        raise InputError("server: certificate and key belong together", key="server.certificate")
    wanted = _resources(document, places, system)
    planned = [(one, found) for one in wanted if (found := one.plan(system))]
    changes = [change for _, found in planned for change in found]
    stopped = _to_stop(document, system)
    started = _to_start(document, planned, paths, system)
    changes += [Change(f"stop {name}") for name in stopped]
    changes += [Change(f"start {name}") for name in started]
    if not check and changes:
        require_root()
        places.var.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Lock(places.lock).hold("backup apply", wait_s=_LOCK_WAIT_S):
            system.systemd.stop(stopped)
            for one, _ in planned:
                one.apply(system)
            system.systemd.daemon_reload()
            system.systemd.restart(started)
            if host_units.SERVER in started and system.live:
                _see_it_stay(system)
    return {
        "changes": changes,
        "node_key": signing.public_key(places.key) if places.key.exists() else None,
        "host_key": _host_key(paths),
        "unopened": unopened,
    }


def remove(paths: NodePaths, *, check: bool, system: System | None = None) -> list[Change]:
    """Take timers, server, table and secrets off the host; repositories, witness' lines and keys stay.

    Args:
        paths: where the node is.
        check: change nothing.
        system: the host; a fake in tests.
    """
    places, system = Places(paths), system or System(paths)
    names = [*host_units.OF_A_NODE, *host_units.OF_A_WATCH, host_units.SERVER]
    running = [name for name in names if system.systemd.is_active(name)]
    gone = [
        *(Gone(path) for name in names for path in (_enabled(paths, name), _unit(paths, name))),
        *(Gone(path) for path in (places.config, places.secrets, places.known_hosts, places.metrics)),
        Gone(paths.drill_json),
        Gone(_server_etc(paths)),
        Gone(_witness_home(paths) / ".ssh"),
    ]
    sources = _sources(places)
    changes = [Change(f"stop {name}") for name in running]
    changes += [Change(f"remove {path}") for one in sources for path in one.unconfigure(check=True)]
    planned = [(one, found) for one in gone if (found := one.plan(system))]
    changes += [change for _, found in planned for change in found]
    if changes and not check:
        require_root()
        places.var.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Lock(places.lock).hold("backup remove", wait_s=_LOCK_WAIT_S):
            system.systemd.stop(running)
            for source in sources:
                source.unconfigure(check=False)
            for one, _ in planned:
                one.apply(system)
            system.systemd.daemon_reload()
    return changes


def _sources(places: Places) -> list[Source]:
    """Return the sources of a host; none where its table is gone or broken."""
    try:
        return [methods.make(spec, places) for spec in config.load(places).sources]
    except InputError:
        return []


def _check_node(node: Mapping[str, Any], places: Places, system: System) -> list[str]:
    """Check what the schema cannot; returns the repositories that were never opened from here."""
    table = config.parse(node["table"], "backup")
    for repository in table.repositories:
        if repository.name not in node["secrets"]:
            raise InputError(
                f"repository {repository.name} has no password", key=f"secrets.{repository.name}.password"
            )
    extra = sorted(set(node["secrets"]) - {one.name for one in table.repositories})
    if extra:
        raise InputError(f"secrets: {extra[0]} is no repository of the table", key=f"secrets.{extra[0]}")
    if "forget" in node["calendar"] and all(one.append_only for one in table.repositories):
        raise InputError(
            "calendar.forget: every repository is append-only, so nothing can be removed from here; "
            "prune on the target",
            key="calendar.forget",
        )
    for verb, when in node["calendar"].items():
        if system.live:
            try:
                system.run(["systemd-analyze", "calendar", when])
            except KosError:
                raise InputError(
                    f"calendar.{verb}: {when!r} is no calendar event of systemd", key=f"calendar.{verb}"
                ) from None
    known = Runs(places).repositories()
    return [
        one.name
        for one in table.repositories
        if one.name not in known or known[one.name].get("url") != one.url
    ]


def _resources(document: Mapping[str, Any], places: Places, system: System) -> list[Resource]:
    wanted: list[Resource] = []
    if "node" in document:
        wanted += _node(document["node"], places)
    if "known_hosts" in document:
        lines = "".join(f"{line}\n" for line in document["known_hosts"])
        wanted += [Directory(places.known_hosts.parent, Owned(mode=0o700))]
        wanted += [File(places.known_hosts, lines.encode(), _SECRET)]
    if "server" in document:
        wanted += _server(document["server"], places.node, system)
    if "witness" in document:
        wanted += _witness(document["witness"], places.node)
    if "drill" in document:
        wanted += _drill(document["drill"], places)
    if "drill_table" in document:
        wanted += _drill_table(document["drill_table"], places.node.drill_json)
    return wanted


def _node(node: Mapping[str, Any], places: Places) -> list[Resource]:
    paths = places.node
    secrets: dict[Path, str] = {}
    for name, one in node["secrets"].items():
        secrets[places.password(name)] = f"{one['password']}\n"
        if one.get("environment"):
            lines = [f"{key}={value}\n" for key, value in sorted(one["environment"].items())]
            secrets[places.environment(name)] = "".join(lines)
    there = sorted(places.secrets.iterdir()) if places.secrets.is_dir() else []
    return [
        Directory(places.secrets, Owned(mode=0o700)),
        *(Secret(path, text.encode(), _SECRET) for path, text in secrets.items()),
        *(Gone(path) for path in there if path not in secrets),
        NodeKey(places.key),
        *_former(node.get("former_keys", []), places),
        File(places.config, files.canonical(node["table"]), _SECRET),
        *_units(_jobs(node), host_units.OF_A_NODE, paths),
    ]


def _drill(nodes: Sequence[str], places: Places) -> list[Resource]:
    # Reports are signed, also on a host that is not backed up.
    key: list[Resource] = [Directory(places.key.parent, Owned(mode=0o700)), NodeKey(places.key)]
    return [*(key if nodes else []), *_units(host_units.watch(nodes), host_units.OF_A_WATCH, places.node)]


def _drill_table(table: Mapping[str, Any], path: Path) -> list[Resource]:
    if not table["nodes"]:
        return [Gone(path)]
    return [Directory(path.parent), File(path, files.canonical(dict(table)), _SECRET)]


def _units(units: Mapping[str, str], possible: Iterable[str], paths: NodePaths) -> list[Resource]:
    """Return units that are there, their timers started at boot; of those that are possible the others go."""
    former = [name for name in possible if name not in units]
    timers = [name for name in units if name.endswith(".timer")]
    return [
        *(File(_unit(paths, name), text.encode()) for name, text in units.items()),
        *(Gone(path) for name in former for path in (_enabled(paths, name), _unit(paths, name))),
        Directory(_enabled(paths, "x.timer").parent),
        *(Link(_enabled(paths, name), f"/etc/systemd/system/{name}") for name in timers),
    ]


def _former(keys: list[str], places: Places) -> list[Resource]:
    """Keep the keys of machines before this one, whoever named them, beside its own."""
    path = places.former_keys
    there = path.read_text().splitlines() if path.exists() else []
    own = signing.public_key(places.key) if places.key.exists() else None
    former = [key for key in dict.fromkeys([*there, *keys]) if key != own]
    return [File(path, "".join(f"{key}\n" for key in former).encode())] if former else []


def _server(server: Mapping[str, Any], paths: NodePaths, system: System) -> list[Resource]:
    etc = _server_etc(paths)
    readable = Owned("root", SERVER_ACCOUNT, 0o640)
    users = "".join(f"{name}:{digest}\n" for name, digest in sorted(server["users"].items()))
    made: list[Resource] = [
        Directory(etc, Owned("root", SERVER_ACCOUNT, 0o750)),
        Directory(paths.root / server["root"].lstrip("/"), Owned(SERVER_ACCOUNT, SERVER_ACCOUNT, 0o700)),
        Secret(etc / "htpasswd", users.encode(), readable),
    ]
    for name, key in (("tls.crt", "certificate"), ("tls.key", "key")):
        if key in server:
            made.append(Secret(etc / name, server[key].encode(), readable))
        else:
            made.append(Gone(etc / name))
    text = host_units.server(server["root"], server["listen"], tls="key" in server)
    name = host_units.SERVER
    enabled = Link(_enabled(paths, name), f"/etc/systemd/system/{name}")
    return [*made, File(_unit(paths, name), text.encode()), Directory(enabled.path.parent), enabled]


def _jobs(node: Mapping[str, Any]) -> dict[str, str]:
    table = config.parse(node["table"], "node.table")
    intervals = [spec.interval_s for spec in table.sources if spec.rank != "skip"]
    return host_units.jobs(node["calendar"], min(intervals, default=host_units.DAY_S))


def _witness(nodes: Mapping[str, str], paths: NodePaths) -> list[Resource]:
    home, folder = _witness_home(paths), paths.var / "witness"
    own = Owned("root", WITNESS, 0o750)
    known = {path.stem: path.read_text().strip() for path in sorted(folder.glob("*.pub"))}
    for name, key in nodes.items():
        # A node that was made anew has a new key: the last one, by which it is let in. The former ones still
        # vouch for its former lines.
        former = [one for one in known.get(name, "").splitlines() if one != key]
        known[name] = "\n".join([*former, key])
    lines = [
        f'restrict,command="{host_units.KOSCTL} witness --node {name}" {keys.splitlines()[-1]}\n'
        for name, keys in sorted(known.items())
    ]
    return [
        User(WITNESS, f"/{home.relative_to(paths.root)}", "/bin/sh", "kOS witness", groups=()),
        Directory(home, own),
        Directory(home / ".ssh", own),
        File(home / ".ssh/authorized_keys", "".join(lines).encode(), Owned("root", WITNESS, 0o640)),
        Directory(folder, Owned(WITNESS, WITNESS, 0o700)),
        *(File(folder / f"{name}.pub", f"{keys}\n".encode()) for name, keys in sorted(known.items())),
    ]


def _to_stop(document: Mapping[str, Any], system: System) -> list[str]:
    """Return the timers that the document no longer names; without its files one would go on until a boot."""
    possible: list[str] = []
    if "node" in document:
        possible += [name for name in host_units.OF_A_NODE if name not in _jobs(document["node"])]
    if "drill" in document:
        possible += [
            name for name in host_units.OF_A_WATCH if name not in host_units.watch(document["drill"])
        ]
    return [name for name in possible if name.endswith(".timer") and system.systemd.is_active(name)]


def _to_start(
    document: Mapping[str, Any],
    planned: list[tuple[Resource, list[Change]]],
    paths: NodePaths,
    system: System,
) -> list[str]:
    """Return the units to (re)start: what is not running, and what runs as it was before."""
    changed = {one.path for one, _ in planned if isinstance(one, File)}
    jobs = _jobs(document["node"]) if "node" in document else {}
    names = [*jobs, *host_units.watch(document.get("drill", []))]
    started = [
        name
        for name in names
        if name.endswith(".timer") and (_unit(paths, name) in changed or not system.systemd.is_active(name))
    ]
    if "server" in document:
        its = {
            _unit(paths, host_units.SERVER),
            *(path for path in changed if path.parent == _server_etc(paths)),
        }
        if its & changed or not system.systemd.is_active(host_units.SERVER):
            started.append(host_units.SERVER)
    return started


def _see_it_stay(system: System) -> None:
    """Look whether the server of backups has come up; its address may be that of another program."""
    time.sleep(_SETTLE_S)
    state = system.systemd.show([host_units.SERVER], ["ActiveState"])[host_units.SERVER]["ActiveState"]
    if state != "active":
        raise KosError(
            f"{host_units.SERVER} does not stay up: `journalctl -u {host_units.SERVER}` says why; "
            "mostly another program has its port",
            key="server.listen",
        )


def _unit(paths: NodePaths, name: str) -> Path:
    return paths.root / "etc/systemd/system" / name


def _enabled(paths: NodePaths, name: str) -> Path:
    target = "timers.target" if name.endswith(".timer") else "multi-user.target"
    return paths.root / f"etc/systemd/system/{target}.wants" / name


def _server_etc(paths: NodePaths) -> Path:
    return paths.root / "etc/kos-backup-server"


def _witness_home(paths: NodePaths) -> Path:
    return paths.root / "var/lib/koswitness"


def _host_key(paths: NodePaths) -> str | None:
    path = paths.root / "etc/ssh/ssh_host_ed25519_key.pub"
    return " ".join(path.read_text().split()[:2]) if path.is_file() else None
