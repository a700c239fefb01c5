"""Slots are built whole or not at all, share what is alike, and are checked to the last byte (S17, C16)."""

from __future__ import annotations

import errno
import io
import itertools
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from release_trees import APP, Content, Store, flip, forked, packed, rounds, trees

from kosnode import archive, disk, files, merkle, slot
from kosnode.errors import DamagedError, DiskError, InputError, NotFoundError
from kosnode.examine import Damage
from kosnode.manifest import FileEntry, Manifest

NEXT: dict[str, Content] = {**APP, "lib/app/core.py": b"print('next')\n", "share/more": b"more"}

NOBODY = 65534


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def kinds(found: list[Damage]) -> set[tuple[str, str]]:
    return {(damage.path, damage.kind) for damage in found}


# ---- building


@rounds
@given(contents=trees())
def test_any_tree_becomes_a_slot_that_is_verified(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, Content]
) -> None:
    store = Store(tmp_path_factory.mktemp("node"))
    manifest = store.staged(contents)
    assert store.slots.damages(manifest.root) == []
    assert store.slots.list() == [manifest.root]
    assert packed(manifest, store.tree(manifest)) == packed(manifest, store.trees[manifest.root])
    store.slots.gc(set())
    assert list(store.paths.releases.iterdir()) == []


def test_a_slot_is_read_only_to_all_and_its_modes_do_not_follow_the_umask(store: Store) -> None:
    before = os.umask(0o077)
    try:
        manifest = store.staged()
    finally:
        os.umask(before)
    there = store.paths.slot(manifest.root)
    for path in [there, *there.rglob("*")]:
        if path.is_symlink():
            continue
        executable = path.is_dir() or path.name == "kosd"
        assert stat.S_IMODE(path.stat().st_mode) == (0o555 if executable else 0o444), path
    assert (there / "release.json").read_bytes() == manifest.canonical()


def test_a_slot_appears_only_with_the_commit(store: Store) -> None:
    manifest = store.prepared(APP, "1.0.0")
    with store.slots.begin(manifest) as building:
        for part in archive.parts(manifest):
            archive.read_part(
                manifest, part, io.BytesIO(packed(manifest, store.trees[manifest.root])), building
            )
        assert store.slots.list() == []
        assert store.leftovers() == [f".new-{manifest.root}"]
        building.commit()
    assert store.slots.list() == [manifest.root]
    assert store.leftovers() == []


def test_what_is_not_committed_leaves_nothing(store: Store) -> None:
    with store.slots.begin(store.prepared(APP, "1.0.0")):
        pass
    assert list(store.paths.releases.iterdir()) == []


def test_a_slot_with_files_missing_is_not_committed(store: Store) -> None:
    manifest = store.prepared(APP, "1.0.0")
    with store.slots.begin(manifest) as building:
        assert [entry.path for entry in building.missing()] == [
            path for path, content in sorted(APP.items()) if isinstance(content, bytes)
        ]
        with pytest.raises(DamagedError, match=r"4 files of kos 1\.0\.0 are missing, the first is bin/kosd"):
            building.commit()
    assert store.slots.list() == []


def test_a_damaged_archive_makes_no_slot(store: Store) -> None:
    manifest = store.prepared(APP, "1.0.0")
    data = packed(manifest, store.trees[manifest.root]).replace(b"print('core')", b"print('evil')", 1)
    building = store.slots.begin(manifest)
    with pytest.raises(DamagedError, match="lib/app/core"), building:
        archive.read_part(manifest, archive.parts(manifest)[0], io.BytesIO(data), building)
    assert list(store.paths.releases.iterdir()) == []


def test_a_file_whose_hash_is_wrong_is_not_there(store: Store) -> None:
    manifest = store.prepared(APP, "1.0.0")
    entry = manifest.find("share/notes")
    assert isinstance(entry, FileEntry)

    def wrong() -> Iterator[bytes]:
        yield b"fir"
        raise DamagedError("wrong")

    with store.slots.begin(manifest) as building:
        with pytest.raises(DamagedError):
            building.file(entry, wrong())
        assert not (building.directory / "tree/share/notes").exists()
        assert entry in building.missing()


def test_a_slot_that_exists_is_not_begun_again(store: Store) -> None:
    manifest = store.staged()
    with pytest.raises(InputError, match="has a slot already"):
        store.slots.begin(manifest)
    assert store.slots.damages(manifest.root) == []


