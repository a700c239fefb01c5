"""Every way the engine can fail, each with the exit code that `kosctl` ends with.

Errors are raised where they are known and turned into a message in one place (`cli.py`).
The table of exit codes is in docs/architecture.md and is checked against this file by a test.
"""

from __future__ import annotations


class KosError(Exception):
    """A failure with a message for a person.

    Args:
        message: one sentence that says what is wrong and what rule it breaks.
        key: the input that is wrong (`policy.bake_s`, `files[3].path`), if there is one.
        detail: more for `--json`; never a secret.
    """

    exit_code = 1
    kind = "internal"

    def __init__(
        self, message: str, *, key: str | None = None, detail: dict[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.detail = detail or {}


class InputError(KosError):
    """Bad input: a value, a file or an argument that breaks a rule."""

    exit_code = 2
    kind = "input"


class RefusedError(KosError):
    """Understood, and refused by policy: refused release, downgrade, risk, lease, session, token."""

    exit_code = 3
    kind = "refused"


class NotFoundError(KosError):
    """No such release (in this channel, for this architecture)."""

    exit_code = 4
    kind = "not-found"


class BusyError(KosError):
    """Another kosctl holds the lock, or a trial is running."""

    exit_code = 5
    kind = "busy"


class MirrorError(KosError):
    """No mirror gave what was asked for."""

    exit_code = 6
    kind = "mirror"


class DiskError(KosError):
    """Not enough disk; the message names the bytes that are missing."""

    exit_code = 7
    kind = "disk"


class RevertedError(KosError):
    """The trial ended in the old release, which is healthy again."""

    exit_code = 8
    kind = "reverted"


class RevertedUnhealthyError(KosError):
    """The trial ended in the old release, which is not healthy, or nobody could tell."""

    exit_code = 9
    kind = "reverted-unhealthy"


class DamagedError(KosError):
    """Bytes on disk or from a mirror differ from the manifest."""

    exit_code = 10
    kind = "damaged"


class UnhealthyError(KosError):
    """A health check failed."""

    exit_code = 11
    kind = "unhealthy"


class FindingsError(KosError):
    """`kosctl doctor` found something."""

    exit_code = 12
    kind = "findings"


class TrustError(KosError):
    """Signatures, thresholds, expiry, freeze or rollback: the metadata is not to be trusted."""

    exit_code = 13
    kind = "trust"


class PartialError(KosError):
    """A snapshot was made that lacks something; the message says what."""

    exit_code = 14
    kind = "partial"


class UntestedError(KosError):
    """A drill could not test, which is no success."""

    exit_code = 15
    kind = "untested"
