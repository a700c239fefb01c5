"""The TUF documents of a repository: read strictly, checked for shape, counted for signatures, compared.

Source: The Update Framework, specification 1.0; python-tuf's `tuf.api.metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
    VerificationResult,
)

from .. import files, listing, version
from ..errors import InputError, KosError
from ..listing import SECURITY_FLOOR
from ..metadata import ISSUED, RELEASES, TIME
from . import keys

RELEASES_PATH = "releases/*"
OFFLINE_ROLES = ("root", "targets", RELEASES)
CONTEXT = "x-kos-context"
MAX_METADATA_BYTES = 5_000_000  # what python-tuf's client takes for targets metadata

_EXTRA = {RELEASES: {SECURITY_FLOOR}, "timestamp": {ISSUED}}
_TYPES: dict[str, type[Any]] = {
    "root": Root,
    "targets": Targets,
    RELEASES: Targets,
    "snapshot": Snapshot,
    "timestamp": Timestamp,
}


@dataclass(frozen=True)
class Signers:
    """Who may sign a role.

    Args:
        keys: by key id.
        threshold: how many of them have to.
    """

    keys: Mapping[str, Key]
    threshold: int


def utc_now() -> datetime:
    """Return the time of the system clock, in UTC and whole seconds."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def time_text(moment: datetime) -> str:
    """Return a time as TUF writes it (RFC 3339, UTC, whole seconds)."""
    return moment.strftime(TIME)


def parse(data: bytes, role: str, what: str) -> Metadata[Any]:
    """Read a TUF document and check that it has the shape that this repository gives to its role.

    Args:
        data: the file.
        role: one of `kosnode.metadata.ROLES`.
        what: how the file is called in messages.

    Raises:
        InputError: not strict JSON, not TUF metadata, of another type, or against the rules of `check`.
    """
    value = files.parse(data, limit=MAX_METADATA_BYTES, what=what)
    return from_value(value, role, what)


