"""Holders sign on machines of their own: one file travels, each key counts once, and nobody signs unseen."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from publisher_world import PASSPHRASE, ROUNDS, World, chance

from kosnode import files
from kosnode.errors import InputError, KosError, RefusedError, TrustError
from kosnode.publish import documents, holders, signing
from kosnode.publish.holders import Rotation


@pytest.fixture
def waiting(opened: World) -> World:
    """A repository in which releases waits for signatures."""
    holders.renew(opened.repository, "releases")
    return opened


def carried(world: World, name: str = "copy", role: str = "releases") -> Path:
    """Copy the staged file to a holder's own machine."""
    path = world.repository.staged_path(role)
    assert path is not None
    target = world.base / f"{name}.json"
    shutil.copy(path, target)
    return target


def missing(world: World, role: str = "releases") -> int:
    staged = world.repository.staged(role)
    assert staged is not None
    return max(result.missing for _, result in staged.quorums())


def test_a_copied_file_is_signed_elsewhere_and_its_signature_comes_back(waiting: World) -> None:
    alice, bob = carried(waiting, "alice"), carried(waiting, "bob")
    shutil.move(waiting.repository.path, waiting.base / "away")  # neither machine has the repository
    signed = signing.sign(alice, None, waiting.key("alice"), PASSPHRASE)
    assert signed.holder == "alice"
    assert signed.to_dict()["quorums"][0]["missing"] == 1
    signing.sign(bob, "releases", waiting.key("bob"), PASSPHRASE)
    shutil.move(waiting.base / "away", waiting.repository.path)

    assert signing.merge(waiting.repository, alice)[1] == ["alice"]
    assert missing(waiting) == 1
    assert signing.merge(waiting.repository, bob)[1] == ["bob"]
    assert missing(waiting) == 0
    assert signing.merge(waiting.repository, bob)[1] == []
    waiting.publish()


def test_a_duplicate_signer_counts_once(waiting: World) -> None:
    """C19."""
    copy = carried(waiting)
    waiting.sign("releases", "alice")
    with pytest.raises(RefusedError, match="alice has signed this releases already"):
        waiting.sign("releases", "alice")
    signing.sign(copy, None, waiting.key("alice"), PASSPHRASE)
    assert signing.merge(waiting.repository, copy)[1] == []
    assert missing(waiting) == 1


def test_the_same_signature_written_twice_is_no_file_of_ours(waiting: World) -> None:
    """C19."""
    waiting.sign("releases", "alice")
    path = carried(waiting)
    value = json.loads(path.read_bytes())
    value["signatures"] *= 2
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="Multiple signatures"):
        signing.merge(waiting.repository, path)


def test_an_outsider_cannot_sign(waiting: World) -> None:
    copy = carried(waiting)
    before = copy.read_bytes()
    for place in (copy, waiting.repository.path):
        with pytest.raises(TrustError, match="may not sign releases; those who may: alice, bob, carol"):
            signing.sign(place, "releases", waiting.key("mallory"), PASSPHRASE)
    assert copy.read_bytes() == before


def test_an_outsider_who_writes_himself_into_the_carried_file_does_not_count(waiting: World) -> None:
    copy = carried(waiting)
    staged = documents.parse_staged(copy.read_bytes(), "copy")
    forged = documents.Staged(
        staged.role, staged.document, staged.previous, waiting.signers("mallory", threshold=1)
    )
    copy.write_bytes(forged.to_bytes())
    signing.sign(copy, None, waiting.key("mallory"), PASSPHRASE)
    with pytest.raises(TrustError, match="signature that does not count"):
        signing.merge(waiting.repository, copy)
    assert missing(waiting) == 2


def test_a_file_that_was_changed_on_its_way_is_refused(waiting: World) -> None:
    copy = carried(waiting)
    signing.sign(copy, None, waiting.key("alice"), PASSPHRASE)
    value = json.loads(copy.read_bytes())
    value["signed"]["expires"] = "2099-01-01T00:00:00Z"
    copy.write_text(json.dumps(value))
    with pytest.raises(TrustError, match="is not the releases 2 that waits here"):
        signing.merge(waiting.repository, copy)


def test_a_signature_over_other_bytes_is_refused(waiting: World) -> None:
    copy = carried(waiting)
    signing.sign(copy, None, waiting.key("alice"), PASSPHRASE)
    value = json.loads(copy.read_bytes())
    value["signatures"][0]["sig"] = "00" * 64
    copy.write_text(json.dumps(value))
    with pytest.raises(TrustError, match="does not count"):
        signing.merge(waiting.repository, copy)


def test_a_signature_of_an_older_draft_does_not_come_back(waiting: World) -> None:
    copy = carried(waiting)
    signing.sign(copy, None, waiting.key("alice"), PASSPHRASE)
    waiting.clock.pass_days(1)
    holders.renew(waiting.repository, "releases")
    with pytest.raises(TrustError, match="or this one was after the copy was made"):
        signing.merge(waiting.repository, copy)


def test_a_holder_sees_who_signed_the_version_that_changes_are_measured_against(waiting: World) -> None:
    shown = signing.open_file(carried(waiting)).to_dict()
    assert shown["previous_signed_by"] == ["alice", "bob"]
    assert shown["version"] == 2
    assert len(shown["changes"]) == 1
    assert shown["changes"][0].startswith("expires ")


