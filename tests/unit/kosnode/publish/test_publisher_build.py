"""Building: the same tree gives the same bytes, patches are small, bad trees get one message."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from publisher_world import World

from kosnode import archive, patch
from kosnode.errors import InputError, NotFoundError, TrustError
from kosnode.publish import build, catalogue, signing, verify
from kosnode.publish.repository import Repository


def mirror_files(repository: Repository) -> dict[str, bytes]:
    return {
        f"{folder}/{path.name}": path.read_bytes()
        for base in (repository.public, repository.staged_dir)
        for folder in ("releases", "patches")
        for path in (base / folder).iterdir()
    }


def rows(world: World) -> dict[str, dict[str, object]]:
    return {str(row["version"]): row for row in catalogue.table(world.repository)}


def test_the_same_tree_gives_the_same_bytes_on_the_mirror(tmp_path: Path) -> None:
    """Two machines, files made in another order at other times: nothing on the mirror differs."""
    made = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name).open()
        for version in ("1.0.0", "1.1.0"):
            world.release(version)
        made.append(mirror_files(world.repository))
    assert made[0] == made[1]
    assert len([name for name in made[0] if name.startswith("patches/")]) == 2


def test_a_release_carries_unit_json_and_no_unit_yml(opened: World) -> None:
    built = opened.build("1.0.0")
    manifest = json.loads((opened.repository.staged_dir / f"releases/{built.root}.json").read_bytes())
    paths = {entry["path"]: entry for entry in manifest["files"]}
    assert manifest["units"] == ["agent"]
    assert "units/agent/unit.json" in paths
    assert "units/agent/unit.yml" not in paths
    assert paths["bin/run"]["mode"] == "0555"
    assert paths["lib/version"]["mode"] == "0444"
    assert paths["lib/newest"] == {"path": "lib/newest", "type": "link", "target": "version"}


def test_the_tree_itself_is_not_touched(opened: World) -> None:
    tree = opened.tree("1.0.0")
    before = {str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in tree.rglob("*")}
    opened.build("1.0.0", tree=tree)
    assert {str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in tree.rglob("*")} == before


def test_one_changed_byte_is_another_root(opened: World, tmp_path: Path) -> None:
    """C16."""
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other").open()
    changed = other.tree("1.0.0", extra=b"!")
    assert opened.build("1.0.0").root != other.build("1.0.0", tree=changed).root


def test_building_the_same_again_changes_nothing(opened: World) -> None:
    first = opened.release("1.0.0")
    before = mirror_files(opened.repository)
    again = opened.build("1.0.0", tree=opened.tree("1.0.0", name="again"), channels=["beta"])
    assert not again.changed
    assert again.root == first.root
    assert again.notes == ["kos 1.0.0 (any) is not in beta: see `repo promote`"]
    assert mirror_files(opened.repository) == before
    assert opened.repository.staged("releases") is None


def test_a_version_never_changes_its_contents(opened: World) -> None:
    opened.release("1.0.0")
    with pytest.raises(InputError, match=r"kos 1\.0\.0 \(any\) exists already with root [0-9a-f]{64}"):
        opened.build("1.0.0", tree=opened.tree("1.0.0", name="other", extra=b"!"))
    assert opened.repository.staged("releases") is None


def test_a_version_is_for_any_architecture_or_for_named_ones(opened: World) -> None:
    opened.build("1.0.0", arch="x86_64")
    opened.build("1.0.0", arch="aarch64", tree=opened.tree("1.0.0", name="arm"))
    with pytest.raises(InputError, match="for any or for named ones"):
        opened.build("1.0.0", tree=opened.tree("1.0.0", name="any"))


def test_patches_are_made_against_the_last_releases_of_the_same_line(world: World) -> None:
    world.config = replace(world.config, patches=2)
    world.open()
    built = {version: world.build(version) for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0")}
    assert {version: len(one.patches) for version, one in built.items()} == {
        "1.0.0": 0, "1.1.0": 1, "1.2.0": 2, "1.3.0": 2,
    }  # fmt: skip
    assert set(built["1.3.0"].patches) == {built["1.1.0"].root, built["1.2.0"].root}
    other = world.build("1.4.0", name="other", tree=world.tree("1.4.0"))
    assert other.patches == {}
    hotfix = world.build("1.1.1")
    assert set(hotfix.patches) == {built["1.0.0"].root, built["1.1.0"].root}
    assert hotfix.notes == ["stable has 1.3.0 already, which is higher than 1.1.1"]


def test_a_patch_of_a_small_change_is_a_small_part_of_the_archive(opened: World) -> None:
    opened.release("1.0.0")
    built = opened.release("1.1.0")
    (size,) = built.patches.values()
    assert size < sum(built.archive) / 20


def test_a_patch_that_saves_nothing_is_not_offered(opened: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.release("1.0.0")
    monkeypatch.setattr(patch, "make", lambda *_: bytes(10**6))
    assert opened.build("1.1.0").patches == {}
    assert not [name for name in mirror_files(opened.repository) if name.startswith("patches/")]


def test_a_build_that_is_interrupted_leaves_nothing_that_counts(
    opened: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repository, "stage", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(OSError, match="power cut"):
        opened.build("1.0.0")
    monkeypatch.undo()
    assert rows(opened) == {}
    built = opened.release("1.0.0")
    assert rows(opened)["1.0.0"]["root"] == built.root
    verify.verify(opened.repository.path, now=opened.clock)


# What is refused


def test_a_tree_without_units_is_refused(opened: World) -> None:
    tree = opened.tree("1.0.0")
    (tree / "units/agent/unit.yml").unlink()
    (tree / "units/agent").rmdir()
    with pytest.raises(InputError, match="has no units"):
        opened.build("1.0.0", tree=tree)
    with pytest.raises(InputError, match="is not a directory"):
        opened.build("1.0.0", tree=tree / "absent")


def test_a_folder_of_units_without_a_unit_is_named(opened: World) -> None:
    tree = opened.tree("1.0.0")
    (tree / "units/ghost").mkdir()
    with pytest.raises(InputError, match=r"units/ghost has no unit\.yml"):
        opened.build("1.0.0", tree=tree)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id: agent", "id: other", "must be the name of its folder, agent"),
        ("bin/run", "bin/walk", "bin/walk is not a program in the tree"),
        ("tier: 3", "tier: 9", "tier"),
        ("tier: 3", "tier: 3\nteir: 3", "teir"),
    ],
)
def test_a_bad_unit_is_named_before_anything_is_written(
    opened: World, old: str, new: str, message: str
) -> None:
    tree = opened.tree("1.0.0")
    path = tree / "units/agent/unit.yml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        opened.build("1.0.0", tree=tree)
    assert mirror_files(opened.repository) == {}


def test_a_pipe_in_the_tree_is_refused_and_not_read(opened: World) -> None:
    tree = opened.tree("1.0.0")
    os.mkfifo(tree / "lib/pipe")
    with pytest.raises(InputError, match="neither a file nor a directory nor a link"):
        opened.build("1.0.0", tree=tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: kos\nversion: 1.0.0\nchanel: beta\n", "chanel: unknown key"),
        ("name: kos\n", "version: is missing"),
        ("version: 1.0.0\n", "name: is missing"),
        ("name: kos\nversion: 1.0\n", "1.0"),
        ("name: kos\nversion: 1.0.0\narch: mips\n", "arch: must be one of"),
        ("name: kos\nversion: 1.0.0\nversion: 1.0.1\n", "stands twice"),
        ("name: kos\nversion: 1.0.0\nhealth: [{tcp: {port: -1}}]\n", "health"),
    ],
)
def test_a_bad_release_file_gets_one_message(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "release.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        build.read_release(path, {})


@pytest.mark.parametrize(
    "release",
    [
        {"sync_risk": "some"},
        {"name": "Kos"},
        {"breaking": "yes"},
        {"from": {"allow": 1}},
        {"migrations": [{}]},
    ],
)
def test_a_value_that_the_manifest_does_not_allow_is_refused(opened: World, release: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        opened.build("1.0.0", **release)
    assert mirror_files(opened.repository) == {}


def test_nothing_is_built_under_an_expired_root(world: World) -> None:
    world.config = replace(world.config, expires_s={**world.config.expires_s, "root": 10})
    world.open()
    world.clock.pass_days(1)
    with pytest.raises(TrustError, match="root 1 expired"):
        world.build("1.0.0")


def test_a_folder_that_is_no_repository_is_named(world: World) -> None:
    with pytest.raises(InputError, match="is not a repository"):
        world.build("1.0.0")


# Channels and the floor


def test_a_promotion_changes_the_channel_and_not_a_byte_of_the_release(opened: World) -> None:
    """Decision 0002."""
    built = opened.release("1.0.0", channels=["beta"])
    before = mirror_files(opened.repository)
    catalogue.promote(opened.repository, built.root[:12], "stable")
    shown = signing.open_file(opened.repository.path, "releases").to_dict()
    assert f"~ kos 1.0.0 any root {built.root}: channels ['beta'] -> ['beta', 'stable']" in shown["changes"]
    opened.sign("releases", "alice", "carol")
    opened.publish()
    assert rows(opened)["1.0.0"]["channels"] == ["beta", "stable"]
    assert mirror_files(opened.repository) == before
    assert not catalogue.promote(opened.repository, "1.0.0", "stable").changed


def test_promoting_what_does_not_exist_names_what_does(opened: World) -> None:
    opened.release("1.0.0")
    with pytest.raises(NotFoundError, match=r"no release 2\.0\.0; there are: 1\.0\.0"):
        catalogue.promote(opened.repository, "2.0.0", "stable")
    with pytest.raises(InputError, match="not a channel"):
        catalogue.promote(opened.repository, "1.0.0", "No Channel")


def test_a_holder_sees_a_new_release_with_its_whole_root(opened: World) -> None:
    built = opened.build("1.0.0")
    shown = signing.open_file(opened.repository.path, "releases").to_dict()
    assert f"+ kos 1.0.0 any root {built.root} in stable" in shown["changes"]
    assert shown["contents"]["releases"][built.root]["unpacked"] > 0


def test_the_floor_rises_and_never_falls(opened: World) -> None:
    opened.release("1.0.0")
    opened.release("1.1.0")
    catalogue.set_floor(opened.repository, "kos", "1.1.0")
    shown = signing.open_file(opened.repository.path, "releases").to_dict()
    assert "security floor of kos: none -> 1.1.0" in shown["changes"]
    opened.sign("releases", "alice", "bob")
    opened.publish()
    with pytest.raises(InputError, match=r"floor of kos is 1\.1\.0 and only ever rises"):
        catalogue.set_floor(opened.repository, "kos", "1.0.0")
    with pytest.raises(InputError, match="nodes could go nowhere"):
        catalogue.set_floor(opened.repository, "kos", "9.0.0")
    with pytest.raises(InputError, match=r"1\.0\.5 is below the security floor 1\.1\.0"):
        opened.build("1.0.5")


def test_withdrawing_what_was_never_published_leaves_nothing_waiting(opened: World) -> None:
    opened.build("1.0.0")
    assert mirror_files(opened.repository)
    change = catalogue.withdraw(opened.repository, "1.0.0")
    assert change.changed
    assert change.staged is None
    assert mirror_files(opened.repository) == {}


def test_withdrawing_from_a_channel_keeps_the_release(opened: World) -> None:
    opened.release("1.0.0", channels=["beta", "stable"])
    catalogue.withdraw(opened.repository, "1.0.0", channel="stable")
    assert rows(opened)["1.0.0"]["channels"] == ["beta"]
    assert rows(opened)["1.0.0"]["state"] == "staged"
    with pytest.raises(InputError, match="is not in the channel stable"):
        catalogue.withdraw(opened.repository, "1.0.0", channel="stable")


def test_the_list_says_what_each_release_costs(opened: World) -> None:
    old, new = opened.release("1.0.0"), opened.build("1.1.0")
    table = rows(opened)
    assert (table["1.0.0"]["state"], table["1.1.0"]["state"]) == ("published", "staged")
    assert table["1.1.0"]["archive"] == sum(new.archive)
    assert table["1.1.0"]["files"] == 5
    assert table["1.1.0"]["patches"] == [
        {"root": old.root, "version": "1.0.0", "bytes": new.patches[old.root]}
    ]


def test_a_large_release_is_cut_into_parts_with_patches_of_their_own(
    opened: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "PART_BYTES", 8 * 1024)
    old, new = opened.release("1.0.0"), opened.release("1.1.0")
    assert len(new.archive) == 3
    names = {name for name in mirror_files(opened.repository) if new.root in name}
    assert {f"releases/{new.root}.{index}.tar.zst" for index in range(3)} <= names
    assert f"patches/{old.root}-{new.root}.1.zst" in names
    assert f"releases/{new.root}.tar.zst" not in names
    report = verify.verify(opened.repository.path, now=opened.clock)
    assert len(report.releases) == 2
    assert report.patches == len([name for name in names if name.startswith("patches/")])
