"""The playbook that drills says in check mode what would be drilled where, and asks no node for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ON_N2 = {"backup_drill_host": "n2"}
REPOSITORY = Path(__file__).resolve().parents[3]


def backed_up(rank: str, **more: Any) -> dict[str, Any]:
    return {
        "backup_repositories": {"offsite": {"url": "rest:http://192.0.2.1:8000/n/"}},
        "backup_sources": {"docs": {"class": rank, "method": "tree", "path": "/srv/docs"}},
        **more,
    }


def play(folder: Path, hosts: dict[str, Any], *words: str) -> tuple[int, str]:
    """Run the playbook in check mode with words; return its exit code and what it said."""
    secrets = folder / "secrets/backup"
    for name in hosts:
        (secrets / name).mkdir(parents=True)
        for file, text in (("recovery.key", "key-of-a-node"), ("rest-server", "w"), ("node.pub", "k")):
            (secrets / name / file).write_text(text)
            (secrets / name / file).chmod(0o600)
    everywhere = {"backup_secrets_dir": str(secrets)}
    inventory = {
        "all": {"children": {"nodes": {"children": {"zone_a": {"hosts": hosts}}, "vars": everywhere}}}
    }
    (folder / "hosts.json").write_text(json.dumps(inventory))
    given = [part for word in words for part in (["-e", word] if "=" in word else [word])]
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ansible-playbook")), "kos.fleet.drill", "--check"),
            *("-i", str(folder / "hosts.json"), *given),
        ],
        cwd=folder,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, " ".join(done.stdout.split() + done.stderr.split())


def test_check_mode_names_every_critical_host_and_one_of_each_other_class(tmp_path: Path) -> None:
    """M13."""
    hosts = {"c1": backed_up("critical"), "c2": backed_up("critical", backup_drill_host="l1")}
    hosts |= {f"l{number}": backed_up("low") for number in range(1, 4)} | {"plain": {}}
    code, said = play(tmp_path, hosts, "drill_seed=7")
    assert code == 0, said
    assert said.count("drill c1 on ") == 1
    assert "drill c2 on l1: all critical sources and one of each other class, from offsite, seed 7" in said
    assert sum(said.count(f"drill l{number} on ") for number in range(1, 4)) == 1
    assert "drill plain" not in said


@pytest.mark.parametrize(
    ("hosts", "words", "said"),
    [
        ({"n1": backed_up("low"), "n2": backed_up("low")}, ["drill_sed=7"], "did you mean drill_seed?"),
        ({"n1": backed_up("low", backup_dril_host="n2")}, [], "did you mean backup_drill_host?"),
        ({"n1": backed_up("low")}, [], "no other host than n1 is backed up"),
        ({"n1": backed_up("low", backup_drill_host="n9")}, [], "is not in the inventory: n9."),
        ({"n1": backed_up("low"), "n2": backed_up("low")}, ["drill_scratch=/srv"], "drill_scratch"),
        ({"n1": {}}, [], "no host here has backup_repositories"),
        ({"n1": backed_up("low", **ON_N2), "n2": {}}, ["drill_time=now"], "time has to be as 2026-"),
        ({"n1": backed_up("low", **ON_N2), "n2": {}}, ["drill_repository=x"], "n1 has no x with a url"),
        ({"n1": backed_up("low", backup_drill_host="n1")}, [], "a drill of n1 belongs on another host"),
    ],
)
def test_bad_input_gets_one_message_before_any_node_is_asked(
    tmp_path: Path, hosts: dict[str, Any], words: list[str], said: str
) -> None:
    code, text = play(tmp_path, hosts, *words)
    assert code != 0
    assert said in text
    assert "UNREACHABLE" not in text
