# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host reported of a drill: checked, said in one sentence, and kept on the controller."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kos.fleet.plugins.module_utils import _kosctl
from ansible_collections.kos.fleet.plugins.plugin_utils import _whole_file

OUTCOMES = ("VERIFIED", "FAILED", "COULD_NOT_TEST")
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_HASH = re.compile(r"[0-9a-f]{64}")


class ReportError(Exception):
    """It is no report, or not the one that it says it is."""


@dataclass(frozen=True)
class Report:
    """A report.

    Args:
        value: as schemas/drill.schema.json says.
        raw: its bytes, which are signed.
        sha3: SHA3-256 of them, hex.
        signature: over them, as `ssh-keygen -Y` makes it.
        signer: public key of the host that signed.
    """

    value: Mapping[str, t.Any]
    raw: bytes
    sha3: str
    signature: str
    signer: str

    @classmethod
    def read(cls, result: Mapping[str, t.Any], node: str) -> Report:
        """Read what kosctl answered of a drill of a node; raises ReportError."""
        value = result["report"]
        if value.get("node") != node:
            raise ReportError(f"it is of {value.get('node')!r}")
        if value.get("outcome") not in OUTCOMES or not _ID.fullmatch(str(value.get("id"))):
            raise ReportError("it has no id, or no outcome that is known")
        try:
            text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            raw = text.encode("utf-8")
            found = cls(
                value,
                raw,
                hashlib.sha3_256(raw).hexdigest(),
                str(result.get("signature")),
                str(result.get("signer")),
            )
            found.sentence()
        except (UnicodeEncodeError, KeyError, TypeError, AttributeError) as error:
            raise ReportError(f"it has not the form of one: {error!r}") from None
        if found.sha3 != result.get("sha3"):
            raise ReportError(f"its hash is {found.sha3}, and {result.get('sha3')!r} was said")
        return found

    @property
    def outcome(self) -> str:
        return str(self.value["outcome"])

    def sentence(self) -> str:
        """Say in one line how it went."""
        return " ".join(str(_kosctl.plain(self._sentence())).split())

    def _sentence(self) -> str:
        value, controls = self.value, self.value.get("controls") or []
        red = sum(one["outcome"] == "red" for one in controls)
        drilled = ", ".join(one["name"] for one in value.get("sources") or []) or "nothing"
        damaged = f"{red} of {len(controls)} damaged copies turned red"
        heavy = "failed" if self.outcome == "FAILED" else "untested"
        why = [one["text"] for one in value.get("findings") or [] if one["weight"] == heavy]
        if self.outcome != "VERIFIED":
            more = f" (and {len(why) - 1} more)" if len(why) > 1 else ""
            return f"{self.outcome}: {why[0] if why else 'the report says why'}{more}; {drilled}; {damaged}"
        lost = f"{value['rpo_s']} s" if value.get("rpo_s") is not None else "not known"
        back = value["rto"]["total_ms"] / 1000
        return f"VERIFIED: {drilled}; back in {back:.1f} s, last record {lost} old; {damaged}"

    def keep(self, folder: Path, node: str, host: str, page: str) -> dict[str, str]:
        """Write report, signature and page below the folder; return where they are.

        Args:
            folder: of all reports.
            node: whose backups were drilled.
            host: where they were.
            page: the report as HTML.
        """
        own = folder / node
        name = str(self.value["id"])
        written = {
            "report": (own / f"{name}.json", self.raw),
            "signature": (own / f"{name}.json.sig", self.signature.encode()),
            "signer": (own / f"{name}.json.pub", f"{self.signer}\n".encode()),
            "page": (own / f"{name}.html", page.encode("utf-8")),
        }
        try:
            for path, data in written.values():
                _whole_file.write(path, data)
            # The last: a report that is named here is there.
            _whole_file.write(_newest(folder, host), f"{self.sha3}\n".encode())
        except OSError as error:
            raise ReportError(f"{error.filename}: {error.strerror}") from None
        return {what: str(path) for what, (path, _data) in written.items()}


def newest(folder: Path, host: str) -> str | None:
    """Return the hash of the newest report of a host that is known here; None where none is."""
    try:
        text = _newest(folder, host).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return text if _HASH.fullmatch(text) else None


def _newest(folder: Path, host: str) -> Path:
    return folder / f".{host}.newest"
