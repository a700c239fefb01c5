"""Turns units into hardened systemd services and timers, and into units.json, which says what they are.

What is rendered names the slot by its absolute path, so that a service keeps running from the slot it was
started from while `current` moves on. Directives are those of systemd.exec(5), systemd.service(5),
systemd.timer(5) and systemd.resource-control(5) of systemd 252.
"""

from __future__ import annotations

import hashlib
import pwd
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import files
from .errors import InputError
from .paths import NodePaths
from .unit import Check, CommandCheck, FileAgeCheck, TcpCheck, Unit, validate

UNIT_CONFIG = "/etc/kos/unit.d"
STATE = "/var/lib/kos/state"
TARGET = "kos.target"
PYTHON = "/usr/bin/python3"
STOP_TIMEOUT_S = 15

# The same for every unit: what a service of ours never needs, it cannot do (S22, C18, C26).
_HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
UMask=0077
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM""".splitlines()

# Trying again mends no configuration: who ends so says that a person has to (EX_CONFIG of sysexits(3)).
_RESTART = ("RestartSec=1", "RestartPreventExitStatus=78")

FilesHash = Callable[[Sequence[str]], str]
UserId = Callable[[str], int]


@dataclass(frozen=True)
class Rendered:
    """What belongs into a slot beside the tree.

    Args:
        files: bytes by name relative to the slot, such as `units/kos-kosd.service`.
        units_json: the value of units.json.
    """

    files: dict[str, bytes]
    units_json: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """Names of node units that were added, whose rendering changed, and that were removed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True)
class _Place:
    """Where the files of units are, and how the release is called in the environment."""

    base: str
    release: str
    origin: str


def render(
    units: Iterable[Unit],
    slot_dir: Path,
    manifest_hash_of: FilesHash,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    taken: Collection[str] = (),
    user_id: UserId | None = None,
) -> Rendered:
    """Render the units of a release.

    Args:
        units: the release's units.
        slot_dir: absolute path that the slot will have in the end; its name is the release root.
        manifest_hash_of: gives a hash of files and folders named by their path in the tree (`.` is all of
            it), and raises InputError for one that is not there; see `files_hash`.
        overrides: `units` of the node's configuration.
        taken: names of units that the node adds itself.
        user_id: gives the uid of an account, KeyError where there is none; the node's own by default.

    Raises:
        InputError: a name that stands twice, an account that does not exist or is root, a file that is not
            in the release; names the unit.
    """
    place = _Place(str(slot_dir / "tree"), slot_dir.name, "release")
    neutral = _Place("/@SLOT@/tree", "@RELEASE@", "release")
    result: dict[str, bytes] = {}
    entries: dict[str, Any] = {}
    for one in sorted(units, key=lambda unit: unit.id):
        where = f"unit {one.id}"
        if one.id in entries or one.id in taken:
            owner = (
                "the release has two of them"
                if one.id in entries
                else "the node has one of that name in units.d"
            )
            raise InputError(f"{where}: {owner}", key="id")
        unit = _with_override(one, overrides or {})
        _check_user(unit, user_id or _user_id)
        texts = _texts(unit, place)
        result.update({f"units/{name}": text.encode() for name, text in texts.items()})
        entries[unit.id] = _entry(unit, place, _texts(unit, neutral), _files_hash_of(unit, manifest_hash_of))
    return Rendered(result, _units_json(slot_dir.name, entries, result))


def files_hash(entries: Iterable[Mapping[str, Any]]) -> FilesHash:
    """Return a function that hashes files of a manifest by their paths.

    Args:
        entries: `files` of a release.json.

    Returns:
        A function of paths of files or folders (`.` is all), which gives the SHA3-256 of the canonical list
        of their entries, in hex, and raises InputError for a path that no entry has.
    """
    known = list(entries)

    def hash_of(paths: Sequence[str]) -> str:
        chosen: dict[str, Mapping[str, Any]] = {}
        for path in paths:
            found = [e for e in known if path in (".", e["path"]) or e["path"].startswith(f"{path}/")]
            if not found and path != ".":
                raise InputError(f"{path} is not among the files", key=path)
            chosen.update({entry["path"]: entry for entry in found})
        return hashlib.sha3_256(files.canonical([chosen[path] for path in sorted(chosen)])).hexdigest()

    return hash_of


