"""A release reaches its slot verified, by the fewest bytes, whatever the mirrors do (S17, C16)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.kosnode.transport import hostile
from unit.kosnode.transport.content import Publisher, Station, compressed
from unit.kosnode.transport.hostile import Conduct, HostileMirror
from unit.kosnode.trust.node import QUICK, copy_of, folder_mirror

from kosnode import archive
from kosnode.errors import DamagedError, DiskError, InputError, MirrorError, TrustError
from kosnode.fetch import HttpMirror
from kosnode.manifest import FileEntry, Manifest
from kosnode.slot import Building, Slots
from kosnode.transfer import Repairs, Transfer

CHANCE = random.Random(1)


def noise(size: int) -> bytes:
    """Bytes that do not compress, so that sizes mean something."""
    return CHANCE.randbytes(size)


BIG = {f"lib/module{number}.py": noise(20_000) for number in range(10)}
OLD_TREE = {**BIG, "bin/run": b"#!/bin/sh\nexec old\n", "lib/version": b"1.0.0" + noise(2_000)}
NEW_TREE = {
    **OLD_TREE,
    "bin/run": b"#!/bin/sh\nexec new\n",
    "lib/version": b"1.1.0" + OLD_TREE["lib/version"][5:],
}


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "mirror")


@pytest.fixture
def old(publisher: Publisher) -> Manifest:
    return publisher.publish("1.0.0", OLD_TREE)


@pytest.fixture
def new(publisher: Publisher, old: Manifest) -> Manifest:
    return publisher.publish("1.1.0", NEW_TREE, patches_from=[old])


@pytest.fixture
def station(tmp_path: Path, publisher: Publisher) -> Station:
    return Station(tmp_path / "node", publisher.repository)


@pytest.fixture
def server(publisher: Publisher) -> Iterator[HostileMirror]:
    with HostileMirror(publisher.folder) as running:
        yield running


@pytest.fixture
def upgraded(station: Station, old: Manifest, new: Manifest) -> Station:
    """A node that runs 1.0.0 and may go to 1.1.0."""
    station.transfer("1.0.0").stage()
    station.make_current(old.root)
    return station


def whole_archive(publisher: Publisher, manifest: Manifest) -> int:
    return publisher.size(f"releases/{manifest.root}.tar.zst")


class TestFirst:
    def test_an_empty_node_takes_the_whole_and_has_it_verified(self, station: Station, old: Manifest) -> None:
        staged = station.transfer("1.0.0").stage()
        assert station.tree(old.root) == OLD_TREE
        station.slots.verify(old.root)
        assert (staged.how, staged.mirror, staged.mirrors) == ("whole", f"file://{station.folder}", ())
        assert staged.slot == station.paths.slot(old.root)

    def test_every_received_byte_is_counted(
        self, station: Station, old: Manifest, server: HostileMirror
    ) -> None:
        staged = station.transfer("1.0.0", HttpMirror(server.url, QUICK)).stage().as_json()
        served = [request for request in server.requests if request.content() is not None]
        assert staged["bytes"]["total"] == sum(request.sent for request in served)
        assert staged["bytes"]["metadata"] == sum(r.sent for r in served if r.path.startswith("metadata/"))
        assert staged["bytes"]["manifest"] == server.asked(r".*\.json\.zst")[-1].sent
        assert staged["bytes"]["archive"] == server.asked(r".*\.tar\.zst")[-1].sent

    def test_a_release_that_has_a_slot_costs_nothing(
        self, station: Station, old: Manifest, server: HostileMirror
    ) -> None:
        station.transfer("1.0.0").stage()
        before = station.slots.manifest(old.root)
        staged = station.transfer("1.0.0", HttpMirror(server.url, QUICK)).stage()
        assert staged.how == "present"
        assert (staged.bytes.manifest, staged.bytes.archive, staged.manifest) == (0, 0, before)
        assert server.asked("(releases|patches)/.*") == []

    def test_a_slot_whose_manifest_is_damaged_is_not_called_present(
        self, station: Station, old: Manifest
    ) -> None:
        station.transfer("1.0.0").stage()
        path = station.paths.slot(old.root) / "release.json"
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DamagedError, match=r"release\.json is damaged"):
            station.transfer("1.0.0").stage()

    def test_what_belongs_beside_the_tree_appears_with_the_slot(
        self, station: Station, old: Manifest
    ) -> None:
        def render(slot: Path) -> None:
            (slot / "units.json").write_text("{}")

        station.transfer("1.0.0").stage(extra=render)
        assert (station.paths.slot(old.root) / "units.json").read_text() == "{}"

    def test_nothing_stays_in_the_fetch_directory(self, station: Station, old: Manifest) -> None:
        station.transfer("1.0.0").stage()
        assert list(station.paths.fetch.iterdir()) == []

    def test_what_is_left_of_another_release_is_removed(self, station: Station, old: Manifest) -> None:
        station.paths.fetch.mkdir(parents=True)
        (station.paths.fetch / f"{'f' * 64}.tar.zst.part").write_bytes(b"x")
        station.transfer("1.0.0").manifest()
        assert all(old.root in path.name for path in station.paths.fetch.iterdir())


class TestPatch:
    def test_a_patch_costs_far_less_than_the_whole(
        self, upgraded: Station, publisher: Publisher, new: Manifest
    ) -> None:
        staged = upgraded.transfer("1.1.0").stage()
        assert upgraded.tree(new.root) == NEW_TREE
        assert staged.how == "patch"
        assert staged.bytes.archive < whole_archive(publisher, new) / 50
        assert staged.bytes.manifest < publisher.size(f"releases/{new.root}.json.zst") / 2
        assert staged.mirrors == ()

    def test_files_that_are_alike_are_stored_once(
        self, upgraded: Station, old: Manifest, new: Manifest
    ) -> None:
        upgraded.transfer("1.1.0").stage()
        trees = [upgraded.paths.slot(root) / "tree" for root in (old.root, new.root)]
        assert len({(tree / "lib/module0.py").stat().st_ino for tree in trees}) == 1

    def test_patches_can_be_turned_off(self, upgraded: Station, publisher: Publisher, new: Manifest) -> None:
        staged = upgraded.transfer("1.1.0", patches=False).stage()
        assert (staged.how, staged.bytes.archive) == ("whole", whole_archive(publisher, new))

    def test_a_mirror_without_patches_gives_the_whole_and_is_not_blamed(
        self, upgraded: Station, publisher: Publisher, new: Manifest
    ) -> None:
        for path in (publisher.folder / "patches").iterdir():
            path.unlink()
        staged = upgraded.transfer("1.1.0").stage()
        assert (staged.how, staged.mirrors) == ("whole", ())
        assert upgraded.tree(new.root) == NEW_TREE

    @pytest.mark.parametrize("which", ["archive", "manifest", "both"])
    @pytest.mark.parametrize(
        "conduct",
        [
            hostile.lie(),
            hostile.lie(b""),
            hostile.truncate(10),
            hostile.oversize(1 << 40),
            hostile.status(500),
        ],
        ids=["flipped", "empty", "truncated", "oversized", "fails"],
    )
    def test_a_wrong_patch_means_the_whole_and_is_named(
        self, upgraded: Station, server: HostileMirror, new: Manifest, which: str, conduct: Conduct
    ) -> None:
        names = {"archive": r"[^.]*\.zst", "manifest": r".*\.json\.zst", "both": ".*"}
        server.misbehave(f"patches/{names[which]}", conduct)
        staged = upgraded.transfer("1.1.0", HttpMirror(server.url, QUICK)).stage()
        assert upgraded.tree(new.root) == NEW_TREE
        assert staged.how == "whole"
        assert [error["url"] for error in staged.mirrors] == [server.url]
        assert "patches/" in staged.mirrors[0]["error"]

    @pytest.mark.parametrize("suffix", [".zst", ".json.zst"])
    def test_a_patch_of_other_releases_is_no_patch_of_this_one(
        self, upgraded: Station, publisher: Publisher, server: HostileMirror, old: Manifest, suffix: str
    ) -> None:
        """Nothing is wrong with it but what it makes."""
        other = publisher.publish("1.2.0", {**NEW_TREE, "more": b"1"}, patches_from=[old])
        new = publisher.publish("1.3.0", {**NEW_TREE, "more": noise(500)}, patches_from=[old])
        true, swapped = (f"patches/{old.root}-{one.root}{suffix}" for one in (new, other))
        server.misbehave(true, hostile.swap(swapped))
        staged = upgraded.transfer("1.3.0", HttpMirror(server.url, QUICK)).stage()
        assert upgraded.slots.manifest(new.root) == new
        upgraded.slots.verify(new.root)
        assert (staged.how, len(staged.mirrors)) == ("whole", 1)

    @pytest.mark.parametrize("highest", [True, False])
    def test_the_patch_from_the_current_release_is_tried_first(
        self, upgraded: Station, publisher: Publisher, old: Manifest, new: Manifest, highest: bool
    ) -> None:
        upgraded.transfer("1.1.0").stage()
        current = sorted([old.root, new.root])[highest]
        upgraded.make_current(current)
        publisher.publish("1.2.0", {**NEW_TREE, "more": b"more"}, patches_from=[old, new])
        with HostileMirror(publisher.folder) as server:
            upgraded.transfer("1.2.0", HttpMirror(server.url, QUICK)).stage()
            assert {request.path.split("-")[0] for request in server.asked("patches/.*")} == {
                f"patches/{current}"
            }

    def test_a_damaged_old_slot_means_the_whole_and_no_mirror_is_blamed(
        self, upgraded: Station, old: Manifest, new: Manifest
    ) -> None:
        damaged = upgraded.paths.slot(old.root) / "tree/lib/module3.py"
        damaged.chmod(0o644)
        damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
        staged = upgraded.transfer("1.1.0").stage()
        assert (staged.how, staged.mirrors) == ("whole", ())
        assert upgraded.tree(new.root) == NEW_TREE
        assert damaged.read_bytes().startswith(b"x")  # the old slot was read, and is left to scrub

    def test_a_damaged_old_manifest_means_the_whole(
        self, upgraded: Station, old: Manifest, new: Manifest
    ) -> None:
        path = upgraded.paths.slot(old.root) / "release.json"
        path.chmod(0o644)
        path.write_bytes(b"{}")
        assert upgraded.transfer("1.1.0").stage().how == "whole"
        assert upgraded.tree(new.root) == NEW_TREE

    def test_the_old_bytes_are_not_held_twice_while_a_patch_is_undone(
        self, station: Station, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """zstd has a copy of them and a window; a third such piece counts on a small node."""
        big = noise(8 << 20)
        before = publisher.publish("3.0.0", {"big": big})
        publisher.publish("3.1.0", {"big": b"new" + big}, patches_from=[before])
        station.transfer("3.0.0").stage()
        held: list[int] = []
        whole = Building.file

        def measured(building: Building, entry: FileEntry, chunks: Iterator[bytes]) -> None:
            held.append(tracemalloc.get_traced_memory()[0])
            whole(building, entry, chunks)

        monkeypatch.setattr(Building, "file", measured)
        transfer = station.transfer("3.1.0")
        tracemalloc.start()
        try:
            assert transfer.stage().how == "patch"
        finally:
            tracemalloc.stop()
        assert max(held) < 2.5 * len(big)

    def test_an_older_slot_serves_when_the_current_one_has_no_patch(
        self, upgraded: Station, publisher: Publisher, old: Manifest, new: Manifest
    ) -> None:
        upgraded.transfer("1.1.0").stage()
        upgraded.make_current(new.root)
        publisher.publish("1.2.0", {**NEW_TREE, "bin/run": b"newest" + noise(800)}, patches_from=[old])
        staged = upgraded.transfer("1.2.0").stage()
        assert (staged.how, staged.mirrors) == ("patch", ())

    def test_a_release_of_known_files_only_is_not_fetched(
        self, upgraded: Station, publisher: Publisher, new: Manifest, server: HostileMirror
    ) -> None:
        again = publisher.publish("1.0.1", OLD_TREE)
        staged = upgraded.transfer("1.0.1", HttpMirror(server.url, QUICK)).stage()
        assert (staged.how, staged.bytes.archive) == ("patch", 0)
        assert upgraded.tree(again.root) == OLD_TREE
        assert server.asked(r".*\.tar\.zst") == []


class TestParts:
    """Past 64 MiB an archive is cut into parts; here past 64 KiB."""

    @pytest.fixture(autouse=True)
    def _small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "PART_BYTES", 64 * 1024)

    def test_only_parts_with_something_new_are_fetched(
        self, upgraded: Station, server: HostileMirror, new: Manifest
    ) -> None:
        count = len(archive.parts(new))
        assert count > 3
        staged = upgraded.transfer("1.1.0", HttpMirror(server.url, QUICK)).stage()
        assert staged.how == "patch"
        assert len(server.asked(r"patches/[^.]*\.\d+\.zst")) == 2  # that of bin/run and that of lib/version
        assert upgraded.tree(new.root) == NEW_TREE

    def test_parts_that_came_both_ways_are_mixed(
        self, upgraded: Station, publisher: Publisher, old: Manifest, new: Manifest
    ) -> None:
        publisher.put(f"patches/{old.root}-{new.root}.3.zst", b"wrong")
        staged = upgraded.transfer("1.1.0").stage()
        assert (staged.how, len(staged.mirrors)) == ("mixed", 1)
        assert upgraded.tree(new.root) == NEW_TREE

    def test_the_next_mirror_goes_on_in_the_middle(
        self, station: Station, old: Manifest, server: HostileMirror
    ) -> None:
        server.misbehave(rf"releases/{old.root}\.2\.tar\.zst", hostile.die(1000))
        good = folder_mirror(copy_of(server.directory, "second"))
        staged = station.transfer("1.0.0", HttpMirror(server.url, QUICK), good).stage()
        assert station.tree(old.root) == OLD_TREE
        assert staged.mirror == good.url
        assert [error["url"] for error in staged.mirrors] == [server.url]
        assert server.asked(rf"releases/{old.root}\.3\.tar\.zst") == []  # it is asked last from then on

    def test_a_mirror_that_gave_up_is_asked_again_when_the_next_gives_up_too(
        self, station: Station, old: Manifest, server: HostileMirror
    ) -> None:
        server.misbehave(rf"releases/{old.root}\.1\.tar\.zst", hostile.status(404))
        second = copy_of(server.directory, "second")
        (second / f"releases/{old.root}.2.tar.zst").unlink()
        staged = station.transfer("1.0.0", HttpMirror(server.url, QUICK), folder_mirror(second)).stage()
        assert station.tree(old.root) == OLD_TREE
        assert [error["url"] for error in staged.mirrors] == [server.url, f"file://{second}"]

    def test_signed_sizes_of_other_parts_are_a_contradiction(
        self, station: Station, publisher: Publisher
    ) -> None:
        publisher.publish("1.5.0", OLD_TREE, archive=[1, 2])
        with pytest.raises(TrustError, match="has 4 parts, sizes of 2 are signed"):
            station.transfer("1.5.0").stage()


CONTENT_MISDEEDS: dict[str, Conduct] = {
    "lies": hostile.lie(),
    "truncates": hostile.truncate(100),
    "stalls": hostile.stall(100),
    "is silent": hostile.silent,
    "dies": hostile.die(100),
    "hangs up": hostile.refuse,
    "never ends": hostile.endless,
    "is oversized": hostile.oversize(1 << 40),
    "trickles": hostile.trickle(0.02),
    "redirects": hostile.redirect("/metadata/timestamp.json"),
    "fails": hostile.status(500),
    "has nothing": hostile.status(404),
    "declares more": hostile.wrong_length(5),
    "declares less": hostile.wrong_length(-5),
}


class TestMirrors:
    @pytest.mark.parametrize("what", ["archive", "manifest"])
    @pytest.mark.parametrize("misdeed", CONTENT_MISDEEDS)
    def test_a_bad_mirror_is_left_for_the_next_and_named(
        self, station: Station, old: Manifest, server: HostileMirror, misdeed: str, what: str
    ) -> None:
        pattern = {"archive": r"releases/.*\.tar\.zst", "manifest": r"releases/.*\.json(\.zst)?"}[what]
        server.misbehave(pattern, CONTENT_MISDEEDS[misdeed])
        good = folder_mirror(station.folder)
        staged = station.transfer("1.0.0", HttpMirror(server.url, QUICK), good).stage()
        station.slots.verify(old.root)
        assert station.tree(old.root) == OLD_TREE
        assert {error["url"] for error in staged.mirrors} == {server.url}
        assert staged.mirrors[-1]["error"]

    def test_a_mirror_that_swaps_the_files_of_releases_is_left(
        self, station: Station, old: Manifest, new: Manifest, server: HostileMirror
    ) -> None:
        for name in (".json", ".json.zst", ".tar.zst"):
            server.misbehave(rf"releases/{new.root}{name}", hostile.swap(f"releases/{old.root}{name}"))
        good = folder_mirror(station.folder)
        staged = station.transfer("1.1.0", HttpMirror(server.url, QUICK), good).stage()
        assert station.tree(new.root) == NEW_TREE
        assert {error["url"] for error in staged.mirrors} == {server.url}

    def test_a_mirror_that_failed_in_the_refresh_is_asked_last(
        self, station: Station, old: Manifest, server: HostileMirror
    ) -> None:
        server.misbehave("metadata/timestamp.json", hostile.lie())
        good = folder_mirror(station.folder)
        staged = station.transfer("1.0.0", HttpMirror(server.url, QUICK), good).stage()
        assert server.asked("releases/.*") == []
        assert [error["url"] for error in staged.mirrors] == [server.url]

    def test_the_plain_manifest_serves_where_there_is_no_compressed_one(
        self, station: Station, publisher: Publisher, old: Manifest
    ) -> None:
        (publisher.folder / f"releases/{old.root}.json.zst").unlink()
        staged = station.transfer("1.0.0").stage()
        assert staged.mirrors == ()
        assert staged.bytes.manifest == publisher.size(f"releases/{old.root}.json")

    def test_when_no_mirror_gives_it_each_is_named_and_nothing_is_left_behind(
        self, upgraded: Station, server: HostileMirror, new: Manifest
    ) -> None:
        server.misbehave("(releases|patches)/.*zst", hostile.status(500))
        second = copy_of(server.directory, "second")
        for path in (second / "patches").iterdir():
            path.unlink()
        (second / f"releases/{new.root}.tar.zst").write_bytes(b"short")
        mirrors = (HttpMirror(server.url, QUICK), folder_mirror(second))
        before = upgraded.slots.list()
        with pytest.raises(MirrorError, match=r"no mirror gave part 1 of 1 of kos 1\.1\.0") as caught:
            upgraded.transfer("1.1.0", *mirrors).stage()
        assert "status 500" in caught.value.message
        assert f"{second}: releases/{new.root}.tar.zst has 5 bytes" in caught.value.message
        assert sorted(path.name for path in upgraded.paths.releases.iterdir()) == before

    def test_an_empty_mirror_list_is_refused(self, station: Station, old: Manifest) -> None:
        trust = station.trust()
        trust.refresh()
        with pytest.raises(InputError, match="mirror list is empty"):
            Transfer(trust.releases()[0], station.slots, [])

    def test_a_manifest_that_is_not_what_its_signature_says_is_a_contradiction(
        self, station: Station, publisher: Publisher
    ) -> None:
        publisher.publish("1.5.0", OLD_TREE, name="kos", arch="aarch64")
        trust = station.trust()
        refreshed = trust.refresh()
        release = trust.resolve("1.5.0", "kos", "stable", "aarch64")
        with pytest.raises(
            TrustError, match=r"manifest of kos 1\.5\.0 for any.*signed it is as .* for aarch64"
        ):
            Transfer(release, station.slots, trust.mirrors, refreshed=refreshed).stage()


class TestResume:
    def test_a_later_attempt_brings_only_the_rest(
        self, station: Station, old: Manifest, publisher: Publisher, server: HostileMirror
    ) -> None:
        server.misbehave(r"releases/.*\.tar\.zst", hostile.die(100_000))
        with pytest.raises(MirrorError):
            station.transfer("1.0.0", HttpMirror(server.url, QUICK)).stage()
        (part,) = station.paths.fetch.glob("*.tar.zst.part")
        have = part.stat().st_size
        assert have > 0
        server.behave()
        staged = station.transfer("1.0.0", HttpMirror(server.url, QUICK)).stage()
        assert staged.bytes.archive == whole_archive(publisher, old) - have
        assert staged.bytes.manifest == 0
        assert station.tree(old.root) == OLD_TREE

    def test_the_next_mirror_goes_on_where_a_dying_one_ended(
        self, station: Station, old: Manifest, publisher: Publisher, server: HostileMirror
    ) -> None:
        server.misbehave(r"releases/.*\.tar\.zst", hostile.die(100_000))
        with HostileMirror(publisher.folder) as second:
            mirrors = [HttpMirror(server.url, QUICK), HttpMirror(second.url, QUICK)]
            staged = station.transfer("1.0.0", *mirrors).stage()
            assert second.asked(r".*\.tar\.zst")[0].offset > 0
        assert staged.bytes.archive == whole_archive(publisher, old)

    def test_a_lie_that_a_dying_mirror_began_does_not_spoil_the_next_one(
        self, station: Station, old: Manifest, server: HostileMirror, publisher: Publisher
    ) -> None:
        def lie_and_die(exchange: hostile.Exchange) -> None:
            exchange.head(200, f"Content-Length: {whole_archive(publisher, old)}")
            exchange.body(b"\0" * 5000)

        server.misbehave(r"releases/.*\.tar\.zst", lie_and_die)
        good = folder_mirror(station.folder)
        staged = station.transfer("1.0.0", HttpMirror(server.url, QUICK), good).stage()
        assert station.tree(old.root) == OLD_TREE
        assert [error["url"] for error in staged.mirrors] == [server.url]

    def test_a_killed_process_leaves_the_old_slots_good_and_the_next_one_goes_on(
        self, upgraded: Station, old: Manifest, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archive, "PART_BYTES", 64 * 1024)
        tree = {**OLD_TREE, **{f"other/{number}": noise(30_000) for number in range(6)}}
        newest = publisher.publish("2.0.0", tree)
        last = len(archive.parts(newest)) - 1
        name = rf"releases/{newest.root}\.{last}\.tar\.zst"
        with HostileMirror(publisher.folder) as server:
            server.misbehave(name, hostile.stall(10_000))
            child = subprocess.Popen(
                [sys.executable, "-c", STAGE, str(upgraded.paths.root), server.url],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            try:
                part = upgraded.paths.fetch / f"{newest.root}.{last}.tar.zst.part"
                while child.poll() is None and not (part.exists() and part.stat().st_size):
                    time.sleep(0.01)
            finally:
                child.send_signal(signal.SIGKILL)
                child.wait()
            upgraded.slots.verify(old.root)
            assert upgraded.paths.current.resolve() == upgraded.paths.slot(old.root)
            assert newest.root not in upgraded.slots.list()
            server.behave()
            asked = len(server.requests)
            staged = upgraded.transfer("2.0.0", HttpMirror(server.url, QUICK)).stage()
            again = [r for r in server.requests[asked:] if r.path.startswith("releases/")]
        assert [(request.path.endswith(f".{last}.tar.zst"), request.offset > 0) for request in again] == [
            (True, True)
        ]
        assert staged.bytes.archive < publisher.size(again[0].path)
        assert upgraded.tree(newest.root) == tree


STAGE = """
import sys
from pathlib import Path
from kosnode import archive
from kosnode.fetch import HttpMirror, Limits
from kosnode.paths import NodePaths
from kosnode.slot import Slots
from kosnode.transfer import Transfer
from kosnode.trust import Trust
from unit.kosnode.trust.tiny import FixedClock

