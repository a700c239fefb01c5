"""The command line of the publisher: `kosctl repo …`, and `python -m kosnode.publish …` by itself."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import command
from ..command import Result
from ..errors import FindingsError, InputError
from ..metadata import RELEASES, ROLES
from . import build, catalogue, documents, drop, holders, keys, publication, signing, verify
from .repository import (
    DEFAULT_EXPIRES_S,
    DEFAULT_LEVEL,
    DEFAULT_PATCHES,
    Change,
    Config,
    Repository,
)

_DURATION = re.compile(r"(-?[0-9]{1,9})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_HOUR_S = 3600


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Register `repo` and its verbs; each sets `func`, from the parsed arguments to a `Result`.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser("repo", help="make, sign and publish releases")
    _add_verbs(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and print its result.

    Returns:
        The exit code (docs/architecture.md, Command).
    """
    parser = argparse.ArgumentParser(prog="python -m kosnode.publish", description=__doc__)
    _add_verbs(parser)
    parser.set_defaults(json=False)
    args = parser.parse_args(argv)
    answered = command.answer("repo", lambda: args.func(args), status=lambda: None)
    error = answered.envelope["error"]
    if error is not None:
        print(f"error: {error['message']}", file=sys.stderr)
    if args.json:
        print(answered.json())
    elif answered.text:
        print(answered.text)
    return answered.exit


def _progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


# Verbs


def _init(args: argparse.Namespace) -> Result:
    repository = Repository(args.repo)
    config = Config({**DEFAULT_EXPIRES_S, **dict(args.expires)}, args.patches, args.level)
    targets = None
    if args.targets_key:
        targets = holders.read_signers("targets", args.targets_key, args.targets_threshold)
    elif args.targets_threshold is not None:
        raise InputError("a threshold without keys: name the keys of targets", key="--targets-key")
    foundation = holders.Foundation(
        holders.read_signers("root", args.root_key, args.root_threshold),
        targets,
        holders.read_signers("releases", args.releases_key, args.releases_threshold),
        _online(args),
    )
    changed = holders.initialise(repository, config, foundation)
    waiting = {role: _waiting(repository, role) for role in documents.OFFLINE_ROLES}
    actions = [f"made {args.repo}; root, targets and releases wait for signatures"] if changed else []
    return Result({"repository": str(args.repo), "waiting": waiting}, changed, actions)


def _key_new(args: argparse.Namespace) -> Result:
    key = keys.make(args.out, keys.read_passphrase(args.passphrase_file), holder=args.holder)
    public = keys.public_path_of(args.out)
    said = {**_key(key), "private": str(args.out), "public": str(public), "encryption": keys.ENCRYPTION}
    return Result(said, True, [f"made {args.out} and {public} for {keys.holder_of(key)}, key id {key.keyid}"])


def _key_show(args: argparse.Namespace) -> Result:
    key = keys.load_public(args.file, option="FILE")
    return Result(_key(key), text=f"{keys.holder_of(key)} {key.keytype} key id {key.keyid}")


def _key_change_passphrase(args: argparse.Namespace) -> Result:
    if args.passphrase_file == args.new_passphrase_file == "-":
        raise InputError(
            "only one of the passphrases can come from standard input", key="--new-passphrase-file"
        )
    new = keys.read_passphrase(args.new_passphrase_file, key="--new-passphrase-file")
    keys.change_passphrase(args.file, keys.read_passphrase(args.passphrase_file), new)
    return Result({"private": str(args.file)}, True, [f"{args.file} opens with the new passphrase"])


def _root(args: argparse.Namespace) -> Result:
    repository = Repository(args.repo)
    online = _online(args) if args.online_key else None
    return _changes(repository, holders.change_root(repository, _rotation(args), online))


def _delegate(args: argparse.Namespace) -> Result:
    repository = Repository(args.repo)
    return _changes(repository, holders.change_delegation(repository, _rotation(args)))


def _renew(args: argparse.Namespace) -> Result:
    repository = Repository(args.repo)
    return _changes(repository, {args.role: holders.renew(repository, args.role)})