def resolve_checks(checks: Iterable[Check], base: str, state: str | None = None) -> list[dict[str, Any]]:
    """Return checks as JSON with absolute paths.

    Args:
        checks: of a unit or of a release.
        base: absolute path of the tree or folder that programs are relative to.
        state: absolute path of the state directory that `file_age` is relative to.

    Raises:
        InputError: a relative `file_age` where there is no state directory.
    """
    resolved: list[dict[str, Any]] = []
    for check in checks:
        if isinstance(check, CommandCheck):
            check = replace(check, argv=(_program(check.argv[0], base), *check.argv[1:]))
        elif isinstance(check, FileAgeCheck) and not check.path.startswith("/"):
            if state is None:
                raise InputError(f"file_age {check.path}: must be absolute; a release has no state directory")
            check = replace(check, path=f"{state}/{check.path}")
        resolved.append(check.as_json())
    return resolved


def starts(entry: Mapping[str, Any]) -> str:
    """Return what systemd is asked to start for an entry of units.json: its timer, else its service."""
    return str(entry["timer"] or entry["service"])


def apply_node_units(
    paths: NodePaths,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    taken: Collection[str] = (),
    user_id: UserId | None = None,
) -> Change:
    """Render the units of `units.d` into `node-units`, touching only what differs (S15).

    systemd is not told: that, and starting what was added, is the caller's.

    Args:
        paths: of the node.
        overrides: `units` of the node's configuration.
        taken: names of the units of the current release.
        user_id: as in `render`.

    Raises:
        InputError: as `render`, or a folder without a valid unit.json of its name; nothing is written then.
    """
    result: dict[str, bytes] = {}
    entries: dict[str, Any] = {}
    for folder in _unit_folders(paths.units_d):
        where = str(folder / "unit.json")
        try:
            unit = validate(_mapping(files.read_json(folder / "unit.json"), where), where)
        except FileNotFoundError:
            raise InputError(f"{where}: is missing") from None
        if unit.id != folder.name:
            raise InputError(f"{where}: id: must be {folder.name}, as its folder; it is {unit.id}", key="id")
        if unit.id in taken:
            raise InputError(f"{where}: id: the release has a unit {unit.id} already", key="id")
        unit = _with_override(unit, overrides or {})
        _check_user(unit, user_id or _user_id)
        place = _Place(str(folder), "node", "node")
        texts = _texts(unit, place)
        result.update({f"units/{name}": text.encode() for name, text in texts.items()})
        hashed = _files_hash_of(unit, files_hash(_folder_entries(folder)))
        entries[unit.id] = _entry(unit, place, texts, hashed)
    return _write_node_units(paths.node_units, result, _units_json("node", entries, result))


def _write_node_units(target: Path, result: Mapping[str, bytes], units_json: dict[str, Any]) -> Change:
    listing = target / "units.json"
    before = files.read_json(listing)["units"] if listing.exists() else {}
    now = units_json["units"]
    for folder in (target, target / "units"):
        folder.mkdir(parents=True, exist_ok=True)
        # The runtime reads what its node runs, whatever the umask of who shapes the host is.
        folder.chmod(0o755)
    for name, data in result.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != data:
            files.write_durable(path, data)
    data = files.canonical(units_json)
    if not listing.exists() or listing.read_bytes() != data:
        files.write_durable(listing, data)
    for path in (target / "units").iterdir():
        if f"units/{path.name}" not in result:
            path.unlink()
    return Change(
        added=tuple(sorted(now.keys() - before.keys())),
        changed=tuple(sorted(name for name in now.keys() & before.keys() if now[name] != before[name])),
        removed=tuple(sorted(before.keys() - now.keys())),
    )


def _unit_folders(units_d: Path) -> list[Path]:
    if not units_d.is_dir():
        return []
    return sorted(path for path in units_d.iterdir() if path.is_dir() and not path.name.startswith("."))


