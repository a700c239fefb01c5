"""What a holder of a key does: see what is to be signed, sign it, and bring the signature back.

Signing needs one portable file from `staged/` and the key, nothing else, so it works on a machine without a
network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import Key, Metadata, Root, Targets

from .. import files, listing
from ..errors import InputError, RefusedError, TrustError
from ..metadata import RELEASES
from . import documents, keys
from .documents import Signers, Staged
from .repository import Repository


@dataclass(frozen=True)
class Signed:
    """A portable file and who has signed it.

    Args:
        path: the file.
        staged: its contents.
        holder: who signed just now, None where nobody did.
    """

    path: Path
    staged: Staged
    holder: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what a person needs to know before and after signing."""
        return {
            "file": str(self.path),
            "role": self.staged.role,
            "version": self.staged.document.signed.version,
            "signed": self.holder,
            "quorums": [
                {
                    "name": name,
                    "threshold": result.threshold,
                    "signed_by": sorted(keys.holder_of(key) for key in result.signed.values()),
                    "waiting_for": sorted(keys.holder_of(key) for key in result.unsigned.values()),
                    "missing": result.missing,
                }
                for name, result in self.staged.quorums()
            ],
            "contents": describe(self.staged.document, self.staged.role),
            "changes": changes(self.staged),
            "previous_signed_by": _previous_signers(self.staged),
        }


def open_file(path: Path, role: str | None = None) -> Signed:
    """Read the portable file, or the one of `role` in a repository folder.

    Args:
        path: a file, or a repository.
        role: which document; with a file it is checked, and not needed.

    Raises:
        InputError: no such file, or it is of another role.
    """
    if path.is_dir():
        repository = Repository(path)
        repository.require()
        if role is None:
            raise InputError("a repository holds several documents: say which role", key="--role")
        found = repository.staged_path(role)
        staged = repository.staged(role)
        if found is None or staged is None:
            raise InputError(f"{path} has no {role} that waits for signatures", key="--role")
        return Signed(found, staged)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", key="FILE") from None
    staged = documents.parse_staged(data, str(path))
    if role is not None and staged.role != role:
        raise InputError(f"{path} holds {staged.role}, not {role}", key="--role")
    return Signed(path, staged)


def sign(path: Path, role: str | None, key_path: Path, passphrase: bytes) -> Signed:
    """Add a holder's signature to what waits for it.

    Args:
        path: the portable file, or a repository.
        role: see `open_file`.
        key_path: the holder's encrypted private key.
        passphrase: opens it.

    Raises:
        InputError: the key does not open, or there is nothing to sign.
        TrustError: the key is not one of the role's.
        RefusedError: the holder has signed it already.
    """
    if path.is_dir():
        repository = Repository(path)
        repository.require()
        with repository.locked():
            return _sign(open_file(path, role), key_path, passphrase)
    return _sign(open_file(path, role), key_path, passphrase)


def _sign(opened: Signed, key_path: Path, passphrase: bytes) -> Signed:
    staged = opened.staged
    signer = keys.load_signer(key_path, passphrase)
    keyid = signer.public_key.keyid
    known = eligible(staged)
    if keyid not in known:
        names = ", ".join(sorted(keys.holder_of(key) for key in known.values()))
        raise TrustError(
            f"{key_path} (key id {keyid[:12]}) may not sign {staged.role}; those who may: {names}",
            key="--key",
        )
    holder = keys.holder_of(known[keyid])
    if keyid in valid_signatures(staged.document, known):
        raise RefusedError(
            f"{holder} has signed this {staged.role} already: one key counts once", key="--key"
        )
    staged.document.sign(signer, append=True)
    files.write_durable(opened.path, staged.to_bytes())
    return Signed(opened.path, staged, holder)


def merge(repository: Repository, path: Path) -> tuple[Signed, list[str]]:
    """Take the signatures of a copied file back into the repository.

    Args:
        path: the portable file that came back.

    Returns:
        What waits now, and the holders whose signatures are new.

    Raises:
        TrustError: what was signed is not byte for byte what waits here, or a signature is not valid.
    """
    repository.require()
    with repository.locked():
        theirs = open_file(path).staged
        here = open_file(repository.path, theirs.role)
        ours = here.staged
        if theirs.document.signed_bytes != ours.document.signed_bytes:
            raise TrustError(
                f"{path} is not the {ours.role} {ours.document.signed.version} that waits here: it was "
                "changed, or this one was after the copy was made",
                key="FILE",
            )
        known = eligible(ours)
        offered = theirs.document.signatures
        valid = valid_signatures(theirs.document, known)
        wrong = sorted(set(offered) - set(valid))
        if wrong:
            raise TrustError(
                f"{path} has a signature that does not count: key id {wrong[0][:12]}", key="FILE"
            )
        new = [keyid for keyid in valid if keyid not in valid_signatures(ours.document, known)]
        for keyid in new:
            ours.document.signatures[keyid] = offered[keyid]
        if new:
            files.write_durable(here.path, ours.to_bytes())
        return here, sorted(keys.holder_of(known[keyid]) for keyid in new)


