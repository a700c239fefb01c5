"""Secrets of backups stay between the controller and the node that they are of."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from action_world import Node
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.action import backup_host
from ansible_collections.kos.fleet.plugins.plugin_utils import _backup_secrets
from ansible_collections.kos.fleet.plugins.plugin_utils._backup_secrets import SecretError, Secrets

OFFSITE = {"url": "rest:http://node2:8000/n1/", "append_only": True}


class Host:
    """Takes the spec that kosctl would, and what else it reads on standard input."""

    def __init__(self, folder: Path, *, kosctl: bool = True, uid: str = "0") -> None:
        self.folder = folder
        self.facts = f"uid={uid}\n" + ("kosctl=yes\n" if kosctl else "") + "installed=restic\n"
        self.asked: list[tuple[str, bytes]] = []
        self.seen: list[bool] = []
        self.key = "k"
        self.sources: list[dict[str, Any]] = []

    def run(self, args: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        made = Node().action(backup_host, {"secrets_dir": str(self.folder), **args}, check=check)

        def execute(command: str, in_data: bytes | None = None, **_options: Any) -> dict[str, Any]:
            if "dpkg-query" in command:
                return {"rc": 0, "stdout": self.facts, "stderr": ""}
            self.asked.append((command.partition("kosctl backup ")[2], in_data or b""))
            self.seen.append(not made._play_context.no_log)
            result = {"node_key": self.key, "sources": self.sources}
            told = {"ok": True, "exit": 0, "changed": True, "actions": ["x"], "result": result}
            return {"rc": 0, "stdout": json.dumps(told), "stderr": ""}

        made._low_level_execute_command = execute  # type: ignore[method-assign]  # no host here
        done: dict[str, Any] = made.run(None, {"inventory_hostname": "n1"})
        return done

    @property
    def spec(self) -> Any:
        return json.loads(self.asked[0][1])


def test_passwords_are_made_once_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    """K14."""
    host = Host(tmp_path / "s")
    host.run({"repositories": {"offsite": OFFSITE}})
    first = host.spec["node"]["secrets"]["offsite"]
    again = Host(tmp_path / "s")
    again.run({"repositories": {"offsite": OFFSITE}})
    assert again.spec["node"]["secrets"]["offsite"] == first
    files = [path for path in (tmp_path / "s").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "s/n1").stat().st_mode) == 0o700


def test_a_secret_is_in_no_table_no_result_and_no_log(tmp_path: Path) -> None:
    host = Host(tmp_path)
    credentials = {"AWS_SECRET_ACCESS_KEY": "s3-word-of-the-user"}
    wish = {"url": "s3:https://s3.example/bucket", "environment": credentials}
    result = host.run({"repositories": {"cloud": wish}})
    password = (tmp_path / "n1/cloud.password").read_text().strip()
    for secret in (password, "s3-word-of-the-user"):
        assert secret not in json.dumps(host.spec["node"]["table"])
        assert secret not in json.dumps(result)
        assert secret not in host.asked[0][0]
    assert host.spec["node"]["secrets"]["cloud"]["environment"] == credentials
    assert host.seen == [False]


def test_the_recovery_key_reaches_kosctl_on_standard_input_alone(tmp_path: Path) -> None:
    """K14."""
    host = Host(tmp_path)
    host.run({"step": "repositories"})
    key = (tmp_path / "n1/recovery.key").read_text().strip()
    assert [words for words, _ in host.asked] == ["apply --json", "init --json"]
    assert [key.encode() in data for _, data in host.asked] == [False, True]
    assert host.seen == [False, False]


def test_the_controller_keeps_every_key_that_a_node_has_signed_with(tmp_path: Path) -> None:
    """M13: who signed is known when the node is gone."""
    host = Host(tmp_path)
    for key in ("ssh-ed25519 A", "ssh-ed25519 B", "ssh-ed25519 A"):
        host.key = key
        host.run({"step": "repositories"})
    assert Secrets(tmp_path, write=False).public_keys("n1") == ["ssh-ed25519 A", "ssh-ed25519 B"]


def test_a_machine_that_takes_a_node_s_place_is_told_the_keys_before_its_own(tmp_path: Path) -> None:
    """M12: what the lost machine signed counts on the new one, with nothing to do by hand."""
    wish = {"repositories": {"offsite": OFFSITE}}
    host = Host(tmp_path)
    host.run(wish)
    assert "former_keys" not in host.spec["node"]
    host.key = "ssh-ed25519 A"
    host.run({"step": "repositories"})
    new = Host(tmp_path)
    new.run(wish)
    assert new.spec["node"]["former_keys"] == ["ssh-ed25519 A"]


def test_what_is_left_to_a_person_is_a_warning_that_is_seen(tmp_path: Path) -> None:
    """K17: a cluster that does not archive yet is none that is backed up."""
    host = Host(tmp_path)
    host.sources = [
        {"name": "db", "changed": [], "restart": "postgresql@17-main.service", "error": None},
        {"name": "old", "changed": [], "restart": None, "error": "it archives elsewhere"},
        {"name": "docs", "changed": ["/x"], "restart": None, "error": None},
    ]
    assert host.run({"step": "repositories"})["warnings"] == [
        "restart postgresql@17-main.service: source db is backed up from then on",
        "source old is not ready: it archives elsewhere",
    ]


def test_a_secret_that_has_to_be_there_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"recovery\.key is not there; role kos\.fleet\.backup makes it"):
        Secrets(tmp_path, write=True).held("n1", "recovery.key")
    assert list(tmp_path.iterdir()) == []


def test_a_target_knows_digests_of_the_passwords_that_nodes_show(tmp_path: Path) -> None:
    node, target = Host(tmp_path), Host(tmp_path)
    node.run({"repositories": {"offsite": OFFSITE}})
    shown = node.spec["node"]["secrets"]["offsite"]["environment"]
    target.facts += "installed=restic-rest-server\n"
    target.run({"server": True, "server_nodes": ["n1"]})
    assert shown["RESTIC_REST_USERNAME"] == "n1"
    assert target.spec["server"]["users"] == {"n1": _backup_secrets.digest(shown["RESTIC_REST_PASSWORD"])}
    assert shown["RESTIC_REST_PASSWORD"] not in json.dumps(target.spec)


def test_a_host_that_others_are_drilled_on_has_what_that_takes(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.facts = "uid=0\nkosctl=yes\n"
    plan = host.run({"drilled": ["n2"]}, check=True)
    assert host.spec == {"format": 1, "drill": ["n2"]}
    assert plan["actions"][0] == "install restic"


def test_check_mode_makes_no_secret_and_opens_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path / "s")
    assert host.run({"repositories": {"offsite": OFFSITE}}, check=True)["changed"]
    assert host.run({"step": "repositories"}, check=True)["changed"]
    assert [words for words, _ in host.asked] == ["apply --check --json"] * 2
    assert not (tmp_path / "s").exists()


def test_a_clean_host_has_a_plan_and_is_not_touched(tmp_path: Path) -> None:
    clean = Host(tmp_path, kosctl=False)
    assert clean.run({"repositories": {"offsite": OFFSITE}}, check=True)["plan_by"] == "controller"
    with pytest.raises(AnsibleActionFail, match="has no kosctl"):
        clean.run({"repositories": {"offsite": OFFSITE}})
    assert clean.asked == []


def test_a_witness_takes_the_keys_that_there_are(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.run({"step": "witness", "node_keys": {"n1": "ssh-ed25519 A", "n2": None}})
    assert host.spec == {"format": 1, "witness": {"n1": "ssh-ed25519 A"}}


ROW = {"repositories": {"offsite": {"url": OFFSITE["url"]}}}


def test_whom_a_host_drills_is_written_with_the_keys_that_the_controller_knows(tmp_path: Path) -> None:
    """M13: who may have signed is what root says, and not who asks."""
    secrets = Secrets(tmp_path, write=True)
    secrets.note_public_key("n2", "ssh-ed25519 A")
    secrets.note_public_key("n2", "ssh-ed25519 B")
    host = Host(tmp_path)
    live = {"docs": {"path": "/srv/docs"}, "node": {"method": "node"}}
    told = host.run(
        {"step": "drills", "drills": {"n2": ROW, "n3": ROW}, "sources": live, "drill_scratch": "/srv/drill"}
    )
    assert host.spec == {
        "format": 1,
        "drill_table": {
            "format": 1,
            "nodes": {"n2": {**ROW, "node_keys": ["ssh-ed25519 A", "ssh-ed25519 B"]}},
            "production": ["/srv/docs"],
            "scratch": "/srv/drill",
        },
    }
    assert told["warnings"] == ["n3 is not drilled here until role backup has run on it"]


def test_a_host_that_drills_nobody_any_more_is_told_so(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.run({"step": "drills"})
    assert host.spec["drill_table"]["nodes"] == {}


def test_in_check_mode_a_node_without_a_key_is_part_of_the_plan(tmp_path: Path) -> None:
    host = Host(tmp_path)
    plan = host.run({"step": "drills", "drills": {"n2": ROW}}, check=True)
    assert plan["actions"][0] == "let n2 be drilled here, once it has a key"
    assert host.asked[0][0] == "apply --check --json"
    clean = Host(tmp_path, kosctl=False).run({"step": "drills", "drills": {"n2": ROW}}, check=True)
    assert clean["plan_by"] == "controller"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"repositories": {"a": "/srv"}}, "backup_repositories.a has to be a mapping"),
        ({"drilled": ["n2", "n1"]}, "backup_drill_host of n1 is itself"),
        ({"server": True, "server_port": 0}, "backup_server_port must be"),
        ({"server": True, "server_tls_key": "/x"}, "belong together"),
        (
            {"server": True, "server_tls_key": "/no", "server_tls_certificate": "/no"},
            "certificate names /no, which",
        ),
        ({"server": True, "server_nodes": ["../n2"]}, "cannot be the name of a folder"),
    ],
)
def test_bad_input_is_refused_before_kosctl_is_asked(
    tmp_path: Path, args: dict[str, Any], words: str
) -> None:
    host = Host(tmp_path)
    with pytest.raises(AnsibleActionFail, match=words):
        host.run(args)
    assert host.asked == []


def test_another_account_cannot_shape_a_host(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="set become: true"):
        Host(tmp_path, uid="1000").run({"repositories": {"offsite": OFFSITE}})


@pytest.mark.parametrize(("text", "mode"), [("word\n", 0o644), ("", 0o600), ("two\nlines\n", 0o600)])
def test_a_secret_that_is_none_or_open_to_others_is_refused(tmp_path: Path, text: str, mode: int) -> None:
    path = tmp_path / "n1/recovery.key"
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(SecretError, match=r"recovery\.key"):
        Secrets(tmp_path, write=True).recovery("n1")
