"""A manifest commits to every byte and lets nothing through that would not be safe to extract (S17, C16)."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_trees import APP, Content, document, file, link, release, rounds, signed_over, trees, write_tree

from kosnode import files, manifest
from kosnode.errors import InputError
from kosnode.manifest import FileEntry, LinkEntry, Manifest

UNIT = b'{"id":"kosd"}'


def h(data: bytes) -> bytes:
    return hashlib.sha3_256(data).digest()


def refused(value: Mapping[str, Any], key: str, rule: str) -> None:
    """The hashes are right, so it is the rule that refuses it; the message names key and rule."""
    with pytest.raises(InputError, match=rule) as caught:
        Manifest.parse(signed_over(value))
    assert caught.value.key == key
    assert key in caught.value.message


# ---- what it commits to


def test_the_root_is_the_hash_that_the_architecture_writes_down(tmp_path: Path) -> None:
    made = release(tmp_path, {"bin/run": b"go", "lib/x": "../bin/run"})
    rest = {k: v for k, v in made.document.items() if k not in ("root", "tree", "files")}
    run = h(b"\0kos-file\0" + b"0555" + (2).to_bytes(8, "big") + h(b"go"))
    to_run = h(b"\1kos-link\0" + b"../bin/run")

    def folder(*children: tuple[bytes, bytes]) -> bytes:
        return h(b"\2kos-dir\0" + b"".join(len(n).to_bytes(4, "big") + n + c for n, c in children))

    tree = folder((b"bin", folder((b"run", run))), (b"lib", folder((b"x", to_run))))
    assert made.tree_hash == tree.hex()
    assert made.root == h(b"\3kos-release\0" + tree + h(files.canonical(rest))).hex()


@rounds
@given(contents=trees())
def test_any_tree_gives_a_manifest_that_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, Content]
) -> None:
    made = release(tmp_path_factory.mktemp("tree"), contents)
    read = Manifest.parse(made.canonical())
    assert read.files == made.files
    assert (read.root, read.canonical()) == (made.root, made.canonical())
    assert [entry.path for entry in read.files] == sorted(contents, key=str.encode)


@rounds
@given(contents=trees(), seed=st.integers(0, 2**32))
def test_the_same_tree_made_in_another_order_at_another_time_gives_identical_bytes(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, Content], seed: int
) -> None:
    shuffled = list(contents.items())
    random.Random(seed).shuffle(shuffled)
    other = write_tree(tmp_path_factory.mktemp("other"), dict(shuffled))
    for path in sorted(other.rglob("*")):
        os.utime(path, (seed, seed), follow_symlinks=False)
        if path.is_file() and not path.is_symlink() and not path.stat().st_mode & 0o111:
            path.chmod(0o600)
    first = release(tmp_path_factory.mktemp("first"), contents)
    assert Manifest.build(other, name="kos", version="1.0.0").canonical() == first.canonical()


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "share/notes").write_bytes(b"second\n"),
        lambda tree: (tree / "share/notes").chmod(0o755),
        lambda tree: (tree / "share/notes").rename(tree / "share/note"),
        lambda tree: (tree / "share/more").write_bytes(b""),
        lambda tree: (tree / "lib/app/__init__.py").unlink(),
        lambda tree: ((tree / "lib/current").unlink(), (tree / "lib/current").symlink_to("app2")),
    ],
    ids=["content", "mode", "name", "added", "removed", "link"],
)
def test_changing_one_file_changes_the_root(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """C16."""
    before = release(tmp_path, APP)
    change(tmp_path)
    after = Manifest.build(tmp_path, name="kos", version="1.0.0")
    assert after.root != before.root
    assert after.tree_hash != before.tree_hash


@pytest.mark.parametrize(
    "meta",
    [
        {"version": "1.0.1"},
        {"arch": "aarch64"},
        {"compat": {"os": ["debian-13"]}},
        {"from": {}},
        {"sync_risk": "high"},
        {"breaking": ["it breaks"]},
        {"behavioral": True},
        {"health": [{"type": "unit"}]},
    ],
    ids=lambda meta: next(iter(meta)),
)
def test_the_root_commits_to_all_of_the_manifest(tmp_path: Path, meta: dict[str, Any]) -> None:
    plain = release(tmp_path, APP)
    changed = Manifest.build(tmp_path, **{"name": "kos", "version": "1.0.0", **meta})
    assert changed.root != plain.root
    assert changed.tree_hash == plain.tree_hash
    assert Manifest.parse(changed.canonical()).root == changed.root


@rounds
@given(position=st.integers(0), value=st.integers(1, 255))
def test_no_byte_of_a_manifest_can_change_unseen(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    data = bytearray(release(tmp_path_factory.mktemp("tree"), APP).canonical())
    data[position % len(data)] ^= value
    with pytest.raises(InputError):
        Manifest.parse(bytes(data))


def test_only_the_canonical_form_is_read(tmp_path: Path) -> None:
    made = release(tmp_path, APP)
    data = made.canonical()
    spaced = data.replace(b'{"arch"', b'{ "arch"', 1)
    reordered = files.canonical({k: v for k, v in made.document.items() if k != "arch"})
    reordered = reordered[:-1] + b',"arch":"any"}'
    escaped = data.replace(b"kosd", b"kos\\u0064", 1)
    for other in (spaced, data + b"\n", reordered, escaped):
        assert other != data
        with pytest.raises(InputError, match="not canonical JSON"):
            Manifest.parse(other)


@pytest.mark.parametrize("key", ["root", "tree"])
def test_a_hash_that_is_not_that_of_the_files_is_refused(tmp_path: Path, key: str) -> None:
    wrong = {**release(tmp_path, APP).document, key: "0" * 64}
    with pytest.raises(InputError, match="is not the hash of what") as caught:
        Manifest.parse(files.canonical(wrong))
    assert caught.value.key == key


# ---- what it refuses


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/etc/passwd", "must be relative"),
        ("../out", "no empty, . or .. component"),
        ("a/../b", "no empty, . or .. component"),
        ("./a", "no empty, . or .. component"),
        ("a//b", "no empty, . or .. component"),
        ("a/", "no empty, . or .. component"),
        ("a\\b", "no backslash"),
        ("a\nb", "no control character"),
        ("a\0b", "no control character"),
        ("a\x7fb", "no control character"),
        ("é\u0085", "no control character"),
        ("\u0378", "none that Unicode does not define"),
        ("e\u0301", "normal form NFC"),
        ("é" * 128, "component of more than 255 bytes"),
        ("é/" * 400 + "a", "more than 1024 bytes"),
    ],
)
def test_a_path_that_leaves_the_tree_or_hides_is_refused(path: str, rule: str) -> None:
    refused(document(file(path)), "files[0].path", rule)


@pytest.mark.parametrize(
    ("path", "target", "rule"),
    [
        ("a", "/etc/passwd", "must be relative"),
        ("a", "..", "leads out of the tree"),
        ("d/a", "../../x", "leads out of the tree"),
        ("d/a", "x/../../..", "at its beginning alone"),
        ("d/a", "x/../y", "at its beginning alone"),
        ("a", "x//y", "no empty or . component"),
        ("a", "./x", "no empty or . component"),
        ("a", "x/", "no empty or . component"),
        ("a", "x\\y", "no backslash"),
        ("a", "x\ny", "no control character"),
        ("a", "e\u0301", "normal form NFC"),
        ("a", "x" * 256, "component of more than 255 bytes"),
    ],
)
def test_a_link_that_leaves_the_tree_is_refused(path: str, target: str, rule: str) -> None:
    refused(document(link(path, target)), "files[0].target", rule)


def test_a_link_through_a_link_cannot_leave_the_tree() -> None:
    """d/l leads one up, so that d/l/../.. is above the tree although its text is not."""
    entries = [link("d/l", "../e"), file("e/f"), link("m", "d/l/../..")]
    refused(document(*entries), "files[2].target", "at its beginning alone")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("README", "readme"),
        ("straße", "STRASSE"),
        ("ﬁle", "file"),
        ("K", "\u212a"),
        ("dir/a", "DIR/b"),
        ("①", "1"),
        ("Ω/x", "ω/x"),
    ],
)
def test_names_that_some_file_system_holds_for_one_are_refused(one: str, other: str) -> None:
    refused(document(file(one), file(other)), "files[1].path", "(in case or in the form|NFC)")


def test_two_entries_of_one_path_are_refused() -> None:
    refused(document(file("a", b"one"), file("a", b"two")), "files[1].path", "stands twice")


@pytest.mark.parametrize("leaf", [file("a"), link("a", "b")])
def test_a_file_or_link_that_is_also_a_directory_is_refused(leaf: dict[str, Any]) -> None:
    refused(document(leaf, file("a/b")), "files[1].path", "and also a directory")
    refused(document(leaf, file("a.b"), file("a/b")), "files[2].path", "and also a directory")


def test_files_out_of_order_are_refused() -> None:
    entries = [file("b"), file("a")]
    refused(document(files=entries), "files[1].path", "not sorted by bytes")
    # By bytes, not by how a person or another encoding would sort.
    refused(document(files=[file("\U00010000"), file("\uffee")]), "files[1].path", "not sorted by bytes")


@pytest.mark.parametrize("mode", ["0644", "0777", "4555", "2555", "1555", "0400", "444", 292])
def test_modes_other_than_0444_and_0555_are_refused(mode: object) -> None:
    value = document()
    value["files"] = [{**file("a"), "mode": mode}]
    with pytest.raises(InputError, match="must be one of 0444, 0555") as caught:
        Manifest.parse(files.canonical({**value, "tree": "0" * 64, "root": "0" * 64}))
    assert caught.value.key == "files[0].mode"


@pytest.mark.parametrize("kind", ["directory", "device", "fifo", "hardlink", "", None])
def test_entries_that_are_neither_file_nor_link_are_refused(kind: object) -> None:
    value = {**document(), "files": [{**file("a"), "type": kind}], "tree": "0" * 64, "root": "0" * 64}
    with pytest.raises(InputError, match="must be one of file, link") as caught:
        Manifest.parse(files.canonical(value))
    assert caught.value.key == "files[0].type"


@pytest.mark.parametrize(
    ("changes", "key", "rule"),
    [
        ({"surprise": 1}, "surprise", "unknown key"),
        ({"compat": {"kernel": "6"}}, "compat.kernel", "unknown key"),
        ({"from": {"alow": []}}, "from.alow", "did you mean allow"),
        ({"files": [{**file("a"), "uid": 0}]}, "files[0].uid", "unknown key"),
        ({"files": [{**link("a", "b"), "mode": "0444"}]}, "files[0].mode", "unknown key"),
        ({"files": []}, "files", "must not be empty"),
        ({"files": [{**file("a"), "size": -1}]}, "files[0].size", "0 or more"),
        ({"files": [{**file("a"), "size": 2**33}]}, "files[0].size", "or less"),
        ({"files": [{**file("a"), "size": True}]}, "files[0].size", "must be an integer"),
        ({"files": [{**file("a"), "sha3": "AB" * 32}]}, "files[0].sha3", "lower-case hex"),
        ({"format": 2}, "format", "must be 1"),
        ({"format": True}, "format", "must be 1"),
        ({"name": "Kos"}, "name", "lower-case"),
        ({"name": "kos\n"}, "name", "lower-case"),
        ({"version": "1.0.0+b"}, "version", "is not a version"),
        ({"arch": "arm"}, "arch", "must be one of"),
        ({"sync_risk": "some"}, "sync_risk", "must be one of"),
        ({"behavioral": "no"}, "behavioral", "true or false"),
        ({"from": {"allow": [">=1.0"]}}, "from.allow[0]", "is not a version"),
        ({"from": {"allow": []}}, "from.allow", "must not be empty"),
        ({"from": {"barriers": ["1.0.0", "one.0"]}}, "from.barriers[1]", "is not a version"),
        ({"compat": {"needs": {"python": "three"}}}, "compat.needs.python", "a number such as"),
        ({"migrations": [{"unit": "kosd"}]}, "migrations[0].up", "is missing"),
        ({"migrations": [{"unit": "kosd", "up": ["m"]}]}, "migrations[0].unit", "not among the units"),
        ({"units": ["kosd"]}, "units", "units/NAME/unit.json"),
    ],
)
def test_a_key_that_breaks_a_rule_is_named(changes: dict[str, Any], key: str, rule: str) -> None:
    value = {**document(), "tree": "0" * 64, "root": "0" * 64, **changes}
    with pytest.raises(InputError, match=rule) as caught:
        Manifest.parse(files.canonical(value))
    assert caught.value.key == key


@pytest.mark.parametrize("key", sorted(document()))
def test_every_key_must_be_there(key: str) -> None:
    value = {**document(), "tree": "0" * 64, "root": "0" * 64}
    del value[key]
    with pytest.raises(InputError, match=f"{key}: is missing"):
        Manifest.parse(files.canonical(value))


def test_the_units_of_the_tree_are_those_of_the_manifest() -> None:
    refused(
        document(file("units/kosd/unit.json", UNIT)), "units", "units/NAME/unit.json in files, sorted: kosd"
    )


def test_more_bytes_than_a_release_may_have_are_refused() -> None:
    huge = [{**file(f"f{n}"), "size": 2**33 - 1} for n in range(9)]
    refused(document(*huge), "files", "at most 68719476736 are allowed")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'{"a":1,"a":1}', b'{"format":1.0}', b"\xff", b"[" * 100_000, b'"\\ud800"'],
)
def test_what_is_no_manifest_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        Manifest.parse(data)


def test_a_manifest_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = release(tmp_path, APP).canonical()
    monkeypatch.setattr(manifest, "MAX_BYTES", len(data) - 1)
    with pytest.raises(InputError, match="at most"):
        Manifest.parse(data)


# ---- what it is made from


@pytest.mark.parametrize("bit", [stat.S_ISUID, stat.S_ISGID, stat.S_ISVTX])
def test_a_tree_with_setuid_setgid_or_sticky_bits_is_refused(tmp_path: Path, bit: int) -> None:
    write_tree(tmp_path, APP)
    (tmp_path / "bin/kosd").chmod(0o755 | bit)
    with pytest.raises(InputError, match="bin/kosd has a setuid, setgid or sticky bit"):
        Manifest.build(tmp_path, name="kos", version="1.0.0")


def test_a_tree_with_a_pipe_or_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "pipe", APP)
    os.mkfifo(tmp_path / "pipe/lib/pipe")
    write_tree(tmp_path / "socket", APP)
    monkeypatch.chdir(tmp_path / "socket/lib")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        for name in ("pipe", "socket"):
            with pytest.raises(InputError, match=f"lib/{name} is neither a file nor a directory nor a link"):
                Manifest.build(tmp_path / name, name="kos", version="1.0.0")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device files")
def test_a_tree_with_a_device_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, APP)
    os.mknod(tmp_path / "lib/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with pytest.raises(InputError, match="lib/null is neither a file nor a directory nor a link"):
        Manifest.build(tmp_path, name="kos", version="1.0.0")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "app/../.."])
def test_a_tree_with_a_link_out_of_it_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(InputError, match=r"relative|out of the tree|beginning alone"):
        release(tmp_path, {**APP, "lib/out": target})


def test_a_tree_with_an_empty_directory_is_refused_by_name(tmp_path: Path) -> None:
    write_tree(tmp_path, APP)
    (tmp_path / "lib/none").mkdir()
    with pytest.raises(InputError, match="lib/none/ is an empty directory"):
        Manifest.build(tmp_path, name="kos", version="1.0.0")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, APP)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_bytes(b"")
    with pytest.raises(InputError, match="is not UTF-8"):
        Manifest.build(tmp_path, name="kos", version="1.0.0")


def test_any_executable_bit_makes_0555_and_none_makes_0444(tmp_path: Path) -> None:
    for mode in (0o600, 0o644, 0o666, 0o700, 0o610, 0o601):
        (tmp_path / f"{mode:o}").write_bytes(b"")
        (tmp_path / f"{mode:o}").chmod(mode)
    made = Manifest.build(tmp_path, name="kos", version="1.0.0")
    modes = {entry.path: entry.mode for entry in made.files if isinstance(entry, FileEntry)}
    plain, executable = (
        dict.fromkeys(["600", "644", "666"], "0444"),
        dict.fromkeys(["700", "610", "601"], "0555"),
    )
    assert modes == plain | executable


@pytest.mark.parametrize("key", ["root", "tree", "files", "format"])
def test_what_follows_from_the_tree_cannot_be_given(tmp_path: Path, key: str) -> None:
    write_tree(tmp_path, APP)
    with pytest.raises(InputError, match="cannot be given"):
        Manifest.build(tmp_path, **{"name": "kos", "version": "1.0.0", key: "0"})


# ---- what it answers


def test_it_finds_entries_units_sizes_and_directories(tmp_path: Path) -> None:
    made = release(tmp_path, {**APP, "units/kosd/unit.json": UNIT, "units/kosd/more/unit.json": b""})
    assert made.units == ("kosd",)
    assert made.find("lib/current") == LinkEntry("lib/current", "app")
    assert made.find("lib") is None
    assert made.size == sum(len(content) for content in APP.values() if isinstance(content, bytes)) + len(
        UNIT
    )
    assert made.directories == ("bin", "lib", "lib/app", "share", "units", "units/kosd", "units/kosd/more")


class TestHashOfAPart:
    """What decides which units restart."""

    def hashes(self, tree: Path, contents: Mapping[str, Content], *paths: str) -> str:
        return release(tree, contents).hash_of(paths)

    @pytest.mark.parametrize("paths", [["bin/kosd", "lib"], ["lib/app/core.py"], ["lib"], ["lib/"], ["."]])
    def test_it_changes_with_a_file_in_it(self, tmp_path: Path, paths: list[str]) -> None:
        changed = {**APP, "lib/app/core.py": b"other"}
        assert self.hashes(tmp_path / "a", APP, *paths) != self.hashes(tmp_path / "b", changed, *paths)

    @pytest.mark.parametrize("paths", [["bin/kosd", "lib"], ["lib/app/core.py"], ["bin"]])
    def test_it_does_not_change_with_a_file_outside_it(self, tmp_path: Path, paths: list[str]) -> None:
        changed = {**APP, "share/notes": b"other", "library": b"new"}
        assert self.hashes(tmp_path / "a", APP, *paths) == self.hashes(tmp_path / "b", changed, *paths)

    def test_it_follows_links(self, tmp_path: Path) -> None:
        changed = {**APP, "lib/app/core.py": b"other"}
        assert self.hashes(tmp_path / "a", APP, "lib/current") != self.hashes(
            tmp_path / "b", changed, "lib/current"
        )

    def test_links_in_a_circle_end(self, tmp_path: Path) -> None:
        assert self.hashes(tmp_path, {"a/up": "..", "b": "a", "c": "c"}, "b", "c")

    def test_the_order_and_number_of_names_do_not_count(self, tmp_path: Path) -> None:
        made = release(tmp_path, APP)
        assert made.hash_of(["lib", "bin/kosd"]) == made.hash_of(["bin/kosd", "lib/app", "lib", "bin"])
        assert made.hash_of(["."]) == made.tree_hash

    @pytest.mark.parametrize("path", ["lib/nothing", "li", "", "..", "/lib"])
    def test_a_path_that_is_not_there_is_refused_by_name(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(InputError, match="is not among the files of kos"):
            self.hashes(tmp_path, APP, "bin", path)
