"""Keeps the reports of a host's drills: signed, each bound to the one before, so that none goes unnoticed.

reports/ID.json, ID.json.sig, ID.html     a report, its signature, its page
reports/chain.jsonl                       a line for each: written last, it makes the report count
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..backup import signing
from ..errors import KosError
from ..journal import JsonLines
from . import page
from .remarks import Remark
from .scratch import ID

_TREND = 20


@dataclass(frozen=True)
class Kept:
    """A report that was written.

    Args:
        sha3: SHA3-256 of its bytes, hex.
        signature: armoured.
        files: where it, its signature and its page are.
        page: what a person reads; who asked from afar has no access to files.
    """

    report: Mapping[str, Any]
    sha3: str
    signature: str
    signer: str
    files: Mapping[str, str]
    page: str

    def as_json(self) -> dict[str, Any]:
        return {
            "report": dict(self.report),
            "sha3": self.sha3,
            "signature": self.signature,
            "signer": self.signer,
            "files": dict(self.files),
            "page": self.page,
        }


class Reports:
    """The reports of a host; who writes holds the lock of its drills.

    Args:
        folder: where they are.
        key: the host's private key.
    """

    def __init__(self, folder: Path, key: Path) -> None:
        self._folder = folder
        self._key = key
        self._chain = JsonLines(folder / "chain.jsonl")

    def lines(self) -> list[dict[str, Any]]:
        """Return what the chain has of each report, oldest first."""
        return list(self._chain.entries())

    def last(self) -> dict[str, str] | None:
        """Return id and hash of the newest report."""
        found = self._chain.last()
        return None if found is None else {"id": str(found["id"]), "sha3": str(found["sha3"])}

    def trend(self, node: str) -> list[dict[str, Any]]:
        """Return what the chain has of the last drills of a node, oldest first."""
        keys = ("id", "time", "outcome", "rpo_s", "rto_ms", "bytes")
        return [{key: one[key] for key in keys} for one in self.lines() if one["node"] == node][-_TREND:]

    def finish_killed(self) -> None:
        """Finish or remove what a drill left that was killed while it wrote its report."""
        if not self._folder.is_dir():
            return
        names = [path.name for path in self._folder.iterdir()]
        for name in names:
            if name.startswith("."):
                (self._folder / name).unlink()
        known = {str(one["id"]) for one in self.lines()}
        for id_ in sorted({name.partition(".")[0] for name in names} - known):
            if not ID.fullmatch(id_):
                continue
            try:
                report, sha3 = self._read(id_)
                if report["previous"] != self.last():
                    raise KosError("it does not follow")
            except (KosError, OSError, KeyError):
                for name in _names(id_):
                    (self._folder / name).unlink(missing_ok=True)
            else:
                self._chain.append(_line(report, sha3))

    def check(self, expected: str | None = None) -> list[Remark]:
        """Return what is wrong with the reports.

        Args:
            expected: hash of the newest one that somebody else has.
        """
        found = []
        before: dict[str, str] | None = None
        for one in self.lines():
            id_, sha3 = str(one["id"]), str(one["sha3"])
            try:
                report, now = self._read(id_)
                if now != sha3:
                    raise KosError("it was changed")
                if report["previous"] != before:
                    raise KosError("it does not follow from the one before it")
            except FileNotFoundError as error:
                found.append(Remark("report", f"report {id_} of a drill is missing", path=error.filename))
            except (KosError, OSError, KeyError) as error:
                found.append(Remark("report", f"report {id_} of a drill is not as it was written: {error}"))
            before = {"id": id_, "sha3": sha3}
        if self._chain.damaged():
            found.append(Remark("report", f"{self._chain.path} has lines that cannot be read"))
        if expected is not None and (before is None or before["sha3"] != expected):
            has = "has none" if before is None else f"has {before['sha3'][:12]}"
            found.append(
                Remark("report", f"the newest report was {expected[:12]} for who asks, and this host {has}")
            )
        return found

    def keep(self, report: Mapping[str, Any]) -> Kept:
        """Write a report, its signature and its page, durably.

        Args:
            report: with `previous` as `last` gives it, and `signer`.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = files.canonical(dict(report))
        written, signed, shown = (self._folder / name for name in _names(str(report["id"])))
        signature = signing.sign(self._key, data)
        html = page.render(report)
        files.write_durable(shown, html.encode("utf-8"), mode=0o600)
        files.write_durable(written, data, mode=0o600)
        files.write_durable(signed, signature.encode("ascii"), mode=0o600)
        sha3 = hashlib.sha3_256(data).hexdigest()
        self._chain.append(_line(report, sha3))
        paths = {"report": str(written), "signature": str(signed), "page": str(shown)}
        return Kept(report, sha3, signature, str(report["signer"]), paths, html)

    def _read(self, id_: str) -> tuple[dict[str, Any], str]:
        """Return a report and its hash; raises KosError where it is not signed with the key that it names."""
        written, signed, _ = (self._folder / name for name in _names(id_))
        data, signature = written.read_bytes(), signed.read_text("ascii", "replace")
        report = files.parse(data, what=str(written))
        if not isinstance(report, dict):
            raise KosError("it is no report")
        signing.verify([signing.parse_public(str(report["signer"]), str(written))], data, signature)
        return report, hashlib.sha3_256(data).hexdigest()


def _names(id_: str) -> Sequence[str]:
    return f"{id_}.json", f"{id_}.json.sig", f"{id_}.html"


def _line(report: Mapping[str, Any], sha3: str) -> dict[str, Any]:
    return {
        "id": report["id"],
        "sha3": sha3,
        "node": report["node"],
        "repository": report["repository"]["name"],
        "time": report["time"],
        "outcome": report["outcome"],
        "interval_s": report["interval_s"],
        "rpo_s": report["rpo_s"],
        "rto_ms": report["rto"]["total_ms"],
        "bytes": report["bytes"],
    }