def test_what_an_earlier_attempt_left_does_not_count(store: Store) -> None:
    manifest = store.prepared(APP, "1.0.0")
    left = store.slots.begin(manifest)
    (left.directory / "tree/extra").write_bytes(b"left")
    store.stage(manifest)
    assert store.slots.damages(manifest.root) == []


def test_units_are_written_before_the_slot_appears_and_compared_afterwards(store: Store) -> None:
    text = b"[Service]\n"

    def render(directory: Path) -> None:
        assert store.slots.list() == []
        (directory / "units").mkdir()
        (directory / "units/kos-kosd.service").write_bytes(text)
        digests = {"kos-kosd.service": merkle.sha3(text).hex()}
        (directory / "units.json").write_bytes(files.canonical({"files": digests}))

    manifest = store.staged(extra=render)
    service = store.paths.slot(manifest.root) / "units/kos-kosd.service"
    assert store.slots.damages(manifest.root) == []
    service.write_bytes(b"[Service]\nUser=root\n")
    assert kinds(store.slots.damages(manifest.root)) == {("units/kos-kosd.service", "changed")}
    service.rename(service.with_name("other.service"))
    assert kinds(store.slots.damages(manifest.root)) == {
        ("units/kos-kosd.service", "missing"),
        ("units/other.service", "extra"),
    }
    (store.paths.slot(manifest.root) / "units.json").write_bytes(b"{")
    assert kinds(store.slots.damages(manifest.root)) == {("units.json", "changed")}


def test_where_units_cannot_be_rendered_there_is_no_slot(store: Store) -> None:
    def fail(directory: Path) -> None:
        raise InputError("no such user")

    with pytest.raises(InputError, match="no such user"):
        store.staged(extra=fail)
    assert list(store.paths.releases.iterdir()) == []


