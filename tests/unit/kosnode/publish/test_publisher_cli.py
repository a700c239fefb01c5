"""The command: three holders from key to published release by commands alone, JSON and exit codes."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from publisher_world import PASSPHRASE, Client, World

from kosnode import cli as kosctl
from kosnode.errors import KosError
from kosnode.publish import cli

PROJECT = Path(__file__).parents[4]
RUNTIME = PROJECT / "runtime"
GUIDE = PROJECT / "docs/guide/publishing.md"


class Shell:
    """Runs the command in this process and reads what it says."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: object, expect: int = 0) -> dict[str, Any]:
        code = cli.main([*map(str, words), "--json"])
        captured = self.capsys.readouterr()
        assert code == expect, captured.err
        said: dict[str, Any] = json.loads(captured.out)
        assert said["exit"] == code
        assert said["ok"] == (code == 0)
        assert PASSPHRASE.decode() not in captured.out
        return said

    def text(self, *words: object) -> str:
        assert cli.main([*map(str, words)]) == 0
        return self.capsys.readouterr().out


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_the_whole_way_from_keys_to_a_published_release(
    run: Shell, tmp_path: Path, world: World, serve: Any
) -> None:
    """S17, C19: what docs/guide/publishing.md tells three holders to type."""
    repository, mirror, secret = tmp_path / "r", tmp_path / "mirror", tmp_path / "secret"
    secret.write_bytes(PASSPHRASE)
    secret.chmod(0o600)
    opens = ("--passphrase-file", secret)
    for name in ("ann", "ben", "cho", "clock"):
        assert run("key", "new", "--out", tmp_path / f"{name}.key", *opens)["changed"]
    public = {name: tmp_path / f"{name}.pub" for name in ("ann", "ben", "cho")}
    holders = [
        word for role in ("root", "releases") for path in public.values() for word in (f"--{role}-key", path)
    ]
    init = ["init", repository, *holders, "--root-threshold", 2, "--releases-threshold", 2]
    init += ["--online-key", tmp_path / "clock.key", *opens, "--expires", "releases=90d", "--level", 3]
    assert run(*init)["changed"]
    assert not run(*init)["changed"]

    tree = world.tree("1.0.0")
    release = tmp_path / "release.yml"
    release.write_text("name: kos\nversion: 1.0.0\nsync_risk: none\n")
    built = run("build", repository, "--tree", tree, "--release-file", release, "--channel", "beta")
    assert built["changed"]
    assert built["result"]["waiting"]["quorums"][0]["missing"] == 2

    for name in ("ann", "cho"):
        for staged in ("1.root.json", "targets.json", "releases.json"):
            copy = tmp_path / f"{name}-{staged}"
            shutil.copy(repository / "staged" / staged, copy)
            run("sign", copy, "--key", tmp_path / f"{name}.key", *opens)
        if name == "ann":
            before = run("publish", repository, *opens, expect=13)
            assert before["error"]["kind"] == "trust"
            assert "root has 0 of 2 signatures" in before["error"]["message"]
        for staged in ("1.root.json", "targets.json", "releases.json"):
            assert run("merge", repository, tmp_path / f"{name}-{staged}")["result"]["new"] == [name]
    published = run("publish", repository, *opens, "--to", mirror)
    assert published["changed"]
    assert published["result"]["versions"]["releases"] == 1
    assert not run("publish", repository, *opens, "--to", mirror)["changed"]

    node = Client(serve(mirror), tmp_path / "node", (mirror / "metadata/1.root.json").read_bytes())
    assert json.loads(node.download(built["result"]["root"]))["version"] == "1.0.0"

    run("promote", repository, "1.0.0", "--channel", "stable")
    for name in ("ben", "cho"):
        run("sign", repository, "--role", "releases", "--key", tmp_path / f"{name}.key", *opens)
    run("publish", repository, *opens, "--to", mirror)
    rows = run("list", repository)["result"]["releases"]
    assert [row["channels"] for row in rows] == [["beta", "stable"]]
    assert run("timestamp", repository, *opens, "--to", mirror)["result"]["versions"]["timestamp"] == 3
    verified = run("verify", mirror, "--root", repository / "public/metadata/1.root.json")
    assert verified["result"]["releases"] == ["kos 1.0.0 (any)"]


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["list", "absent"], 2, "input"),
        (["key", "show", "absent.pub"], 2, "input"),
        (["sign", "absent.json", "--show"], 2, "input"),
        (["verify", "."], 2, "input"),
    ],
)
def test_bad_input_ends_with_its_code_and_names_the_key(
    run: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(*words, expect=code)
    assert said["error"]["kind"] == kind
    assert said["error"]["key"]


def test_a_release_that_does_not_exist_ends_with_4(run: Shell, opened: World) -> None:
    run("promote", opened.repository.path, "3.0.0", "--channel", "stable", expect=4)


def test_a_duplicate_signature_ends_with_3_and_an_outsiders_with_13(run: Shell, opened: World) -> None:
    """C19."""
    path = opened.repository.path
    run("renew", path, "--role", "releases")
    opens = ("--passphrase-file", opened.passphrase_file)
    run("sign", path, "--role", "releases", "--key", opened.key("alice"), *opens)
    run("sign", path, "--role", "releases", "--key", opened.key("alice"), *opens, expect=3)
    run("sign", path, "--role", "releases", "--key", opened.key("mallory"), *opens, expect=13)


def test_the_alarm_ends_with_12_after_the_timestamp_is_renewed(run: Shell, opened: World) -> None:
    opens = ("--passphrase-file", opened.passphrase_file)
    said = run("timestamp", opened.repository.path, *opens, "--alarm-days", 181, expect=12)
    assert "releases 1 expires at" in said["error"]["message"]
    assert said["result"]["versions"]["timestamp"] == 2


def test_a_damaged_release_is_listed_in_json(run: Shell, opened: World) -> None:
    built = opened.release("1.0.0")
    (opened.repository.public / f"releases/{built.root}.tar.zst").write_bytes(b"no archive")
    said = run("verify", opened.repository.path, expect=10)
    assert [one["file"] for one in said["result"]["findings"]] == [f"releases/{built.root}.tar.zst"]


def test_a_person_reads_what_will_be_signed(run: Shell, opened: World) -> None:
    built = opened.build("1.0.0")
    text = run.text("sign", opened.repository.path, "--role", "releases", "--show")
    assert f"kos 1.0.0 any in stable, root {built.root}" in text
    assert "changes since the version signed by alice, bob:" in text
    assert "releases: 0 of 2 signatures (nobody yet), 2 missing" in text
    table = run.text("list", opened.repository.path)
    assert table.splitlines()[0].split()[:3] == ["NAME", "VERSION", "ARCH"]
    assert built.root[:12] in table


@pytest.mark.parametrize("expires", ["releases", "releases=90", "chaos=90d", "releases=d"])
def test_a_misspelt_expiry_is_refused_by_the_parser(run: Shell, expires: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["init", str(tmp_path / "r"), "--expires", expires])
    assert caught.value.code == 2


def test_the_parser_mounts_below_another_command() -> None:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers(dest="verb"))
    args = parser.parse_args(["repo", "list", "absent", "--json"])
    assert args.verb == "repo"
    assert args.json
    with pytest.raises(KosError, match="is not a repository"):
        args.func(args)


