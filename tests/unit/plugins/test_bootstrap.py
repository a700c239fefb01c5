"""What bootstrap hands to a host, and how a bundle is unpacked there: whole, or not at all (S13)."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from action_world import Node
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.action import bootstrap as action
from ansible_collections.kos.fleet.plugins.modules import bootstrap as module
from ansible_collections.kos.fleet.plugins.plugin_utils import _bundle, _host

ROOT = '{"signed": {}}'
GROUPS = {"nodes": ["n1"], "zone_a": ["n1"]}
ARGS: dict[str, Any] = {"fleet": "demo", "mirrors": ["http://m/"], "trust_root": ROOT}
BUNDLE = _bundle.Bundle(Path("kosctl.tar.gz"), "1.0.0-x", "d")
PROBE = {
    **{
        "uid": "0",
        "machine": "x86_64",
        "bits": "64",
        "python": "3.13",
        "zstandard": "0.23",
        "init": "systemd",
    },
    **{"systemd": "257", "free_kib": "999999", "unpacked": "yes", "digest": "d", "current": "1.0.0-x"},
    **{f"has_{name}": "yes" for name in _host.PROGRAMS},
}


class Host:
    """A host that answers the probe, and notes what kosctl is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **probe: str) -> None:
        self.probe = "".join(f"{key}={value}\n" for key, value in {**PROBE, **probe}.items() if value)
        self.commands: list[str] = []
        self.spec: dict[str, Any] = {}
        monkeypatch.setattr(_bundle, "of_collection", lambda _files: BUNDLE)

    def execute(self, command: str, in_data: bytes | None = None, **_options: Any) -> dict[str, Any]:
        if "say uid" in command:
            return {"rc": 0, "stdout": self.probe, "stderr": ""}
        self.commands.append(command)
        self.spec = json.loads(in_data or b"{}")
        told = {"ok": True, "exit": 0, "changed": True, "actions": ["a"], "result": {"unset": ["tribe"]}}
        return {"rc": 0, "stdout": json.dumps(told), "stderr": ""}

    def run(self, args: dict[str, Any], *, check: bool = False, role: Any = None, **variables: Any) -> Any:
        made = Node().action(action, args, check=check, role=role)
        made._low_level_execute_command = self.execute  # type: ignore[method-assign]  # no host here
        return made.run(None, {"inventory_hostname": "n1", "groups": GROUPS, **variables})


def test_a_node_is_described_by_one_spec_with_its_zone_from_the_inventory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(monkeypatch)
    result = host.run({**ARGS, "operator_keys": ["ssh-ed25519 AAAA"], "tribe": ""})
    assert host.spec["node"] == {
        **{"format": 1, "node": "n1", "fleet": "demo", "zone": "a", "release": "kos", "channel": "stable"},
        **{"mirrors": ["http://m/"], "policy": {}, "units": {}},
    }
    assert host.spec["engine"] == "1.0.0-x"
    assert host.spec["trust_root"] == ROOT
    assert host.spec["mirror_ca"] == ""
    assert "conf" not in host.spec
    assert result["unset"] == ["tribe"]


def test_the_authorities_of_https_mirrors_are_handed_over_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host, pem = Host(monkeypatch), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    path = tmp_path / "ca.pem"
    path.write_text(pem)
    for wish in (pem, str(path)):
        host.run({**ARGS, "mirror_ca": wish})
        assert host.spec["mirror_ca"] == pem
        assert host.spec["node"]["mirror_ca"] == "/etc/kos/trust/mirror-ca.pem"


def test_an_engine_that_is_there_is_asked_without_transferring_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(monkeypatch)
    host.run(ARGS, check=True)
    (command,) = host.commands
    assert command.endswith("/opt/kos/1.0.0-x/bin/kosctl host apply --check --json")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"fleet": None}, "bootstrap_fleet is missing"),
        ({"trust_root": None}, "bootstrap_trust_root is missing"),
        ({"trust_root": "/no/root.json"}, "bootstrap_trust_root names /no/root.json, which is not there"),
        ({"mirrors": []}, "bootstrap_mirrors is empty"),
        ({"mirror_ca": "/no/ca.pem"}, "bootstrap_mirror_ca names /no/ca.pem, which is not there"),
        ({"mirror_ca": "/dev/null"}, "bootstrap_mirror_ca names /dev/null, which is not there"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_bad_input_is_named_before_the_host_is_asked(
    monkeypatch: pytest.MonkeyPatch, args: dict[str, Any], words: str
) -> None:
    host = Host(monkeypatch)
    with pytest.raises(AnsibleActionFail, match=words):
        host.run({**ARGS, **args})
    assert host.commands == []


def test_a_host_that_lacks_something_is_told_all_of_it_and_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(monkeypatch, python="3.9", zstandard="", has_sudo="")
    with pytest.raises(AnsibleActionFail, match=r"(?s)3\.10.*zstandard.*sudo.*Nothing was changed"):
        host.run(ARGS)
    assert host.commands == []


def test_without_root_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnsibleActionFail, match="become: true"):
        Host(monkeypatch, uid="1000").run(ARGS)


