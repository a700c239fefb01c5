"""Publication: a quorum or nothing, in an order that an interruption cannot spoil, to any mirror."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from publisher_world import PASSPHRASE, Client, World
from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import MetaFile

from kosnode import files
from kosnode.errors import BusyError, DamagedError, InputError, RefusedError, TrustError
from kosnode.publish import catalogue, documents, holders, keys, publication
from kosnode.publish.holders import Rotation

ClientOf = Callable[[World], Client]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listed_roots(world: World) -> set[str]:
    releases = world.repository.published().releases
    assert releases is not None
    return {one.root for one in catalogue.listed(releases.signed)}


def test_one_of_two_signatures_is_refused_and_two_are_taken(opened: World, client: ClientOf) -> None:
    """C19, S17: k-1 signatures publish nothing; k do."""
    node = client(opened)
    built = opened.build("1.0.0")
    before = contents(opened.repository.public)
    with pytest.raises(TrustError, match=r"releases has 0 of 2 signatures"):
        opened.publish()
    opened.sign("releases", "carol")
    with pytest.raises(TrustError, match=r"releases has 1 of 2 signatures \(signed by carol;"):
        opened.publish()
    assert contents(opened.repository.public) == before
    assert node.find(built.root) is None

    opened.sign("releases", "alice")
    opened.publish()
    target = node.find(built.root)
    assert target is not None
    assert set(target.hashes) == {"sha3_256"}
    assert target.custom["version"] == "1.0.0"
    assert target.custom["channels"] == ["stable"]
    assert json.loads(node.download(built.root))["root"] == built.root


def test_a_mirror_that_adds_a_release_with_one_signature_is_refused_by_a_client(
    opened: World, client: ClientOf
) -> None:
    """S17: whoever has one key of two, the mirror and even the online key gets nothing through."""
    node = client(opened)
    opened.build("1.0.0")
    opened.sign("releases", "alice")
    staged = opened.repository.staged("releases")
    assert staged is not None
    _publish_by_force(opened, staged.document.to_bytes())
    with pytest.raises(RepositoryError, match="1/2 keys"):
        node.find("0" * 64)


def _publish_by_force(world: World, releases: bytes) -> None:
    """Do with the online key what a thief of it could do."""
    repository, published = world.repository, world.repository.published()
    assert published.snapshot is not None
    assert published.timestamp is not None
    signer = keys.load_signer(world.key("online"), PASSPHRASE)
    (repository.metadata_dir / "2.releases.json").write_bytes(releases)
    snapshot, timestamp = published.snapshot, published.timestamp
    snapshot.signed.version += 1
    snapshot.signed.meta["releases.json"] = MetaFile(2)
    snapshot.sign(signer)
    (repository.metadata_dir / "2.snapshot.json").write_bytes(snapshot.to_bytes())
    timestamp.signed.version += 1
    timestamp.signed.snapshot_meta = MetaFile(2)
    timestamp.sign(signer)
    (repository.metadata_dir / "timestamp.json").write_bytes(timestamp.to_bytes())


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.releases.json"])
def test_a_client_refuses_metadata_that_were_touched(opened: World, client: ClientOf, name: str) -> None:
    """S17."""
    built = opened.release("1.0.0")
    path = opened.repository.metadata_dir / name
    value = json.loads(path.read_bytes())
    value["signed"]["expires"] = "2099-01-01T00:00:00Z"
    path.write_text(json.dumps(value))
    with pytest.raises((RepositoryError, DownloadError)):
        client(opened).find(built.root)


def test_a_client_refuses_a_manifest_that_was_touched(opened: World, client: ClientOf) -> None:
    """S17, C16."""
    built = opened.release("1.0.0")
    path = opened.repository.public / f"releases/{built.root}.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"kos"', b'"koz"', 1))
    assert path.read_bytes() != data
    with pytest.raises(RepositoryError):
        client(opened).download(built.root)


def test_publishing_again_changes_nothing(opened: World) -> None:
    opened.release("1.0.0")
    before = contents(opened.repository.path)
    done = opened.publish()
    assert done.actions == []
    assert done.versions["releases"] == 2
    assert contents(opened.repository.path) == before


def test_nothing_is_published_before_all_three_documents_are_signed(world: World) -> None:
    world.initialise()
    world.sign("root", "alice", "bob")
    with pytest.raises(TrustError, match=r"targets has 0 of 2 .*; releases has 0 of 2 "):
        world.publish()
    assert contents(world.repository.public) == {}


class PowerCut(Exception):
    """The machine stops here."""


def cut_after(monkeypatch: pytest.MonkeyPatch, changes: int) -> None:
    """Let so many changes of files happen, then stop at each one that follows."""
    left = [changes]
    replace, unlink = Path.replace, Path.unlink

    def count() -> None:
        if left[0] == 0:
            raise PowerCut
        left[0] -= 1

    def counted_replace(self: Path, target: Path) -> Path:
        count()
        return replace(self, target)

    def counted_unlink(self: Path, missing_ok: bool = False) -> None:
        if not self.name.startswith("."):
            count()
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "replace", counted_replace)
    monkeypatch.setattr(Path, "unlink", counted_unlink)


def test_an_interruption_anywhere_leaves_the_old_state_or_the_new_and_a_second_run_finishes(
    opened: World, client: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = opened.release("1.0.0")
    new = opened.build("1.1.0")
    opened.sign("releases", "alice", "bob")
    holders.renew(opened.repository, "root")
    opened.sign("root", "alice", "bob")
    waiting = opened.base / "waiting"
    shutil.copytree(opened.repository.path, waiting)
    cuts = 0
    seen = set()
    while True:
        shutil.rmtree(opened.repository.path)
        shutil.copytree(waiting, opened.repository.path)
        with monkeypatch.context() as patched:
            cut_after(patched, cuts)
            try:
                opened.publish()
                break
            except PowerCut:
                pass
        node = client(opened)
        assert json.loads(node.download(old.root))["version"] == "1.0.0", f"after {cuts} changes"
        found = node.find(new.root)
        seen.add(found is not None)
        if found is not None:
            node.download(new.root)
        opened.publish()
        assert node.find(new.root) is not None
        assert listed_roots(opened) == {old.root, new.root}
        assert [path for path in opened.repository.staged_dir.rglob("*") if path.is_file()] == []
        cuts += 1
    assert cuts > 8
    assert seen == {False, True}


def test_what_was_interrupted_after_the_root_was_written_is_finished(
    opened: World, client: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a new online key the old timestamp is worthless under the new root: a new one is written."""
    keys.make(opened.base / "online2.key", PASSPHRASE)
    new = holders.OnlineKey(opened.base / "online2.key", PASSPHRASE)
    holders.change_root(opened.repository, Rotation(), new)
    opened.sign("root", "alice", "bob")
    real = files.write_durable

    def torn(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        if path.name == "timestamp.json":
            raise PowerCut
        real(path, data, mode=mode)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_durable", torn)
        with pytest.raises(PowerCut):
            opened.publish()
    opened.publish()
    client(opened).find("0" * 64)
    assert opened.repository.staged_path("root") is None


def test_a_missing_or_short_file_of_a_release_is_named_before_anything_is_written(opened: World) -> None:
    built = opened.build("1.0.0")
    opened.sign("releases", "alice", "bob")
    archive = opened.repository.staged_dir / f"releases/{built.root}.tar.zst"
    data = archive.read_bytes()
    before = contents(opened.repository.public)
    archive.write_bytes(data[:-1])
    with pytest.raises(
        DamagedError, match=rf"{built.root}\.tar\.zst has {len(data) - 1} bytes, signed are {len(data)}"
    ):
        opened.publish()
    archive.unlink()
    with pytest.raises(DamagedError, match=rf"releases/{built.root}\.tar\.zst of kos 1\.0\.0 is missing"):
        opened.publish()
    assert contents(opened.repository.public) == before


def test_two_at_once_is_one_clear_message(opened: World) -> None:
    changes: list[Callable[[], object]] = [
        opened.publish,
        lambda: opened.build("1.0.0"),
        lambda: holders.renew(opened.repository, "root"),
        lambda: publication.renew_timestamp(opened.repository, PASSPHRASE),
    ]
    with opened.repository.locked():
        for change in changes:
            with pytest.raises(BusyError, match=rf"being changed by another process \(pid {os.getpid()}\)"):
                change()
    opened.publish()


def test_the_online_key_needs_its_passphrase(opened: World) -> None:
    holders.renew(opened.repository, "releases")
    opened.sign("releases", "alice", "bob")
    with pytest.raises(InputError, match="online key is needed"):
        publication.publish(opened.repository, None)
    with pytest.raises(InputError, match="passphrase is wrong"):
        publication.publish(opened.repository, b"not the passphrase at all")


# Timestamps


def test_a_timestamp_says_when_it_was_issued_and_renews_without_the_holders(
    opened: World, client: ClientOf
) -> None:
    node = client(opened)
    opened.clock.pass_days(1)
    renewal = publication.renew_timestamp(opened.repository, PASSPHRASE)
    assert renewal.alarms == []
    assert renewal.publication.versions["timestamp"] == 2
    assert renewal.publication.versions["snapshot"] == 1
    timestamp = json.loads((opened.repository.metadata_dir / "timestamp.json").read_bytes())["signed"]
    assert timestamp["x-kos-issued"] == documents.time_text(opened.clock.now)
    node.find("0" * 64)


def test_a_snapshot_is_renewed_once_half_of_its_time_is_over(opened: World, client: ClientOf) -> None:
    opened.clock.pass_days(8)
    renewal = publication.renew_timestamp(opened.repository, PASSPHRASE)
    assert renewal.publication.versions["snapshot"] == 2
    client(opened).find("0" * 64)


def test_an_expired_timestamp_is_refused_by_a_client_and_its_successor_is_taken(
    opened: World, client: ClientOf
) -> None:
    node = client(opened)
    publication.renew_timestamp(opened.repository, PASSPHRASE, expires_s=-3600)
    with pytest.raises(ExpiredMetadataError):
        node.find("0" * 64)
    publication.renew_timestamp(opened.repository, PASSPHRASE)
    node.find("0" * 64)


def test_a_document_that_expires_soon_raises_the_alarm_in_time(opened: World) -> None:
    opened.clock.pass_days(170)
    renewal = publication.renew_timestamp(opened.repository, PASSPHRASE)
    assert len(renewal.alarms) == 1
    assert renewal.alarms[0].startswith("releases 1 expires at ")
    opened.clock.pass_days(11)
    before = contents(opened.repository.public)
    with pytest.raises(TrustError, match="releases 1 expired at"):
        publication.renew_timestamp(opened.repository, PASSPHRASE)
    assert contents(opened.repository.public) == before


def test_a_clock_that_is_behind_issues_no_timestamp(opened: World) -> None:
    opened.clock.now -= timedelta(days=1)
    with pytest.raises(InputError, match="set the clock"):
        publication.renew_timestamp(opened.repository, PASSPHRASE)


def test_the_signed_time_never_goes_back_by_seconds_either(opened: World) -> None:
    issued = opened.clock.now
    opened.clock.now -= timedelta(seconds=60)
    publication.renew_timestamp(opened.repository, PASSPHRASE)
    timestamp = opened.repository.published().timestamp
    assert timestamp is not None
    assert timestamp.signed.unrecognized_fields["x-kos-issued"] == documents.time_text(issued)


def test_there_is_no_timestamp_before_the_first_publication(world: World) -> None:
    world.initialise()
    with pytest.raises(InputError, match="published nothing yet"):
        publication.renew_timestamp(world.repository, PASSPHRASE)


# Mirrors


def test_a_mirror_gets_what_is_public_and_only_what_differs(opened: World, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    opened.build("1.0.0")
    opened.sign("releases", "alice", "bob")
    opened.publish(mirror)
    assert contents(mirror) == contents(opened.repository.public)
    assert opened.publish(mirror).files_copied == 0
    damaged = next((mirror / "releases").glob("*.tar.zst"))
    damaged.write_bytes(damaged.read_bytes()[::-1])
    assert opened.publish(mirror).files_copied == 1
    assert contents(mirror) == contents(opened.repository.public)


def test_a_web_server_can_read_what_is_public_whatever_the_umask(world: World, tmp_path: Path) -> None:
    mirror, before = tmp_path / "mirror", os.umask(0o077)
    try:
        world.open().build("1.0.0")
        world.sign("releases", "alice", "bob")
        world.publish(mirror)
    finally:
        os.umask(before)
    for base in (mirror, world.repository.public):
        modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (base, *base.rglob("*"))}
        assert modes == {True: 0o755, False: 0o644}
        assert all(path.stat().st_mode & 0o777 == modes[path.is_dir()] for path in (base, *base.rglob("*")))


def test_a_copy_that_is_interrupted_anywhere_serves_one_state_whole(
    opened: World, tmp_path: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, before = tmp_path / "mirror", tmp_path / "before"
    old = opened.release("1.0.0")
    opened.publish(mirror)
    shutil.copytree(mirror, before)
    new = opened.release("1.1.0")
    catalogue.withdraw(opened.repository, "1.0.0", channel="stable")
    opened.sign("releases", "alice", "bob")
    opened.publish()
    url, root = serve(mirror), (mirror / "metadata/1.root.json").read_bytes()
    cuts, seen = 0, set()
    while True:
        shutil.rmtree(mirror)
        shutil.copytree(before, mirror)
        with monkeypatch.context() as patched:
            cut_after(patched, cuts)
            try:
                opened.publish(mirror)
                break
            except PowerCut:
                pass
        node = Client(url, tmp_path / f"node-{cuts}", root)
        node.download(old.root)
        found = node.find(new.root)
        seen.add(found is not None)
        if found is not None:
            node.download(new.root)
        opened.publish(mirror)
        assert contents(mirror) == contents(opened.repository.public)
        cuts += 1
    assert cuts > 6
    assert seen == {False}


def test_a_withdrawn_release_leaves_the_mirror_too(opened: World, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    old, new = opened.release("1.0.0"), opened.release("1.1.0")
    opened.publish(mirror)
    assert list((mirror / "patches").glob(f"{old.root}-{new.root}.*"))
    catalogue.withdraw(opened.repository, "1.1.0")
    opened.sign("releases", "bob", "carol")
    opened.publish(mirror)
    for base in (mirror, opened.repository.public):
        assert not [path for path in base.rglob("*") if new.root in path.name]
        assert (base / f"releases/{old.root}.tar.zst").exists()


@pytest.mark.parametrize("place", [".", "public", "..", "public/metadata"])
def test_a_mirror_inside_or_around_the_repository_is_refused(opened: World, place: str) -> None:
    with pytest.raises(InputError, match="overlaps"):
        opened.publish(opened.repository.path / place)


def test_a_folder_that_is_no_mirror_is_left_alone(opened: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("do not touch")
    with pytest.raises(InputError, match="neither empty nor a mirror"):
        opened.publish(home)
    with pytest.raises(InputError, match="does not exist"):
        opened.publish(tmp_path / "absent/mirror")
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]


def test_an_old_copy_of_the_repository_cannot_roll_a_mirror_back(opened: World, tmp_path: Path) -> None:
    mirror, backup = tmp_path / "mirror", tmp_path / "backup"
    shutil.copytree(opened.repository.path, backup)
    opened.release("1.0.0")
    opened.publish(mirror)
    shutil.rmtree(opened.repository.path)
    backup.rename(opened.repository.path)
    with pytest.raises(RefusedError, match="has timestamp 2, this repository has 1"):
        opened.publish(mirror)


def test_the_mirror_of_another_repository_is_refused(opened: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other").open()
    other.publish(tmp_path / "mirror")
    with pytest.raises(RefusedError, match="mirror of another repository"):
        opened.publish(tmp_path / "mirror")