archive.PART_BYTES = 64 * 1024
paths = NodePaths(Path(sys.argv[1]))
trust = Trust(paths, [HttpMirror(sys.argv[2], Limits())], FixedClock())
refreshed = trust.refresh()
release = trust.resolve("2.0.0", "kos", "stable", "x86_64")
Transfer(release, Slots(paths), trust.mirrors, refreshed=refreshed).stage()
"""


class TestDisk:
    def test_too_little_disk_is_named_with_the_missing_bytes_before_the_archive_is_fetched(
        self, station: Station, old: Manifest, server: HostileMirror
    ) -> None:
        with pytest.raises(DiskError, match=r"^\d+ bytes of disk are missing for kos 1\.0\.0"):
            station.transfer("1.0.0", HttpMirror(server.url, QUICK)).stage(reserve=1 << 60)
        assert server.asked(r".*\.tar\.zst") == []
        assert station.slots.list() == []

    @staticmethod
    def _leave_room_for(station: Station, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the disk of the slots have room for a slot of 1.1.0 and so many bytes more."""
        free = station.slots.disk_needed(station.transfer("1.1.0").manifest()) + size
        monkeypatch.setattr(Slots, "disk_free", lambda slots: free)

    def test_a_small_patch_needs_no_room_for_the_whole(
        self,
        upgraded: Station,
        publisher: Publisher,
        old: Manifest,
        new: Manifest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self._leave_room_for(upgraded, publisher.size(f"patches/{old.root}-{new.root}.zst"), monkeypatch)
        assert upgraded.transfer("1.1.0").stage().how == "patch"

    def test_a_wrong_patch_asks_for_the_room_of_the_whole(
        self,
        upgraded: Station,
        publisher: Publisher,
        old: Manifest,
        new: Manifest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        wrong = noise(4_000)
        publisher.put(f"patches/{old.root}-{new.root}.zst", wrong)
        self._leave_room_for(upgraded, len(wrong), monkeypatch)
        with pytest.raises(DiskError, match=r"bytes of disk are missing for kos 1\.1\.0"):
            upgraded.transfer("1.1.0").stage()
        assert upgraded.slots.list() == [old.root]
        self._leave_room_for(upgraded, len(wrong) + whole_archive(publisher, new), monkeypatch)
        assert upgraded.transfer("1.1.0").stage().how == "whole"

    def test_a_disk_that_fills_up_meanwhile_is_no_fault_of_a_mirror(
        self, station: Station, old: Manifest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        transfer = station.transfer("1.0.0")
        transfer.manifest()
        whole = Path.open

        def full(path: Path, mode: str = "r", *rest: object) -> object:
            if path.suffix == ".part" and "b" in mode and mode != "rb":
                raise OSError(28, "No space left on device", str(path))
            return whole(path, mode, *rest)  # type: ignore[call-overload]  # passed on as it came

        monkeypatch.setattr(Path, "open", full)
        with pytest.raises(DiskError, match="the disk became full"):
            transfer.stage()


class TestEstimate:
    def test_it_says_what_staging_then_takes(
        self, upgraded: Station, publisher: Publisher, new: Manifest
    ) -> None:
        transfer = upgraded.transfer("1.1.0")
        expected = transfer.estimate()
        assert expected.how == "patch"
        assert expected.needed > 0
        assert expected.free > 0
        staged = transfer.stage()
        assert expected.bytes == staged.bytes

    def test_of_an_empty_node_it_is_the_whole(
        self, station: Station, old: Manifest, publisher: Publisher
    ) -> None:
        expected = station.transfer("1.0.0").estimate()
        assert (expected.how, expected.bytes.archive) == ("whole", whole_archive(publisher, old))

    def test_of_a_release_that_is_there_it_is_nothing(self, upgraded: Station, old: Manifest) -> None:
        expected = upgraded.transfer("1.0.0").estimate()
        assert (expected.how, expected.needed, expected.bytes.archive) == ("present", 0, 0)

    def test_it_changes_no_slot(self, upgraded: Station, old: Manifest) -> None:
        upgraded.transfer("1.1.0").estimate()
        assert upgraded.slots.list() == [old.root]


class TestRepair:
    @pytest.fixture
    def damaged(self, upgraded: Station, old: Manifest) -> Station:
        path = upgraded.paths.slot(old.root) / "tree/lib/module3.py"
        path.chmod(0o644)
        path.write_bytes(b"x" + path.read_bytes()[1:])
        path.chmod(0o444)
        return upgraded

    def test_a_flipped_byte_is_mended_from_a_mirror(self, damaged: Station, old: Manifest) -> None:
        repairs = Repairs(old, damaged.paths, [folder_mirror(damaged.folder)])
        scrubbed = damaged.slots.scrub(old.root, repairs)
        assert scrubbed.remaining == ()
        assert damaged.tree(old.root) == OLD_TREE
        assert repairs.received > 0
        repairs.close()
        assert list(damaged.paths.fetch.iterdir()) == []

    def test_a_lying_mirror_is_left_for_the_next_and_named(
        self, damaged: Station, old: Manifest, server: HostileMirror
    ) -> None:
        server.misbehave(".*", hostile.lie())
        mirrors = [HttpMirror(server.url, QUICK), folder_mirror(damaged.folder)]
        repairs = Repairs(old, damaged.paths, mirrors)
        assert damaged.slots.scrub(old.root, repairs).remaining == ()
        assert [error["url"] for error in repairs.mirrors] == [server.url]

    def test_with_all_mirrors_dead_the_damage_stays_and_each_is_named(
        self, damaged: Station, old: Manifest
    ) -> None:
        gone = folder_mirror(damaged.folder / "gone")
        scrubbed = damaged.slots.scrub(old.root, Repairs(old, damaged.paths, [gone]))
        assert [damage.path for damage in scrubbed.remaining] == ["tree/lib/module3.py"]
        assert "no such directory" in scrubbed.reasons[0]

    def test_a_part_is_fetched_once_for_all_its_files(
        self, upgraded: Station, old: Manifest, server: HostileMirror
    ) -> None:
        repairs = Repairs(old, upgraded.paths, [HttpMirror(server.url, QUICK)])
        entries = [entry for entry in old.files if isinstance(entry, FileEntry)]
        for entry in entries[:4]:
            assert b"".join(repairs(entry)) == OLD_TREE[entry.path]
        sent = [request.sent for request in server.asked(r".*\.tar\.zst") if request.sent]
        assert len(sent) == 1


def test_a_bomb_in_place_of_a_manifest_is_bounded(
    station: Station, old: Manifest, publisher: Publisher, tmp_path: Path
) -> None:
    """A few signed bytes may not become gigabytes in memory."""
    bomb = compressed(bytes(64 << 20))
    path = f"releases/{old.root}.json.zst"
    publisher.put(path, bomb.ljust(publisher.size(path), b"\0")[: publisher.size(path)])
    staged = station.transfer("1.0.0").stage()
    assert staged.mirrors[0]["error"].startswith(f"{path} has")