def test_a_misspelt_variable_of_the_role_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).resolve().parents[3] / "roles/bootstrap"
    role = SimpleNamespace(get_name=lambda: "kos.fleet.bootstrap", _role_path=str(folder))
    with pytest.raises(AnsibleActionFail, match="did you mean bootstrap_mirrors"):
        Host(monkeypatch).run(ARGS, role=role, bootstrap_mirors=[])


def test_nothing_is_removed_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, current="")
    assert host.run({"state": "absent"}) == {"changed": False, "actions": []}
    assert host.commands == []


def archive(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> tuple[Path, str]:
    path = folder / "bundle.tar.gz"
    with tarfile.open(path, "w:gz") as stream:
        for member, data in members:
            member.size = len(data)
            stream.addfile(member, io.BytesIO(data))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def member(name: str, mode: int = 0o444, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.mode, made.type = mode, kind
    return made


def test_a_bundle_is_unpacked_whole_and_marked_last(tmp_path: Path) -> None:
    program = (member("bin/kosctl", 0o555), b"#!/bin/sh\n")
    path, digest = archive(tmp_path, program, (member("lib/x.py"), b""))
    (tmp_path / "to").mkdir()
    module.unpack(path, digest, tmp_path / "to")
    assert stat.S_IMODE((tmp_path / "to/bin/kosctl").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "to/lib/x.py").stat().st_mode) == 0o644
    assert (tmp_path / "to/.sha256").read_text() == f"{digest}\n"


def test_other_bytes_than_promised_are_not_unpacked(tmp_path: Path) -> None:
    path, _digest = archive(tmp_path, (member("lib/x.py"), b""))
    (tmp_path / "to").mkdir()
    with pytest.raises(module.UnpackError, match="arrived with the digest"):
        module.unpack(path, "0" * 64, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [
        member("../x"),
        member("/x"),
        member("a//b"),
        member("x", kind=tarfile.SYMTYPE),
        member("x", kind=tarfile.CHRTYPE),
    ],
)
def test_what_is_not_a_plain_file_in_its_folder_is_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    path, digest = archive(tmp_path, (bad, b""))
    (tmp_path / "to").mkdir()
    with pytest.raises(module.UnpackError, match="not a plain file"):
        module.unpack(path, digest, tmp_path / "to")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "to/.sha256").exists()


def test_an_engine_takes_its_place_by_a_rename_and_a_damaged_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENGINES", tmp_path)
    for text in ("damaged", "whole"):
        fresh = tmp_path / ".fresh"
        fresh.mkdir()
        (fresh / "file").write_text(text)
        module.put_in_place(fresh, "1.0.0-x")
    assert [path.name for path in tmp_path.iterdir()] == ["1.0.0-x"]
    assert (tmp_path / "1.0.0-x/file").read_text() == "whole"


def test_a_check_works_where_nothing_in_the_temporary_folder_may_be_run(tmp_path: Path) -> None:
    def run_command(command: list[str], data: str) -> tuple[int, str, str]:
        done = subprocess.run(command, input=data, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/kosctl"
    answer = "{'ok': True, 'exit': 0, 'actions': sys.argv[1:]}"
    program.write_text(f"import json, sys\nprint(json.dumps({answer}))\n")
    program.chmod(0o644)  # no more than a file system that is mounted with noexec gives
    host = SimpleNamespace(params={"prepared": {"spec": "{}"}}, run_command=run_command)
    assert module.ask_host(host, tmp_path, check_only=True).actions == ["host", "apply", "--json", "--check"]
