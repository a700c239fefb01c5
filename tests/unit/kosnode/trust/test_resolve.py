"""A release is named by version within the channel, or by root; other names get a clear message (M23)."""

from __future__ import annotations

import pytest
from unit.kosnode.trust.node import Node
from unit.kosnode.trust.tiny import TinyRepository

from kosnode.errors import InputError, NotFoundError, RefusedError, TrustError
from kosnode.trust import Trust

ONE, TWO, THREE = "1" * 64, "1" * 20 + "2" * 44, "3" * 64


@pytest.fixture
def trust(node: Node, repository: TinyRepository) -> Trust:
    repository.targets.clear()
    repository.release("1.0.0", root=ONE)
    repository.release("1.1.0", root=TWO, arch="x86_64")
    repository.release("1.1.0", root=THREE, arch="aarch64")
    repository.release("1.10.0", channels=["stable", "lts"])
    repository.release("1.9.0", channels=["beta"])
    repository.release("2.0.0-rc.1", channels=[])
    repository.release("7.0.0", name="other")
    repository.publish()
    made = node.trust()
    made.refresh()
    return made


def resolve(trust: Trust, ref: str, *, channel: str = "stable", arch: str = "x86_64") -> str:
    return trust.resolve(ref, "kos", channel, arch).root


def test_a_version_is_found(trust: Trust) -> None:
    assert resolve(trust, "1.0.0") == ONE


def test_the_build_for_this_architecture_is_taken(trust: Trust) -> None:
    assert resolve(trust, "1.1.0") == TWO
    assert resolve(trust, "1.1.0", arch="aarch64") == THREE


def test_a_build_for_this_architecture_goes_before_one_for_any(
    node: Node, repository: TinyRepository, trust: Trust
) -> None:
    repository.release("1.0.0", root="4" * 64, arch="x86_64")
    repository.publish()
    trust.refresh()
    assert resolve(trust, "1.0.0") == "4" * 64
    assert resolve(trust, "1.0.0", arch="aarch64") == ONE


def test_two_builds_of_one_version_are_told_apart_by_root(
    node: Node, repository: TinyRepository, trust: Trust
) -> None:
    repository.release("1.1.0", root="4" * 64, arch="x86_64")
    repository.publish()
    trust.refresh()
    with pytest.raises(InputError, match=r"1\.1\.0 names several releases"):
        resolve(trust, "1.1.0")
    assert resolve(trust, "4" * 64) == "4" * 64


@pytest.mark.parametrize("digits", [21, 40, 64])
def test_a_root_or_a_unique_prefix_is_found(trust: Trust, digits: int) -> None:
    assert resolve(trust, TWO[:digits]) == TWO
    assert resolve(trust, THREE[:12], arch="aarch64") == THREE


def test_a_prefix_of_several_is_refused_with_their_roots(trust: Trust) -> None:
    with pytest.raises(
        InputError, match=r"names several releases, name one by its root: 1{64}, 1{20}2{44}"
    ) as caught:
        resolve(trust, "1" * 12)
    assert caught.value.key == "release"


@pytest.mark.parametrize("ref", ["", "latest", "1.0", "v1.0.0", "1" * 11, "A" * 64, "../../etc/passwd"])
def test_what_is_no_name_of_a_release_is_told_the_rule(trust: Trust, ref: str) -> None:
    with pytest.raises(InputError, match="is not a version such as") as caught:
        resolve(trust, ref)
    assert caught.value.key == "release"


@pytest.mark.parametrize("ref", ["9.9.9", "f" * 64, "f" * 12, "7.0.0"])
def test_what_does_not_exist_is_answered_with_what_does(trust: Trust, ref: str) -> None:
    listing = r"does not exist; in channel stable for x86_64 there are: 1\.0\.0, 1\.1\.0, 1\.10\.0$"
    with pytest.raises(NotFoundError, match=listing):
        resolve(trust, ref)


def test_an_empty_line_says_so(trust: Trust) -> None:
    with pytest.raises(NotFoundError, match="there are: none"):
        trust.resolve("1.0.0", "nothing", "stable", "x86_64")


@pytest.mark.parametrize(("ref", "channels"), [("1.9.0", "beta"), ("2.0.0-rc.1", "none")])
def test_a_release_outside_the_channel_is_named_with_its_channels(
    trust: Trust, ref: str, channels: str
) -> None:
    with pytest.raises(NotFoundError, match=rf"outside the channel stable \(it is in: {channels}\)"):
        resolve(trust, ref)


def test_a_channel_holds_only_what_is_promoted_to_it(trust: Trust) -> None:
    """M23: `channel: lts` resolves to the LTS version only."""
    assert trust.resolve("1.10.0", "kos", "lts", "x86_64").version == "1.10.0"
    with pytest.raises(NotFoundError, match=r"there are: 1\.10\.0$"):
        resolve(trust, "1.0.0", channel="lts")


def test_the_channel_counts_for_a_root_too(trust: Trust) -> None:
    with pytest.raises(NotFoundError, match="outside the channel lts"):
        resolve(trust, ONE, channel="lts")


def test_a_release_for_another_architecture_is_named_with_it(trust: Trust) -> None:
    with pytest.raises(NotFoundError, match="is for aarch64, this node is x86_64"):
        resolve(trust, THREE)


def test_a_release_below_the_security_floor_is_refused(
    node: Node, repository: TinyRepository, trust: Trust
) -> None:
    repository.floors = {"kos": "1.1.0", "other": "8.0.0"}
    repository.publish()
    trust.refresh()
    with pytest.raises(RefusedError, match=r"1\.0\.0 is below the signed security floor 1\.1\.0"):
        resolve(trust, "1.0.0")
    assert resolve(trust, "1.1.0") == TWO
    assert trust.security_floor("kos") == "1.1.0"
    assert trust.security_floor("unknown") is None


@pytest.mark.parametrize("floors", [{"kos": "1"}, {"kos": 1}, ["kos"]])
def test_a_security_floor_that_is_no_version_is_refused(
    node: Node, repository: TinyRepository, floors: object
) -> None:
    repository.floors = floors  # type: ignore[assignment]  # wrong on purpose
    repository.publish()
    with pytest.raises(TrustError, match="x-kos-security-floor"):
        node.trust().refresh()


def test_releases_are_listed_in_order_of_their_versions(trust: Trust) -> None:
    listed = [release.version for release in trust.releases("kos")]
    assert listed == ["1.0.0", "1.1.0", "1.1.0", "1.9.0", "1.10.0", "2.0.0-rc.1"]
    assert [release.name for release in trust.releases()][-1] == "other"
