"""The ledger of a KairosChain node: verified from its file alone, whatever the application says of it."""

from .anchor import Anchor, Comparison, anchor_of, compare, compare_ledgers
from .anchor import parse as parse_anchor
from .lock import shared
from .verifier import Head, Verdict, head, verify

__all__ = [
    "Anchor",
    "Comparison",
    "Head",
    "Verdict",
    "anchor_of",
    "compare",
    "compare_ledgers",
    "head",
    "parse_anchor",
    "shared",
    "verify",
]
