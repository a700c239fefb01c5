"""The publisher as a task: each step only where it is missing, no publication without quorum (C19, S17)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from action_world import Node
from ansible.errors import AnsibleActionFail

from ansible_collections.kos.fleet.plugins.action import repository

HOLDERS = ("ada", "ben", "cat")


class Publisher:
    """Three holders of whom two have to sign, and a tree.

    Args:
        folder: for keys, tree and repository.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (*HOLDERS, "online"):
            (folder / f"{name}.pass").write_text(f"{name} and a long passphrase\n")
            (folder / f"{name}.pass").chmod(0o600)
        unit = folder / "tree/units/hello"
        unit.mkdir(parents=True)
        (unit / "unit.yml").write_text("id: hello\nversion: 1.0.0\ntier: 2\nentry:\n  command: [bin/hello]\n")
        (folder / "tree/bin").mkdir()
        (folder / "tree/bin/hello").write_text("#!/bin/sh\n")
        (folder / "tree/bin/hello").chmod(0o755)

    def signers(self, *names: str) -> list[dict[str, str]]:
        return [
            {"key": str(self.folder / f"{n}.key"), "passphrase_file": str(self.folder / f"{n}.pass")}
            for n in names
        ]

    def run(self, *names: str, check: bool = False, **more: Any) -> dict[str, Any]:
        keys = [str(self.folder / f"{name}.pub") for name in HOLDERS]
        args = {
            **{"path": str(self.folder / "repository"), "make_keys": True},
            **{"root_keys": keys, "root_threshold": 2, "releases_keys": keys, "releases_threshold": 2},
            "online_key": str(self.folder / "online.key"),
            "online_passphrase_file": str(self.folder / "online.pass"),
            "sign_with": self.signers(*names),
        }
        return Node().run(repository, {**args, **more}, check=check)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    publisher = Publisher(tmp_path_factory.mktemp("publisher"))
    publisher.run(*HOLDERS)
    return publisher


def release(publisher: Publisher, version: str) -> dict[str, Any]:
    return {"tree": str(publisher.folder / "tree"), "name": "hello", "version": version}


def test_a_repository_is_made_with_its_keys_signed_and_published(published: Publisher) -> None:
    root = Path(published.run()["trust_root"])
    assert root.name == "1.root.json"
    assert root.is_file()
    assert (published.folder / "ada.key").stat().st_mode & 0o077 == 0


def test_a_release_is_built_signed_and_published_once(published: Publisher) -> None:
    first = published.run("ada", "ben", **release(published, "1.0.0"))
    again = published.run("ada", "ben", **release(published, "1.0.0"))
    assert first["changed"]
    assert (again["changed"], again["actions"], again["root"]) == (False, [], first["root"])
    assert [row["state"] for row in first["releases"] if row["version"] == "1.0.0"] == ["published"]


def test_too_few_signatures_are_not_published_and_those_who_are_missing_are_named(
    published: Publisher,
) -> None:
    with pytest.raises(AnsibleActionFail, match=r"releases needs 1 more of ben, cat; they sign .*/staged/"):
        published.run("ada", **release(published, "1.1.0"))
    waiting = published.run(state="present")["waiting"]
    assert waiting["releases"]["quorums"][0]["signed_by"] == ["ada"]
    assert published.run("cat")["waiting"] == {}


def test_check_mode_says_what_would_be_built_and_writes_nothing(published: Publisher) -> None:
    told = published.run("ada", "ben", check=True, **release(published, "3.0.0"))
    assert told["actions"] == [f"build 3.0.0 from {published.folder / 'tree'}"]
    assert "3.0.0" not in [row["version"] for row in published.run()["releases"]]


def test_what_is_missing_to_make_a_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="to make one, set root_keys, releases_keys, online_key"):
        Node().run(repository, {"path": str(tmp_path / "nothing")})


def test_the_publishers_own_words_reach_the_task(published: Publisher) -> None:
    with pytest.raises(AnsibleActionFail, match="version"):
        published.run("ada", **release(published, "not-a-version"))


def test_without_the_publisher_it_says_what_to_install(
    published: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kosnode.publish.cli", None)
    with pytest.raises(AnsibleActionFail, match="Install the Python package"):
        published.run()
