"""A scrub finds what a disk has damaged and mends it, in every slot that shares the file (S17, C16)."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_trees import APP, Content, Store, flip, rounds

from kosnode import files, merkle
from kosnode.errors import DiskError, InputError, MirrorError
from kosnode.manifest import FileEntry

NEXT: dict[str, Content] = {**APP, "lib/app/core.py": b"print('next')\n"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def nothing(entry: FileEntry) -> NoReturn:
    raise MirrorError(f"no mirror has {entry.path}")


def hurt_tree(tree: Path, change: Callable[[Path], object]) -> None:
    """Change a tree as only a disk or an intruder can."""
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    change(tree)


def replace(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in the place of a file, link or directory."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


def test_a_flipped_bit_is_found_named_and_mended_from_a_mirror(store: Store) -> None:
    manifest = store.staged()
    flip(store.tree(manifest) / "lib/app/core.py", 100)
    done = store.slots.scrub(manifest.root, store.good(manifest))
    assert [(damage.path, damage.kind) for damage in done.found] == [("tree/lib/app/core.py", "changed")]
    assert done.mended == (f"{manifest.root}/tree/lib/app/core.py",)
    assert (done.remaining, done.reasons) == ((), ())
    assert store.slots.damages(manifest.root) == []
    assert store.leftovers() == []


def test_a_good_slot_is_left_alone_and_no_mirror_is_asked(store: Store) -> None:
    manifest = store.staged()
    done = store.slots.scrub(manifest.root, nothing)
    assert (done.found, done.mended) == ((), ())


@pytest.mark.parametrize("first", [0, 1])
def test_the_partners_of_a_hard_link_are_mended_together(store: Store, first: int) -> None:
    """They share the inode, and so the damage; whichever is scrubbed, all are right afterwards."""
    made = [store.staged(), store.staged(NEXT, "1.1.0"), store.staged({**NEXT, "n": b""}, "1.2.0")]
    notes = [store.tree(manifest) / "share/notes" for manifest in made]
    flip(notes[0])
    assert all(store.slots.damages(manifest.root) for manifest in made)
    done = store.slots.scrub(made[first].root, store.good(made[first]))
    assert sorted(done.mended) == sorted(f"{manifest.root}/tree/share/notes" for manifest in made)
    assert [store.slots.damages(manifest.root) for manifest in made] == [[], [], []]
    assert len({path.stat().st_ino for path in notes}) == 1


def test_a_damaged_file_is_replaced_and_never_written_to(store: Store) -> None:
    """A program may run from it."""
    manifest = store.staged()
    program = store.tree(manifest) / "bin/kosd"
    flip(program)
    damaged = program.read_bytes()
    with program.open("rb") as held:
        store.slots.scrub(manifest.root, store.good(manifest))
        assert held.read() == damaged
    assert program.read_bytes() == APP["bin/kosd"]


def test_another_slot_mends_it_before_a_mirror_is_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.staged()
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse_links)
        new = store.staged(NEXT, "1.1.0")
    flip(store.tree(new) / "bin/kosd")
    done = store.slots.scrub(new.root, nothing)
    assert done.remaining == ()
    assert store.slots.damages(new.root) == []
    assert (store.tree(new) / "bin/kosd").stat().st_ino == (store.tree(old) / "bin/kosd").stat().st_ino


def refuse_links(*args: object, **kwargs: object) -> NoReturn:
    raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "share/notes").unlink(),
        lambda tree: (tree / "share/notes").chmod(0o666),
        lambda tree: (tree / "share/new").write_bytes(b"extra"),
        lambda tree: (tree / "share/new/deep").mkdir(parents=True),
        lambda tree: (tree / "lib/current").unlink(),
        lambda tree: replace(tree / "lib/current", lambda path: path.symlink_to("/etc")),
        lambda tree: replace(tree / "share/notes", Path.mkdir),
        lambda tree: replace(tree / "share/notes", os.mkfifo),
        lambda tree: shutil.rmtree(tree / "lib"),
        lambda tree: replace(tree / "lib/app", Path.touch),
        lambda tree: replace(tree / "lib", lambda path: path.symlink_to("/etc")),
        shutil.rmtree,
        lambda tree: replace(tree, Path.touch),
    ],
)
def test_every_kind_of_damage_is_mended(store: Store, change: Callable[[Path], object]) -> None:
    manifest = store.staged()
    tree = store.tree(manifest)
    tree.parent.chmod(0o755)
    hurt_tree(tree, change)
    assert store.slots.damages(manifest.root)
    done = store.slots.scrub(manifest.root, store.good(manifest))
    assert (done.remaining, done.reasons) == ((), ())
    assert done.mended
    assert store.slots.damages(manifest.root) == []
    assert Path("/etc").is_dir()


@rounds
@given(seed=st.integers(0, 2**32))
def test_random_damage_in_random_slots_is_mended(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    store, dice = Store(tmp_path_factory.mktemp("node")), random.Random(seed)
    made = [store.staged({**APP, "n": bytes([n])}, f"1.{n}.0") for n in range(3)]
    for manifest in made:
        for path, content in APP.items():
            target = store.tree(manifest) / path
            if isinstance(content, bytes) and content and dice.random() < 0.3:
                flip(target, dice.randrange(len(content)))
    for manifest in made:
        assert store.slots.scrub(manifest.root, store.good(manifest)).remaining == ()
    for manifest in made:
        assert store.slots.damages(manifest.root) == []


# ---- what cannot be mended is said


def test_where_no_mirror_helps_the_damage_remains_and_the_reason_is_named(store: Store) -> None:
    manifest = store.staged()
    flip(store.tree(manifest) / "bin/kosd")
    flip(store.tree(manifest) / "share/notes")

    def half(entry: FileEntry) -> Iterator[bytes]:
        if entry.path == "bin/kosd":
            nothing(entry)
        yield from store.good(manifest)(entry)

    done = store.slots.scrub(manifest.root, half)
    assert done.mended == (f"{manifest.root}/tree/share/notes",)
    assert [damage.path for damage in done.remaining] == ["tree/bin/kosd"]
    assert done.reasons == ("tree/bin/kosd: no mirror has bin/kosd",)


@pytest.mark.parametrize("content", [b"", b"evil\n", b"first\n\n", b"x" * 100_000])
def test_a_mirror_that_gives_wrong_bytes_mends_nothing(store: Store, content: bytes) -> None:
    manifest = store.staged()
    notes = store.tree(manifest) / "share/notes"
    flip(notes)
    damaged = notes.read_bytes()
    done = store.slots.scrub(manifest.root, lambda entry: [content])
    assert notes.read_bytes() == damaged
    assert done.reasons == ("tree/share/notes: the bytes to mend share/notes with are wrong",)
    assert store.leftovers() == []


def test_a_mirror_that_never_ends_is_left(store: Store) -> None:
    manifest = store.staged()
    flip(store.tree(manifest) / "share/notes")
    given = 0

    def endless(entry: FileEntry) -> Iterator[bytes]:
        nonlocal given
        while given < 10_000:
            given += 1
            yield b"x"

    done = store.slots.scrub(manifest.root, endless)
    assert [damage.path for damage in done.remaining] == ["tree/share/notes"]
    assert given == len(b"first\n") + 1


def test_a_full_disk_is_said_plainly_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = store.staged()
    flip(store.tree(manifest) / "share/notes")

    def full(entry: FileEntry) -> NoReturn:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(DiskError, match=r"became full while .*share/notes was mended"):
        store.slots.scrub(manifest.root, full)
    assert store.leftovers() == []


# ---- the manifest itself, and rendered units


def test_a_damaged_manifest_is_mended_from_a_trusted_one_alone(store: Store) -> None:
    manifest = store.staged()
    path = store.paths.slot(manifest.root) / "release.json"
    flip(path)
    flip(store.tree(manifest) / "share/notes")
    done = store.slots.scrub(manifest.root, store.good(manifest))
    assert [damage.path for damage in done.remaining] == ["release.json"]
    done = store.slots.scrub(manifest.root, store.good(manifest), manifest)
    assert done.remaining == ()
    assert path.read_bytes() == manifest.canonical()
    assert path.stat().st_mode & 0o777 == 0o444
    assert store.slots.damages(manifest.root) == []


def test_a_manifest_of_another_release_mends_nothing(store: Store) -> None:
    manifest, other = store.staged(), store.staged(NEXT, "1.1.0")
    with pytest.raises(InputError, match="the manifest is that of"):
        store.slots.scrub(manifest.root, nothing, other)


def test_rendered_units_are_reported_and_left(store: Store) -> None:
    def render(directory: Path) -> None:
        (directory / "units").mkdir()
        (directory / "units/a.service").write_bytes(b"a")
        (directory / "units.json").write_bytes(
            files.canonical({"files": {"a.service": merkle.sha3(b"a").hex()}})
        )

    manifest = store.staged(extra=render)
    (store.paths.slot(manifest.root) / "units/a.service").write_bytes(b"b")
    done = store.slots.scrub(manifest.root, nothing)
    assert [damage.path for damage in done.remaining] == ["units/a.service"]
    assert done.mended == ()
