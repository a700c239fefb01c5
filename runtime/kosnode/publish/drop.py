"""Takes a document that waits for signatures away again, so that it no longer holds a publication back."""

from __future__ import annotations

from ..errors import RefusedError
from ..metadata import RELEASES
from . import catalogue, documents, publication
from .documents import Staged
from .repository import Repository


def drop(repository: Repository, role: str) -> Staged:
    """Remove what waits of a role; clients keep what is published.

    Args:
        repository: the folder.
        role: an offline role.

    Returns:
        What waited.

    Raises:
        RefusedError: nothing waits, it is public already, nothing of the role was ever published, it is a
            root that nodes would believe, or another document that waits needs it.
    """
    with repository.locked():
        published, staged = repository.published().of(role), repository.staged(role)
        if staged is None:
            raise RefusedError(_why_nothing(repository, role), key="DOCUMENT")
        title = f"{role} {staged.document.signed.version}"
        if published is None:
            raise RefusedError(
                f"{title} is the first: a repository without it is none; make the repository anew",
                key="DOCUMENT",
            )
        if role == "root" and staged.verified:
            # A mirror could serve a copy of it for ever, in the place of another root of its version.
            raise RefusedError(
                f"{title} has all signatures, so nodes believe any copy of it: publish it, then the next",
                key="DOCUMENT",
            )
        if role != "root" and not documents.count(repository.signers(role), published).verified:
            delegator = "targets" if role == RELEASES else "root"
            raise RefusedError(
                f"{delegator}, which waits as well, names others who sign {role}, so {title} is needed: "
                f"drop {delegator} first",
                key="DOCUMENT",
            )
        repository.unstage(role)
        repository.refresh_contexts()
        if role == RELEASES:
            releases = catalogue.listed(repository.effective(RELEASES).signed)
            publication.prune_staged(repository, {one.root for one in releases})
        return staged


def _why_nothing(repository: Repository, role: str) -> str:
    published = repository.published().of(role)
    version = "" if published is None else f" {published.signed.version}"
    if repository.staged_path(role) is not None:
        return f"{role}{version} is public already: `repo publish` finishes what was begun"
    return f"{role}{version} is published, and nothing of it waits for signatures"
