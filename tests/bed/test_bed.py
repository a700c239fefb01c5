"""What tests rely on in a bed: that a cut is a cut, that a kill keeps files, that beds are apart."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed import Bed, BedError, Node, Plan, inotify

LISTEN = "systemd-run --quiet --unit listen python3 -m http.server --bind 0.0.0.0 --directory /usr/share 8000"
FETCH = ["curl", "--silent", "--output", "/dev/null", "--max-time", "2"]


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A bed of a mirror that serves files, and two nodes; node2 has a small disk."""
    bed = Bed("bedtest", say=print)
    bed.up(Plan(inventory=tmp_path_factory.mktemp("inventory"), nodes=2, small_disks={"node2": "8M"}))
    bed.exec("mirror1", LISTEN.split())
    yield bed
    bed.down()


def over_ssh(bed: Bed, name: str, command: str) -> subprocess.CompletedProcess[str]:
    options = ["-o", "ConnectTimeout=2", "-o", "BatchMode=yes"]
    ssh, *rest = bed.ssh_command(name)
    return subprocess.run([ssh, *options, *rest, command], capture_output=True, text=True, check=False)


def fetches_from_mirror(bed: Bed, name: str) -> bool:
    return bed.exec(name, [*FETCH, "http://mirror1:8000/"], check=False).returncode == 0


def test_every_machine_has_booted_and_lets_the_controller_in(bed: Bed) -> None:
    for node in bed.nodes():
        assert over_ssh(bed, node.name, "hostname; systemctl is-system-running").stdout.split() == [
            node.name,
            "running",
        ]


def test_a_service_gets_the_credentials_that_are_handed_to_it(bed: Bed) -> None:
    service = (
        "systemd-run --pipe --wait --quiet --property=User=nobody --property=LoadCredential=x:/etc/hostname"
    )
    read = [*service.split(), "sh", "-c", 'cat "$CREDENTIALS_DIRECTORY/x"']
    assert bed.exec("node1", read).stdout.strip() == "node1"


def test_nodes_are_spread_over_the_zones_and_mirrors_have_none(bed: Bed) -> None:
    assert {node.name: node.zone for node in bed.nodes()} == {"mirror1": None, "node1": "a", "node2": "b"}


def test_a_machine_with_another_host_key_is_not_talked_to(bed: Bed) -> None:
    node = bed.node("node1")
    known = node.inventory / ".ssh/known_hosts"
    right = known.read_text()
    known.write_text(right.replace(f"node1,{node.address} ", f"other,{node.address}0 "))
    try:
        assert over_ssh(bed, "node1", "true").returncode != 0
    finally:
        known.write_text(right)


def test_only_its_owner_can_read_the_login_key(bed: Bed) -> None:
    key = bed.node("node1").inventory / ".ssh/id_ed25519"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_cut_node_hears_the_mirror_and_not_the_controller(bed: Bed) -> None:
    bed.cut("node1")
    try:
        assert "timed out" in over_ssh(bed, "node1", "true").stderr
        assert fetches_from_mirror(bed, "node1")
        assert over_ssh(bed, "node2", "true").returncode == 0
    finally:
        bed.heal("node1")
    assert over_ssh(bed, "node1", "true").returncode == 0


def test_a_node_can_be_cut_from_the_mirror_alone(bed: Bed) -> None:
    bed.cut("node1", "mirror1")
    try:
        assert not fetches_from_mirror(bed, "node1")
        assert over_ssh(bed, "node1", "true").returncode == 0
    finally:
        bed.heal("node1", "mirror1")
    assert fetches_from_mirror(bed, "node1")


def test_a_cut_outlives_a_hard_restart_and_is_seen(bed: Bed) -> None:
    bed.cut("node1", "mirror1")
    try:
        bed.restart_hard("node1")
        assert bed.cuts() == {frozenset({"node1", "mirror1"})}
        assert not fetches_from_mirror(bed, "node1")
    finally:
        bed.heal("node1", "mirror1")
    assert bed.cuts() == set()


