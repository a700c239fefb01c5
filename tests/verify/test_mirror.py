"""What role mirror makes of a host: a web server of its own, without root, that serves the releases alone."""

from __future__ import annotations

import hashlib

import pytest
from testinfra.host import Host

from verify import lane, record

CURL = "curl --silent --output /dev/null --write-out '%{http_code}' --path-as-is"


@pytest.fixture
def mirror(reach: lane.Reach) -> Host:
    return reach("mirror1")


def status(host: Host, path: str, *options: str, base: str = "http://mirror1:8080") -> str:
    """Return the status of an answer, asked from the host."""
    return str(host.run(f"{CURL} {' '.join(options)} '{base}{path}'").stdout)


def test_the_second_check_finds_nothing_to_change(last_check: record.Run) -> None:
    assert last_check.changed == []


def test_a_node_gets_every_file_as_it_was_published(reach: lane.Reach) -> None:
    public = lane.WORLD / "repository/public"
    wanted = {
        str(path.relative_to(public)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in public.rglob("*")
        if path.is_file()
    }
    node = reach("node2")
    got = node.check_output(
        f"for path in {' '.join(sorted(wanted))}; do "
        'curl --silent --fail "http://mirror1:8080/$path" | sha256sum | cut -d" " -f1; done'
    )
    assert dict(zip(sorted(wanted), got.split(), strict=True)) == wanted


def test_it_is_up_after_a_boot(mirror: Host) -> None:
    assert mirror.service("kos-mirror.service").is_enabled
    assert mirror.service("kos-mirror.service").is_running
    assert mirror.socket("tcp://0.0.0.0:8080").is_listening


def test_no_process_of_it_has_root_or_a_capability(mirror: Host) -> None:
    pids = mirror.check_output("pgrep -x nginx").split()
    assert pids
    for pid in pids:
        found = mirror.check_output(f"grep -E '^(Uid|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/{pid}/status")
        assert [line.split()[1] for line in found.splitlines()] == ["33", *["0" * 16] * 3, "1"]


def test_its_files_belong_to_root(mirror: Host) -> None:
    assert (
        mirror.check_output("find /srv/kos-mirror /etc/kos-mirror ! -user root -o ! -type l -perm /022") == ""
    )


def test_the_distributions_own_server_does_not_run(mirror: Host) -> None:
    assert not mirror.service("nginx.service").is_running
    assert not mirror.socket("tcp://0.0.0.0:80").is_listening


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("/metadata/timestamp.json", (), "200"),
        ("/metadata/timestamp.json", ("--range", "0-9"), "206"),
        ("/", (), "404"),
        ("/metadata/", (), "403"),
        ("/nothing.json", (), "404"),
        ("/../../etc/passwd", (), "400"),
        ("/metadata/../../../etc/kos-mirror/nginx.conf", (), "400"),
        ("/metadata/timestamp.json", ("--request", "PUT", "--data", "x"), "405"),
        ("/metadata/timestamp.json", ("--request", "DELETE"), "405"),
    ],
)
def test_it_gives_files_and_nothing_else(
    mirror: Host, path: str, options: tuple[str, ...], expected: str
) -> None:
    assert status(mirror, path, *options) == expected


def test_a_link_out_of_the_folder_is_not_followed(mirror: Host) -> None:
    mirror.run("ln -s /etc/passwd /srv/kos-mirror/releases/out.json")
    try:
        assert status(mirror, "/releases/out.json") in ("403", "404")
    finally:
        mirror.run("rm /srv/kos-mirror/releases/out.json")


def test_only_what_never_changes_is_kept_by_caches(mirror: Host) -> None:
    def kept(path: str) -> str:
        headers = mirror.check_output(f"curl --silent --head http://mirror1:8080{path}")
        return " ".join(line for line in headers.splitlines() if line.startswith("Cache-Control"))

    assert "no-cache" in kept("/metadata/timestamp.json")
    assert "immutable" in kept("/metadata/1.root.json")