def _build(args: argparse.Namespace) -> Result:
    repository = Repository(args.repo)
    given = {"name": args.name, "version": args.version, "arch": args.arch}
    release = build.read_release(
        args.release_file, {key: value for key, value in given.items() if value is not None}
    )
    built = build.build(
        repository, args.tree, release, channels=args.channel or ["stable"], progress=_progress
    )
    title = f"{release['name']} {release['version']} ({release['arch']})"
    actions = [f"built {title}, root {built.root}", *built.actions]
    if not built.changed:
        actions = []
    result = {**built.to_dict(), "waiting": _waiting(repository, RELEASES)}
    notes = "".join(f"\nnote: {note}" for note in built.notes)
    head = "\n".join(actions) or f"{title} exists already with root {built.root}: nothing to do"
    return Result(result, built.changed, actions, head + notes)


def _promote(args: argparse.Namespace) -> Result:
    repository = Repository(args.repo)
    return _listing(repository, catalogue.promote(repository, args.version, args.channel, name=args.name))


def _withdraw(args: argparse.Namespace) -> Result:
    repository = Repository(args.repo)
    change = catalogue.withdraw(repository, args.version, name=args.name, channel=args.channel)
    return _listing(repository, change)


def _floor(args: argparse.Namespace) -> Result:
    repository = Repository(args.repo)
    return _listing(repository, catalogue.set_floor(repository, args.name, args.version))


def _sign(args: argparse.Namespace) -> Result:
    if args.show:
        shown = signing.open_file(args.file, args.role)
        return Result(shown.to_dict(), text=_signing_text(shown))
    if args.key is None or args.passphrase_file is None:
        raise InputError(
            "a key and the file of its passphrase are needed to sign; or use --show", key="--key"
        )
    _progress(_signing_text(signing.open_file(args.file, args.role)))
    signed = signing.sign(args.file, args.role, args.key, keys.read_passphrase(args.passphrase_file))
    action = f"{signed.holder} signed {signed.staged.role} {signed.staged.document.signed.version}"
    return Result(signed.to_dict(), True, [action], f"{action}\n{_quorum_text(signed)}")


def _merge(args: argparse.Namespace) -> Result:
    merged, new = signing.merge(Repository(args.repo), args.file)
    actions = [f"took the signature of {holder}" for holder in new]
    text = "\n".join([*actions, _quorum_text(merged)])
    return Result({**merged.to_dict(), "new": new}, bool(new), actions, text)


def _drop(args: argparse.Namespace) -> Result:
    repository = Repository(args.repo)
    dropped = drop.drop(repository, args.document)
    title = f"{dropped.role} {dropped.document.signed.version}"
    signatures = len(dropped.document.signatures)
    waiting = {role: _waiting(repository, role) for role in documents.OFFLINE_ROLES}
    lost = f", and {signatures} signatures of it" if signatures else ""
    return Result({"dropped": title, "waiting": waiting}, True, [f"dropped {title}{lost}"])


def _publish(args: argparse.Namespace) -> Result:
    passphrase = None if args.passphrase_file is None else keys.read_passphrase(args.passphrase_file)
    done = publication.publish(Repository(args.repo), passphrase, mirror=args.to, progress=_progress)
    return Result(_publication(done), bool(done.actions), done.actions)


def _timestamp(args: argparse.Namespace) -> Result:
    renewal = publication.renew_timestamp(
        Repository(args.repo),
        keys.read_passphrase(args.passphrase_file),
        expires_s=None if args.expires_hours is None else args.expires_hours * _HOUR_S,
        alarm_days=args.alarm_days,
        mirror=args.to,
        progress=_progress,
    )
    done = renewal.publication
    result = {**_publication(done), "alarms": renewal.alarms}
    if renewal.alarms:
        raise FindingsError(f"the timestamp is renewed, but {'; '.join(renewal.alarms)}", detail=result)
    return Result(result, True, done.actions)