def test_a_hard_restart_keeps_files_and_address_and_nothing_that_ran(bed: Bed) -> None:
    address = bed.node("node2").address
    bed.exec(
        "node2", ["sh", "-c", "echo kept > /var/lib/kos/file; systemd-run --quiet --unit gone sleep 600"]
    )
    assert bed.restart_hard("node2") == "running"
    assert bed.exec("node2", ["cat", "/var/lib/kos/file"]).stdout == "kept\n"
    assert bed.exec("node2", ["systemctl", "is-active", "gone"], check=False).stdout == "inactive\n"
    assert bed.node("node2").address == address


def test_a_machine_made_anew_has_its_name_and_address_and_nothing_else_of_the_old_one(
    bed: Bed,
) -> None:
    before = bed.node("node1")
    key = (before.inventory / ".ssh/known_hosts").read_text()
    bed.exec("node1", ["sh", "-c", "echo gone > /var/lib/kos-file"])
    assert bed.replace("node1") == before
    assert over_ssh(bed, "node1", "hostname; cat /var/lib/kos-file").stdout == "node1\n"
    assert (before.inventory / ".ssh/known_hosts").read_text() != key
    assert fetches_from_mirror(bed, "node1")


def test_a_machine_with_a_small_disk_is_not_replaced(bed: Bed) -> None:
    with pytest.raises(BedError, match="node2 has a small disk"):
        bed.replace("node2")


def test_a_small_disk_is_soon_full(bed: Bed) -> None:
    fill = ["dd", "if=/dev/zero", "of=/var/lib/kos/big", "bs=1M", "count=16"]
    assert "No space left" in bed.exec("node2", fill, check=False).stderr
    bed.exec("node2", ["rm", "/var/lib/kos/big"])


def test_a_node_reaches_nothing_but_its_bed(bed: Bed) -> None:
    assert bed.exec("node1", [*FETCH, "http://192.0.2.1/"], check=False).returncode == 7


def test_a_machine_that_is_not_there_is_named(bed: Bed) -> None:
    with pytest.raises(BedError, match="no machine 'node9'; it has mirror1, node1, node2"):
        bed.cut("node9")


def test_beds_are_apart_and_go_without_a_trace(bed: Bed, tmp_path: Path) -> None:
    other = Bed("bedtest2", say=print)
    nodes: list[Node] = other.up(Plan(inventory=tmp_path, nodes=1, mirrors=0, zones=("z",)))
    try:
        ours = {node.address.rpartition(".")[0] for node in bed.nodes()}
        assert {node.address.rpartition(".")[0] for node in nodes}.isdisjoint(ours)
    finally:
        other.down()
    assert other.nodes() == []
    assert not list(Path("/run/netns").glob("kos-bedtest2*"))
    assert len(bed.nodes()) == 3


def test_more_machines_than_the_kernel_carries_are_refused_by_the_name_of_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "limit"
    limit.write_text("40\n")
    monkeypatch.setattr(inotify, "LIMIT", limit)
    with pytest.raises(BedError, match=r"9 machines.*fs\.inotify\.max_user_instances=40 only \d+ are free"):
        Bed("bedtest2").up(Plan(inventory=tmp_path / "inventory", nodes=8, zones=("z",)))
    assert not (tmp_path / "inventory").exists()


@pytest.mark.parametrize("name", ["", "has space", "has-hyphen", "../up", "x" * 25])
def test_a_bed_of_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(BedError, match="bed name"):
        Bed(name)


@pytest.mark.parametrize(
    ("nodes", "zones", "expected"),
    [
        (4, ("a", "b"), ["a", "a", "b", "b"]),
        (3, ("a", "b"), ["a", "a", "b"]),
        (3, ("a", "b", "c"), ["a", "b", "c"]),
        (1, ("a", "b"), ["a"]),
    ],
)
def test_nodes_fill_one_zone_after_the_other(
    nodes: int, zones: tuple[str, ...], expected: list[str], tmp_path: Path
) -> None:
    plan = Plan(inventory=tmp_path, nodes=nodes, mirrors=0, zones=zones)
    assert list(plan.zone_of().values()) == expected