def _folder_entries(folder: Path) -> list[dict[str, Any]]:
    """List a folder's files in the form of a manifest; unit.json is not part of what runs."""
    return sorted(_walk(folder, folder), key=lambda entry: str(entry["path"]))


def _walk(folder: Path, top: Path) -> Iterator[dict[str, Any]]:
    for path in folder.iterdir():
        name = path.relative_to(top).as_posix()
        if path.is_symlink():
            yield {"path": name, "type": "link", "target": str(path.readlink())}
        elif path.is_dir():
            yield from _walk(path, top)
        elif path.is_file():
            if name != "unit.json":
                mode = f"{path.stat().st_mode & 0o777:04o}"
                yield {"path": name, "type": "file", "mode": mode, "sha3": _sha3_of(path)}
        else:
            raise InputError(f"{path}: is no file, folder or link")


def _sha3_of(path: Path) -> str:
    digest = hashlib.sha3_256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: must be a mapping")
    return value


def _with_override(unit: Unit, overrides: Mapping[str, Mapping[str, Any]]) -> Unit:
    wanted = overrides.get(unit.id, {}).get("resources")
    return unit.with_resources(wanted, "the node's configuration") if wanted else unit


def _check_user(unit: Unit, user_id: UserId) -> None:
    user = unit.entry.user
    try:
        uid = user_id(user)
    except KeyError:
        raise InputError(
            f"unit {unit.id}: entry.user: this node has no account {user}", key="entry.user"
        ) from None
    if uid == 0:
        raise InputError(f"unit {unit.id}: entry.user: the account {user} is root", key="entry.user")


