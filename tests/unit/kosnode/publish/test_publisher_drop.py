"""What waits for signatures can be taken back, as long as nobody depends on it."""

from __future__ import annotations

import json

import pytest
from publisher_world import World

from kosnode.errors import RefusedError, TrustError
from kosnode.publish import cli, drop, holders
from kosnode.publish.holders import Rotation


def names(world: World, folder: str) -> set[str]:
    return {path.name for path in (world.repository.path / folder).rglob("*") if path.is_file()}


def test_a_root_that_nobody_signs_holds_up_publications_until_it_is_dropped(
    opened: World, capsys: pytest.CaptureFixture[str]
) -> None:
    public = names(opened, "public")
    holders.renew(opened.repository, "root")
    opened.build("1.0.0")
    opened.sign("releases", "alice", "bob")
    with pytest.raises(TrustError, match=r"root \(quorum of version 1\) has 0 of 2 signatures"):
        opened.publish()

    assert cli.main(["drop", str(opened.repository.path), "root", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["changed"], said["result"]["dropped"], said["result"]["waiting"]["root"]) == (
        True,
        "root 2",
        None,
    )
    assert said["result"]["waiting"]["releases"]["version"] == 2
    assert "releases 2 published" in opened.publish().actions
    assert names(opened, "public") > public


def test_what_is_published_is_not_dropped(opened: World) -> None:
    before = names(opened, "")
    for role in ("root", "targets", "releases"):
        with pytest.raises(RefusedError, match=f"{role} 1 is published, and nothing of it waits"):
            drop.drop(opened.repository, role)
    assert names(opened, "") == before


def test_what_an_interrupted_publication_made_public_is_not_dropped(opened: World) -> None:
    holders.renew(opened.repository, "targets")
    opened.sign("targets", "alice", "bob")
    path = opened.repository.staged_path("targets")
    assert path is not None
    waiting = path.read_bytes()
    opened.publish()
    path.write_bytes(waiting)
    with pytest.raises(RefusedError, match="targets 2 is public already: `repo publish` finishes"):
        drop.drop(opened.repository, "targets")


def test_the_first_documents_of_a_repository_are_not_dropped(world: World) -> None:
    world.initialise()
    for role in ("root", "targets", "releases"):
        with pytest.raises(RefusedError, match=f"{role} 1 is the first"):
            drop.drop(world.repository, role)
    assert names(world, "staged") == {"1.root.json", "targets.json", "releases.json"}


def test_a_root_that_nodes_would_believe_is_not_dropped(opened: World) -> None:
    """Its copies cannot be taken back, and another root of the same version would split the fleet."""
    holders.renew(opened.repository, "root")
    opened.sign("root", "alice")
    opened.sign("root", "bob")
    with pytest.raises(RefusedError, match="root 2 has all signatures"):
        drop.drop(opened.repository, "root")
    assert opened.publish().versions["root"] == 2


def test_what_a_waiting_root_needs_is_dropped_after_it(opened: World) -> None:
    opened.build("1.0.0")
    rotation = Rotation(add=[opened.public("mallory")], remove=["bob"])
    assert set(holders.change_root(opened.repository, rotation)) == {"root", "targets"}
    with pytest.raises(RefusedError, match=r"root, which waits as well, .* drop root first"):
        drop.drop(opened.repository, "targets")
    drop.drop(opened.repository, "root")
    # What still waits is judged by the keys that are published, also by who signs it elsewhere.
    staged = opened.repository.staged("targets")
    path = opened.repository.staged_path("targets")
    assert staged is not None
    assert path is not None
    assert path.read_bytes() == staged.to_bytes()
    assert set(staged.signers.keys) == set(opened.signers("alice", "bob", "carol").keys)
    drop.drop(opened.repository, "targets")
    assert opened.repository.staged_path("targets") is None


def test_files_of_a_release_that_is_dropped_go_with_it(opened: World) -> None:
    opened.release("1.0.0")
    assert opened.build("1.1.0").changed
    assert names(opened, "staged/releases")
    drop.drop(opened.repository, "releases")
    assert names(opened, "staged") == set()
    assert opened.build("1.1.0").changed
