"""Only what a quorum signed, no older than what was seen, is believed, whatever mirrors do (S17, C19)."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from unit.kosnode.transport import hostile
from unit.kosnode.transport.hostile import Conduct, HostileMirror
from unit.kosnode.trust.node import QUICK, Node, copy_of, folder_mirror
from unit.kosnode.trust.tiny import START, TinyRepository, signers

from kosnode import files
from kosnode.errors import DamagedError, InputError, KosError, MirrorError, TrustError
from kosnode.fetch import HttpMirror
from kosnode.trust import Trust

DAY = timedelta(days=1)


def versions(trust: Trust) -> list[str]:
    return [release.version for release in trust.releases()]


class TestRefresh:
    def test_a_fresh_node_believes_what_the_pinned_root_leads_to(self, node: Node) -> None:
        trust = node.trust()
        refreshed = trust.refresh()
        assert versions(trust) == ["1.0.0"]
        assert refreshed.errors == ()
        assert refreshed.mirror == f"file://{node.folder}"

    def test_all_bytes_of_metadata_are_counted(self, node: Node) -> None:
        with HostileMirror(node.folder) as server:
            refreshed = node.trust(HttpMirror(server.url, QUICK)).refresh()
            asked = [request for request in server.requests if request.content() is not None]
            assert refreshed.bytes == sum(request.sent for request in asked) > 1000

    def test_a_second_refresh_with_nothing_new_fetches_the_timestamp_alone_and_writes_nothing(
        self, node: Node
    ) -> None:
        node.trust().refresh()
        before = node.disk()
        with HostileMirror(node.folder) as server:
            node.trust(HttpMirror(server.url, QUICK)).refresh()
            assert [request.path for request in server.requests] == [
                "metadata/2.root.json",
                "metadata/timestamp.json",
            ]
        assert node.disk() == before

    def test_what_was_refreshed_is_read_again_without_a_mirror(self, node: Node) -> None:
        node.trust().refresh()
        shutil.rmtree(node.folder)
        assert versions(node.trust()) == ["1.0.0"]

    def test_nothing_is_believed_before_the_first_refresh(self, node: Node) -> None:
        with pytest.raises(TrustError, match="no metadata were fetched"):
            node.trust().releases()

    def test_the_metadata_are_for_root_alone(self, node: Node) -> None:
        node.trust().refresh()
        assert stat.S_IMODE(node.metadata.stat().st_mode) == 0o700
        assert stat.S_IMODE((node.paths.trust / "marks.a").stat().st_mode) == 0o600

    def test_a_new_release_is_seen(self, node: Node, repository: TinyRepository) -> None:
        node.trust().refresh()
        repository.release("1.1.0")
        repository.publish()
        trust = node.trust()
        trust.refresh()
        assert versions(trust) == ["1.0.0", "1.1.0"]

    def test_expiry_names_each_role(self, node: Node) -> None:
        trust = node.trust()
        trust.refresh()
        expiry = trust.expiry()
        assert set(expiry) == {"root", "timestamp", "snapshot", "targets", "releases"}
        assert expiry["timestamp"] == START + 2 * DAY

    def test_every_file_and_directory_is_synced(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: set[str] = set()

        def remember(descriptor: int) -> None:
            synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

        monkeypatch.setattr(os, "fsync", remember)
        node.trust().refresh()
        directories = {node.paths.trust, node.metadata, node.metadata / "root_history"}
        assert {str(path) for path in directories} <= synced
        assert len([path for path in synced if "/.timestamp.json." in path]) == 1
        assert len([path for path in synced if "/.marks." in path]) == 2


class TestRootOfTrust:
    def test_a_missing_root_is_named(self, node: Node) -> None:
        node.paths.pinned_root.unlink()
        with pytest.raises(
            TrustError, match=r"root of trust .*/etc/kos/trust/root\.json is missing: bootstrap"
        ):
            node.trust().refresh()

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000, b"x" * 600_000])
    def test_a_file_that_is_no_root_is_named(self, node: Node, content: bytes) -> None:
        node.pin(content)
        with pytest.raises(TrustError, match="is not a root of trust"):
            node.trust().refresh()

    def test_other_metadata_are_no_root(self, node: Node) -> None:
        node.pin((node.folder / "metadata/timestamp.json").read_bytes())
        with pytest.raises(TrustError, match="is not a root of trust: it is of type timestamp"):
            node.trust().refresh()

    def test_a_root_that_too_few_signed_is_no_root(self, node: Node, repository: TinyRepository) -> None:
        document = json.loads(repository.first_root)
        document["signatures"] = document["signatures"][:1]
        node.pin(json.dumps(document).encode())
        with pytest.raises(TrustError, match=r"is not a root of trust: .*1/2"):
            node.trust().refresh()

    def test_the_root_of_another_fleet_is_asked_about(self, node: Node, tmp_path: Path) -> None:
        node.pin(TinyRepository(tmp_path / "other").first_root)
        with pytest.raises(TrustError, match=r"is .*root\.json the root of trust of this fleet\?"):
            node.trust().refresh()

    def test_an_expired_root_is_named_with_its_date(self, node: Node, repository: TinyRepository) -> None:
        repository.now = node.clock.time = START + 400 * DAY
        repository.publish()
        with pytest.raises(TrustError, match="root of trust version 1 expired at 2027-11-21T12:00:00Z"):
            node.trust().refresh()

    def test_an_expired_pinned_root_leads_to_its_successor(
        self, node: Node, repository: TinyRepository
    ) -> None:
        repository.now = node.clock.time = START + 400 * DAY
        repository.publish_root()
        repository.publish()
        trust = node.trust()
        trust.refresh()
        assert trust.expiry()["root"] == START + 765 * DAY

    def test_holders_of_root_can_all_be_replaced_step_by_step(
        self, node: Node, repository: TinyRepository
    ) -> None:
        for _ in range(3):
            repository.holders["root"] = signers(3)
            repository.publish_root()
        repository.publish()
        trust = node.trust()
        trust.refresh()
        assert versions(trust) == ["1.0.0"]

    def test_a_successor_that_only_its_own_holders_signed_is_refused(
        self, node: Node, repository: TinyRepository
    ) -> None:
        node.trust().refresh()
        before = node.disk()
        repository.holders["root"] = repository.root_signers = signers(3)
        repository.publish_root()
        with pytest.raises(TrustError, match="too few valid signatures: root was signed by 0/2"):
            node.trust().refresh()
        assert node.disk() == before

    def test_a_mirror_that_withholds_the_newest_root_rolls_back(
        self, node: Node, repository: TinyRepository
    ) -> None:
        old = copy_of(node.folder, "old")
        repository.publish_root()
        repository.publish()
        node.trust().refresh()
        shutil.rmtree(node.metadata)
        with pytest.raises(TrustError, match="rolled back: root has version 1, this node has already seen 2"):
            node.trust(folder_mirror(old)).refresh()


class TestQuorum:
    @pytest.mark.parametrize("role", ["targets", "releases"])
    def test_one_signature_of_two_is_refused_and_two_are_taken(
        self, node: Node, repository: TinyRepository, role: str
    ) -> None:
        repository.hands[role] = 1
        repository.publish()
        with pytest.raises(TrustError, match=f"{role} was signed by 1/2"):
            node.trust().refresh()
        repository.hands[role] = 2
        repository.publish()
        node.trust().refresh()

    def test_a_signer_who_signs_twice_counts_once(self, node: Node, repository: TinyRepository) -> None:
        repository.hands["releases"] = 1
        repository.publish()
        path = repository.metadata / f"{repository.versions['releases']}.releases.json"
        document = json.loads(path.read_bytes())
        document["signatures"] *= 2
        path.write_text(json.dumps(document))
        with pytest.raises(TrustError):
            node.trust().refresh()

    def test_a_stranger_does_not_count(self, node: Node, repository: TinyRepository) -> None:
        known = repository.holders["releases"]
        repository.publish()
        repository.holders["releases"] = [known[0], *signers(2)]
        repository.sign_again("releases")
        with pytest.raises(TrustError, match="releases was signed by 1/2"):
            node.trust().refresh()
        repository.holders["releases"] = known
        repository.sign_again("releases")
        node.trust().refresh()

    def test_the_online_key_cannot_sign_releases(self, node: Node, repository: TinyRepository) -> None:
        repository.publish()
        repository.holders["releases"] = repository.holders["timestamp"]
        repository.sign_again("releases")
        with pytest.raises(TrustError, match="releases was signed by 0/2"):
            node.trust().refresh()


class TestFreeze:
    def test_an_expired_timestamp_from_all_mirrors_is_a_freeze(self, node: Node) -> None:
        node.trust().refresh()
        node.clock.time = START + 3 * DAY
        mirrors = [folder_mirror(node.folder), folder_mirror(copy_of(node.folder, "second"))]
        with pytest.raises(
            TrustError, match=r"frozen or not renewed since 2026-11-21T12:00:00Z.*3 days after the newest"
        ) as caught:
            node.trust(*mirrors).refresh()
        assert [entry["url"] for entry in caught.value.detail["mirrors"]] == [m.url for m in mirrors]  # type: ignore[attr-defined]  # detail holds a list

    def test_a_frozen_mirror_is_left_for_a_fresh_one_and_named(
        self, node: Node, repository: TinyRepository
    ) -> None:
        frozen = copy_of(node.folder, "frozen")
        repository.now = node.clock.time = START + 3 * DAY
        repository.publish()
        refreshed = node.trust(folder_mirror(frozen), folder_mirror(node.folder)).refresh()
        assert refreshed.mirror == f"file://{node.folder}"
        assert [error["url"] for error in refreshed.errors] == [f"file://{frozen}"]
        assert "frozen" in refreshed.errors[0]["error"]

    def test_offline_roles_that_expired_are_refused(self, node: Node, repository: TinyRepository) -> None:
        repository.now = START + 360 * DAY
        repository.publish_root()
        repository.now = START
        repository.publish()
        repository.now = node.clock.time = START + 366 * DAY
        repository.publish_timestamp()
        with pytest.raises(TrustError, match="expired"):
            node.trust().refresh()


class TestRollback:
    @pytest.fixture
    def old(self, node: Node, repository: TinyRepository) -> Path:
        """A mirror in the state that the node saw before the newest."""
        kept = copy_of(node.folder, "old")
        repository.release("1.1.0")
        repository.publish()
        node.trust().refresh()
        return kept

    def test_an_older_timestamp_is_refused(self, node: Node, old: Path) -> None:
        with pytest.raises(TrustError, match="rolled back: New timestamp version 1 must be >= 2"):
            node.trust(folder_mirror(old)).refresh()

    @pytest.mark.parametrize("keep", [0, 1, 100])
    def test_a_truncated_timestamp_cannot_roll_trust_back(
        self, node: Node, repository: TinyRepository, keep: int
    ) -> None:
        before = folder_mirror(copy_of(node.folder, "before"))
        repository.publish_timestamp()
        node.trust().refresh()
        local = node.metadata / "timestamp.json"
        local.write_bytes(local.read_bytes()[:keep])
        with pytest.raises(
            TrustError, match="rolled back: timestamp has version 1, this node has already seen 2"
        ):
            node.trust(before).refresh()
        node.trust().refresh()
        assert versions(node.trust()) == ["1.0.0"]

    def test_deleted_metadata_cannot_roll_trust_back(self, node: Node, old: Path) -> None:
        shutil.rmtree(node.metadata)
        with pytest.raises(TrustError, match="rolled back"):
            node.trust(folder_mirror(old)).refresh()

    def test_old_metadata_put_back_on_the_disk_are_not_believed(self, node: Node, old: Path) -> None:
        newest = copy_of(node.metadata, "newest")
        other = Node(node.paths.root.with_name("other"), TinyRepository(node.folder.with_name("unused")))
        other.pin(node.paths.pinned_root.read_bytes())
        other.trust(folder_mirror(old)).refresh()
        shutil.rmtree(node.metadata)
        shutil.copytree(other.metadata, node.metadata)
        with pytest.raises(TrustError, match="rolled back"):
            node.trust().releases()
        assert newest.exists()

    def test_torn_metadata_are_said_to_be_damaged_until_they_are_refreshed(
        self, node: Node, old: Path
    ) -> None:
        (node.metadata / "releases.json").write_bytes(b"")
        with pytest.raises(TrustError, match=r"are damaged .*: refresh them"):
            node.trust().releases()
        node.trust().refresh()
        assert versions(node.trust()) == ["1.0.0", "1.1.0"]

    def test_the_online_key_cannot_bring_an_older_list_of_releases_back(
        self, node: Node, repository: TinyRepository, old: Path
    ) -> None:
        shutil.rmtree(node.metadata)
        repository.publish_snapshot(targets=1, releases=1)
        with pytest.raises(
            TrustError, match="rolled back: targets has version 1, this node has already seen 2"
        ):
            node.trust().refresh()


class TestFastForward:
    def test_a_stolen_online_key_does_not_shut_out_its_successor(
        self, node: Node, repository: TinyRepository
    ) -> None:
        repository.publish(timestamp=10**6, snapshot=10**6)
        node.trust().refresh()
        repository.versions |= {"timestamp": 1, "snapshot": 1}
        repository.rotate_online()
        repository.publish()
        trust = node.trust()
        trust.refresh()
        assert versions(trust) == ["1.0.0"]
        with pytest.raises(TrustError, match="rolled back"):
            node.trust(folder_mirror(self.one_behind(node, repository))).refresh()

    @staticmethod
    def one_behind(node: Node, repository: TinyRepository) -> Path:
        kept = copy_of(node.folder, "behind")
        repository.publish()
        node.trust().refresh()
        return kept

    def test_a_time_that_a_stolen_key_signed_does_not_outlive_the_key(
        self, node: Node, repository: TinyRepository
    ) -> None:
        repository.now = START + 300 * DAY
        repository.publish()
        node.trust().refresh()
        assert node.trust().time_floor() == START + 300 * DAY
        repository.now = START + DAY
        repository.rotate_online()
        repository.publish()
        node.trust().refresh()
        assert node.trust().time_floor() == START + DAY

    def test_without_a_new_key_the_marks_hold(self, node: Node, repository: TinyRepository) -> None:
        repository.publish(timestamp=10**6)
        node.trust().refresh()
        shutil.rmtree(node.metadata)
        repository.versions["timestamp"] = 1
        repository.publish_root()
        repository.publish()
        with pytest.raises(TrustError, match="rolled back: timestamp has version 2"):
            node.trust().refresh()

    def test_a_signed_time_after_which_nothing_is_valid_is_not_believed(
        self, node: Node, repository: TinyRepository
    ) -> None:
        node.trust().refresh()
        before = node.disk()
        repository.publish_timestamp(**{"x-kos-issued": "9999-01-01T00:00:00Z"})
        with pytest.raises(TrustError, match="expired"):
            node.trust().refresh()
        assert node.disk() == before


class TestClock:
    """S17: a node without a clock of its own still tells fresh from stale."""

    @pytest.mark.parametrize(
        "wrong", [datetime(1970, 1, 1, tzinfo=timezone.utc), START - timedelta(hours=1)], ids=["1970", "hour"]
    )
    def test_a_clock_that_is_behind_does_not_stop_updates(
        self, node: Node, repository: TinyRepository, wrong: datetime
    ) -> None:
        node.clock.time = wrong
        node.trust().refresh()
        repository.release("1.1.0")
        repository.now = START + DAY
        repository.publish()
        trust = node.trust()
        trust.refresh()
        assert versions(trust) == ["1.0.0", "1.1.0"]
        assert trust.time_floor() == START + DAY

    def test_a_clock_at_1970_does_not_thaw_a_frozen_mirror(
        self, node: Node, repository: TinyRepository
    ) -> None:
        frozen = copy_of(node.folder, "frozen")
        repository.now = START + 10 * DAY
        repository.publish()
        node.trust().refresh()
        shutil.rmtree(node.paths.trust / "metadata")
        node.clock.time = datetime(1970, 1, 1, tzinfo=timezone.utc)
        with pytest.raises(TrustError, match="frozen or not renewed since"):
            node.trust(folder_mirror(frozen)).refresh()

    def test_a_clock_ten_years_ahead_is_named_as_a_suspect(self, node: Node) -> None:
        node.trust().refresh()
        node.clock.time = START.replace(year=2036)
        words = (
            r"or the clock is wrong: .*says 2036-11-21T12:00:00Z, 3653 days after the newest signed time 2026"
        )
        with pytest.raises(TrustError, match=words):
            node.trust().refresh()
        node.clock.time = START
        node.trust().refresh()

    def test_the_time_that_is_passed_in_counts_and_not_the_hosts(self, tmp_path: Path) -> None:
        """Fails when python-tuf no longer takes the reference time from where trust.py puts it."""
        long_ago = datetime(1999, 1, 1, tzinfo=timezone.utc)
        repository = TinyRepository(tmp_path / "old", now=long_ago)
        repository.publish()
        node = Node(tmp_path / "n", repository)
        node.clock.time = long_ago
        node.trust().refresh()

    @pytest.mark.parametrize("issued", [None, 5, "yesterday", "2026-11-21", "2026-11-21T12:00:00+01:00"])
    def test_a_timestamp_without_a_signed_time_is_refused(
        self, node: Node, repository: TinyRepository, issued: object
    ) -> None:
        repository.publish_timestamp(**{"x-kos-issued": issued})
        with pytest.raises(TrustError, match="no valid x-kos-issued"):
            node.trust().refresh()


METADATA_MISDEEDS: dict[str, Conduct] = {
    "lies": hostile.lie(),
    "lies with rubbish": hostile.lie(b"{" * 1000),
    "stalls": hostile.stall(10),
    "is silent": hostile.silent,
    "dies": hostile.die(10),
    "hangs up": hostile.refuse,
    "never ends": hostile.endless,
    "is oversized": hostile.oversize(1 << 40),
    "truncates": hostile.truncate(100),
    "redirects": hostile.redirect("/metadata/1.root.json"),
    "fails": hostile.status(500),
    "has nothing": hostile.status(404),
    "swaps": hostile.swap("metadata/1.root.json"),
}


class TestMirrors:
    def test_an_empty_mirror_list_is_refused(self, node: Node) -> None:
        with pytest.raises(InputError, match="mirror list is empty"):
            Trust(node.paths, []).refresh()

    @pytest.mark.parametrize("file", ["timestamp", r"1\.snapshot", r"1\.releases"])
    @pytest.mark.parametrize("misdeed", METADATA_MISDEEDS)
    def test_a_bad_mirror_is_left_for_the_next_and_named(self, node: Node, misdeed: str, file: str) -> None:
        with HostileMirror(node.folder) as server:
            server.misbehave(rf"metadata/{file}\.json", METADATA_MISDEEDS[misdeed])
            bad = HttpMirror(server.url, QUICK)
            trust = node.trust(bad, folder_mirror(node.folder))
            refreshed = trust.refresh()
        assert versions(trust) == ["1.0.0"]
        assert refreshed.mirror == f"file://{node.folder}"
        assert [error["url"] for error in refreshed.errors] == [server.url]
        assert refreshed.errors[0]["error"]

    def test_a_mirror_that_fails_alone_leaves_the_good_state_untouched(
        self, node: Node, repository: TinyRepository
    ) -> None:
        node.trust().refresh()
        before = node.disk()
        repository.publish()
        with HostileMirror(node.folder) as server:
            server.misbehave(r"metadata/2\.releases\.json", hostile.lie())
            with pytest.raises(TrustError):
                node.trust(HttpMirror(server.url, QUICK)).refresh()
        assert node.disk() == before
        assert versions(node.trust()) == ["1.0.0"]

    @pytest.mark.parametrize("newest_first", [True, False])
    def test_the_highest_timestamp_counts_whoever_gives_it(
        self, node: Node, repository: TinyRepository, newest_first: bool
    ) -> None:
        behind = folder_mirror(copy_of(node.folder, "behind"))
        repository.release("1.1.0")
        repository.publish()
        newest = folder_mirror(node.folder)
        trust = node.trust(*([newest, behind] if newest_first else [behind, newest]))
        refreshed = trust.refresh()
        assert versions(trust) == ["1.0.0", "1.1.0"]
        assert refreshed.mirror == newest.url
        assert [error["url"] for error in refreshed.errors] == [behind.url]

    def test_when_all_are_dead_each_is_named_with_its_error(self, node: Node) -> None:
        gone = [folder_mirror(node.folder / name) for name in ("gone", "lost")]
        with pytest.raises(
            MirrorError, match=r"/gone: no such directory; .*/lost: no such directory"
        ) as caught:
            node.trust(*gone).refresh()
        assert caught.value.detail == {
            "mirrors": [{"url": mirror.url, "error": "no such directory"} for mirror in gone]
        }

    def test_one_dead_and_one_lying_is_a_matter_of_trust(
        self, node: Node, repository: TinyRepository
    ) -> None:
        repository.hands["releases"] = 1
        repository.publish()
        mirrors = [folder_mirror(node.folder / "gone"), folder_mirror(node.folder)]
        with pytest.raises(TrustError, match=r"no such directory; .*releases was signed by 1/2"):
            node.trust(*mirrors).refresh()

    def test_one_mirror_that_lies_is_named_as_well(self, node: Node, repository: TinyRepository) -> None:
        repository.hands["releases"] = 1
        repository.publish()
        mirror = folder_mirror(node.folder)
        with pytest.raises(TrustError, match="releases was signed by 1/2") as caught:
            node.trust(mirror).refresh()
        assert mirror.url in caught.value.message


class TestPowerCut:
    def test_a_refresh_that_dies_at_any_write_leaves_a_node_that_refreshes(
        self, node: Node, repository: TinyRepository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node.trust().refresh()
        whole = files.write_durable
        for dies_at in range(1, 20):
            repository.release(f"1.1.{dies_at}")
            repository.publish()
            monkeypatch.setattr(files, "write_durable", dying(whole, dies_at))
            try:
                node.trust().refresh()
            except PowerCutError:
                survived = False
            else:
                survived = True
            monkeypatch.setattr(files, "write_durable", whole)
            node.trust().refresh()
            assert versions(node.trust())[-1] == f"1.1.{dies_at}"
            if survived:
                return
        pytest.fail("the refresh never came through")

    def test_a_first_refresh_that_dies_at_any_write_does_not_lock_the_node_out(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = files.write_durable
        for dies_at in range(1, 20):
            shutil.rmtree(node.paths.trust, ignore_errors=True)
            monkeypatch.setattr(files, "write_durable", dying(whole, dies_at))
            try:
                node.trust().refresh()
            except PowerCutError:
                monkeypatch.setattr(files, "write_durable", whole)
                node.trust().refresh()
            else:
                return
        pytest.fail("the refresh never came through")


class PowerCutError(Exception):
    pass


def dying(write: Callable[..., None], dies_at: int) -> Callable[..., None]:
    """Return `write`, that dies in its `dies_at`th call."""
    left = dies_at

    def write_or_die(*arguments: object, **options: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise PowerCutError
        write(*arguments, **options)

    return write_or_die


class TestTargets:
    @pytest.mark.parametrize(
        "hashes",
        [
            {"md5": "0" * 32},
            {"sha256": "0" * 64},
            {"sha3_256": "0" * 64, "md5": "0" * 32},
            {"shake_128": "00"},
        ],
    )
    def test_only_sha3_256_is_a_hash(
        self, node: Node, repository: TinyRepository, hashes: dict[str, str]
    ) -> None:
        repository.release("1.1.0", hashes=hashes)
        repository.publish()
        with pytest.raises(TrustError, match="only sha3_256 is allowed"):
            node.trust().refresh()

    @pytest.mark.parametrize(
        ("changes", "rule"),
        [
            ({"path": "releases/1.1.0.json"}, r"its path is not releases/ROOT\.json"),
            ({"path": "other/x.json"}, "the role releases may not sign it"),
            ({"name": "Kos"}, "custom.name"),
            ({"name": None}, "'name' is missing in custom"),
            ({"arch": "mips"}, "custom.arch"),
            ({"channels": "stable"}, "custom.channels"),
            ({"channels": [1]}, "custom.channels"),
            ({"archive": []}, "custom.archive"),
            ({"archive": [-1]}, "custom.archive"),
            ({"archive": [True]}, "custom.archive"),
            ({"manifest": "50"}, "custom.manifest"),
            ({"unpacked": None}, "'unpacked' is missing in custom"),
        ],
    )
    def test_a_target_that_breaks_a_rule_is_named_with_it(
        self, node: Node, repository: TinyRepository, changes: dict[str, object], rule: str
    ) -> None:
        repository.release("1.1.0", **changes)
        repository.publish()
        with pytest.raises(TrustError, match=f"^target .* is refused: .*{rule}"):
            node.trust().refresh()

    def test_a_version_that_is_none_is_refused(self, node: Node, repository: TinyRepository) -> None:
        repository.release("1.1")
        repository.publish()
        with pytest.raises(TrustError, match=r"^target .* is refused"):
            node.trust().refresh()

    def test_a_role_may_only_list_what_is_delegated_to_it(
        self, node: Node, repository: TinyRepository
    ) -> None:
        repository.paths = ("releases/0*",)
        repository.release("1.1.0", root="f" * 64)
        repository.publish()
        with pytest.raises(TrustError, match="may not sign it"):
            node.trust().refresh()

    def test_a_manifest_is_what_is_signed_or_damaged(self, node: Node, repository: TinyRepository) -> None:
        repository.release("1.1.0", document=b"the manifest")
        repository.publish()
        trust = node.trust()
        trust.refresh()
        release = trust.releases()[-1]
        release.verify(b"the manifest")
        for wrong in (b"the Manifest", b"the manifest ", b""):
            with pytest.raises(DamagedError):
                release.verify(wrong)


def test_every_error_of_trust_has_the_exit_code_of_the_contract() -> None:
    assert {error: error.exit_code for error in (TrustError, MirrorError, InputError)} == {
        TrustError: 13,
        MirrorError: 6,
        InputError: 2,
    }
    assert issubclass(TrustError, KosError)
