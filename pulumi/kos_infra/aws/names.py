"""Names that vary: what things are called in the account, and the tags that lead back to their stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Names:
    """Names and tags of one stack of one fleet.

    Args:
        fleet: name of the fleet.
        stack: name of the stack.
        account: twelve digits, for names that are unique in the world.
        tags: the owner's tags.
    """

    fleet: str
    stack: str
    account: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def of(self, what: str) -> str:
        """Return the physical name of something that is unique in the account."""
        return f"{self.fleet}-{self.stack}-{what}"

    def bucket(self, what: str) -> str:
        """Return the name of a bucket: unique in the world, and known before it is made."""
        return f"{self.fleet}-{self.stack}-{what}-{self.account}"

    @property
    def identity(self) -> dict[str, str]:
        """The tags that everything of the stack has, and nothing else."""
        return {"kos:fleet": self.fleet, "kos:stack": self.stack}

    def tagged(self, what: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return all tags of one thing."""
        return {**self.tags, **self.identity, **(more or {}), "Name": self.of(what)}
