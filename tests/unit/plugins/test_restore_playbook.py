"""The playbook that restores wants one node and one thing to do, and asks no node before it has both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
INVENTORY = {"all": {"children": {"nodes": {"children": {"zone_a": {"hosts": {"n1": None}}}}}}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name one node of the inventory"),
        (["restore_node=n1"], "and one of the three"),
        (["restore_source=docs"], "Name one node of the inventory"),
        (["restore_node=n9", "restore_source=docs"], "Name one node of the inventory"),
        (["restore_node=n1", "restore_source=docs", "restore_undo=x"], "and one of the three"),
        (["restore_node=n1", "restore_sorce=docs"], "did you mean restore_source?"),
    ],
)
def test_what_is_not_meant_clearly_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    """K21."""
    (tmp_path / "hosts.json").write_text(json.dumps(INVENTORY))
    given = [part for word in words for part in ("-e", word)]
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ansible-playbook")), "kos.fleet.restore"),
            *("-i", str(tmp_path / "hosts.json"), *given),
        ],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert said in " ".join(done.stdout.split() + done.stderr.split())
    assert "Node has its data back" not in done.stdout