def test_a_forged_previous_version_carries_nobodys_signature(waiting: World) -> None:
    copy = carried(waiting)
    value = json.loads(copy.read_bytes())
    value[documents.CONTEXT]["previous"]["signed"]["expires"] = "2020-01-01T00:00:00Z"
    copy.write_bytes(files.canonical(value))
    assert signing.open_file(copy).to_dict()["previous_signed_by"] == []


def test_what_changes_in_root_is_shown_by_name(opened: World) -> None:
    rotation = Rotation(add=[opened.public("mallory")], remove=["carol"], threshold=3)
    holders.change_root(opened.repository, rotation)
    changes = signing.open_file(carried(opened, role="root")).to_dict()["changes"]
    for role in ("root", "targets"):
        assert f"{role}: threshold 2 -> 3" in changes
        assert any(line.startswith(f"{role}: + mallory (") for line in changes)
        assert any(line.startswith(f"{role}: - carol (") for line in changes)


def test_a_root_waits_for_both_quorums_by_name(opened: World) -> None:
    holders.change_root(opened.repository, Rotation(add=[opened.public("mallory")], threshold=3))
    copy = carried(opened, role="root")
    signing.sign(copy, "root", opened.key("mallory"), PASSPHRASE)
    quorums = signing.sign(copy, "root", opened.key("alice"), PASSPHRASE).to_dict()["quorums"]
    assert [(one["name"], one["missing"]) for one in quorums] == [
        ("root (quorum of version 1)", 1),
        ("root (quorum of version 2)", 1),
    ]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("role", "timestamp", "role 'timestamp' is not one of"),
        ("role", "root", "holds targets metadata, not root"),
        ("threshold", 9, "threshold 9 of 3 keys is not possible"),
        ("keys", {"0" * 64: {"keytype": "ed25519"}}, "only ed25519|not 64 hex"),
        ("format", 2, "not metadata that waits for signatures"),
        ("extra", 1, "not metadata that waits for signatures"),
    ],
)
def test_a_carried_file_that_is_not_one_is_refused(
    waiting: World, place: str, value: object, message: str
) -> None:
    copy = carried(waiting)
    document = json.loads(copy.read_bytes())
    document[documents.CONTEXT][place] = value
    copy.write_bytes(files.canonical(document))
    with pytest.raises(InputError, match=message):
        signing.sign(copy, None, waiting.key("alice"), PASSPHRASE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda signed: signed.update(note="signed unseen"), "unknown field 'note'"),
        (lambda signed: signed["x-kos-security-floor"].update({"kos\x1b[2K": "1.0.0"}), "not the name"),
        (lambda signed: signed["x-kos-security-floor"].update(kos="1.0.0\x1b[2K"), "not a version"),
        (
            lambda signed: next(iter(signed["targets"].values()))["custom"]["channels"].append("\r\x1b[2K"),
            "custom.channels is not a list of names",
        ),
    ],
)
def test_nothing_that_is_signed_hides_from_the_holder_who_is_shown_it(
    opened: World, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    """Who prepares the file may steer neither the terminal of a holder nor slip something in."""
    opened.build("1.0.0")
    copy = carried(opened)
    document = json.loads(copy.read_bytes())
    change(document["signed"])
    copy.write_bytes(files.canonical(document))
    with pytest.raises(InputError, match=message):
        signing.open_file(copy)


def test_a_signature_for_targets_never_serves_for_releases(waiting: World) -> None:
    """Both are TUF targets metadata, and here the same people sign them."""
    copy = carried(waiting)
    document = json.loads(copy.read_bytes())
    document["signed"]["delegations"] = {"keys": {}, "roles": []}
    copy.write_bytes(files.canonical(document))
    with pytest.raises(InputError, match="must not delegate"):
        signing.sign(copy, None, waiting.key("alice"), PASSPHRASE)


def test_signing_names_what_is_not_there(opened: World) -> None:
    with pytest.raises(InputError, match="no releases that waits for signatures"):
        opened.sign("releases", "alice")
    with pytest.raises(InputError, match="say which role"):
        signing.open_file(opened.repository.path)
    with pytest.raises(InputError, match="cannot be read"):
        signing.open_file(opened.base / "absent.json")


@pytest.mark.parametrize("role", documents.OFFLINE_ROLES)
def test_whatever_a_carried_file_holds_it_is_read_or_refused_in_words(opened: World, role: str) -> None:
    """Files come back from other machines: nothing in them may do more than be refused."""
    holders.renew(opened.repository, role)
    opened.sign(role, "alice")
    good = json.loads(carried(opened, role=role).read_bytes())
    dice = chance()
    path = opened.base / "mutated.json"
    for _ in range(ROUNDS * 15):
        value = json.loads(json.dumps(good))
        _mutate(value, dice)
        path.write_text(json.dumps(value))
        with contextlib.suppress(KosError):
            signing.open_file(path).to_dict()
        with contextlib.suppress(KosError):
            signing.merge(opened.repository, path)
    assert missing(opened, role) == 1


def _mutate(value: Any, dice: random.Random) -> None:
    """Replace, remove or add one value somewhere in a JSON document."""
    places: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        pending += [node[key] for key in keys if isinstance(node[key], (dict, list))]
    node, key = dice.choice(places)
    others: list[Any] = [
        None,
        -1,
        0,
        2**70,
        "",
        "zz",
        "0" * 64,
        [],
        [[]],
        {},
        {"": []},
        True,
        dice.choice(places)[1],
    ]
    action = dice.randrange(3)
    if action == 0:
        node[key] = dice.choice(others)
    elif action == 1:
        del node[key]
    elif isinstance(node, dict):
        node["extra"] = dice.choice(others)
    else:
        node.append(dice.choice(others))
