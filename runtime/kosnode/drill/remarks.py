"""What a drill remarks, and what it comes to: failed, or not testable here, or just to be known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..backup.restic import BackendError
from ..backup.source import Finding
from ..command import as_known
from ..errors import BusyError, DiskError, InputError, KosError, UntestedError

FAILED, UNTESTED, NOTE = "failed", "untested", "note"
VERIFIED_OUTCOME, FAILED_OUTCOME, UNTESTED_OUTCOME = "VERIFIED", "FAILED", "COULD_NOT_TEST"
# What lies with the host of the drill, or with the way to the repository, says nothing of the backup.
_OF_THE_HOST = (BackendError, BusyError, DiskError, InputError, UntestedError, OSError)


@dataclass(frozen=True)
class Remark:
    """A finding of a drill.

    Args:
        code: for machines.
        text: one sentence.
        weight: FAILED, UNTESTED or NOTE.
        source: of the node, where it is about one.
        path: what it is about, where it is a file.
    """

    code: str
    text: str
    weight: str = FAILED
    source: str | None = None
    path: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "text": self.text,
            "path": self.path,
            "source": self.source,
            "weight": self.weight,
        }


def of_finding(finding: Finding, source: str) -> Remark:
    """Return what a verification found as a remark that fails the drill."""
    return Remark(finding.code, finding.text, FAILED, source, finding.path)


def of_error(error: KosError | OSError, source: str | None = None) -> Remark:
    """Return an error as a remark: it fails the drill unless it is the host's, or the way's."""
    weight = UNTESTED if isinstance(error, _OF_THE_HOST) else FAILED
    known = as_known(error)
    return Remark(known.kind, known.message, weight, source)


def outcome(remarks: Iterable[Remark]) -> str:
    """Return what remarks come to."""
    weights = {one.weight for one in remarks}
    if FAILED in weights:
        return FAILED_OUTCOME
    return UNTESTED_OUTCOME if UNTESTED in weights else VERIFIED_OUTCOME