def _verify(args: argparse.Namespace) -> Result:
    report = verify.verify(args.path, args.pinned_root, progress=_progress)
    text = f"{len(report.releases)} releases and {report.patches} patches are right"
    return Result(report.to_dict(), text="\n".join([text, *(f"note: {note}" for note in report.notes)]))


def _list(args: argparse.Namespace) -> Result:
    rows = catalogue.table(Repository(args.repo))
    return Result({"releases": rows}, text=_table(rows))


# Pieces of results


def _key(key: Any) -> dict[str, Any]:
    return {"keyid": key.keyid, "holder": keys.holder_of(key), "keytype": key.keytype}


def _online(args: argparse.Namespace) -> holders.OnlineKey:
    if args.passphrase_file is None:
        raise InputError("name the file with the passphrase of the online key", key="--passphrase-file")
    return holders.OnlineKey(args.online_key, keys.read_passphrase(args.passphrase_file))


def _rotation(args: argparse.Namespace) -> holders.Rotation:
    return holders.Rotation(args.add, args.remove, args.threshold, args.expires)


def _waiting(repository: Repository, role: str) -> dict[str, Any] | None:
    path = repository.staged_path(role)
    staged = repository.staged(role)
    return None if path is None or staged is None else signing.Signed(path, staged).to_dict()


def _changes(repository: Repository, changes: Mapping[str, Change]) -> Result:
    actions = []
    for role, change in changes.items():
        if change.changed and change.staged is not None:
            actions.append(f"{role} {change.staged.document.signed.version} waits for signatures")
        elif change.changed:
            actions.append(f"{role} is again as it is published, nothing waits")
        if change.dropped:
            actions.append(f"{change.dropped} signatures of the earlier draft of {role} no longer hold")
    waiting = {role: _waiting(repository, role) for role in changes}
    return Result({"waiting": waiting}, any(change.changed for change in changes.values()), actions)


def _listing(repository: Repository, change: Change) -> Result:
    return _changes(repository, {RELEASES: change})


def _publication(done: publication.Publication) -> dict[str, Any]:
    return {
        "versions": dict(done.versions),
        "timestamp_expires": documents.time_text(done.timestamp_expires),
        "files_copied": done.files_copied,
    }


def _signing_text(signed: signing.Signed) -> str:
    shown = signed.to_dict()
    lines = [f"{shown['role']} {shown['version']}, expires {shown['contents']['expires']}"]
    for name, who in shown["contents"].get("roles", {}).items():
        lines.append(f"  {name}: {who['threshold']} of {', '.join(who['keys'].values())}")
    for root, one in shown["contents"].get("releases", {}).items():
        channels = ", ".join(one["channels"]) or "no channel"
        lines.append(f"  {one['name']} {one['version']} {one['arch']} in {channels}, root {root}")
    for name, floor in shown["contents"].get("floor", {}).items():
        lines.append(f"  security floor of {name}: {floor}")
    before = ", ".join(shown["previous_signed_by"])
    lines.append(f"changes{f' since the version signed by {before}' if before else ''}:")
    lines += [f"  {line}" for line in shown["changes"]]
    return "\n".join([*lines, _quorum_text(signed)])


