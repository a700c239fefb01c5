"""What role kairoschain hands to a node, what it refuses before it asks, what the controller keeps."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from action_world import Node
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.action import kairoschain as action
from ansible_collections.kos.fleet.plugins.action import ledger_info
from ansible_collections.kos.fleet.plugins.module_utils import _kairoschain

GEM = b"a gem"
DIGEST = hashlib.sha256(GEM).hexdigest()
ANCHOR = f"11:{'a' * 64}"
HEAD = {"length": 12, "index": 11, "hash": "a" * 64}


class Host:
    """A host that answers the probe, and notes what kosctl is asked."""

    def __init__(self, folder: Path, *, installed: bool = False, probe: str = "") -> None:
        there = "".join(f"installed={name}\n" for name in _kairoschain.packages(tls=True))
        gem = f"gem={DIGEST}\n" if installed else ""
        self.probe = probe or f"uid=0\nkosctl=yes\nruby=3.3.8\n{there}{gem}"
        self.commands: list[str] = []
        self.spec: dict[str, Any] = {}
        self.brought: list[str] = []
        self.modules: list[str] = []
        self.hidden = False
        self.told: dict[str, Any] = {
            **{"ok": True, "exit": 0, "changed": True, "actions": ["a"], "error": None},
            "result": {"version": "3.75.0", "head": HEAD, "anchor": ANCHOR, "diff": []},
        }
        self.gem = folder / "x.gem"
        self.gem.write_bytes(GEM)
        self.args = {
            **{"version": "3.75.0", "gem": str(self.gem), "gem_sha256": DIGEST},
            "anchor_dir": str(folder / "anchors"),
        }
        self.anchor = folder / "anchors/n1.anchor"

    def run(self, *, check: bool = False, role: Any = None, module: Any = action, **more: Any) -> Any:
        args = {key: value for key, value in {**self.args, **more}.items() if value is not None}
        made = Node().action(module, args, check=check, role=role)

        def execute(command: str, in_data: bytes | None = None, **_options: Any) -> dict[str, Any]:
            if "dpkg-query" in command:
                return {"rc": 0, "stdout": self.probe, "stderr": ""}
            self.commands.append(command)
            self.spec = json.loads(in_data or b"{}")
            self.hidden = bool(made._play_context.no_log)
            return {"rc": self.told["exit"], "stdout": json.dumps(self.told), "stderr": ""}

        def execute_module(module_name: str, **_options: Any) -> dict[str, Any]:
            self.modules.append(module_name)
            return {"changed": True}

        made._low_level_execute_command = execute
        made._execute_module = execute_module
        made._transfer_file = lambda local, _remote: self.brought.append(local)
        made._make_tmp_path = made._fixup_perms2 = lambda *_: None
        return made.run(None, {"inventory_hostname": "n1"})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_gem_is_brought_where_it_is_missing_and_one_request_does_the_rest(host: Host) -> None:
    result = host.run()
    assert host.brought == [str(host.gem)]
    assert host.spec["gem"] == "/tmp/x/kairos-chain.gem"
    assert [command.split("; ")[1] for command in host.commands] == [
        "/opt/kos/current/bin/kosctl kairoschain apply --json"
    ]
    assert (result["changed"], result["ledger"], host.modules) == (True, HEAD, [])


def test_nothing_is_brought_where_it_is_installed(tmp_path: Path) -> None:
    host = Host(tmp_path, installed=True)
    host.run(gem=str(tmp_path / "gone.gem"))
    assert (host.brought, "gem" in host.spec) == ([], False)


def test_the_last_block_seen_is_kept_and_handed_over_the_next_time(host: Host) -> None:
    """K08."""
    host.run()
    assert "anchor" not in host.spec
    assert host.anchor.read_text() == ANCHOR + "\n"
    host.run()
    assert host.spec["anchor"] == ANCHOR


def test_a_check_brings_nothing_and_keeps_nothing(host: Host) -> None:
    host.run(check=True)
    assert host.commands[0].endswith("kairoschain apply --check --json")
    assert (host.brought, host.anchor.exists()) == ([], False)


def test_a_certificate_makes_a_proxy_and_its_key_stays_out_of_logs(host: Host, tmp_path: Path) -> None:
    for name in ("crt", "key"):
        (tmp_path / name).write_text(f"-----BEGIN {name}")
    host.run(tls_certificate=str(tmp_path / "crt"), tls_key=str(tmp_path / "key"), tls_port=8443)
    assert (host.spec["proxy"]["port"], host.spec["proxy"]["key"]) == (8443, "-----BEGIN key")
    assert host.hidden


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"version": None, "gem": None}, "kairoschain_version is missing; kairoschain_gem is missing"),
        ({"gem": "/nowhere.gem"}, "kairoschain_gem names /nowhere.gem, which is not there"),
        ({"gem_sha256": "0" * 64}, f"has the digest {DIGEST}, and kairoschain_gem_sha256 says 000"),
        ({"tls_key": "/dev/null"}, "belong together: set both, or none"),
        ({"tls_key": "/no", "tls_certificate": "/no"}, "kairoschain_tls_certificate names /no, which is not"),
    ],
)
def test_bad_input_is_named_before_kosctl_is_asked(host: Host, more: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleActionFail, match=words):
        host.run(**more)
    assert (host.commands, host.brought, host.modules) == ([], [], [])


def test_a_ruby_that_the_gem_refuses_is_named(tmp_path: Path) -> None:
    for ruby in ("3.1.2", "1:3.1"):
        with pytest.raises(AnsibleActionFail, match=r"has Ruby .*3\.1.*needs 3\.3 or later"):
            Host(tmp_path, probe=f"uid=0\nruby={ruby}\n").run()


def test_missing_packages_are_installed_and_in_check_mode_told(tmp_path: Path) -> None:
    host = Host(tmp_path, probe="uid=0\nkosctl=yes\nruby=1:3.3\ninstalled=ruby\n")
    assert host.run(check=True)["actions"][0] == "install logrotate, puma, ruby-base64, ruby-rack"
    assert host.modules == []
    host.run()
    assert host.modules == ["ansible.builtin.apt"]


def test_without_kosctl_a_check_tells_the_plan_and_a_run_says_what_is_missing(tmp_path: Path) -> None:
    host = Host(tmp_path, probe="uid=0\nruby=3.3.8\n")
    result = host.run(check=True)
    assert result["changed"]
    assert "install kairos-chain 3.75.0" in result["actions"][-1]
    with pytest.raises(AnsibleActionFail, match=r"run role kos\.fleet\.bootstrap first"):
        host.run()


def test_without_root_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="become: true"):
        Host(tmp_path, probe="uid=1000\n").run()


def test_a_misspelt_variable_of_the_role_is_refused_by_name(host: Host) -> None:
    folder = Path(__file__).resolve().parents[3] / "roles/kairoschain"
    role = SimpleNamespace(get_name=lambda: "kos.fleet.kairoschain", _role_path=str(folder))
    made = Node().action(action, dict(host.args), role=role)
    with pytest.raises(AnsibleActionFail, match="did you mean kairoschain_config"):
        made.run(None, {"inventory_hostname": "n1", "kairoschain_confg": {}})


def test_what_kosctl_refuses_is_the_task_s_message(host: Host) -> None:
    error = {"kind": "refused", "message": "the ledger is cut", "key": "anchor"}
    host.told.update(ok=False, exit=3, changed=False, error=error, result={})
    result = host.run()
    assert result["failed"]
    assert result["msg"].startswith("anchor: the ledger is cut. ")
    assert result["msg"].endswith(f"mv {host.anchor} {host.anchor}.lost")
    assert not host.anchor.exists()


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("https://gems.example/", "https://gems.example/gems/kairos-chain-3.75.0.gem"),
        ("https://h.example/a.gem", "https://h.example/a.gem"),
    ],
)
def test_a_gem_server_is_asked_by_the_controller_and_its_answer_checked(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, address: str
) -> None:
    asked = []

    def open_url(where: str, **_options: Any) -> io.BytesIO:
        asked.append(where)
        return io.BytesIO(GEM)

    monkeypatch.setattr(action, "open_url", open_url)
    monkeypatch.setattr(action, "CACHE", tmp_path / "cache")
    for _ in range(2):
        host.run(gem=server)
    assert (asked, len(host.brought)) == ([address], 2)
    with pytest.raises(AnsibleActionFail, match="gave a gem of the digest"):
        host.run(gem=server, gem_sha256="1" * 64)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [f"{DIGEST}.gem"]


def test_a_removal_leaves_the_anchor_unless_the_data_goes_too(host: Host) -> None:
    host.run()
    host.told.update(result={})
    host.run(state="absent")
    assert host.commands[-1].endswith("kairoschain remove --json")
    assert host.anchor.exists()
    host.run(state="absent", purge=True)
    assert host.commands[-1].endswith("kairoschain remove --purge --json")
    assert not host.anchor.exists()


# ledger_info


def test_a_damaged_ledger_is_an_answer_and_an_error_is_a_failure(host: Host) -> None:
    host.args = {"path": "/data/it's"}
    found = {"state": "damaged", "length": 3, "first_bad": 1, "ranges": [[1, 1, "hash"]], "head": None}
    host.told.update(
        ok=False, exit=10, changed=False, error={"kind": "damaged", "message": "m"}, result=found
    )
    assert host.run(module=ledger_info) == {"changed": False, **found}
    assert "ledger verify '/data/it'\"'\"'s' --json" in host.commands[-1]
    host.told.update(exit=5, error={"kind": "busy", "message": "the lock is held", "key": None}, result={})
    assert host.run(module=ledger_info)["failed"]


def test_an_anchor_is_compared_with(host: Host) -> None:
    host.args = {"anchor": f"{ANCHOR}\n"}
    host.told.update(result={"state": "ok", "relation": "grown"})
    assert host.run(module=ledger_info)["relation"] == "grown"
    assert f"ledger compare /var/lib/kairos/data/storage/blockchain.json {ANCHOR} --json" in host.commands[-1]
    with pytest.raises(AnsibleActionFail, match="anchor has to be INDEX:HASH"):
        host.run(module=ledger_info, anchor="5; rm -rf /")
