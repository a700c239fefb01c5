"""Who holds the keys: the first documents of a repository, and every later change of keys and thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, Role, Root, Targets

from .. import files, listing
from ..errors import InputError
from ..metadata import RELEASES
from . import documents, keys
from .documents import Signers
from .repository import Change, Config, Repository, make_public_folder

MIN_PREFIX = 8


@dataclass(frozen=True)
class OnlineKey:
    """The key of snapshot and timestamp.

    Args:
        path: the encrypted private key.
        passphrase: opens it.
    """

    path: Path
    passphrase: bytes

    def public(self) -> Key:
        """Return its public half; raises InputError where it does not open."""
        return keys.load_signer(self.path, self.passphrase).public_key


@dataclass(frozen=True)
class Foundation:
    """Who signs what in a new repository.

    Args:
        root: holders of root.
        targets: holders of the delegation to releases; those of root where None.
        releases: holders who sign releases.
        online: key of snapshot and timestamp.
    """

    root: Signers
    targets: Signers | None
    releases: Signers
    online: OnlineKey


@dataclass(frozen=True)
class Rotation:
    """A change of who signs a role. Without any field set it asks for the same signers and a new expiry.

    Args:
        add: files of public keys to add.
        remove: key ids, unique beginnings of them (8 digits or more), or names of holders.
        threshold: the new threshold, the old one where None.
        expires_s: how long the new document holds, in seconds; as in config.json where None.
    """

    add: Sequence[Path] = ()
    remove: Sequence[str] = ()
    threshold: int | None = None
    expires_s: int | None = None

    @property
    def renews(self) -> bool:
        """Whether the signers stay."""
        return not self.add and not self.remove and self.threshold is None


def read_signers(role: str, paths: Sequence[Path], threshold: int | None) -> Signers:
    """Read the public keys of a role.

    Args:
        role: named in messages.
        paths: files of public keys.
        threshold: how many must sign; all of them where None.

    Raises:
        InputError: no key, one key twice, or a threshold that cannot be reached.
    """
    by_id: dict[str, Key] = {}
    for path in paths:
        _add(by_id, path, role, f"--{role}-key")
    wanted = len(by_id) if threshold is None else threshold
    return _checked(role, Signers(by_id, wanted), f"--{role}-threshold")


def initialise(repository: Repository, config: Config, foundation: Foundation) -> bool:
    """Make a repository whose first root, targets and releases wait for signatures.

    Args:
        repository: a folder that does not exist, or is empty, or was made by the same call before.
        config: its settings.
        foundation: who signs what.

    Returns:
        Whether anything was made.

    Raises:
        InputError: a setting breaks a rule, the online key does not open, or the folder holds something else.
    """
    config.check()
    first = _first_documents(foundation)
    if repository.config_path.exists():
        _require_same(repository, config, first)
        return False
    _require_empty(repository.path)

    repository.path.mkdir(parents=True, exist_ok=True)
    for folder in ("public", "public/metadata", "public/releases", "public/patches"):
        make_public_folder(repository.path / folder)
    for folder in ("staged/releases", "staged/patches", "online"):
        (repository.path / folder).mkdir(parents=True, exist_ok=True)
    (repository.path / "online").chmod(0o700)
    with repository.locked(founding=True):
        online = repository.online_key(foundation.online.public().keyid)
        files.write_durable(online, foundation.online.path.read_bytes(), mode=0o600)
        for role, (signed, signers) in first.items():
            signed.expires = repository.now() + timedelta(seconds=config.expires_s[role])
            document: Metadata[Any] = Metadata(signed)
            repository.write_staged(documents.Staged(role, document, None, signers))
        # Last: a folder is a repository from here on.
        files.write_durable(repository.config_path, files.canonical(config.to_dict()) + b"\n")
    return True


def change_root(
    repository: Repository, rotation: Rotation, online: OnlineKey | None = None
) -> dict[str, Change]:
    """Stage the next version of root, to be signed by the old quorum and the new one.

    Where the holders of root sign targets as well, targets follows them, and is staged again where the
    signatures that are published would no longer do.

    Args:
        rotation: the new holders of root.
        online: a new key of snapshot and timestamp, in use from the publication of this root.

    Returns:
        What was staged, by role.

    Raises:
        InputError: an unknown key, or a threshold that cannot be reached.
    """
    with repository.locked():
        root: Root = repository.draft("root")
        changed = _rotated("root", documents.signers_of(root, "root"), rotation)
        roles = ["root"]
        if _who(root.roles["targets"]) == _who(root.roles["root"]):
            roles.append("targets")
        for role in roles:
            _set_role(root, role, changed)
        if online is not None:
            public = online.public()
            for role in ("snapshot", "timestamp"):
                _set_role(root, role, Signers({public.keyid: public}, 1))
            files.write_durable(repository.online_key(public.keyid), online.path.read_bytes(), mode=0o600)
        _require_apart(root)
        _set_expiry(repository, root, rotation)
        changes = {"root": repository.stage("root", root, renew=rotation.renews and online is None)}
        return {**changes, **_follow(repository, "targets")}


def change_delegation(repository: Repository, rotation: Rotation) -> dict[str, Change]:
    """Stage the next version of targets with other keys for releases.

    `releases` is staged again where the signatures that are published would no longer do.

    Raises:
        InputError: an unknown key, or a threshold that cannot be reached.
    """
    with repository.locked():
        targets: Targets = repository.draft("targets")
        changed = _rotated(RELEASES, documents.signers_of(targets, RELEASES), rotation)
        targets.delegations = _delegation(changed)
        _set_expiry(repository, targets, rotation)
        changes = {"targets": repository.stage("targets", targets, renew=rotation.renews)}
        return {**changes, **_follow(repository, RELEASES)}


def renew(repository: Repository, role: str) -> Change:
    """Stage the next version of an offline role with the same contents and a new expiry."""
    with repository.locked():
        return repository.stage(role, repository.draft(role), renew=True)


def _first_documents(foundation: Foundation) -> dict[str, tuple[Root | Targets, Signers]]:
    public = foundation.online.public()
    online = Signers({public.keyid: public}, 1)
    targets = foundation.targets or foundation.root
    root = Root()
    for role, signers in (
        ("root", foundation.root),
        ("targets", targets),
        ("snapshot", online),
        ("timestamp", online),
    ):
        _set_role(root, role, signers)
    _require_apart(root)
    if public.keyid in foundation.releases.keys:
        raise InputError("the online key must not be one that signs releases as well", key="--online-key")
    return {
        "root": (root, foundation.root),
        "targets": (Targets(delegations=_delegation(foundation.releases)), targets),
        RELEASES: (Targets(unrecognized_fields={listing.SECURITY_FLOOR: {}}), foundation.releases),
    }


def _delegation(signers: Signers) -> Delegations:
    role = DelegatedRole(
        RELEASES, list(signers.keys), signers.threshold, terminating=True, paths=[documents.RELEASES_PATH]
    )
    return Delegations(dict(signers.keys), roles={RELEASES: role})


def _set_role(root: Root, name: str, signers: Signers) -> None:
    root.roles[name] = Role(list(signers.keys), signers.threshold)
    root.keys.update(signers.keys)
    used = {keyid for role in root.roles.values() for keyid in role.keyids}
    root.keys = {keyid: key for keyid, key in root.keys.items() if keyid in used}


def _require_apart(root: Root) -> None:
    online = set(root.roles["timestamp"].keyids)
    for role in ("root", "targets"):
        if online & set(root.roles[role].keyids):
            raise InputError(f"the online key must not be one that signs {role} as well", key="--online-key")


def _who(role: Role) -> tuple[list[str], int]:
    return sorted(role.keyids), role.threshold


def _rotated(role: str, signers: Signers, rotation: Rotation) -> Signers:
    by_id = dict(signers.keys)
    for text in rotation.remove:
        del by_id[_named(by_id, text, role)]
    for path in rotation.add:
        _add(by_id, path, role, "--add")
    threshold = signers.threshold if rotation.threshold is None else rotation.threshold
    return _checked(role, Signers(by_id, threshold), "--threshold")


def _add(by_id: dict[str, Key], path: Path, role: str, option: str) -> None:
    key = keys.load_public(path, option=option)
    if key.keyid in by_id:
        raise InputError(f"{path} holds a key that {role} has already: one key counts once", key=option)
    holder = keys.holder_of(key)
    if holder in map(keys.holder_of, by_id.values()):
        raise InputError(
            f"{path}: {role} has a key of {holder} already; no two may be called alike", key=option
        )
    by_id[key.keyid] = key


def _checked(role: str, signers: Signers, option: str) -> Signers:
    if not 1 <= signers.threshold <= len(signers.keys):
        raise InputError(
            f"{role} cannot need {signers.threshold} signatures of {len(signers.keys)} keys", key=option
        )
    return signers


def _named(by_id: Mapping[str, Key], text: str, role: str) -> str:
    found = [
        keyid
        for keyid, key in by_id.items()
        if keys.holder_of(key) == text or (len(text) >= MIN_PREFIX and keyid.startswith(text))
    ]
    if len(found) != 1:
        known = ", ".join(f"{keys.holder_of(key)} ({keyid[:12]})" for keyid, key in by_id.items())
        what = "names no key" if not found else f"names {len(found)} keys"
        raise InputError(f"{text!r} {what} of {role}, which has {known}", key="--remove")
    return found[0]


def _set_expiry(repository: Repository, signed: Root | Targets, rotation: Rotation) -> None:
    if rotation.expires_s is not None:
        signed.expires = repository.now() + timedelta(seconds=rotation.expires_s)


def _follow(repository: Repository, role: str) -> dict[str, Change]:
    published = repository.published().of(role)
    waits = repository.staged(role) is not None
    changes = {}
    if (
        published is not None
        and not waits
        and not documents.count(repository.signers(role), published).verified
    ):
        changes[role] = repository.stage(role, repository.draft(role), renew=True)
    repository.refresh_contexts()
    return changes


def _require_empty(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is not a directory", key="REPO")
    left = {entry.name for entry in path.iterdir()} if path.exists() else set()
    foreign = sorted(left - {"public", "staged", "online", ".lock"})
    if foreign:
        raise InputError(f"{path} is neither empty nor a repository: it holds {foreign[0]}", key="REPO")


def _require_same(
    repository: Repository, config: Config, first: Mapping[str, tuple[Root | Targets, Signers]]
) -> None:
    root: Root = repository.effective("root").signed
    asked_root = first["root"][0]
    asked = {RELEASES: _signer_ids(first[RELEASES][1])}
    there = {RELEASES: _signer_ids(repository.signers(RELEASES))}
    for role in root.roles:
        asked[role] = _signer_ids(documents.signers_of(asked_root, role))
        there[role] = _signer_ids(documents.signers_of(root, role))
    different = sorted(role for role in asked if asked[role] != there[role])
    if different:
        raise InputError(
            f"{repository.path} is a repository with other keys or another threshold for "
            f"{', '.join(different)}: change them with `repo root` or `repo delegate`",
            key="REPO",
        )
    if repository.require() != config:
        raise InputError(
            f"{repository.path} is a repository with other settings: edit its config.json", key="REPO"
        )


def _signer_ids(signers: Signers) -> tuple[list[str], int]:
    return sorted(signers.keys), signers.threshold