def test_everything_is_durable_before_the_slot_appears(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and directories are synced under the names they are built with, the parent after the rename."""
    synced: list[Path] = []
    sync, rename = disk.sync, Path.rename

    def recording_sync(path: Path) -> None:
        synced.append(path)
        sync(path)

    def checked_rename(path: Path, target: Path) -> Path:
        inside = {one for one in [path, *path.rglob("*")] if not one.is_symlink()}
        assert inside == set(synced)
        return rename(path, target)

    monkeypatch.setattr(disk, "sync", recording_sync)
    monkeypatch.setattr(Path, "rename", checked_rename)
    parents: list[Path] = []
    monkeypatch.setattr(files, "fsync_directory", parents.append)

    def render(directory: Path) -> None:
        (directory / "units.json").write_bytes(b"{}")

    manifest = store.staged(extra=render)
    assert store.slots.list() == [manifest.root]
    assert parents == [store.paths.releases]


# ---- hard links


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_what_another_slot_has_alike_is_a_hard_link_and_is_not_fetched(store: Store) -> None:
    old, new = store.staged(), store.prepared(NEXT, "1.1.0")
    with store.slots.begin(new) as building:
        assert [entry.path for entry in building.missing()] == ["lib/app/core.py", "share/more"]
    store.stage(new)
    for path, content in NEXT.items():
        if isinstance(content, bytes) and content:
            alike = inode(store.tree(old) / path) == inode(store.tree(new) / path) if path in APP else False
            assert alike is (APP.get(path) == content), path
    assert store.slots.damages(new.root) == []


def test_a_part_that_is_there_already_is_not_needed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_BYTES", 4096)
    store.staged()
    new = store.prepared({**APP, "zzz": b"new"}, "1.1.0")
    with store.slots.begin(new) as building:
        assert [building.needs(part) for part in archive.parts(new)] == [False] * (
            len(archive.parts(new)) - 1
        ) + [True]


def test_a_moved_file_is_linked_and_another_mode_is_not(store: Store) -> None:
    old = store.staged({"bin/a": b"program", "lib/b": b"text"})
    new = store.staged({"bin/b": b"text", "lib/moved": b"text"}, "1.1.0")
    assert inode(store.tree(new) / "lib/moved") == inode(store.tree(old) / "lib/b")
    assert inode(store.tree(new) / "bin/b") != inode(store.tree(old) / "lib/b")


@pytest.mark.parametrize("hurt", [flip, lambda path: path.chmod(0o666), lambda path: path.unlink()])
def test_a_damaged_slot_does_not_hand_its_damage_on(store: Store, hurt: Callable[[Path], object]) -> None:
    old = store.staged()
    hurt(store.tree(old) / "share/notes")
    new = store.staged(NEXT, "1.1.0")
    assert store.slots.damages(new.root) == []
    assert (store.tree(new) / "share/notes").read_bytes() == b"first\n"


def test_a_link_in_the_place_of_a_file_is_not_followed(store: Store) -> None:
    old = store.staged()
    notes = store.tree(old) / "share/notes"
    (store.base / "elsewhere").write_bytes(b"first\n")
    notes.unlink()
    notes.symlink_to(store.base / "elsewhere")
    new = store.staged(NEXT, "1.1.0")
    assert store.slots.damages(new.root) == []


def test_where_no_more_links_are_possible_the_file_is_copied(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.staged()

    def too_many(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    monkeypatch.setattr(os, "link", too_many)
    new = store.prepared({**APP, "share/notes": b"second\n"}, "1.1.0")
    with store.slots.begin(new) as building:
        assert [entry.path for entry in building.missing()] == ["share/notes"]
    store.stage(new)
    assert store.slots.damages(new.root) == []
    assert inode(store.tree(new) / "bin/kosd") != inode(store.tree(old) / "bin/kosd")


# ---- verifying


@pytest.mark.parametrize(
    ("change", "path", "kind"),
    [
        (lambda tree: flip(tree / "bin/kosd", 5), "tree/bin/kosd", "changed"),
        (lambda tree: (tree / "share/notes").write_bytes(b"first\nmore"), "tree/share/notes", "changed"),
        (lambda tree: (tree / "share/notes").chmod(0o644), "tree/share/notes", "mode"),
        (lambda tree: (tree / "bin/kosd").chmod(0o4555), "tree/bin/kosd", "mode"),
        (lambda tree: (tree / "lib/app").chmod(0o755), "tree/lib/app", "mode"),
        (lambda tree: tree.chmod(0o777), "tree", "mode"),
        (lambda tree: (tree / "share/notes").unlink(), "tree/share/notes", "missing"),
        (lambda tree: (tree / "share/new").write_bytes(b""), "tree/share/new", "extra"),
        (lambda tree: (tree / "share/new").mkdir(), "tree/share/new", "extra"),
        (lambda tree: (tree / "share/new").symlink_to("/etc"), "tree/share/new", "extra"),
        (lambda tree: relink(tree / "lib/current", "/etc"), "tree/lib/current", "changed"),
        (lambda tree: relink(tree / "share/notes", "../bin/kosd"), "tree/share/notes", "type"),
        (lambda tree: replaced_by_folder(tree / "share/notes"), "tree/share/notes", "type"),
        (lambda tree: replaced_by_pipe(tree / "share/notes"), "tree/share/notes", "type"),
    ],
)
def test_each_kind_of_damage_is_found_and_named(
    store: Store, change: Callable[[Path], object], path: str, kind: str
) -> None:
    """C16: the command names the file."""
    manifest = store.staged()
    tree = store.tree(manifest)
    modes = {
        directory: stat.S_IMODE(directory.stat().st_mode) for directory in (tree / "share", tree / "lib")
    }
    for directory in modes:
        directory.chmod(0o755)
    change(tree)
    for directory, mode in modes.items():
        directory.chmod(mode)
    found = store.slots.damages(manifest.root)
    assert kinds(found) == {(path, kind)}
    with pytest.raises(DamagedError, match=f"slot {manifest.root[:12]}: {path}: {kind}") as caught:
        store.slots.verify(manifest.root)
    assert caught.value.key == path
    assert caught.value.detail == {"damages": [found[0].as_json()]}


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_a_file_of_another_owner_is_found(store: Store) -> None:
    manifest = store.staged()
    os.chown(store.tree(manifest) / "share/notes", 12345, -1)
    os.chown(store.tree(manifest) / "lib/current", 12345, -1, follow_symlinks=False)
    assert kinds(store.slots.damages(manifest.root)) == {
        ("tree/share/notes", "owner"),
        ("tree/lib/current", "owner"),
    }


def test_a_slot_without_its_tree_or_manifest_is_damaged(store: Store) -> None:
    manifest = store.staged()
    there = store.paths.slot(manifest.root)
    there.chmod(0o755)
    (there / "tree").chmod(0o755)
    (there / "tree").rename(there / "tree2")
    assert ("tree", "missing") in kinds(store.slots.damages(manifest.root))
    (there / "release.json").unlink()
    assert kinds(store.slots.damages(manifest.root)) == {("release.json", "missing")}
    with pytest.raises(DamagedError, match=r"release\.json: missing"):
        store.slots.verify(manifest.root)


def test_a_manifest_of_another_release_is_not_believed(store: Store) -> None:
    one, other = store.staged(), store.staged(NEXT, "1.1.0")
    path = store.paths.slot(one.root) / "release.json"
    path.chmod(0o644)
    path.write_bytes(other.canonical())
    assert kinds(store.slots.damages(one.root)) == {("release.json", "changed")}
    with pytest.raises(DamagedError, match="is the manifest of"):
        store.slots.manifest(one.root)


def test_a_slot_that_is_not_there_is_not_found(store: Store) -> None:
    store.staged()
    for ask in (store.slots.verify, store.slots.damages, store.slots.manifest):
        with pytest.raises(NotFoundError, match="is not staged on this node"):
            ask("ab" * 32)


# ---- removing


def test_gc_removes_all_but_what_is_kept_current_and_previous(store: Store) -> None:
    made = [store.staged({**APP, "n": bytes([n])}, f"1.{n}.0") for n in range(5)]
    store.paths.current.symlink_to(f"releases/{made[0].root}")
    store.paths.previous.symlink_to(f"releases/{made[1].root}")
    removed = store.slots.gc({made[2].root})
    assert sorted(removed) == sorted(m.root for m in made[3:])
    assert store.slots.list() == sorted(m.root for m in made[:3])
    assert store.leftovers() == []
    assert store.slots.gc({made[2].root}) == []


def test_gc_leaves_the_files_that_other_slots_share(store: Store) -> None:
    old, new = store.staged(), store.staged(NEXT, "1.1.0")
    assert (store.tree(new) / "bin/kosd").stat().st_nlink == 2
    assert store.slots.gc({new.root}) == [old.root]
    assert store.slots.damages(new.root) == []
    assert (store.tree(new) / "bin/kosd").stat().st_nlink == 1


def test_gc_does_not_follow_links_out_of_a_slot(store: Store) -> None:
    manifest = store.staged()
    outside = store.base / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"")
    (store.tree(manifest) / "share").chmod(0o755)
    (store.tree(manifest) / "share/out").symlink_to(outside)
    store.slots.gc(set())
    assert (outside / "precious").exists()
    assert outside.stat().st_mode & 0o777 == 0o755


def test_cleanup_removes_what_is_half_made_and_nothing_else(store: Store) -> None:
    manifest = store.staged()
    store.slots.begin(store.prepared(NEXT, "1.1.0"))
    left = [f".gone-{'a' * 64}", ".mend-x"]
    for name in left:
        (store.paths.releases / name / "tree").mkdir(parents=True)
        (store.paths.releases / name / "tree").chmod(0o555)
    removed = store.slots.cleanup()
    assert len(removed) == 3
    assert set(left) < set(removed)
    assert [path.name for path in store.paths.releases.iterdir()] == [manifest.root]
    assert store.slots.cleanup() == []


def test_a_node_without_slots_has_nothing_to_list_or_remove(store: Store) -> None:
    assert (store.slots.list(), store.slots.gc(set()), store.slots.cleanup()) == ([], [], [])
    assert store.slots.disk_needed(store.prepared(APP, "1.0.0")) > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="gives its rights up, which only root has")
def test_without_root_slots_are_built_mended_and_removed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only directories hold root back from nothing, others from everything."""

    def work() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        store = Store(Path())
        old, new = store.staged(), store.staged({**APP, "share/more": b"more"}, "1.1.0")
        flip(store.tree(new) / "bin/kosd")
        (store.tree(new) / "lib").chmod(0o755)
        (store.tree(new) / "lib/app/core.py").chmod(0o600)
        assert len(store.slots.damages(new.root)) == 3
        assert not store.slots.scrub(new.root, store.good(new)).remaining
        assert not store.slots.damages(new.root)
        assert not store.slots.damages(old.root)
        assert store.slots.gc({new.root}) == [old.root]
        assert store.slots.gc(set()) == [new.root]
        assert not list(store.paths.releases.iterdir())

    os.chown(tmp_path, NOBODY, NOBODY)
    monkeypatch.chdir(tmp_path)
    assert forked(work) == 0


# ---- a full disk


def test_the_disk_that_is_needed_leaves_out_what_can_be_linked(store: Store) -> None:
    big: dict[str, Content] = {**APP, "big": bytes(10_000_000)}
    alone = store.slots.disk_needed(store.prepared(big, "0.9.0"))
    assert alone > 10_000_000 + slot.SLACK_BYTES
    old = store.staged(big)
    assert store.slots.disk_needed(store.prepared({**big, "n": b"1"}, "1.1.0")) < slot.SLACK_BYTES + 100_000
    assert store.slots.disk_needed(old) == 0


def test_a_disk_that_is_too_small_is_refused_with_the_missing_bytes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = store.prepared(APP, "1.0.0")
    needed = store.slots.disk_needed(manifest)
    monkeypatch.setattr(slot.Slots, "disk_free", lambda self: needed + 100)
    store.slots.check_disk(manifest)
    store.slots.check_disk(manifest, reserve=100)
    with pytest.raises(DiskError, match=r"^23 bytes of disk are missing for kos 1\.0\.0") as caught:
        store.slots.check_disk(manifest, reserve=123)
    assert caught.value.detail["missing"] == 23


def test_a_disk_that_becomes_full_leaves_nothing_behind(store: Store) -> None:
    """A real write that the kernel cuts off, at each of many sizes."""
    old = store.staged()
    new = store.prepared({**NEXT, "share/large": b"x" * 50_000}, "1.1.0")
    longest = len(new.canonical())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (1, longest - 1, longest, 49_999):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(DiskError, match=r"full while kos 1\.1\.0 was written: it needs \d+ bytes"):
                store.stage(new)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [path.name for path in store.paths.releases.iterdir()] == [old.root]
    assert store.slots.damages(old.root) == []
    store.stage(new)
    assert store.slots.damages(new.root) == []


@pytest.mark.parametrize("place", ["mkdir", "link", "fsync", "chmod", "rename", "symlink_to"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_step_leaves_the_old_slots_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    old, new = store.staged(), store.prepared(NEXT, "1.1.0")

    def fail(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os if place in ("link", "fsync") else Path, place, fail)
        with pytest.raises(DiskError if number == errno.ENOSPC else OSError):
            store.stage(new)
    assert [path.name for path in store.paths.releases.iterdir()] == [old.root]
    assert store.slots.damages(old.root) == []


# ---- kill -9


CHANGING = ("os.mkdir", "os.link", "os.symlink", "os.chmod", "os.rename", "os.remove")
CHANGED: dict[str, Content] = {**APP, "share/notes": b"second", "share/more": b"more", "bin/kosd": b"new"}


def stage_until(store: Store, new: Manifest, stop: int, note: Path) -> None:
    """Make a slot and kill this process by SIGKILL before the call number `stop` that changes the disk."""
    calls = itertools.count(1)
    sync = os.fsync

    def step() -> None:
        if next(calls) == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        flags = arguments[2] if event == "open" else 0
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGING:
            step()

    def counted_sync(descriptor: int) -> None:
        step()
        sync(descriptor)

    # This process ends with the test, so that nothing has to be put back.
    setattr(os, "fsync", counted_sync)  # noqa: B010 (an assignment would have to be typed as the original)
    sys.addaudithook(audit)
    store.stage(new)
    made = next(calls) - 1
    note.write_text(str(made))


def test_a_kill_at_any_call_of_the_system_leaves_the_old_slots_and_cleanup_works(tmp_path: Path) -> None:
    """kill -9 of a real process before each call that changes the disk, one after another."""

    def run(name: str, stop: int) -> tuple[Store, Manifest, Manifest, int]:
        store = Store(tmp_path / name)
        old, new = store.staged(), store.prepared(CHANGED, "1.1.0")
        return store, old, new, forked(lambda: stage_until(store, new, stop, tmp_path / "steps"))

    assert run("whole", 0)[3] == 0
    steps = int((tmp_path / "steps").read_text())
    assert steps > 20
    half, whole = 0, 0
    for stop in range(1, steps + 1):
        store, old, new, code = run(f"at-{stop}", stop)
        assert code == -signal.SIGKILL, stop
        assert store.slots.damages(old.root) == [], stop
        half += bool(store.leftovers())
        store.slots.cleanup()
        assert store.leftovers() == [], stop
        if new.root in store.slots.list():
            whole += 1
        else:
            store.stage(new)
        assert store.slots.damages(new.root) == [], stop
        assert store.slots.damages(old.root) == [], stop
    assert half > 20
    assert whole >= 1


def test_a_kill_while_a_slot_is_removed_leaves_no_half_slot(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = store.staged(), store.staged(NEXT, "1.1.0")

    class Killed(BaseException):
        pass

    def killed(*args: object, **kwargs: object) -> NoReturn:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(Killed):
            store.slots.gc({new.root})
    assert store.slots.list() == [new.root]
    assert store.leftovers() == [f".gone-{old.root}"]
    store.slots.cleanup()
    assert store.leftovers() == []
    assert store.slots.damages(new.root) == []
