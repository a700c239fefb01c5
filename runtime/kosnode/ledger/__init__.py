"""The ledger of a KairosChain node: verified from its file alone, whatever the application says of it."""

from .verify import Head, Verdict, head, verify

__all__ = ["Head", "Verdict", "head", "verify"]