def eligible(staged: Staged) -> dict[str, Key]:
    """Return the keys whose signatures count: for root those of the old version and of the new one."""
    known = dict(staged.signers.keys)
    if staged.role == "root" and staged.previous is not None:
        known = {**documents.signers_of(staged.previous.signed, "root").keys, **known}
    return known


def valid_signatures(document: Metadata[Any], known: Mapping[str, Key]) -> list[str]:
    """Return the key ids of `known` whose signatures on `document` are valid."""
    return list(documents.count(Signers(known, 1), document).signed) if known else []


def _previous_signers(staged: Staged) -> list[str]:
    # A holder who signed the previous version sees here that "what changed" is measured against it in truth.
    if staged.previous is None:
        return []
    known = eligible(staged)
    return sorted(keys.holder_of(known[keyid]) for keyid in valid_signatures(staged.previous, known))


def describe(document: Metadata[Any], role: str) -> dict[str, Any]:
    """Return all that a signature on a document says, for people and for comparison."""
    signed = document.signed
    value: dict[str, Any] = {"expires": documents.time_text(signed.expires)}
    if role == "root":
        value["roles"] = {name: _who(signed, name) for name in sorted(signed.roles)}
    elif role == "targets":
        value["roles"] = {RELEASES: _who(signed, RELEASES)}
    else:
        value["floor"] = signed.unrecognized_fields[listing.SECURITY_FLOOR]
        value["releases"] = {listing.root_of(path): _release(signed, path) for path in sorted(signed.targets)}
    return value


def _who(signed: Root | Targets, role: str) -> dict[str, Any]:
    signers = documents.signers_of(signed, role)
    return {
        "threshold": signers.threshold,
        "keys": {keyid: keys.holder_of(key) for keyid, key in sorted(signers.keys.items())},
    }


def _release(signed: Targets, path: str) -> dict[str, Any]:
    target = signed.targets[path]
    return {
        **listing.custom_of(target).to_dict(),
        "length": target.length,
        listing.HASH: target.hashes[listing.HASH],
    }


def changes(staged: Staged) -> list[str]:
    """Return one sentence for each difference between a document and the published version before it."""
    now = describe(staged.document, staged.role)
    if staged.previous is None:
        return [f"first version of {staged.role}"]
    before = describe(staged.previous, staged.role)
    lines = [f"expires {before['expires']} -> {now['expires']}"]
    if staged.role == RELEASES:
        lines += _map_changes("security floor of ", before["floor"], now["floor"])
        lines += _release_changes(before["releases"], now["releases"])
    else:
        for role, who in now["roles"].items():
            lines += _who_changes(role, before["roles"][role], who)
    return lines


def _who_changes(role: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    lines = []
    if before["threshold"] != now["threshold"]:
        lines.append(f"{role}: threshold {before['threshold']} -> {now['threshold']}")
    for keyid in sorted(set(now["keys"]) - set(before["keys"])):
        lines.append(f"{role}: + {now['keys'][keyid]} ({keyid[:12]})")
    for keyid in sorted(set(before["keys"]) - set(now["keys"])):
        lines.append(f"{role}: - {before['keys'][keyid]} ({keyid[:12]})")
    return lines


def _map_changes(what: str, before: dict[str, str], now: dict[str, str]) -> list[str]:
    return [
        f"{what}{name}: {before.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in sorted(set(before) | set(now))
        if before.get(name) != now.get(name)
    ]


def _release_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    def title(root: str, release: dict[str, Any]) -> str:
        return f"{release['name']} {release['version']} {release['arch']} root {root}"

    lines = []
    for root in sorted(set(before) | set(now)):
        if root not in before:
            channels = ", ".join(now[root]["channels"]) or "no channel"
            lines.append(f"+ {title(root, now[root])} in {channels}")
        elif root not in now:
            lines.append(f"- {title(root, before[root])}")
        elif before[root] != now[root]:
            old, new = before[root], now[root]
            differing = ", ".join(
                f"{key} {old[key]} -> {new[key]}" for key in sorted(new) if old[key] != new[key]
            )
            lines.append(f"~ {title(root, new)}: {differing}")
    return lines