def _quorum_text(signed: signing.Signed) -> str:
    return "\n".join(
        f"{quorum['name']}: {len(quorum['signed_by'])} of {quorum['threshold']} signatures"
        f" ({', '.join(quorum['signed_by']) or 'nobody yet'}), {quorum['missing']} missing"
        for quorum in signed.to_dict()["quorums"]
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("NAME", "VERSION", "ARCH", "CHANNELS", "ROOT", "STATE", "FILES", "UNPACKED", "ARCHIVE", "PATCHES")
    lines = [head]
    for row in rows:
        patches = ", ".join(
            f"{one['bytes']} from {one['version'] or one['root'][:12]}" for one in row["patches"]
        )
        cells = (row["name"], row["version"], row["arch"], ",".join(row["channels"]) or "-", row["root"][:12])
        sizes = (str(row["files"]), str(row["unpacked"]), str(row["archive"]), patches or "-")
        lines.append((*cells, row["state"], *sizes))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


# Parser


def _add_verbs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="repo_verb", metavar="VERB", required=True)

    verb = _verb(verbs, "init", _init, "make a repository whose first documents wait for signatures")
    _repo(verb)
    _add_path(verb, "--root-key", "public key of a holder of root", action="append", required=True)
    verb.add_argument(
        "--root-threshold", type=int, metavar="K", help="signatures that root needs; all by default"
    )
    _add_path(
        verb, "--targets-key", "public key of a holder of targets; those of root by default", action="append"
    )
    verb.add_argument("--targets-threshold", type=int, metavar="K", help="signatures that targets needs")
    _add_path(
        verb, "--releases-key", "public key of a holder who signs releases", action="append", required=True
    )
    verb.add_argument("--releases-threshold", type=int, metavar="K", help="signatures that releases need")
    _add_path(verb, "--online-key", "encrypted private key that signs snapshot and timestamp", required=True)
    _passphrase(verb, "of the online key", required=True)
    verb.add_argument(
        "--expires",
        type=_role_duration,
        action="append",
        default=[],
        metavar="ROLE=DURATION",
        help="how long a new document of a role holds, such as releases=180d or timestamp=48h",
    )
    verb.add_argument(
        "--patches", type=int, default=DEFAULT_PATCHES, metavar="N", help="patch from the last N releases"
    )
    verb.add_argument("--level", type=int, default=DEFAULT_LEVEL, help="zstd level, 1 to 19")

    key = verbs.add_parser("key", help="make and look after the key of a holder")
    key_verbs = key.add_subparsers(dest="key_verb", metavar="VERB", required=True)
    verb = _verb(key_verbs, "new", _key_new, "make an Ed25519 key, encrypted, and its public half")
    _add_path(verb, "--out", "the private key; the public half goes beside it as .pub", required=True)
    _passphrase(verb, "that encrypts the key", required=True)
    verb.add_argument("--holder", metavar="NAME", help="who holds it; the file's name by default")
    verb = _verb(key_verbs, "show", _key_show, "show a public key")
    _add_path(verb, "file", "the .pub file")
    verb = _verb(key_verbs, "change-passphrase", _key_change_passphrase, "encrypt a private key again")
    _add_path(verb, "file", "the private key")
    _passphrase(verb, "of now", required=True)
    verb.add_argument(
        "--new-passphrase-file", required=True, metavar="FILE", help="the new one; - is standard input"
    )

    verb = _verb(verbs, "root", _root, "stage the next root: other holders, threshold, online key or expiry")
    _repo(verb)
    _rotation_options(verb)
    _add_path(verb, "--online-key", "new encrypted private key that signs snapshot and timestamp")
    _passphrase(verb, "of the new online key")

    verb = _verb(verbs, "delegate", _delegate, "stage other holders or another threshold for releases")
    _repo(verb)
    _rotation_options(verb)

    verb = _verb(verbs, "renew", _renew, "stage a document again with a new expiry")
    _repo(verb)
    verb.add_argument("--role", choices=documents.OFFLINE_ROLES, required=True)

    verb = _verb(verbs, "build", _build, "make a release from a tree and stage it")
    _repo(verb)
    _add_path(verb, "--tree", "directory of the release's files, with units/NAME/unit.yml", required=True)
    _add_path(verb, "--release-file", "YAML, TOML or JSON that says the rest of the manifest")
    verb.add_argument("--name", help="release line")
    verb.add_argument("--version", help="SemVer 2.0.0 without build part")
    verb.add_argument("--arch", help="any (default), x86_64 or aarch64")
    verb.add_argument(
        "--channel", action="append", help="channel it is in (stable by default; can be repeated)"
    )

    verb = _verb(verbs, "promote", _promote, "stage that a release is in one more channel")
    _repo(verb)
    _release(verb)
    verb.add_argument("--channel", required=True)

    verb = _verb(verbs, "withdraw", _withdraw, "stage that a release leaves a channel, or the repository")
    _repo(verb)
    _release(verb)
    verb.add_argument("--channel", help="only this channel")

    verb = _verb(verbs, "floor", _floor, "stage the lowest version that nodes may go to")
    _repo(verb)
    verb.add_argument("name", metavar="NAME", help="release line")
    verb.add_argument("version", metavar="VERSION")

    verb = _verb(verbs, "sign", _sign, "show what waits for signatures, and sign it; needs no repository")
    _add_path(verb, "file", "a staged file, or the repository with --role")
    verb.add_argument("--role", choices=documents.OFFLINE_ROLES)
    _add_path(verb, "--key", "the holder's encrypted private key")
    _passphrase(verb, "of the key")
    verb.add_argument("--show", action="store_true", help="only show it")

    verb = _verb(verbs, "merge", _merge, "take the signatures of a copied file back")
    _repo(verb)
    _add_path(verb, "file", "the staged file that came back")

    verb = _verb(verbs, "drop", _drop, "take away what waits for signatures, and keep what is published")
    _repo(verb)
    verb.add_argument(
        "document", choices=documents.OFFLINE_ROLES, metavar="DOCUMENT", help="root, targets or releases"
    )

    verb = _verb(verbs, "publish", _publish, "make what is staged visible to nodes")
    _repo(verb)
    _passphrase(verb, "of the online key; needed where something is staged")
    _add_path(verb, "--to", "copy it to this mirror folder as well")

    verb = _verb(verbs, "timestamp", _timestamp, "issue the next timestamp (from a timer)")
    _repo(verb)
    _passphrase(verb, "of the online key", required=True)
    verb.add_argument(
        "--expires-hours", type=int, metavar="N", help="how long it holds; as in config.json by default"
    )
    verb.add_argument(
        "--alarm-days",
        type=int,
        default=publication.ALARM_DAYS,
        metavar="N",
        help="end with 12 where a document of holders expires within N days (%(default)s)",
    )
    _add_path(verb, "--to", "copy it to this mirror folder as well")

    verb = _verb(
        verbs, "verify", _verify, "check a repository or a mirror folder as a node would, and every file"
    )
    _add_path(verb, "path", "repository or mirror folder")
    _add_path(verb, "--root", "the pinned root of trust; its own first root by default", dest="pinned_root")

    verb = _verb(verbs, "list", _list, "list the releases")
    _repo(verb)


