"""Who holds the keys: a repository is made once, and each change of keys needs the quorums it concerns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from publisher_world import PASSPHRASE, Client, World
from securesystemslib.signer import SSlibKey
from tuf.api.exceptions import DownloadError, RepositoryError

from kosnode import files
from kosnode.errors import InputError, TrustError
from kosnode.publish import documents, holders, keys, signing
from kosnode.publish.holders import OnlineKey, Rotation
from kosnode.publish.repository import Config

ClientOf = Callable[[World], Client]


def versions(world: World) -> dict[str, int]:
    published = world.repository.published()
    return {
        role: document.signed.version
        for role in ("root", "targets", "releases")
        if (document := published.of(role))
    }


def snapshot_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_new_repository_waits_for_the_signatures_of_its_holders(world: World) -> None:
    assert holders.initialise(world.repository, world.config, world.foundation())
    for role in documents.OFFLINE_ROLES:
        staged = world.repository.staged(role)
        assert staged is not None
        assert [(result.threshold, result.missing) for _, result in staged.quorums()] == [(2, 2)]
    assert not list(world.repository.metadata_dir.iterdir())
    assert (world.repository.path / "online").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (world.repository.path / "online").iterdir())


def test_making_a_repository_again_changes_nothing(world: World) -> None:
    world.initialise()
    before = snapshot_of(world.repository.path)
    assert not holders.initialise(world.repository, world.config, world.foundation())
    assert snapshot_of(world.repository.path) == before


def test_making_it_again_with_other_keys_or_settings_is_refused(opened: World) -> None:
    foundation = opened.foundation()
    other = replace(foundation, releases=opened.signers("alice", "bob"))
    with pytest.raises(InputError, match="other keys or another threshold for releases"):
        holders.initialise(opened.repository, opened.config, other)
    with pytest.raises(InputError, match="other settings"):
        holders.initialise(opened.repository, replace(opened.config, patches=9), foundation)


def test_a_folder_with_something_else_in_it_is_left_alone(world: World) -> None:
    world.repository.path.mkdir()
    (world.repository.path / "thesis.tex").write_text("do not touch")
    with pytest.raises(InputError, match=r"holds thesis\.tex"):
        world.initialise()
    assert [entry.name for entry in world.repository.path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_making_is_finished_by_making_it_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.write_durable

    def torn(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        if path.name == "config.json":
            raise OSError("power cut")
        real(path, data, mode=mode)

    monkeypatch.setattr(files, "write_durable", torn)
    with pytest.raises(OSError, match="power cut"):
        world.initialise()
    monkeypatch.setattr(files, "write_durable", real)
    assert holders.initialise(world.repository, world.config, world.foundation())


def test_one_key_cannot_hold_two_seats(world: World) -> None:
    """C19: a duplicate signer counts once, so it is not let in twice."""
    copy = world.base / "second.pub"
    copy.write_bytes(world.public("alice").read_bytes().replace(b'"alice"', b'"eve"'))
    with pytest.raises(InputError, match="one key counts once"):
        holders.read_signers("root", [world.public("alice"), copy], 2)


def test_no_two_holders_of_a_role_are_called_alike(world: World) -> None:
    """Those who sign read names, so a name stands for one key."""
    keys.make(world.base / "new-alice.key", PASSPHRASE, holder="alice")
    with pytest.raises(InputError, match="has a key of alice already"):
        holders.read_signers("root", [world.public("alice"), world.base / "new-alice.pub"], 2)


def test_a_holder_changes_her_own_key_in_one_step(opened: World) -> None:
    keys.make(opened.base / "new-alice.key", PASSPHRASE, holder="alice")
    rotation = Rotation(add=[opened.base / "new-alice.pub"], remove=["alice"])
    assert holders.change_delegation(opened.repository, rotation)["targets"].changed


@pytest.mark.parametrize("threshold", [0, 4])
def test_a_threshold_that_cannot_be_reached_is_refused(world: World, threshold: int) -> None:
    with pytest.raises(InputError, match=f"cannot need {threshold} signatures of 3 keys"):
        world.signers("alice", "bob", "carol", threshold=threshold)


def test_the_online_key_cannot_be_a_holders_key(world: World) -> None:
    foundation = replace(world.foundation(), online=OnlineKey(world.key("alice"), PASSPHRASE))
    with pytest.raises(InputError, match="online key must not"):
        holders.initialise(world.repository, world.config, foundation)
    assert not world.repository.path.exists()


@pytest.mark.parametrize(
    "config",
    [Config({}, level=3), Config({"root": 1}, level=3)],
)
def test_settings_without_an_expiry_for_each_role_are_refused(world: World, config: Config) -> None:
    with pytest.raises(InputError, match="expires_s needs whole seconds"):
        holders.initialise(world.repository, config, world.foundation())


def test_a_new_root_needs_the_old_quorum_and_the_new_one(opened: World, client: ClientOf) -> None:
    node = client(opened)
    node.find("0" * 64)
    rotation = Rotation(add=[opened.public("mallory")], remove=["alice", "bob"])
    changes = holders.change_root(opened.repository, rotation)
    assert set(changes) == {"root", "targets"}  # what alice and bob signed in targets no longer does

    opened.sign("root", "carol", "mallory")
    opened.sign("targets", "carol", "mallory")
    with pytest.raises(TrustError, match=r"root \(quorum of version 1\) has 1 of 2 signatures"):
        opened.publish()
    opened.sign("root", "alice")
    opened.publish()
    assert versions(opened) == {"root": 2, "targets": 2, "releases": 1}
    node.find("0" * 64)
    assert json.loads((node.base / "metadata/root.json").read_bytes())["signed"]["version"] == 2


def test_a_client_that_was_away_for_several_roots_follows_them_all(opened: World, client: ClientOf) -> None:
    node = client(opened)
    for _ in range(3):
        holders.renew(opened.repository, "root")
        opened.sign("root", "bob", "carol")
        opened.publish()
    node.find("0" * 64)
    assert json.loads((node.base / "metadata/root.json").read_bytes())["signed"]["version"] == 4


def test_a_lost_key_of_releases_is_replaced_and_signs_no_more(opened: World, client: ClientOf) -> None:
    rotation = Rotation(add=[opened.public("mallory")], remove=["alice"])
    changes = holders.change_delegation(opened.repository, rotation)
    assert set(changes) == {"targets", "releases"}
    with pytest.raises(TrustError, match="may not sign releases; those who may: bob, carol, mallory"):
        opened.sign("releases", "alice")
    opened.sign("targets", "alice", "bob")
    opened.sign("releases", "carol", "mallory")
    opened.publish()
    assert versions(opened) == {"root": 1, "targets": 2, "releases": 2}
    client(opened).find("0" * 64)


def test_releases_keep_their_signatures_where_enough_of_their_signers_stay(opened: World) -> None:
    changes = holders.change_delegation(opened.repository, Rotation(remove=["carol"]))
    assert set(changes) == {"targets"}


def test_the_online_key_is_replaced_by_a_new_root(opened: World, client: ClientOf) -> None:
    node = client(opened)
    node.find("0" * 64)
    new = keys.make(opened.base / "online2.key", PASSPHRASE)
    holders.change_root(opened.repository, Rotation(), OnlineKey(opened.base / "online2.key", PASSPHRASE))
    opened.sign("root", "alice", "bob")
    opened.publish()
    node.find("0" * 64)
    timestamp = json.loads((opened.repository.metadata_dir / "timestamp.json").read_bytes())
    assert [made["keyid"] for made in timestamp["signatures"]] == [new.keyid]


def test_an_unknown_or_ambiguous_holder_is_not_removed(opened: World) -> None:
    with pytest.raises(InputError, match=r"'dave' names no key of root, which has alice"):
        holders.change_root(opened.repository, Rotation(remove=["dave"]))
    with pytest.raises(InputError, match="cannot need 2 signatures of 1 keys"):
        holders.change_root(opened.repository, Rotation(remove=["alice", "bob"]))
    assert opened.repository.staged("root") is None


def test_an_expired_root_shuts_clients_out_and_cannot_be_published_over(
    world: World, client: ClientOf
) -> None:
    world.config = replace(world.config, expires_s={**world.config.expires_s, "root": 10})
    world.open()
    world.clock.pass_days(1)
    holders.renew(world.repository, "releases")
    world.sign("releases", "alice", "bob")
    with pytest.raises(TrustError, match=r"root 1 expired at .*: stage and sign a new one"):
        world.publish()
    holders.change_root(world.repository, Rotation(expires_s=86_400))
    world.sign("root", "alice", "bob")
    world.publish()
    client(world).find("0" * 64)


def test_a_draft_that_changes_says_how_many_signatures_it_cost(opened: World) -> None:
    holders.change_delegation(opened.repository, Rotation(add=[opened.public("mallory")]))
    opened.sign("targets", "alice")
    change = holders.change_delegation(opened.repository, Rotation(threshold=3))["targets"]
    assert change.dropped == 1
    shown = signing.open_file(opened.repository.path, "targets").to_dict()
    assert shown["quorums"][0]["signed_by"] == []
    assert "releases: threshold 2 -> 3" in shown["changes"]


def test_a_draft_that_goes_back_to_what_is_published_waits_no_more(opened: World) -> None:
    holders.change_delegation(opened.repository, Rotation(add=[opened.public("mallory")]))
    change = holders.change_delegation(opened.repository, Rotation(remove=["mallory"]))["targets"]
    assert change.changed
    assert change.staged is None
    assert opened.repository.staged("targets") is None


def test_a_client_with_another_root_trusts_nothing_of_it(
    opened: World, tmp_path: Path, client: ClientOf
) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other").open()
    node = client(opened)
    stranger = Client(
        node.url, tmp_path / "stranger", (other.repository.metadata_dir / "1.root.json").read_bytes()
    )
    with pytest.raises((RepositoryError, DownloadError)):
        stranger.find("0" * 64)


def test_one_key_under_two_ids_makes_no_quorum(opened: World) -> None:
    """C19: whoever writes the documents cannot give one holder two votes."""
    published = opened.repository.published().root
    assert published is not None
    root = published.signed
    alice = next(key for key in root.keys.values() if keys.holder_of(key) == "alice")
    root.add_key(SSlibKey("f" * 64, alice.keytype, alice.scheme, alice.keyval), "root")
    with pytest.raises(InputError, match="is not that of the key"):
        documents.check(root, "root", "root.json")
