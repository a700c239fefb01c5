"""Publishing by the playbook: a bad release, or too few signatures, are refused before anything is public."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from world import World

from verify import lane, plays

UNIT = """\
id: clock
version: "1.0.0"
tier: 2
format: native
entry: {command: ["/usr/bin/sleep", "infinity"]}
health: [{file_age: {path: written, max: "30s"}}]
"""


@pytest.fixture
def world() -> World:
    return lane.publish()


@pytest.fixture
def repository(world: World, tmp_path: Path) -> Path:
    """A copy of the fleet's repository, to publish into."""
    return Path(shutil.copytree(world.repository, tmp_path / "repository"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The tree of a small release."""
    unit = tmp_path / "tree/units/clock/unit.yml"
    unit.parent.mkdir(parents=True)
    unit.write_text(UNIT)
    return tmp_path / "tree"


def publish(
    world: World, repository: Path, tree: Path, holders: tuple[str, ...], **more: Any
) -> plays.Outcome:
    alone = tree.parent / "alone.yml"
    alone.write_text("mirrors:\n")
    return plays.run(
        "kos.fleet.publish",
        inventories=[alone],
        variables={
            "publish_repository": str(repository),
            "publish_tree": str(tree),
            "publish_version": "2.0.0",
            "publish_engine": str(lane.REPOSITORY / "runtime"),
            "publish_online_passphrase_file": str(world.passphrase("online")),
            "publish_sign_with": [
                {"key": str(world.key(holder)), "passphrase_file": str(world.passphrase(holder))}
                for holder in holders
            ],
            **more,
        },
    )


def released(repository: Path) -> list[str]:
    return sorted(path.name for path in (repository / "public/releases").iterdir())


def test_one_signature_of_two_is_not_enough(world: World, repository: Path, tree: Path) -> None:
    """C19."""
    before = released(repository)
    ended = publish(world, repository, tree, ("alice",))
    assert ended.rc != 0
    assert "releases needs 1 more of bob, carol" in ended.words
    assert released(repository) == before


def test_two_signatures_are_and_a_second_run_changes_nothing(
    world: World, repository: Path, tree: Path
) -> None:
    """C19, D02."""
    before = released(repository)
    ended = publish(world, repository, tree, ("alice", "carol"))
    assert ended.rc == 0, ended.text
    assert len(released(repository)) > len(before)
    again = publish(world, repository, tree, ("alice", "carol"))
    assert again.rc == 0, again.text
    assert again.said.changed == []


@pytest.mark.parametrize(
    ("unit", "manifest", "words"),
    [
        (UNIT.replace("30s", "-30s"), "", "health[0].file_age.max"),
        (UNIT + "colour: red\n", "", "colour"),
        (UNIT.replace("format: native", "format: oci"), "", "format oci is not supported"),
        (UNIT, "colour: red\n", "colour"),
        (UNIT, "sync_risk: terrible\n", "sync_risk"),
    ],
)
def test_a_release_that_breaks_a_rule_is_refused_by_its_key(
    world: World, repository: Path, tree: Path, tmp_path: Path, unit: str, manifest: str, words: str
) -> None:
    """S13."""
    (tree / "units/clock/unit.yml").write_text(unit)
    (tmp_path / "release.yml").write_text(f"name: kos\nversion: 2.0.0\n{manifest}")
    before = released(repository)
    ended = publish(
        world, repository, tree, ("alice", "bob"), publish_release_file=str(tmp_path / "release.yml")
    )
    assert ended.rc != 0
    assert words in ended.words
    assert released(repository) == before


def test_a_misspelt_variable_is_named(world: World, repository: Path, tree: Path) -> None:
    ended = publish(world, repository, tree, (), publish_chanels=["beta"])
    assert ended.rc != 0
    assert "publish_chanels is not a variable of publish; did you mean publish_channels?" in " ".join(
        ended.text.split()
    )