def _user_id(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _files_hash_of(unit: Unit, hash_of: FilesHash) -> str:
    program = unit.entry.command[0]
    named = list(unit.files or (".",))
    if not program.startswith("/") and program != "python3":
        named.append(program)
    try:
        return hash_of(named)
    except InputError as error:
        raise InputError(f"unit {unit.id}: files: {error.message}", key="files") from None


def _entry(unit: Unit, place: _Place, texts: Mapping[str, str], hashed: str) -> dict[str, Any]:
    checks: Sequence[Check] = unit.health
    if not checks:
        checks = [TcpCheck(port=one.port) for one in unit.ingress if one.proto == "tcp"]
    digest = hashlib.sha3_256(files.canonical({"files": hashed, "texts": dict(texts)})).hexdigest()
    return {
        "service": unit.service,
        "timer": unit.timer,
        "version": unit.version,
        "tier": unit.tier,
        "trust": unit.trust,
        "format": unit.format,
        "from": place.origin,
        "digest": digest,
        "type": unit.entry.type,
        "user": unit.entry.user,
        "directory": place.base,
        "health": resolve_checks(checks, place.base, f"{STATE}/{unit.id}"),
        "reload": unit.entry.reload,
        "migrated": unit.migrated,
    }


def _units_json(release: str, entries: dict[str, Any], result: Mapping[str, bytes]) -> dict[str, Any]:
    hashes = {Path(name).name: hashlib.sha3_256(data).hexdigest() for name, data in result.items()}
    return {"release": release, "units": entries, "files": hashes}


def _texts(unit: Unit, place: _Place) -> dict[str, str]:
    texts = {unit.service: _service(unit, place)}
    if unit.timer is not None:
        texts[unit.timer] = _timer(unit)
    return texts


def _service(unit: Unit, place: _Place) -> str:
    lines = [
        f"# Rendered by kosctl from unit {unit.id}; what is changed here is lost.",
        "[Unit]",
        f"Description=kOS unit {unit.id} {unit.version}",
        f"PartOf={TARGET}",
        # The revert of a trial that a boot ended comes first: it brings the state back.
        "After=network.target kos-boot.service",
        f"RequiresMountsFor={_word(place.base)}",
        # A unit comes back by itself once its cause is gone, however long that takes.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *_process(unit, place),
        *_HARDENING,
        *_network(unit),
        *_limits(unit),
    ]
    return "\n".join(lines) + "\n"


def _timer(unit: Unit) -> str:
    lines = [
        f"# Rendered by kosctl from unit {unit.id}; what is changed here is lost.",
        "[Unit]",
        f"Description=Period of kOS unit {unit.id}",
        f"PartOf={TARGET}",
        "",
        "[Timer]",
        "OnActiveSec=0",
        f"OnUnitActiveSec={unit.entry.every_s}",
        "AccuracySec=1s",
    ]
    return "\n".join(lines) + "\n"


def _process(unit: Unit, place: _Place) -> Iterator[str]:
    entry = unit.entry
    yield f"Type={entry.type}"
    yield f"User={entry.user}"
    yield f"SyslogIdentifier=kos-{unit.id}"
    yield f"WorkingDirectory={_escape(place.base)}"
    environment = {
        **dict(entry.env),
        "KOS_UNIT": unit.id,
        "KOS_RELEASE": place.release,
        "KOS_UNIT_CONFIG": f"{UNIT_CONFIG}/{unit.id}.json",
    }
    for name, value in environment.items():
        yield f"Environment={_word(f'{name}={value}')}"
    yield f"StateDirectory=kos/state/{unit.id}"
    yield "StateDirectoryMode=0700"
    yield f"ReadOnlyPaths={_word(place.base)}"
    words = (_program(entry.command[0], place.base), *entry.command[1:])
    yield f"ExecStart={' '.join(_argument(word) for word in words)}"
    if entry.reload:
        # The shell's own kill: a small system may have no program of that name.
        yield "ExecReload=/bin/sh -c 'kill -HUP $$MAINPID'"
    yield f"TimeoutStartSec={entry.timeout_s}"
    yield f"TimeoutStopSec={STOP_TIMEOUT_S}"
    if entry.type == "notify":
        yield "NotifyAccess=main"
    if entry.watchdog_s is not None:
        yield f"WatchdogSec={entry.watchdog_s}"
    if entry.type != "oneshot":
        yield from ("Restart=always", *_RESTART)
    elif entry.every_s is None:
        yield from ("RemainAfterExit=yes", "Restart=on-failure", *_RESTART)


def _network(unit: Unit) -> Iterator[str]:
    if not unit.ingress and not unit.egress:
        yield "RestrictAddressFamilies=AF_UNIX"
        yield "IPAddressDeny=any"
        yield "SocketBindDeny=any"
        return
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
    allowed = {source for one in unit.ingress for source in one.sources} | {one.host for one in unit.egress}
    if unit.ingress:
        # The node's own health checks come from there.
        allowed.add("localhost")
    yield "IPAddressDeny=any"
    yield f"IPAddressAllow={'any' if 'any' in allowed else ' '.join(sorted(allowed))}"
    yield "SocketBindDeny=any"
    for one in unit.ingress:
        yield f"SocketBindAllow={one.proto}:{one.port}"


def _limits(unit: Unit) -> Iterator[str]:
    resources = unit.resources
    if resources.max_memory is not None:
        yield f"MemoryMax={resources.max_memory}"
    if resources.min_memory is not None:
        yield f"MemoryMin={resources.min_memory}"
    if resources.max_tasks is not None:
        yield f"TasksMax={resources.max_tasks}"
    if resources.max_cpu is not None:
        yield f"CPUQuota={resources.max_cpu}%"


def _program(word: str, base: str) -> str:
    if word.startswith("/"):
        return word
    return PYTHON if word == "python3" else f"{base}/{word}"


def _escape(text: str) -> str:
    """Return text in which systemd sees no specifier; text that would end the line is refused."""
    if any(ord(letter) < 0x20 or 0x7F <= ord(letter) <= 0x9F for letter in text):
        raise InputError("a value of a unit holds a control character")
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """Return text as one quoted word of a directive that takes words, such as Environment=."""
    quoted = _escape(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _argument(text: str) -> str:
    """Return text as one word of a command line, in which systemd puts in no variable either."""
    return _word(text).replace("$", "$$")