def from_value(value: Any, role: str, what: str) -> Metadata[Any]:
    """Like `parse`, from JSON that is read already (and is consumed)."""
    _check_signatures(value, what)
    try:
        document: Metadata[Any] = Metadata.from_dict(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{what} is not TUF metadata: {error}") from None
    if not isinstance(document.signed, _TYPES[role]):
        raise InputError(f"{what} holds {document.signed.type} metadata, not {role}")
    check(document.signed, role, what)
    return document


def _check_signatures(value: Any, what: str) -> None:
    # python-tuf takes anything for a key id and a signature, and fails where it is used.
    signatures = value.get("signatures") if isinstance(value, dict) else None
    if not isinstance(signatures, list) or not all(
        isinstance(made, dict)
        and set(made) == {"keyid", "sig"}
        and all(isinstance(text, str) for text in made.values())
        for made in signatures
    ):
        raise InputError(f"{what}: signatures is not a list of keyid and sig", key="signatures")


def check(signed: Any, role: str, what: str) -> None:
    """Check the rules that this project adds to TUF's own.

    A key has the key id of its contents (else one key could count twice). `targets` only delegates,
    `releases` only lists manifests with one hash, so a signature of one never serves as the other.

    Raises:
        InputError: naming the file and the rule.
    """
    # A holder is shown all that is signed, so there is nothing that is not known here.
    extra = sorted(set(signed.unrecognized_fields) - _EXTRA.get(role, set()))
    if extra:
        raise InputError(f"{what} has the unknown field {extra[0]!r}", key="signed")
    if role == "root":
        _check_roles(signed.roles, signed.keys, what)
        if signed.consistent_snapshot is not True:
            raise InputError(
                f"{what} is not of a repository with consistent snapshots", key="consistent_snapshot"
            )
    elif role == "targets":
        delegations = signed.delegations
        if signed.targets or delegations is None or set(delegations.roles or {}) != {RELEASES}:
            raise InputError(f"{what} must delegate to {RELEASES} and list nothing itself", key="delegations")
        delegated = delegations.roles[RELEASES]
        if delegated.paths != [RELEASES_PATH] or not delegated.terminating:
            raise InputError(f"{what} must delegate {RELEASES_PATH}, terminating", key="delegations")
        _check_roles(delegations.roles, delegations.keys, what)
    elif role == RELEASES:
        if signed.delegations is not None:
            raise InputError(f"{what} must not delegate", key="delegations")
        floor = signed.unrecognized_fields.get(SECURITY_FLOOR)
        if not isinstance(floor, dict) or not all(isinstance(lowest, str) for lowest in floor.values()):
            raise InputError(f"{what} has no {SECURITY_FLOOR}", key=SECURITY_FLOOR)
        for name, lowest in floor.items():
            if not listing.is_name(name):
                raise InputError(f"{what}: {name!r} is not the name of a release line", key=SECURITY_FLOOR)
            version.key(lowest)
        for path, target in signed.targets.items():
            _check_target(path, target, what)


def _check_target(path: str, target: TargetFile, what: str) -> None:
    try:
        listing.root_of(path)
        listing.custom_of(target)
    except InputError as error:
        raise InputError(f"{what}: target {path} is refused: {error.message}", key=error.key) from None
    unknown = sorted(set(target.custom or ()) - set(listing.KEYS))
    if unknown:
        raise InputError(f"{what}: custom of {path} has the unknown key {unknown[0]!r}", key="custom")


def _check_roles(roles: Mapping[str, Role], by_id: Mapping[str, Key], what: str) -> None:
    for keyid, key in by_id.items():
        keys.check_public(keyid, key.to_dict(), what)
    for name, role in roles.items():
        if not all(isinstance(keyid, str) and keyid in by_id for keyid in role.keyids):
            raise InputError(f"{what}: {name} names a key that is not there", key=name)
        if not _is_size(role.threshold) or not 1 <= role.threshold <= len(role.keyids):
            raise InputError(
                f"{what}: {name} cannot need {role.threshold} of {len(role.keyids)} keys", key=name
            )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def signers_of(delegator: Root | Targets, role: str) -> Signers:
    """Return who may sign `role` according to the document that delegates it."""
    delegated = delegator.get_delegated_role(role)
    return Signers({keyid: delegator.get_key(keyid) for keyid in delegated.keyids}, delegated.threshold)


def count(signers: Signers, document: Metadata[Any]) -> VerificationResult:
    """Verify the signatures of `document` by `signers`, each key counting once."""
    name = "signers"
    role = DelegatedRole(name, list(signers.keys), signers.threshold, terminating=True, paths=[])
    delegator = Targets(delegations=Delegations(dict(signers.keys), roles={name: role}))
    return delegator.get_verification_result(name, document.signed_bytes, document.signatures)


def shortfall(role: str, result: VerificationResult) -> str:
    """Return the sentence for too few signatures, with those who have signed and those who may still."""
    signed = ", ".join(sorted(keys.holder_of(key) for key in result.signed.values())) or "nobody"
    waiting = ", ".join(sorted(keys.holder_of(key) for key in result.unsigned.values())) or "nobody"
    return (
        f"{role} has {len(result.signed)} of {result.threshold} signatures "
        f"(signed by {signed}; still able to sign: {waiting})"
    )


def same_contents(one: Any, other: Any) -> bool:
    """Tell whether two signed documents differ in nothing but their version and expiry."""
    left, right = one.to_dict(), other.to_dict()
    for value in (left, right):
        value.pop("version")
        value.pop("expires")
    return files.canonical(left) == files.canonical(right)


@dataclass(frozen=True)
class Staged:
    """A document on its way from hand to hand: the metadata and, unsigned, what a signer needs to see.

    The file is TUF metadata with one more top-level key (`x-kos-context`) that holds the previous published
    version and, for roles that another document delegates, their keys and threshold. The repository trusts
    nothing in the context: it judges signatures by its own delegations.

    Args:
        role: `root`, `targets` or `releases`.
        document: the metadata, without the context.
        previous: the published version before it.
        signers: who may sign; for root those of the new version.
    """

    role: str
    document: Metadata[Any]
    previous: Metadata[Any] | None
    signers: Signers

    def quorums(self) -> list[tuple[str, VerificationResult]]:
        """Return each quorum that must sign, named, and who has; root needs the old one and the new one."""
        if self.role == "root" and self.previous is not None:
            old, new = self.previous.signed, self.document.signed
            return [
                (f"root (quorum of version {old.version})", count(signers_of(old, "root"), self.document)),
                (f"root (quorum of version {new.version})", count(self.signers, self.document)),
            ]
        return [(self.role, count(self.signers, self.document))]

    @property
    def verified(self) -> bool:
        """Whether each quorum is complete."""
        return all(result.verified for _, result in self.quorums())

    def to_bytes(self) -> bytes:
        """Return the portable file."""
        context = {
            "format": 1,
            "role": self.role,
            "keys": {keyid: key.to_dict() for keyid, key in self.signers.keys.items()},
            "threshold": self.signers.threshold,
            "previous": None if self.previous is None else self.previous.to_dict(),
        }
        return files.canonical({**self.document.to_dict(), CONTEXT: context}) + b"\n"


def parse_staged(data: bytes, what: str) -> Staged:
    """Read a portable file that `Staged.to_bytes` wrote.

    Raises:
        InputError: not such a file, or its parts do not belong together.
    """
    value = files.parse(data, limit=2 * MAX_METADATA_BYTES, what=what)
    context = value.pop(CONTEXT, None) if isinstance(value, dict) else None
    wanted = {"format", "role", "keys", "threshold", "previous"}
    if not isinstance(context, dict) or set(context) != wanted or context["format"] != 1:
        raise InputError(f"{what} is not metadata that waits for signatures (no {CONTEXT})", key=CONTEXT)
    role = context["role"]
    if role not in OFFLINE_ROLES:
        raise InputError(f"{what}: role {role!r} is not one of {', '.join(OFFLINE_ROLES)}", key="role")
    document = from_value(value, role, what)
    if document.unrecognized_fields:
        raise InputError(f"{what} has unknown fields: {', '.join(document.unrecognized_fields)}")
    previous = None
    if context["previous"] is not None:
        previous = from_value(context["previous"], role, f"{what}, previous version")
        if document.signed.version != previous.signed.version + 1:
            raise InputError(
                f"{what}: version {document.signed.version} follows {previous.signed.version}", key="version"
            )
    if role == "root":
        return Staged(role, document, previous, signers_of(document.signed, "root"))
    try:
        by_id = {keyid: keys.check_public(keyid, key, what) for keyid, key in context["keys"].items()}
    except (AttributeError, TypeError):
        raise InputError(f"{what}: keys is not an object of keys", key="keys") from None
    threshold = context["threshold"]
    if not isinstance(threshold, int) or isinstance(threshold, bool) or not 1 <= threshold <= len(by_id):
        raise InputError(
            f"{what}: threshold {threshold} of {len(by_id)} keys is not possible", key="threshold"
        )
    return Staged(role, document, previous, Signers(by_id, threshold))


def require_unexpired(document: Metadata[Any], role: str, now: datetime, error: type[KosError]) -> None:
    """Raise `error` where a document has expired, saying when."""
    if document.signed.is_expired(now):
        raise error(
            f"{role} {document.signed.version} expired at {time_text(document.signed.expires)}: "
            "stage and sign a new one",
            key=role,
        )
