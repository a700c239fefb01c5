# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last block that was seen of a node's ledger, kept on the controller, and what a restore makes of it.

A restore that gives records up moves the anchor to the block that came back. The old one stays beside it
until the restore is confirmed, and comes back where it is undone. Killed in between, the next request about
that restore goes on with it.
"""

from __future__ import annotations

import re
import shlex
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.plugin_utils import _whole_file

# INDEX:HASH, as `kosctl ledger anchor` prints it.
FORM = re.compile(r"[0-9]{1,18}:[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")


class AnchorFile:
    """The anchor of one node.

    Args:
        folder: on the controller.
        node: the inventory's name of it.
    """

    def __init__(self, folder: str, node: str) -> None:
        self.path = Path(folder) / f"{node}.anchor"

    def read(self) -> str | None:
        """Return INDEX:HASH, or None where no block was seen; raises AnsibleActionFail where it is none."""
        if not self.path.is_file():
            return None
        text = self.path.read_text(encoding="ascii", errors="replace").strip()
        if not FORM.fullmatch(text):
            raise AnsibleActionFail(f"{self.path} has to hold INDEX:HASH of a block; it holds {text[:80]!r}")
        return text

    def write(self, anchor: str) -> None:
        """Keep an anchor in the place of the one that is there."""
        _whole_file.write(self.path, f"{anchor}\n".encode("ascii"))

    def remove(self) -> None:
        """Forget the ledger."""
        self.path.unlink(missing_ok=True)

    def put_aside(self, name: str) -> str:
        """Return the command that takes the anchor out of the way, its text kept under another name."""
        return shlex.join(["mv", str(self.path), f"{self.path}.{name}"])

    def follow(self, told: t.Mapping[str, t.Any]) -> tuple[list[str], list[str]]:
        """Do what a restore means for the anchor.

        Args:
            told: what kosctl answered of the restore.

        Returns:
            What was done, and what a person has to decide; a sentence each.

        Raises:
            AnsibleActionFail: what was answered is no restore, or holds no blocks.
        """
        about, state = told.get("anchor"), told.get("state")
        if not about:
            return [], []
        if not (_ID.fullmatch(str(told.get("id"))) and FORM.fullmatch(str(about.get("restored")))):
            raise AnsibleActionFail(f"the node answered no block of a ledger: {about!r:.200}")
        kept = self.path.with_name(f"{self.path.name}.before-{told['id']}")
        if state == "UNDONE":
            if not kept.is_file():
                return [], []
            kept.replace(self.path)
            return [f"{self.path} says block {about['known']} again"], []
        done, open_questions = [], []
        if state in ("SWAPPED", "CONFIRMED") and self.read() == about["known"]:
            count = _index(about["known"]) - _index(about["restored"])
            lost = f"{count} records that the ledger had are not in what was restored"
            if about["agreed"]:
                _whole_file.write(kept, f"{about['known']}\n".encode("ascii"))
                self.write(about["restored"])
                done = [f"{self.path} says block {about['restored']} and no longer {about['known']}: {lost}"]
            else:
                open_questions = [
                    f"{self.path} stays at block {about['known']}: {lost}, and no witness agreed that it "
                    "ended there. The server does not start before you decide; to give them up: "
                    f"{self.put_aside('lost')}"
                ]
        if state == "CONFIRMED":
            kept.unlink(missing_ok=True)
        return done, open_questions


def _index(anchor: str) -> int:
    return int(anchor.partition(":")[0])