@pytest.mark.parametrize("words", [["--json", "repo", "list"], ["repo", "list", "--json"]])
def test_kosctl_runs_it_and_ends_with_its_code(
    words: list[str], opened: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = opened.release("1.0.0")
    place = words.index("list") + 1
    assert kosctl.main([*words[:place], str(opened.repository.path), *words[place:]]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verb"] == "repo"
    assert [row["root"] for row in said["result"]["releases"]] == [built.root]
    assert kosctl.main([*words[:place], str(tmp_path / "absent"), *words[place:]]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["key"] == "REPO"


def test_it_runs_by_itself_without_the_rest_of_kosctl(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kosnode.publish", "list", str(tmp_path), "--json"],
        env={**os.environ, "PYTHONPATH": str(RUNTIME)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["kind"] == "input"
    assert done.stderr.startswith("error: ")


def test_no_passphrase_can_be_given_on_the_command_line_or_by_the_environment(run: Shell) -> None:
    """A secret is never on a command line."""
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["repo", "key", "new", "--out", "x", "--passphrase", "secret"])


def commands_of(guide: Path) -> list[list[str]]:
    """Return each `kosctl repo …` of the guide's blocks and tables as words, optional ones included."""
    text = guide.read_text().replace("\\\n", " ")
    found = re.findall(r"kosctl (repo [a-z][^\n`#]*)", text)
    return [shlex.split(re.sub(r"[\[\]]", "", command)) for command in found]


def test_every_command_of_the_guide_is_one_that_the_parser_takes() -> None:
    """A80: what the documentation tells people to type exists."""
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    commands = commands_of(GUIDE)
    for words in commands:
        parser.parse_args(words)
    assert {words[1] for words in commands} >= {
        "init", "key", "root", "delegate", "renew", "build", "promote", "withdraw",
        "floor", "sign", "merge", "publish", "timestamp", "verify", "list",
    }  # fmt: skip