def _verb(
    verbs: Any, name: str, func: Callable[[argparse.Namespace], Result], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    # No default of its own: `kosctl --json repo …` has been said already when this is parsed.
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object"
    )
    parser.set_defaults(func=func, run=func, verb="repo")
    return parser


def _repo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repo", type=Path, metavar="REPO", help="folder of the repository")


def _release(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", metavar="VERSION", help="version, or root (12 digits or more)")
    parser.add_argument("--name", help="release line, where several have the version")


def _rotation_options(parser: argparse.ArgumentParser) -> None:
    _add_path(parser, "--add", "public key to add", action="append", default=[])
    parser.add_argument(
        "--remove", action="append", default=[], metavar="KEY", help="holder or key id to remove"
    )
    parser.add_argument("--threshold", type=int, metavar="K", help="signatures needed from now on")
    parser.add_argument(
        "--expires", type=_duration, metavar="DURATION", help="how long it holds, such as 365d"
    )


def _passphrase(parser: argparse.ArgumentParser, whose: str, *, required: bool = False) -> None:
    text = f"file with the passphrase {whose}; - is standard input"
    parser.add_argument("--passphrase-file", required=required, metavar="FILE", help=text)


def _add_path(parser: argparse.ArgumentParser, name: str, text: str, **more: Any) -> None:
    parser.add_argument(
        name, type=Path, metavar=name.lstrip("-").upper().replace("-", "_"), help=text, **more
    )


def _duration(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 48h or 365d")
    return int(match.group(1)) * _UNIT_S[match.group(2)]


def _role_duration(text: str) -> tuple[str, int]:
    role, equals, duration = text.partition("=")
    if role not in ROLES or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROLE=DURATION with one of {', '.join(ROLES)}")
    return role, _duration(duration)
